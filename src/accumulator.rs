//! What was counted here and is not yet committed; batches and their waiters.
//!
//! Counts that nobody waits for are merged at once, per series and window. Adds of clients that
//! wait stay apart until their batch is frozen, so that one can be taken back until then.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tally_core::id::SeriesName;
use tally_core::report::{Amount, Kind, MergeError};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tokio::sync::{Notify, oneshot};

use crate::clock::SiteClock;
use crate::node::{Added, NO_LEADER, RequestError};
use crate::site::entry::SeriesRef;
use crate::site::{Refusal, SeriesId, Site};

mod batch;
mod freeze;
mod readings;
pub use batch::Batch;
use readings::Readings;
pub use readings::{MeterRead, MeterSlot, ReadingsMode};

/// Most requests that may wait at one box.
const WAITING_MAX: usize = 65_536;
/// Without a quorum a box keeps at most this many windows per series apart; then neighbours merge.
const WINDOWS_APART_MAX: usize = 64;

/// A series as this box counts it. Valid as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// What was counted here and is not yet in a batch.
#[derive(Debug)]
pub struct Accumulator {
    inner: Mutex<Inner>,
    clock: Arc<SiteClock>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<SlotState>,
    by_name: HashMap<Box<str>, Slot>,
    /// Slots in the order in which something came to be pending. Those of which it was taken out of turn are still
    /// here: see `SlotState::queued`.
    dirty: VecDeque<Slot>,
    /// Slots with something in `pending`.
    dirty_count: usize,
    /// The last batch had no room for all of them.
    left_over: bool,
    waiting: Vec<Waiting>,
    waiting_id: u64,
    base: Span,
    slots_max: usize,
    /// Adds that would have overflowed their cell and were refused here.
    overflowed: u64,
    readings: Readings,
}

#[derive(Debug)]
struct SlotState {
    name: Box<str>,
    kind: Kind,
    /// As the site numbers it, once that is known here.
    series: Option<SeriesId>,
    window: SiteTime,
    pending: Option<Amount>,
    /// Stands in `dirty`.
    queued: bool,
    /// Cells of it that the batch that is being frozen has to have room for.
    planned: usize,
    /// What was pending when its window ended before it got into a batch.
    older: Vec<(SiteTime, Amount)>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    slot: Slot,
    window: SiteTime,
    amount: Amount,
    key: Option<Key>,
    answer: oneshot::Sender<Outcome>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    hash: u128,
    check: u64,
    taken: Elapsed,
}

/// What a waiting add is told.
#[derive(Debug)]
pub enum Outcome {
    /// Committed and applied.
    Added(Added),
    /// Not, or not known.
    Failed(RequestError),
}

/// Whether a waiting add could be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It was in no batch yet, and never will be.
    BeforeItsBatch,
    /// Its batch was frozen before.
    TooLate,
}

/// The accumulator under its lock.
#[derive(Debug)]
pub struct Bulk<'a> {
    inner: MutexGuard<'a, Inner>,
    window: SiteTime,
}

/// What waits, for those who decide when the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Requests that wait.
    pub waiting: usize,
    /// Cells that nobody waits for.
    pub cells: usize,
    /// Some of them are from before the last batch, which had no room for them.
    pub left_over: bool,
}

impl Accumulator {
    /// An empty one.
    pub fn new(clock: Arc<SiteClock>, base: Span, slots_max: usize) -> Accumulator {
        let inner = Inner {
            slots: Vec::new(),
            by_name: HashMap::new(),
            dirty: VecDeque::new(),
            dirty_count: 0,
            left_over: false,
            waiting: Vec::new(),
            waiting_id: 0,
            base,
            slots_max,
            overflowed: 0,
            readings: Readings::default(),
        };
        Accumulator { inner: Mutex::new(inner), clock, wake: Notify::new() }
    }

