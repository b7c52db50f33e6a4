//! The API's listeners, which stay while what answers behind them changes: a box that waits becomes one that serves.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use crate::api::{self, AdminSocket, ApiError, Listeners};
use crate::config::Config;

#[derive(Debug, Default)]
pub(super) struct Door {
    bound: Option<(SocketAddr, StdListener)>,
    socket: Option<AdminSocket>,
}

impl Door {
    /// The listeners of this configuration, bound now unless they are already.
    ///
    /// # Errors
    /// The address or the configured socket cannot be had.
    pub(super) async fn open(&mut self, config: &Config, dir: &Path) -> Result<Listeners, ApiError> {
        let tcp = self.open_tcp(config.api.listen).await?;
        if self.socket.as_ref().is_none_or(|socket| !socket.is_there()) {
            self.socket = None;
            self.socket = AdminSocket::bind(config.api.socket.as_deref(), dir)?;
        }
        let socket = self.socket.as_ref().map(AdminSocket::listener).transpose();
        let fail = |source| ApiError::Socket { path: self.socket().unwrap_or_default(), source };
        Ok(Listeners { tcp, socket: socket.map_err(fail)? })
    }

    async fn open_tcp(&mut self, listen: SocketAddr) -> Result<TcpListener, ApiError> {
        let fail = |source| ApiError::Bind { listen, source, hint: "" };
        if self.bound.as_ref().is_none_or(|(at, _)| *at != listen) {
            self.bound = None;
            let bound = api::bind(listen).await?.into_std().map_err(fail)?;
            self.bound = Some((listen, bound));
        }
        let Some((_, bound)) = &self.bound else { return api::bind(listen).await };
        bound.try_clone().and_then(TcpListener::from_std).map_err(fail)
    }

    /// Where the admin socket is, if there is one.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(|socket| socket.path().to_owned())
    }

    /// Whoever comes from now on is told by the system that nobody listens, once the others let go, too.
    pub(super) fn close(&mut self) {
        self.bound = None;
        self.socket = None;
    }
}
