//! Reasons for refused connections. Each refusal is counted; some are logged, with the address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn::{ConnectionError, VarInt};

use super::TransportMetrics;
use crate::dropped::BoundedLog;

/// The box makes an orderly stop.
pub(super) const CLOSE_GOING: VarInt = VarInt::from_u32(1);
/// Another connection is in use.
pub(super) const CLOSE_SUPERSEDED: VarInt = VarInt::from_u32(2);
/// The peer was refused.
pub(crate) const CLOSE_REFUSED: VarInt = VarInt::from_u32(3);
/// Said to a box that is let go.
pub(super) const NOT_A_MEMBER: &[u8] = b"not a member of the site";

/// TLS alerts that the verifiers cause (see tls.rs) and rustls sends; QUIC error codes are 0x100 and
/// the alert.
const ALERT_OWN_KEY: u64 = 44;
const ALERT_UNKNOWN_KEY: u64 = 48;
const ALERT_OTHER_MEMBER: u64 = 49;
const ALERT_NO_CERTIFICATE: u64 = 116;
const ALERT_NO_PROTOCOL: u64 = 120;

/// Why one side refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The peer sent no certificate.
    NoCertificate,
    /// Its key is not that of a member.
    UnknownKey,
    /// It has this box's own key: a copied data directory, or an address that leads back here.
    OwnKey,
    /// Another member answers at this member's address.
    OtherMember,
    /// The peer belongs to another site.
    OtherSite,
    /// It speaks another protocol, or another version of this one.
    OtherProtocol,
    /// It announced a frame longer than its lane carries.
    OversizedFrame,
    /// It opened a lane that does not exist.
    UnknownLane,
    /// Too many handshakes are in progress.
    TooManyHandshakes,
    /// The peer began a handshake and did not complete it.
    HandshakeTimeout,
    /// The handshake failed in another way.
    HandshakeFailed,
    /// The peer refused this box.
    RefusedByPeer,
    /// The peer's boot counter did not increase: its disk was emptied, or is an old copy.
    EarlierIncarnation,
    /// Two processes run under its identity.
    Cloned,
    /// It knows a later incarnation of this box.
    OwnEarlierIncarnation,
    /// The peer is connected to another process under this box's identity.
    OwnClone,
    /// The peer reports another number than the member that its key belongs to.
    OtherNumber,
    /// It knows this box's key under another number.
    OwnOtherNumber,
    /// It does not know this box's key.
    OwnUnknownKey,
    /// Its address is IPv6 only, and this box's socket has no IPv6.
    PeerIpv6Only,
    /// Its address is IPv4 only, and this box's socket has no IPv4.
    PeerIpv4Only,
    /// This machine has no route to any of the peer's addresses.
    NoRoute,
    /// Its number was retired: it was removed from the site, or replaced.
    Removed,
    /// It says that this box's number was retired.
    OwnRemoved,
}

/// All reasons, in the order of their numbers.
pub const REFUSALS: [Refusal; 24] = [
    Refusal::NoCertificate,
    Refusal::UnknownKey,
    Refusal::OwnKey,
    Refusal::OtherMember,
    Refusal::OtherSite,
    Refusal::OtherProtocol,
    Refusal::OversizedFrame,
    Refusal::UnknownLane,
    Refusal::TooManyHandshakes,
    Refusal::HandshakeTimeout,
    Refusal::HandshakeFailed,
    Refusal::RefusedByPeer,
    Refusal::EarlierIncarnation,
    Refusal::Cloned,
    Refusal::OwnEarlierIncarnation,
    Refusal::OwnClone,
    Refusal::OtherNumber,
    Refusal::OwnOtherNumber,
    Refusal::OwnUnknownKey,
    Refusal::PeerIpv6Only,
    Refusal::PeerIpv4Only,
    Refusal::NoRoute,
    Refusal::Removed,
    Refusal::OwnRemoved,
];

