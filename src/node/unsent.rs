//! Saves at an orderly stop what a box had gathered and could not commit: as frozen batches with consecutive numbers,
//! which the next incarnation sends unchanged under the same epoch. So each count stays exact.
//!
//! Three rules make it so. A saved batch is sent only as it is in the file, address and number included, so that a
//! crash sends the same bytes again. Only the incarnation that freezes a batch into the file uses numbers after those
//! of the file: later counts get an epoch of their own once the site has answered for the whole file. And a saved
//! batch gets another number only if the site says that it certainly was not applied.

use std::io;

use ring::digest::{SHA256, digest};
use tally_core::id::{Epoch, ReportNumber, SourceId};
use tracing::{error, info, warn};

use super::Node;
use super::batches::FileTask;
use super::disk::Job;
use crate::deliberate::{self, Bug};
use crate::site::entry::{self, BodyKind, ReportWriter};
use crate::site::{Body, readdress};
use crate::storage::{FileSystem, Owner, Storage, UNSENT};

const MAGIC: &[u8; 8] = b"TLYUNSNT";
const VERSION: u32 = 1;
/// All before the batches.
const HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 16 + 1 + 8 + 8 + 8 + 4;
const SUM_BYTES: usize = 32;
/// No more is gathered into the file: far above what a site of 20,000 series counts in an hour.
const BYTES_MAX: usize = 64 << 20;

/// Frozen batches that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The nonce under which their epoch was opened, or will be.
    pub(super) nonce: u128,
    /// What the batches are addressed to. `None`: no epoch is open, and none was sent.
    pub(super) epoch: Option<(SourceId, Epoch)>,
    /// The number of the first.
    pub(super) first: ReportNumber,
    /// The bodies, as they are sent.
    pub(super) bodies: Vec<Body>,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnsentError {
    #[error("the file is damaged (its checksum or a length is wrong)")]
    Damaged,
    #[error("a newer release wrote the file (version {0})")]
    Newer(u32),
    #[error("the file belongs to another box or site")]
    Foreign,
    #[error("a batch in the file cannot be decoded")]
    Batch,
}

impl Unsent {
    pub(super) fn encode(&self, owner: Owner) -> Vec<u8> {
        let bodies: usize = self.bodies.iter().map(|body| 4 + body.len()).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES + bodies + SUM_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&owner.site_id.to_le_bytes());
        out.extend_from_slice(&owner.node.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        let (source, epoch) = self.epoch.unwrap_or((SourceId(0), Epoch(0)));
        out.push(u8::from(self.epoch.is_some()));
        for field in [source.0, epoch.0, self.first.get()] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        // Bounded by the bytes.
        out.extend_from_slice(&(self.bodies.len() as u32).to_le_bytes());
        for body in &self.bodies {
            out.extend_from_slice(&(body.len() as u32).to_le_bytes());
            out.extend_from_slice(body);
        }
        let sum = digest(&SHA256, &out);
        out.extend_from_slice(sum.as_ref());
        out
    }

    pub(super) fn decode(bytes: &[u8], owner: Owner) -> Result<Unsent, UnsentError> {
        let (mut rest, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(UnsentError::Damaged)?;
        if digest(&SHA256, rest).as_ref() != sum || take(&mut rest)? != *MAGIC {
            return Err(UnsentError::Damaged);
        }
        let version = u32::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(UnsentError::Newer(version));
        }
        let (site_id, node) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        if (Owner { site_id, node }) != owner {
            return Err(UnsentError::Foreign);
        }
        let nonce = u128::from_le_bytes(take(&mut rest)?);
        let [is_open] = take(&mut rest)?;
        let address =
            (SourceId(u64::from_le_bytes(take(&mut rest)?)), Epoch(u64::from_le_bytes(take(&mut rest)?)));
        let epoch = (is_open == 1).then_some(address);
        let first = ReportNumber::new(u64::from_le_bytes(take(&mut rest)?)).ok_or(UnsentError::Damaged)?;
        let count = u32::from_le_bytes(take(&mut rest)?);
        let (mut bodies, mut number) = (Vec::new(), first);
        for _ in 0..count {
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (body, after) = rest.split_at_checked(length).ok_or(UnsentError::Damaged)?;
            rest = after;
            // What no leader would take would be sent for ever.
            let is_report = entry::check(body) == Ok(BodyKind::Report);
            let is_addressed = epoch.is_none_or(|(source, epoch)| {
                readdress(body, source, epoch, number).is_ok_and(|same| *same == *body)
            });
            if !is_report || !is_addressed {
                return Err(UnsentError::Batch);
            }
            bodies.push(body.into());
            number = number.next();
        }
        if !rest.is_empty() {
            return Err(UnsentError::Damaged);
        }
        Ok(Unsent { nonce, epoch, first, bodies })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], UnsentError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(UnsentError::Damaged)?;
    *rest = after;
    Ok(*taken)
}

