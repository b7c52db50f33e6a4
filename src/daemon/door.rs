//! The API's listener, which stays while what answers behind it changes: a box that waits becomes one that serves.

use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::TcpListener;

use crate::api::{self, ApiError};

#[derive(Debug, Default)]
pub(super) struct Door {
    bound: Option<(SocketAddr, StdListener)>,
}

impl Door {
    /// The listener at this address, bound now unless it is already.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(super) async fn open(&mut self, listen: SocketAddr) -> Result<TcpListener, ApiError> {
        let fail = |source| ApiError::Bind { listen, source, hint: "" };
        if self.bound.as_ref().is_none_or(|(at, _)| *at != listen) {
            self.bound = None;
            let bound = api::bind(listen).await?.into_std().map_err(fail)?;
            self.bound = Some((listen, bound));
        }
        let Some((_, bound)) = &self.bound else { return api::bind(listen).await };
        bound.try_clone().and_then(TcpListener::from_std).map_err(fail)
    }

    /// Whoever comes from now on is told by the system that nobody listens, once the others let go, too.
    pub(super) fn close(&mut self) {
        self.bound = None;
    }
}
