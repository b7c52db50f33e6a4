//! Checks incarnations. A box raises its boot counter durably at each start and sends it to each
//! peer, with a random number that no other process has. A box that moved has the known incarnation; one
//! that restarted has a later one. An earlier one means that its disk was emptied or restored, and that it
//! may have forgotten a vote or what it acknowledged; two incarnations at once are a box and its copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tally_core::id::NodeId;

use super::Refusal;
use super::peer::Peer;
use crate::deliberate::{self, Bug};
use crate::identity::write_file;

/// The file in the data directory with the latest incarnation of each peer that this box has seen.
const FILE: &str = "peers.seen";
/// Bytes of an incarnation on the wire.
pub const INCARNATION_BYTES: usize = 16;
/// Bytes of a [`Hello`] on the wire.
pub(super) const HELLO_BYTES: usize = 8 + INCARNATION_BYTES;

/// How long a packet of a process that ended may still be in flight.
const SETTLE: Duration = Duration::from_millis(50);
/// The number of checks, one second in all, within which a live peer acknowledges a probe, so that the dial ends in
/// time. Checks and
/// not time: after a standstill of this box, acknowledgements have arrived and are not processed yet.
const LOOKS: u32 = 10;
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// One run of a box's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The boot counter: how often the data directory was opened.
    pub boot: u64,
    /// A random number, which distinguishes two processes with the same boot counter.
    pub nonce: u64,
}

impl Incarnation {
    /// Encodes the incarnation as it is sent at the beginning of the control lane.
    pub fn to_bytes(self) -> [u8; INCARNATION_BYTES] {
        let mut bytes = [0; INCARNATION_BYTES];
        bytes[..8].copy_from_slice(&self.boot.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    /// Decodes the incarnation that a peer sent.
    pub fn from_bytes(bytes: [u8; INCARNATION_BYTES]) -> Incarnation {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        Incarnation { boot: number(0), nonce: number(8) }
    }
}

/// What a box sends about itself at the beginning of the control lane. Its key has proved its identity; the number
/// under which
/// the site knows that key is a separate matter: a box that has another number neither votes nor leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Its number, as its own identity has it.
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
}

impl Hello {
    pub(super) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.incarnation.to_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; HELLO_BYTES]) -> Hello {
        let (mut node, mut incarnation) = ([0; 8], [0; INCARNATION_BYTES]);
        node.copy_from_slice(&bytes[..8]);
        incarnation.copy_from_slice(&bytes[8..]);
        Hello { node: NodeId(u64::from_le_bytes(node)), incarnation: Incarnation::from_bytes(incarnation) }
    }
}

/// This box's incarnation, and the latest incarnations of the others that it has seen.
#[derive(Debug)]
pub struct Incarnations {
    own: Incarnation,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    incarnations: Mutex<SeenIncarnations>,
    path: PathBuf,
    /// The content of the file. Locked from before `incarnations` is read until it is written: concurrent writers
    /// then never replace a newer text by an older one.
    written: Mutex<String>,
}

/// The latest incarnation of each peer that a box has seen, by number, without I/O.
#[derive(Clone, Debug, Default)]
pub struct SeenIncarnations(BTreeMap<u64, Incarnation>);

/// How a peer's incarnation compares with the known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It is the known one.
    Known,
    /// None of this peer was seen before.
    First,
    /// The peer was restarted.
    Later,
    /// An earlier boot counter, or the same one in another process.
    Earlier,
}

impl SeenIncarnations {
    /// How an incarnation of this peer compares with the latest one.
    pub fn compare(&self, id: NodeId, incarnation: Incarnation) -> Compared {
        match self.0.get(&id.0) {
            None => Compared::First,
            Some(known) if *known == incarnation => Compared::Known,
            Some(known) if incarnation.boot > known.boot => Compared::Later,
            Some(_) if deliberate::is(Bug::AdmitsEarlier) => Compared::Later,
            Some(_) => Compared::Earlier,
        }
    }

    /// Remembers an incarnation that may connect.
    pub fn note(&mut self, id: NodeId, incarnation: Incarnation) {
        let known = self.0.entry(id.0).or_insert(incarnation);
        // Another connection may have brought a later one meanwhile.
        *known = if known.boot > incarnation.boot { *known } else { incarnation };
    }
}

impl Incarnations {
    /// Makes the incarnation that began when the data directory was opened for the `boot`th time, and reads the
    /// incarnations of
    /// the others from the directory.
    pub fn load(dir: &Path, boot: u64) -> Incarnations {
        let path = dir.join(FILE);
        // Without random numbers there would be no keys either; zero only makes copies harder to tell.
        let nonce = crate::random::bytes().unwrap_or_default();
        let seen = match std::fs::read_to_string(&path) {
            Ok(text) => read_seen(&text).unwrap_or_else(|| {
                tracing::warn!(
                    "{} is damaged: the boot counters of the other boxes are forgotten",
                    path.display()
                );
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("{} cannot be read: {error}", path.display());
                }
                BTreeMap::new()
            }
        };
        let incarnations = Mutex::new(SeenIncarnations(seen));
        let seen = Arc::new(Seen { incarnations, path, written: Mutex::default() });
        Incarnations { own: Incarnation { boot, nonce: u64::from_le_bytes(nonce) }, seen }
    }

    pub(super) fn own(&self) -> Incarnation {
        self.own
    }