    /// One lock for many adds that nobody waits for. Never hold it across an await.
    pub fn lock(&self) -> Bulk<'_> {
        let now = self.clock.site();
        let inner = self.guard();
        let window = inner.base.start_of(now);
        Bulk { inner, window }
    }

    /// The slot of a series, made if it is new.
    pub fn slot(&self, name: SeriesName<'_>, kind: Kind) -> Result<Slot, Refusal> {
        self.guard().slot(name, kind)
    }

    /// Takes an add whose client waits. `key`: the hash of its idempotency key, and the check.
    pub fn add_waiting(
        &self,
        name: SeriesName<'_>,
        amount: Amount,
        key: Option<(u128, u64)>,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), RequestError> {
        let taken = self.clock.elapsed_applied();
        let now = self.clock.site();
        let mut inner = self.guard();
        if inner.waiting.len() >= WAITING_MAX {
            return Err(RequestError::TooBusy);
        }
        let slot = inner.slot(name, amount.kind()).map_err(RequestError::Refused)?;
        let (answer, receiver) = oneshot::channel();
        inner.waiting_id += 1;
        let id = inner.waiting_id;
        let window = inner.base.start_of(now);
        let key = key.map(|(hash, check)| Key { hash, check, taken });
        inner.waiting.push(Waiting { id, slot, window, amount, key, answer });
        drop(inner);
        self.wake.notify_one();
        Ok((id, receiver))
    }

    /// Takes a waiting add back, unless its batch is frozen already.
    pub fn withdraw(&self, id: u64) -> Withdrawn {
        let mut inner = self.guard();
        match inner.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            Ok(place) => {
                inner.waiting.remove(place);
                Withdrawn::BeforeItsBatch
            }
            Err(_) => Withdrawn::TooLate,
        }
    }

    /// Takes back all adds that wait and are in no batch: there is no leader for long.
    pub fn give_up_waiting(&self) {
        let waiting = mem::take(&mut self.guard().waiting);
        for waiting in waiting {
            let error = RequestError::NotCommitted { why: NO_LEADER.to_owned() };
            // The client may have gone.
            let _ = waiting.answer.send(Outcome::Failed(error));
        }
    }

    /// Returns when a waiting add has come since the last call.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What waits.
    pub fn backlog(&self) -> Backlog {
        let inner = self.guard();
        let cells = inner.dirty_count + inner.readings.waiting();
        Backlog { waiting: inner.waiting.len(), cells, left_over: inner.left_over }
    }

    /// How many waiting or merged adds would have overflowed their cell and were refused here.
    pub fn overflowed(&self) -> u64 {
        self.guard().overflowed
    }

    /// Follows the site's settings.
    pub fn configure(&self, base: Span, slots_max: usize) {
        let mut inner = self.guard();
        inner.base = base;
        inner.slots_max = slots_max;
    }

    /// Whether the site takes readings of meters; called when this box knows the site as it is.
    pub fn set_readings_mode(&self, mode: ReadingsMode) {
        self.guard().readings.mode = mode;
    }

    /// Learns how the site numbers the series of a batch that was applied, and of what kind they are.
    pub fn learn(&self, batch: &Batch, site: &Site) {
        let mut inner = self.guard();
        for slot in batch.slots() {
            let state = &mut inner.slots[slot.0 as usize];
            if state.series.is_none()
                && let Some(id) = site.find(&state.name)
            {
                state.series = Some(id);
                // Another box may have made it of another kind meanwhile; what is pending here will
                // be refused where it is applied, what comes now is refused here.
                state.kind = site.kind(id);
            }
        }
    }

    /// How the site numbers the series of slots, as far as that is known here; under one lock.
    pub(super) fn numbering(&self) -> impl Fn(Slot) -> Option<SeriesId> {
        let inner = self.guard();
        move |slot| inner.slots[slot.0 as usize].series
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics while holding the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bulk<'_> {
    /// The slot of a series, made if it is new.
    pub fn slot(&mut self, name: SeriesName<'_>, kind: Kind) -> Result<Slot, Refusal> {
        self.inner.slot(name, kind)
    }

    /// Counts `n` more on a counter. The hot path: no lookup, no allocation.
    #[inline]
    pub fn count(&mut self, slot: Slot, n: u64) -> Result<(), Refusal> {
        let state = &mut self.inner.slots[slot.0 as usize];
        if state.window == self.window
            && let Some(Amount::Counter(sum)) = &mut state.pending
            && let Some(more) = sum.checked_add(u128::from(n))
        {
            *sum = more;
            return Ok(());
        }
        self.add(slot, Amount::Counter(u128::from(n)))
    }

    /// Adds an amount to the window that is open now.
    pub fn add(&mut self, slot: Slot, amount: Amount) -> Result<(), Refusal> {
        self.inner.add(slot, self.window, amount)
    }
}

impl Inner {
    fn slot(&mut self, name: SeriesName<'_>, kind: Kind) -> Result<Slot, Refusal> {
        if let Some(slot) = self.by_name.get(name.as_str()) {
            let is = self.slots[slot.0 as usize].kind;
            return if is == kind { Ok(*slot) } else { Err(Refusal::WrongKind { is, asked: kind }) };
        }
        if self.slots.len() >= self.slots_max {
            return Err(Refusal::TooManySeries);
        }
        let slot = Slot(u32::try_from(self.slots.len()).map_err(|_| Refusal::TooManySeries)?);
        let name: Box<str> = name.as_str().into();
        self.by_name.insert(name.clone(), slot);
        self.slots.push(SlotState {
            name,
            kind,
            series: None,
            window: SiteTime(0),
            pending: None,
            queued: false,
            planned: 0,
            older: Vec::new(),
        });
        Ok(slot)
    }

    fn add(&mut self, slot: Slot, window: SiteTime, amount: Amount) -> Result<(), Refusal> {
        let state = &mut self.slots[slot.0 as usize];
        if state.kind != amount.kind() {
            return Err(Refusal::WrongKind { is: state.kind, asked: amount.kind() });
        }
        match state.pending {
            None => {
                state.pending = Some(amount);
                state.window = window;
                self.dirty_count += 1;
                if !mem::replace(&mut state.queued, true) {
                    self.dirty.push_back(slot);
                }
            }
            Some(pending) if state.window == window => match pending.merged(amount) {
                Ok(sum) => state.pending = Some(sum),
                Err(MergeError::Overflow | MergeError::Kinds) => {
                    self.overflowed += 1;
                    return Err(Refusal::Overflow);
                }
            },
            Some(pending) => {
                state.keep_older(pending);
                state.pending = Some(amount);
                state.window = window;
            }
        }
        Ok(())
    }
}

impl SlotState {
    /// Keeps what the ended window came to; beyond the bound the newest neighbours merge.
    fn keep_older(&mut self, amount: Amount) {
        if self.older.len() >= WINDOWS_APART_MAX - 1
            && let Some((_, last)) = self.older.last_mut()
            && let Ok(sum) = last.merged(amount)
        {
            *last = sum;
            return;
        }
        self.older.push((self.window, amount));
    }

    fn series_ref(&self) -> SeriesRef<'_> {
        match self.series {
            Some(id) => SeriesRef::Id(id),
            None => SeriesRef::Name(
                SeriesName::new(&self.name).expect("a slot is made from a checked name"),
                self.kind,
            ),
        }
    }
}

#[cfg(test)]
#[path = "accumulator_tests.rs"]
mod tests;