impl serde::Serialize for Refusal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Refusal {
    /// The name of the reason in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::NoCertificate => "no-certificate",
            Refusal::UnknownKey => "unknown-key",
            Refusal::OwnKey => "own-key",
            Refusal::OtherMember => "other-member",
            Refusal::OtherSite => "other-site",
            Refusal::OtherProtocol => "other-protocol",
            Refusal::OversizedFrame => "oversized-frame",
            Refusal::UnknownLane => "unknown-lane",
            Refusal::TooManyHandshakes => "too-many-handshakes",
            Refusal::HandshakeTimeout => "handshake-timeout",
            Refusal::HandshakeFailed => "handshake-failed",
            Refusal::RefusedByPeer => "refused-by-peer",
            Refusal::EarlierIncarnation => "earlier-incarnation",
            Refusal::Cloned => "cloned",
            Refusal::OwnEarlierIncarnation => "own-earlier-incarnation",
            Refusal::OwnClone => "own-clone",
            Refusal::OtherNumber => "other-number",
            Refusal::OwnOtherNumber => "own-other-number",
            Refusal::OwnUnknownKey => "own-unknown-key",
            Refusal::PeerIpv6Only => "peer-ipv6-only",
            Refusal::PeerIpv4Only => "peer-ipv4-only",
            Refusal::NoRoute => "no-route",
            Refusal::Removed => "removed",
            Refusal::OwnRemoved => "own-removed",
        }
    }

    /// The reason in words, with what to do.
    pub const fn explain(self) -> &'static str {
        match self {
            Refusal::NoCertificate => "it showed no certificate; only boxes of this site may connect here",
            Refusal::UnknownKey => {
                "its key is not that of a member: it was removed, or not added yet, or one of the sites was \
                 provisioned again"
            }
            Refusal::OwnKey => {
                "it has this box's own key; was the data directory copied to a second box, or is a member's \
                 address this box's own?"
            }
            Refusal::OtherMember => "another member answers there; compare the addresses in identity.json",
            Refusal::OtherSite => "it belongs to another site; compare the addresses of the two sites",
            Refusal::OtherProtocol => {
                "it uses another protocol or version; do all boxes run the same release?"
            }
            Refusal::OversizedFrame => {
                "it announced a frame that is too long; do all boxes run the same release?"
            }
            Refusal::UnknownLane => "it opened an unknown lane; do all boxes run the same release?",
            Refusal::TooManyHandshakes => "too many connections are being opened at once",
            Refusal::HandshakeTimeout => "it began a connection and did not complete it",
            Refusal::HandshakeFailed => "its handshake was malformed",
            Refusal::RefusedByPeer => "it refused this box; its log says why",
            Refusal::EarlierIncarnation => {
                "its boot counter did not increase: its disk was emptied or replaced by an old copy, so it \
                 may have forgotten its vote and what it acknowledged; remove it from the site and set it up \
                 again as a new member"
            }
            Refusal::Cloned => {
                "another box runs under the same identity; was its card or data directory copied? Stop the copy"
            }
            Refusal::OwnEarlierIncarnation => {
                "it has seen a later incarnation of this box: this data directory was emptied or is an old \
                 copy, and must not be used; remove this box from the site and set it up again as a new \
                 member"
            }
            Refusal::OwnClone => {
                "it is connected to another box under this one's identity; was this card or data directory \
                 copied? Stop one of them"
            }
            Refusal::OtherNumber => {
                "the site knows its key under another number than it reports: `tallyd member add` was given \
                 a wrong --id; remove it, and add it with the number that `tallyd provision --extend` \
                 printed"
            }
            Refusal::OwnOtherNumber => {
                "the site knows this box's key under another number than identity.json has: `tallyd member add` was \
                 given a wrong --id; remove this box, and add it with the number that `tallyd provision --extend` \
                 printed"
            }
            Refusal::OwnUnknownKey => {
                "it does not know this box's key: this box was removed from the site (then stop it), or is \
                 not added yet, or one of the two was provisioned again"
            }
            Refusal::PeerIpv6Only => {
                "its address is IPv6 only and this box listens on IPv4 only: set cluster.listen to [::] with \
                 the same port to have both"
            }
            Refusal::PeerIpv4Only => {
                "its address is IPv4 only and this box listens on IPv6 only: set cluster.listen to [::] with \
                 the same port to have both"
            }
            Refusal::NoRoute => {
                "this machine has no route to any of its addresses: is the network up, and do both have addresses of one \
                 IP version?"
            }
            Refusal::Removed => "it was removed from the site, or replaced, and was told so; stop it",
            Refusal::OwnRemoved => {
                "it says that this box was removed from the site, or replaced, and does not count any more"
            }
        }
    }

    /// The refusal that a connection error stands for; `None` if neither side refused.
    pub(super) fn of(error: &ConnectionError) -> Option<Refusal> {
        match error {
            ConnectionError::TransportError(error) => Some(Refusal::of_code(error.code.into())),
            ConnectionError::VersionMismatch => Some(Refusal::OtherProtocol),
            ConnectionError::ConnectionClosed(close) => {
                match u64::from(close.error_code).checked_sub(0x100) {
                    Some(ALERT_NO_PROTOCOL) => Some(Refusal::OtherProtocol),
                    Some(ALERT_UNKNOWN_KEY) => Some(Refusal::OwnUnknownKey),
                    Some(_) => Some(Refusal::RefusedByPeer),
                    // It thought better of it: another connection was quicker.
                    None => None,
                }
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_REFUSED => {
                Some(match &*close.reason {
                    reason if reason == Refusal::EarlierIncarnation.as_str().as_bytes() => {
                        Refusal::OwnEarlierIncarnation
                    }
                    reason if reason == Refusal::Cloned.as_str().as_bytes() => Refusal::OwnClone,
                    reason if reason == Refusal::OtherNumber.as_str().as_bytes() => Refusal::OwnOtherNumber,
                    reason if reason == Refusal::Removed.as_str().as_bytes() => Refusal::OwnRemoved,
                    reason if reason == Refusal::UnknownKey.as_str().as_bytes() => Refusal::OwnUnknownKey,
                    _ => Refusal::RefusedByPeer,
                })
            }
            ConnectionError::ApplicationClosed(_) => None,
            ConnectionError::TimedOut => Some(Refusal::HandshakeTimeout),
            ConnectionError::Reset | ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => None,
        }
    }

    fn of_code(code: u64) -> Refusal {
        match code.checked_sub(0x100) {
            Some(ALERT_NO_CERTIFICATE) => Refusal::NoCertificate,
            Some(ALERT_UNKNOWN_KEY) => Refusal::UnknownKey,
            Some(ALERT_OWN_KEY) => Refusal::OwnKey,
            Some(ALERT_OTHER_MEMBER) => Refusal::OtherMember,
            Some(ALERT_NO_PROTOCOL) => Refusal::OtherProtocol,
            _ => Refusal::HandshakeFailed,
        }
    }
}

/// Counts refusals and logs some of them.
#[derive(Debug)]
pub(super) struct RefusalLog {
    metrics: Arc<TransportMetrics>,
    log: BoundedLog<{ REFUSALS.len() }>,
}

impl RefusalLog {
    pub(super) fn new(metrics: Arc<TransportMetrics>) -> RefusalLog {
        RefusalLog { metrics, log: BoundedLog::default() }
    }

    /// Counts, and perhaps logs, the refusal of a peer at an address.
    pub(super) fn refuse(&self, reason: Refusal, address: SocketAddr) {
        self.metrics.refusals_of(reason).raise();
        let address = super::address::display_form(address);
        let Some(left_out) = self.log.due(reason as usize, Instant::now()) else { return };
        let (name, why) = (reason.as_str(), reason.explain());
        if left_out == 0 {
            tracing::warn!("no connection with {address} ({name}): {why}");
        } else {
            tracing::warn!(
                "no connection with {address} ({name}): {why} ({left_out} more since the last line)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_number() {
        for (at, reason) in REFUSALS.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
    }
}