    /// Checks whether a peer with this hello may connect. If another incarnation of the peer is connected, waits for
    /// that one
    /// to end, as it does if its process did.
    pub(super) async fn admit(&self, peer: &Peer, Hello { node, incarnation }: Hello) -> Result<(), Refusal> {
        if node != peer.id {
            return Err(Refusal::OtherNumber);
        }
        let compared = self.compare(peer.id, incarnation);
        if compared == Compared::Known {
            return Ok(());
        }
        if is_heard(peer, incarnation).await {
            return Err(Refusal::Cloned);
        }
        if compared == Compared::Earlier {
            return Err(Refusal::EarlierIncarnation);
        }
        self.remember(peer.id, incarnation);
        Ok(())
    }

    fn compare(&self, id: NodeId, incarnation: Incarnation) -> Compared {
        self.seen.lock().compare(id, incarnation)
    }

    /// Remembers an incarnation that may connect. A separate thread makes it durable, because the disk may hang and
    /// connections must not.
    fn remember(&self, id: NodeId, incarnation: Incarnation) -> Option<JoinHandle<()>> {
        self.seen.lock().note(id, incarnation);
        let seen = Arc::clone(&self.seen);
        let writer = std::thread::Builder::new().name("incarnations".to_owned()).spawn(move || seen.write());
        let failed =
            |error| tracing::warn!("cannot save the boot counters of the other boxes: no thread: {error}");
        writer.map_err(failed).ok()
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, SeenIncarnations> {
        self.incarnations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that is known now, which may be more than its caller recorded.
    fn write(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let text = seen_text(&self.lock().0);
        if *written == text {
            return;
        }
        match write_file(&self.path, text.as_bytes(), 0o644) {
            Ok(()) => *written = text,
            Err(error) => tracing::warn!("cannot save the boot counters of the other boxes: {error}"),
        }
    }
}

/// Whether the peer is still heard over a connection of another incarnation.
async fn is_heard(peer: &Peer, incarnation: Incarnation) -> bool {
    if peer.probe_other(incarnation).is_none() {
        return false;
    }
    tokio::time::sleep(SETTLE).await;
    let Some(before) = peer.probe_other(incarnation) else { return false };
    for _ in 0..LOOKS {
        tokio::time::sleep(PROBE_EVERY).await;
        match peer.probe_other(incarnation) {
            None => return false,
            Some(now) if now > before => return true,
            Some(_) => {}
        }
    }
    false
}

/// Encodes the incarnations of boxes, by number, as the text of a file: a line for each box, and a checksum.
pub fn seen_text(seen: &BTreeMap<u64, Incarnation>) -> String {
    let mut text: String = seen
        .iter()
        .map(|(id, incarnation)| format!("{id} {} {:016x}\n", incarnation.boot, incarnation.nonce))
        .collect();
    let crc = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("crc {crc:08x}\n"));
    text
}

/// Parses what [`seen_text`] wrote; `None` if the text is damaged.
pub fn read_seen(text: &str) -> Option<BTreeMap<u64, Incarnation>> {
    let (lines, crc) = text.rsplit_once("crc ")?;
    if u32::from_str_radix(crc.trim_end(), 16).ok()? != crc32c::crc32c(lines.as_bytes()) {
        return None;
    }
    let line = |line: &str| {
        let mut parts = line.split(' ');
        let id = parts.next()?.parse().ok()?;
        let boot = parts.next()?.parse().ok()?;
        let nonce = u64::from_str_radix(parts.next()?, 16).ok()?;
        Some((id, Incarnation { boot, nonce }))
    };
    lines.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(boot: u64, nonce: u64) -> Incarnation {
        Incarnation { boot, nonce }
    }

    #[test]
    fn incarnations_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let incarnations = Incarnations::load(dir.path(), 1);
        let two = NodeId(2);
        assert_eq!(incarnations.compare(two, incarnation(5, 77)), Compared::First);
        incarnations.remember(two, incarnation(5, 77)).unwrap().join().unwrap();
        assert_eq!(incarnations.compare(two, incarnation(5, 77)), Compared::Known);
        assert_eq!(incarnations.compare(two, incarnation(6, 1)), Compared::Later);
        assert_eq!(incarnations.compare(two, incarnation(4, 1)), Compared::Earlier);
        assert_eq!(incarnations.compare(two, incarnation(5, 78)), Compared::Earlier);
        assert_eq!(incarnations.compare(NodeId(3), incarnation(1, 1)), Compared::First);
    }

    #[test]
    fn a_writer_that_comes_late_does_not_put_an_older_incarnation_over_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let incarnations = Incarnations::load(dir.path(), 1);
        for round in 0..50 {
            let writers: Vec<_> = (1..=4)
                .filter_map(|more| incarnations.remember(NodeId(2), incarnation(round * 4 + more, more)))
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
            assert_eq!(read_seen(&text), Some(BTreeMap::from([(2, incarnation(round * 4 + 4, 4))])));
        }
    }

    #[test]
    fn what_was_seen_comes_back_and_damage_is_noticed() {
        let seen = BTreeMap::from([(2, incarnation(5, 77)), (3, incarnation(u64::MAX, u64::MAX))]);
        let text = seen_text(&seen);
        assert_eq!(read_seen(&text), Some(seen));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(damaged) = String::from_utf8(bytes) {
                assert_eq!(read_seen(&damaged), None, "{damaged}");
            }
        }
        assert_eq!(read_seen(""), None);
        assert_eq!(Incarnation::from_bytes(incarnation(9, 3).to_bytes()), incarnation(9, 3));
        let hello = Hello { node: NodeId(7), incarnation: incarnation(9, 3) };
        assert_eq!(Hello::from_bytes(hello.to_bytes()), hello);
    }
}
