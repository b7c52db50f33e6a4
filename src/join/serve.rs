//! Takes in boxes that hold a token: the end of a box of the site, over QUIC.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};
use tally_core::id::{KeyHash, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::frames::{FromSite, Reason, Welcome, encode};
use super::site_side::{Asked, KnownToken, SiteFacts, SiteSide, SiteStep, refused};
use super::wire::{self, Frames, WireError};
use crate::node::Handle;
use crate::request::{JoinError, RequestError};
use crate::site::{JoinRefused, JoinRequest, Joined, Level, MemberRefused, TokenId};
use crate::transport::{BUSY, CLOSE_REFUSED, Transport, address_of};

/// How many exchanges go on at a time.
const AT_ONCE_MAX: usize = 4;
/// How many begin within a minute.
const A_MINUTE_MAX: usize = 30;
/// How long one may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long a joiner may take to answer where it says that it is reached.
const DIAL_BACK_MAX: Duration = Duration::from_secs(3);

/// A box that takes others in.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) handle: Handle,
    pub(crate) transport: Arc<Transport>,
}

/// Serves those who want to join, until nobody can come any more.
pub(crate) async fn serve(host: Host, mut strangers: mpsc::Receiver<Connection>) {
    let host = Arc::new(host);
    let (mut tasks, mut begun) = (JoinSet::new(), Begun::default());
    while let Some(connection) = strangers.recv().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= AT_ONCE_MAX || !begun.admit(Instant::now()) {
            connection.close(CLOSE_REFUSED, BUSY);
            continue;
        }
        let host = host.clone();
        tasks.spawn(async move {
            let from = address_of(&connection);
            let exchange = Box::pin(exchange(&host, &connection));
            match tokio::time::timeout(TIME_MAX, exchange).await {
                Ok(Ok(())) => {}
                Ok(Err(WireError::Lost(error))) => info!("{from} wanted to join and went away: {error}"),
                Ok(Err(WireError::Malformed)) => warn!("{from} wanted to join and said what cannot be read"),
                Err(_) => warn!("{from} wanted to join and took more than {} s", TIME_MAX.as_secs()),
            }
            connection.close(VarInt::from_u32(0), b"");
        });
    }
}

/// How long a box that serves an exchange catches up with the site before.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// When the latest exchanges began.
#[derive(Debug, Default)]
struct Begun(VecDeque<Instant>);

impl Begun {
    /// Whether one may begin now; then it has.
    fn admit(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| now.saturating_duration_since(*at) >= Duration::from_secs(60)) {
            self.0.pop_front();
        }
        if self.0.len() >= A_MINUTE_MAX {
            return false;
        }
        self.0.push_back(now);
        true
    }
}

async fn exchange(host: &Host, connection: &Connection) -> Result<(), WireError> {
    let from = address_of(connection);
    let mut frames = Frames::accept(connection).await?;
    // A token that another box has just made is known here from then on. Without a leader what is known must do.
    let _ = tokio::time::timeout(CATCH_UP_MAX, host.handle.fence()).await;
    let mut out = wire::open(connection).await?;
    let mut side = SiteSide::new(host.facts(), wire::exporter(connection));
    loop {
        let frame = frames.next().await?;
        match side.on_frame(&frame, |token, key| host.find(token, key)) {
            SiteStep::Send(answer) => wire::send(&mut out, answer).await?,
            SiteStep::Refuse(answer, reason) => {
                if reason != Reason::UnknownToken {
                    warn!("{from} wanted to join and is refused: {reason:?}");
                }
                wire::send(&mut out, answer).await?;
                break;
            }
            SiteStep::Asked(asked) => {
                let answer = host.on_asked(asked, &from.to_string()).await;
                wire::send(&mut out, answer).await?;
                break;
            }
        }
    }
    let _ = out.finish();
    // The joiner closes when it has the answer.
    connection.closed().await;
    Ok(())
}

impl Host {
    fn facts(&self) -> SiteFacts {
        let identity = self.handle.identity();
        SiteFacts {
            site: identity.site.clone(),
            site_id: identity.site_id,
            level: self.handle.site(|site| site.level()),
            key: identity.me().key,
            node: identity.me().name.clone(),
        }
    }

    /// The token of that name, if a box of that key may join by it, or has. The log says why not: the joiner is not told.
    fn find(&self, id: TokenId, key: KeyHash) -> Option<KnownToken> {
        self.handle.site(|site| {
            let Some(token) = site.token(id).filter(|_| site.level() >= Level::THREE) else {
                warn!(
                    "a box wanted to join by token {id}, which this site does not know, or which has ended"
                );
                return None;
            };
            if token.uses == 0 && site.member_of_key(key).is_none() {
                warn!("a box wanted to join by token {id}, which is used up");
                return None;
            }
            let name = token.replaces.as_ref().map(|(_, name)| name.clone());
            Some(KnownToken { site_key: token.site_key, join_public: token.join_public, name })
        })
    }

