//! Joins a site: the end of a box that holds a token, over QUIC.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::signature::Ed25519KeyPair;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::info;

use super::frames::{Reason, Refused};
use super::joiner::{Applicant, Joiner, JoinerError, JoinerStep, may_be_tried_again};
use super::token::Token;
use super::wire::{self, Frames, WireError};
use crate::identity::{
    IDENTITY, Identity, IdentityError, Issued, Keys, NODE_CERTIFICATE, NODE_KEY, create_directory, write_file,
};
use crate::transport::{BUSY, DialError, Guest, NOT_HERE, TransportError, key_of};

/// The folder in the data directory with the key of a box that is joining: asked again under the same key, the site gives
/// the same answer.
const JOINING: &str = "joining";
/// How long one exchange may take.
const TIME_MAX: Duration = Duration::from_secs(12);
/// How long this process may need to let go of a port that it had itself.
const PORT_WAIT: Duration = Duration::from_secs(2);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What a box is told to join.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    /// HOST:PORT of any box of the site.
    pub(crate) address: String,
    pub(crate) token: Token,
    pub(crate) name: String,
    /// Whether an operator or the configuration chose that name.
    pub(crate) is_name_chosen: bool,
    /// Where the others reach this box; absent: from where it dials.
    pub(crate) advertise: Option<String>,
    /// The cluster port.
    pub(crate) listen: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) until: Instant,
}

/// Why this box is not a member; the variants are what the exit statuses tell apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinFailure {
    /// The site, or this box, refused: nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// Nobody could be asked, or the site could not decide: nothing was changed.
    #[error("{0}")]
    NotDone(String),
    /// This box may be a member.
    #[error("{0}")]
    Unknown(String),
}

impl From<IdentityError> for JoinFailure {
    fn from(error: IdentityError) -> JoinFailure {
        JoinFailure::Refused(error.to_string())
    }
}

/// A box that is a member now. Its identity is on its disk.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) identity: Identity,
    /// In whose place it is.
    pub(crate) replaces: Option<u64>,
}

/// Joins, and writes the identity down.
pub(crate) async fn join(plan: &JoinPlan) -> Result<Member, JoinFailure> {
    let joining = plan.dir.join(JOINING);
    let keys = load_or_make(&joining, &plan.name)?;
    let Some((pair, key)) = keys.ed25519() else {
        return Err(JoinFailure::Refused(format!("{}: node.key is not an Ed25519 key", joining.display())));
    };
    let guest = bind(&keys, plan.listen).await.map_err(|error| JoinFailure::Refused(error.to_string()))?;
    let applicant = Applicant {
        token: plan.token.clone(),
        key,
        name: plan.name.clone(),
        is_name_chosen: plan.is_name_chosen,
        address: plan.advertise.clone(),
    };
    let result = tries(plan, &guest, &applicant, &pair).await;
    guest.close().await;
    let (identity, replaces) = result?;
    settle(&plan.dir, &identity)?;
    info!("this box is {}, number {} of {}", identity.me().name, identity.node, identity.site);
    Ok(Member { identity, replaces })
}

