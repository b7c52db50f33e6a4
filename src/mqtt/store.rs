//! What the client library asks for of earlier sessions.

use futures_util::future::BoxFuture;
use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreKey};

use super::options::{IN_FLIGHT_MAX, SESSION_EXPIRY_S};

/// Tells the library that this client had a session before in which nothing was left under way. That
/// is true: whoever sends sends again what was not acknowledged. Without it the library refuses to go on
/// with a session that the broker kept.
#[derive(Debug)]
pub(super) struct NothingPending;

impl SessionStore for NothingPending {
    fn load<'a>(
        &'a self,
        key: &'a SessionStoreKey,
    ) -> BoxFuture<'a, Result<Option<PersistedSession>, rumqttc::SessionStoreError>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            outgoing_inflight_upper_limit: Some(IN_FLIGHT_MAX),
            ack_mode: PersistedAckMode::Automatic,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(
        &'a self,
        _key: &'a SessionStoreKey,
        _session: &'a PersistedSession,
    ) -> BoxFuture<'a, Result<(), rumqttc::SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(
        &'a self,
        _key: &'a SessionStoreKey,
    ) -> BoxFuture<'a, Result<(), rumqttc::SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }
}