    /// Dials the joiner back and asks the site; returns the frame of the answer.
    async fn on_asked(&self, asked: Asked, from: &str) -> Vec<u8> {
        let Asked { token, key, name, address } = asked;
        let address = address.unwrap_or_else(|| from.to_owned());
        let reached = tokio::time::timeout(DIAL_BACK_MAX, self.transport.dial_back(&address, key)).await;
        if let Ok(Err(why)) | Err(why) = reached.map_err(|_| "no answer".to_owned()) {
            let node = &self.handle.identity().me().name;
            warn!("{name} wants to join and is not reached at {address}: {why}");
            let text = format!(
                "{node} cannot reach this box at {address} (UDP): open the port, or say where it is reached: \
                 --advertise"
            );
            return refused(Reason::NotReached, &text);
        }
        let request = JoinRequest { token, key, name: name.clone(), address: address.clone() };
        match self.handle.join(&request).await {
            Ok(joined) => {
                if !joined.again {
                    info!("{name} at {address} has joined as number {} by token {token}", joined.id);
                }
                self.welcome(&joined)
            }
            Err(error) => self.not_joined(&request, error),
        }
    }

    fn welcome(&self, joined: &Joined) -> Vec<u8> {
        let identity = self.handle.identity();
        encode(&FromSite::Welcome(Welcome {
            number: joined.id.0,
            replaces: joined.replaces.map(|id| id.0),
            members: self.handle.site(|site| site.members().to_vec()),
            window_ms: identity.window_ms,
            level: identity.level,
        }))
    }

    fn not_joined(&self, request: &JoinRequest, error: JoinError) -> Vec<u8> {
        let site = &self.handle.identity().site;
        let JoinRequest { name, address, .. } = request;
        match error {
            JoinError::Refused(JoinRefused::UnknownToken | JoinRefused::UsedUp) => {
                warn!("{name} at {address} wanted to join: {error}");
                refused(Reason::UnknownToken, "")
            }
            JoinError::Refused(JoinRefused::Member(MemberRefused::TooEarly)) => {
                refused(Reason::NotNow, &format!("{site}: {}", MemberRefused::TooEarly))
            }
            JoinError::Refused(JoinRefused::Member(why)) => {
                let text = self.taken(request, why);
                warn!("{name} at {address} wanted to join: {text}");
                refused(Reason::Taken, &text)
            }
            JoinError::Request(RequestError::OutcomeUnknown { why }) => {
                refused(Reason::Unknown, &format!("{site}: {why}"))
            }
            JoinError::Request(error) => {
                refused(Reason::NotNow, &format!("{site} has no leader: nothing changed ({error})"))
            }
        }
    }

    /// Why a name, an address or a key cannot be had, with whose it is.
    fn taken(&self, request: &JoinRequest, why: MemberRefused) -> String {
        let site = &self.handle.identity().site;
        let whose = |is: &dyn Fn(&crate::site::MemberRecord) -> bool| {
            self.handle.site(|site| site.members().iter().find(|member| is(member)).cloned())
        };
        match why {
            MemberRefused::NameTaken => match whose(&|member| member.name == request.name) {
                Some(other) => format!(
                    "{site} has a box {:?} (number {}, {}): --name box2; or, to take its place, a token of \
                     `tallyd token create --replace {}`",
                    other.name,
                    other.id,
                    if self.is_reached(other.id) { "reached" } else { "not reached" },
                    other.name
                ),
                None => why.to_string(),
            },
            MemberRefused::AddressTaken => match whose(&|member| member.address == request.address) {
                Some(other) => format!(
                    "{site} reaches {:?} (number {}) at {}: say where this box is reached with --advertise; \
                     or, to take its place, a token of `tallyd token create --replace {}`",
                    other.name, other.id, other.address, other.name
                ),
                None => why.to_string(),
            },
            other => format!("{site}: {other}"),
        }
    }

    fn is_reached(&self, id: NodeId) -> bool {
        self.handle.status().members.iter().any(|member| member.id == id && member.connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_exchanges_begin_within_a_minute() {
        let (mut begun, start) = (Begun::default(), Instant::now());
        let admitted =
            (0..100).filter(|second| begun.admit(start + Duration::from_millis(second * 10))).count();
        assert_eq!(admitted, A_MINUTE_MAX);
        assert!(!begun.admit(start + Duration::from_secs(59)));
        assert!(begun.admit(start + Duration::from_secs(60)));
    }
}