/// Binds the cluster port, which a try before may not have let go of yet.
async fn bind(keys: &Keys, listen: SocketAddr) -> Result<Guest, TransportError> {
    let until = Instant::now() + PORT_WAIT;
    loop {
        match Guest::bind(keys, listen) {
            Err(TransportError::Listen { source, .. })
                if source.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// The key of a try before, or a new one.
fn load_or_make(joining: &Path, name: &str) -> Result<Keys, IdentityError> {
    if joining.join(NODE_CERTIFICATE).exists() {
        return Keys::load(joining);
    }
    create_directory(joining)?;
    Issued::self_signed(name)?.save(joining)?;
    Keys::load(joining)
}

/// Puts the keys to their place and writes the identity, last.
fn settle(dir: &Path, identity: &Identity) -> Result<(), JoinFailure> {
    let joining = dir.join(JOINING);
    for (file, mode) in [(NODE_KEY, 0o600), (NODE_CERTIFICATE, 0o644)] {
        let bytes = fs::read(joining.join(file)).map_err(|error| {
            JoinFailure::Unknown(format!("{}: {error}; run the same command again", joining.display()))
        })?;
        write_file(&dir.join(file), &bytes, mode)?;
    }
    identity.save(dir)?;
    // What stays of it is of no use to anybody: the key is the same.
    if let Err(error) = fs::remove_dir_all(&joining) {
        info!("cannot remove {}: {error}", joining.display());
    }
    debug_assert!(dir.join(IDENTITY).exists(), "it was just written");
    Ok(())
}

/// Asks until there is an answer, or the time is up.
async fn tries(
    plan: &JoinPlan,
    guest: &Guest,
    applicant: &Applicant,
    pair: &Ed25519KeyPair,
) -> Result<(Identity, Option<u64>), JoinFailure> {
    let mut may_be_member = false;
    loop {
        let mut asked = false;
        let exchange = timeout(TIME_MAX, exchange(&plan.address, guest, applicant.clone(), pair, &mut asked));
        let tried = timeout_at(plan.until, exchange).await;
        may_be_member |= asked;
        let why = match tried {
            Ok(Ok(Ok(joined))) => return Ok(joined),
            Ok(Ok(Err(Tried::Over(failure)))) => return Err(failure),
            Ok(Ok(Err(Tried::Again { why, done_nothing }))) => {
                may_be_member &= !done_nothing;
                why
            }
            Ok(Err(_)) | Err(_) => format!("the box at {} did not answer in time", plan.address),
        };
        info!("joining by {}: {why}; retrying", plan.address);
        if Instant::now() + PAUSE >= plan.until {
            return Err(match may_be_member {
                true => JoinFailure::Unknown(format!(
                    "may be a member already: run the same command again ({why})"
                )),
                false => JoinFailure::NotDone(why),
            });
        }
        sleep(PAUSE).await;
    }
}

/// What a try came to that did not lead to a membership.
enum Tried {
    Over(JoinFailure),
    Again {
        why: String,
        /// The site has said that this try changed nothing.
        done_nothing: bool,
    },
}

async fn exchange(
    address: &str,
    guest: &Guest,
    applicant: Applicant,
    pair: &Ed25519KeyPair,
    asked: &mut bool,
) -> Result<(Identity, Option<u64>), Tried> {
    let connection = guest.dial(address).await.map_err(|error| Tried::Over(not_dialled(address, &error)))?;
    let Some(site) = key_of(&connection) else {
        return Err(Tried::Over(JoinFailure::Refused(format!("the box at {address} shows no key"))));
    };
    let broken = |error: WireError| lost(address, &error);
    let (mut joiner, hello) = Joiner::new(applicant, pair, wire::exporter(&connection), site);
    let mut out = wire::open(&connection).await.map_err(broken)?;
    wire::send(&mut out, hello).await.map_err(broken)?;
    let mut frames = Frames::accept(&connection).await.map_err(broken)?;
    loop {
        let frame = frames.next().await.map_err(broken)?;
        let step = joiner.on_frame(&frame);
        *asked = joiner.has_asked();
        match step {
            Ok(JoinerStep::Send(frame)) => wire::send(&mut out, frame).await.map_err(broken)?,
            Ok(JoinerStep::Joined(identity, replaces)) => {
                connection.close(quinn::VarInt::from_u32(0), b"joined");
                return Ok((*identity, replaces));
            }
            Err(error) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                return Err(judged(address, error));
            }
        }
    }
}

fn not_dialled(address: &str, error: &DialError) -> JoinFailure {
    match error {
        DialError::Nobody(why) => JoinFailure::NotDone(format!(
            "cannot reach {address} (UDP): is that box running, is the port open, is it its cluster port? ({why})"
        )),
        DialError::OtherProtocol => JoinFailure::Refused(format!(
            "the box at {address} takes in nobody by token: it is a witness, or of an older release"
        )),
    }
}

fn lost(address: &str, error: &WireError) -> Tried {
    match error {
        WireError::Lost(quinn::ConnectionError::ApplicationClosed(close)) if close.reason == BUSY => {
            let why = format!("the box at {address} is busy with others that join");
            Tried::Again { why, done_nothing: true }
        }
        WireError::Lost(quinn::ConnectionError::ApplicationClosed(close)) if close.reason == NOT_HERE => {
            Tried::Over(not_dialled(address, &DialError::OtherProtocol))
        }
        WireError::Lost(error) => {
            let why = format!("the connection to {address} was lost: {error}");
            Tried::Again { why, done_nothing: false }
        }
        WireError::Malformed => Tried::Over(unreadable(address, "")),
    }
}

fn unreadable(address: &str, why: &str) -> JoinFailure {
    JoinFailure::Refused(format!(
        "cannot read what the box at {address} says {why}: do both run the same release?"
    ))
}

fn judged(address: &str, error: JoinerError) -> Tried {
    let refused = |text: String| Tried::Over(JoinFailure::Refused(text));
    match error {
        JoinerError::NotTheSite => refused(format!(
            "the box at {address} does not hold this token: another site, or somebody in between; nothing was \
             told to it"
        )),
        JoinerError::Malformed(why) => Tried::Over(unreadable(address, &format!("({why})"))),
        JoinerError::Release(release) => refused(format!(
            "the box at {address} runs release {release}, this one {}, which is too old for the site: update it",
            env!("CARGO_PKG_VERSION")
        )),
        JoinerError::OtherName(name) => refused(format!(
            "this token is for the name {name:?}: leave --name and node.name out, or set them to it"
        )),
        JoinerError::Refused(Refused { reason, text }) => {
            // It comes from elsewhere, and goes to a terminal.
            let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            if may_be_tried_again(reason) {
                return Tried::Again { why: text, done_nothing: reason == Reason::NotNow };
            }
            refused(match reason {
                Reason::UnknownToken => format!(
                    "the box at {address} does not know this token: it has ended, was used or revoked, or is \
                     another site's; make one: tallyd token create (its own log says which)"
                ),
                _ => text,
            })
        }
    }
}