/// What an earlier incarnation left, if it left anything. A file that cannot be used is set aside, and told.
pub fn read_unsent<F: FileSystem>(storage: &Storage<F>, owner: Owner) -> Option<Unsent> {
    let bytes_max = (BYTES_MAX + entry_bytes_max() + HEAD_BYTES + SUM_BYTES) as u64;
    let why = match storage.unsent(bytes_max) {
        Ok(None) => return None,
        Ok(Some(bytes)) => match Unsent::decode(&bytes, owner) {
            Ok(unsent) => {
                info!("sending {} batches that were saved uncommitted at the last stop", unsent.bodies.len());
                return Some(unsent);
            }
            Err(why) => why.to_string(),
        },
        Err(why) => why.to_string(),
    };
    match storage.set_unsent_aside() {
        Ok(name) => error!(
            "cannot use {UNSENT}: {why}. Counts that were uncommitted at the last stop are not counted; the \
             file is kept as {name}"
        ),
        Err(error) => error!(
            "cannot use {UNSENT}: {why}. Counts that were uncommitted at the last stop are not counted; the \
             file cannot be renamed either ({error}): copy it before the next stop overwrites it"
        ),
    }
    None
}

/// How much is counted in the batches of such a file; `None` for one that cannot be used.
#[must_use]
pub fn counts_unsent(file: &[u8], owner: Owner) -> Option<u128> {
    let unsent = Unsent::decode(file, owner).ok()?;
    Some(unsent.bodies.iter().map(|body| entry::counts_in(body)).fold(0, u128::saturating_add))
}

/// The last batch may go over the bound by so much.
fn entry_bytes_max() -> usize {
    super::wire::APPEND_BYTES_MAX as usize
}

impl Node {
    pub(super) fn owner(&self) -> Owner {
        let identity = &self.shared.identity;
        Owner { site_id: identity.site_id.0, node: identity.node }
    }

    /// Has the file say what is to be sent, and be gone once all of it was judged.
    pub(super) fn keep_unsent_file(&mut self) {
        // Then it says what the next incarnation is to send, which is more than what this one knows to be frozen.
        if self.is_saving() && !deliberate::is(Bug::RemovesFileWhileSaving) {
            return;
        }
        match self.batches.file_task(self.moment.now) {
            Some(FileTask::Write(unsent)) => {
                let bytes = Some(unsent.encode(self.owner()));
                self.disk.ask(Job::KeepUnsent { bytes, leaving: false });
            }
            Some(FileTask::Remove) => {
                self.disk.ask(Job::KeepUnsent { bytes: None, leaving: false });
                self.batches.file_is_over(self.random.next_u128());
                info!("all batches saved at the last stop are settled");
            }
            None => {}
        }
    }

    pub(super) fn on_unsent_kept(&mut self, leaving: bool, result: io::Result<()>) {
        if leaving {
            if let Err(error) = &result {
                error!(
                    "cannot save uncommitted counts: {UNSENT}: {error}; retrying until this stop ends: free \
                     some space, or check the disk"
                );
                return self.on_not_saved();
            }
            return self.set_saving(super::Saving::Done);
        }
        if let Err(error) = &result {
            warn!("{UNSENT}: {error}");
        }
        self.batches.file_done(result.is_ok(), self.moment.now);
    }

    /// Writes all that was gathered here into the file; nothing is frozen or sent any more.
    pub(super) fn save_unsent(&mut self) -> super::Saving {
        if deliberate::is(Bug::SavesNothing) {
            return super::Saving::Done;
        }
        self.shared.accumulator.give_up_waiting("this box is stopping");
        self.batches.leave_waiters();
        let (mut unsent, is_saved) = self.batches.unsent();
        let (source, epoch) = unsent.epoch.unwrap_or((SourceId(0), Epoch(0)));
        let mut number = self.batches.first_own_number();
        let mut bytes: usize = unsent.bodies.iter().map(|body| body.len()).sum();
        let name_changes = self.site().name_changes();
        let (mut fresh, mut left) = (0, self.shared.accumulator.backlog().cells);
        while left > 0 && bytes < BYTES_MAX {
            let writer = ReportWriter::as_of(source, epoch, number, 0, name_changes);
            let batch = self.shared.accumulator.freeze(writer);
            bytes += batch.body.len();
            unsent.bodies.push(batch.body);
            number = number.next();
            fresh += 1;
            left = self.shared.accumulator.backlog().cells;
        }
        if left > 0 {
            if let Some(stopping) = &mut self.stopping {
                stopping.lost = true;
            }
            error!(
                "counts of {left} series do not fit into {UNSENT} and are lost: the file has {bytes} bytes"
            );
        }
        if unsent.bodies.is_empty() || (is_saved && fresh == 0) {
            return super::Saving::Done;
        }
        warn!(
            "{} batches were not committed in time: saved in {UNSENT}, to be sent at the next start",
            unsent.bodies.len()
        );
        self.save_for_next_incarnation(unsent.encode(self.owner()));
        super::Saving::Asked
    }
}

#[cfg(test)]
#[path = "unsent_tests.rs"]
mod tests;
