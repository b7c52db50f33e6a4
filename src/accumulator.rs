//! What was counted here and is not yet committed; batches and their waiters.
//!
//! Counts that nobody waits for are merged at once, per series and window. Adds of clients that
//! wait stay apart until their batch is frozen, so that one can be taken back until then.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tally_core::id::SeriesName;
use tally_core::report::{Amount, Kind};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tokio::sync::{Notify, oneshot};

use crate::clock::SiteClock;
use crate::deliberate::{self, Bug};
use crate::request::{Added, RequestError};
use crate::site::{Refusal, Site};

mod batch;
mod freeze;
mod readings;
mod slots;
pub use batch::Batch;
use readings::Readings;
pub use readings::{MeterRead, MeterSlot, ReadingsMode};
use slots::{Known, Orphan, Slots};
pub use slots::{NotTaken, Slot};

/// Most requests that may wait at one box.
const WAITING_MAX: usize = 65_536;

/// What was counted here and is not yet in a batch.
#[derive(Debug)]
pub struct Accumulator {
    inner: Mutex<Inner>,
    clock: Arc<SiteClock>,
    /// Who is asked what the site knows of a name: locked while the accumulator is, never the other way round.
    site: Option<Arc<Mutex<Site>>>,
    wake: Notify,
}

/// What the site's settings allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The span of the shortest windows.
    pub base: Span,
    /// How long after its end a window is closed, in milliseconds.
    pub grace_ms: u64,
    /// How many names that the site does not know may be here at once.
    pub names_max: usize,
    /// How many bytes the name of a new series may have.
    pub name_bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    slots: Slots,
    waiting: Vec<Waiting>,
    waiting_id: u64,
    /// Counts what comes in, where its order matters: see `slots::Cell`.
    arrivals: u64,
    limits: Limits,
    /// Adds that would have overflowed their cell and were refused here.
    overflowed: u64,
    readings: Readings,
    /// Of how many changes of names this box knew when it looked last.
    name_changes: u32,
    /// What was counted for series under names that they had until then.
    orphans: Vec<Orphan>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    slot: Slot,
    window: SiteTime,
    amount: Amount,
    arrival: u64,
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
    site: Option<&'a Mutex<Site>>,
    now: SiteTime,
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

impl Limits {
    /// Applies the site's present settings.
    pub fn of(site: &Site) -> Limits {
        let settings = site.settings();
        Limits {
            base: settings.window_base(),
            grace_ms: settings.window_grace_ms(),
            names_max: usize::try_from(settings.series_max()).unwrap_or(usize::MAX),
            name_bytes_max: site.name_bytes_max(),
        }
    }
}

impl Accumulator {
    /// An empty one, for which no name is known to the site.
    pub fn new(clock: Arc<SiteClock>, limits: Limits) -> Accumulator {
        let inner = Inner {
            slots: Slots::default(),
            waiting: Vec::new(),
            waiting_id: 0,
            arrivals: 0,
            limits,
            overflowed: 0,
            readings: Readings::default(),
            name_changes: 0,
            orphans: Vec::new(),
        };
        Accumulator { inner: Mutex::new(inner), clock, site: None, wake: Notify::new() }
    }

    /// Asks this site what it knows. Whoever holds its lock must not call anything here.
    #[must_use]
    pub fn asking(self, site: Arc<Mutex<Site>>) -> Accumulator {
        Accumulator { site: Some(site), ..self }
    }

    /// One lock for many adds that nobody waits for. Never hold it across an await.
    pub fn lock(&self) -> Bulk<'_> {
        let now = self.clock.site();
        let inner = self.guard();
        let window = inner.limits.base.start_of(now);
        Bulk { inner, site: self.site.as_deref(), now, window }
    }

    /// Takes an add whose client waits. `key`: the hash of its idempotency key, and the check.
    ///
    /// # Errors
    /// Why it is not taken; nothing was changed.
    pub fn add_waiting(
        &self,
        name: SeriesName<'_>,
        amount: Amount,
        key: Option<(u128, u64)>,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), RequestError> {
        let taken = self.clock.elapsed_applied();
        let mut bulk = self.lock();
        if bulk.inner.waiting.len() >= WAITING_MAX {
            return Err(RequestError::TooBusy);
        }
        let slot = bulk.slot(name, amount.kind())?;
        let Bulk { mut inner, window, .. } = bulk;
        inner.slots.wait(slot)?;
        let (answer, receiver) = oneshot::channel();
        inner.waiting_id += 1;
        inner.arrivals += 1;
        let (id, arrival) = (inner.waiting_id, inner.arrivals);
        let key = key.map(|(hash, check)| Key { hash, check, taken });
        inner.waiting.push(Waiting { id, slot, window, amount, arrival, key, answer });
        drop(inner);
        self.wake.notify_one();
        Ok((id, receiver))
    }

    /// Withdraws a waiting add, unless its batch is already frozen.
    pub fn withdraw(&self, id: u64) -> Withdrawn {
        let mut inner = self.guard();
        match inner.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            Ok(place) => {
                let Waiting { slot, .. } = inner.waiting.remove(place);
                inner.slots.wait_no_more(slot);
                Withdrawn::BeforeItsBatch
            }
            Err(_) if deliberate::is(Bug::WithdrawsTooLate) => Withdrawn::BeforeItsBatch,
            Err(_) => Withdrawn::TooLate,
        }
    }

    /// Withdraws all waiting adds that are in no batch, because there has been no leader for long, or the box stops.
    pub fn give_up_waiting(&self, why: &str) {
        let mut inner = self.guard();
        let waiting = mem::take(&mut inner.waiting);
        for Waiting { slot, answer, .. } in waiting {
            inner.slots.wait_no_more(slot);
            let error = RequestError::NotCommitted { why: why.to_owned() };
            // The client may have gone.
            let _ = answer.send(Outcome::Failed(error));
        }
    }

    /// Returns when a waiting add has come since the last call.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What waits.
    pub fn backlog(&self) -> Backlog {
        let inner = self.guard();
        Backlog {
            waiting: inner.waiting.len(),
            cells: inner.slots.dirty_count() + inner.readings.waiting() + inner.orphans.len(),
            left_over: !inner.orphans.is_empty() || inner.slots.left_over() || inner.readings.left_over(),
        }
    }

    /// The number of waiting or merged adds that were refused because they would have overflowed their cell.
    pub fn overflowed(&self) -> u64 {
        self.guard().overflowed
    }

    /// Follows the site's settings.
    pub fn configure(&self, limits: Limits) {
        self.guard().limits = limits;
    }

    /// Whether the site takes readings of meters; called when this box knows the site as it is.
    pub fn set_readings_mode(&self, mode: ReadingsMode) {
        self.guard().readings.mode = mode;
    }

    /// The batch in flight is settled: learns how the site numbers its series, and of what kind they are. The places of
    /// those that it does not know are free for others again.
    pub fn settle(&self, batch: &mut Batch) {
        let mut inner = self.guard();
        let site = self.site.as_ref().map(|site| site.lock().unwrap_or_else(PoisonError::into_inner));
        inner
            .slots
            .settle(|name| site.as_ref().map_or(Known::Nothing { room: true }, |site| Known::to(site, name)));
        batch.learn(|slot| inner.slots.series(slot));
    }

    /// Follows removals and new names of series. What was counted here for a series that was removed, by nobody who
    /// waits, is dropped: how many cells. Whoever waits counts for the series that has the name from now on.
    pub fn follow_names(&self) -> u64 {
        let mut inner = self.guard();
        let Some(site) = &self.site else { return 0 };
        let site = site.lock().unwrap_or_else(PoisonError::into_inner);
        let as_of = std::mem::replace(&mut inner.name_changes, site.name_changes());
        if as_of == site.name_changes() {
            return 0;
        }
        let Inner { slots, orphans, .. } = &mut *inner;
        let before = orphans.len() as u64;
        orphans.retain(|orphan| site.is_still(orphan.id, as_of));
        let gone = before - orphans.len() as u64;
        gone + slots.follow_names(&site, as_of, orphans)
    }

    /// Takes out all that is pending: name, window and amount, in the order of a batch.
    #[cfg(test)]
    pub(crate) fn drain(&self) -> Vec<(String, SiteTime, Amount)> {
        let mut inner = self.guard();
        let mut drained = Vec::new();
        while let Some((slot, cell)) = inner.slots.take_cell() {
            drained.push((inner.slots.name(slot).unwrap_or_default().to_owned(), cell.window, cell.amount));
        }
        drained
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics while holding the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bulk<'_> {
    /// Site time when the lock was taken, as this box sees it.
    pub fn now(&self) -> SiteTime {
        self.now
    }

    /// The slot of a series, made if it is new. A name that the site knows always gets one.
    ///
    /// # Errors
    /// The series is of another kind, or it is new and there is no room for it here or at the site.
    pub fn slot(&mut self, name: SeriesName<'_>, kind: Kind) -> Result<Slot, NotTaken> {
        let Inner { slots, limits, .. } = &mut *self.inner;
        let site = self.site;
        slots.of(name, kind, limits, |name| {
            site.map_or(Known::Nothing { room: true }, |site| {
                Known::to(&site.lock().unwrap_or_else(PoisonError::into_inner), name)
            })
        })
    }

    /// Counts `n` more on a counter. The hot path: no lookup, no allocation.
    ///
    /// # Errors
    /// See [`Bulk::add`].
    #[inline]
    pub fn count(&mut self, slot: Slot, n: u64) -> Result<(), NotTaken> {
        if self.inner.slots.count(slot, self.window, n) {
            return Ok(());
        }
        self.add(slot, Amount::Counter(u128::from(n)))
    }

    /// Adds an amount to the window that is open now.
    ///
    /// # Errors
    /// The series is of another kind, its sum would overflow, or its slot was given to another.
    pub fn add(&mut self, slot: Slot, amount: Amount) -> Result<(), NotTaken> {
        self.inner.add(slot, self.window, amount)
    }

    /// Adds an amount to the window that `at` is in: see [`Bulk::open_at`].
    ///
    /// # Errors
    /// See [`Bulk::add`].
    pub fn add_at(&mut self, slot: Slot, at: SiteTime, amount: Amount) -> Result<(), NotTaken> {
        let window = self.inner.limits.base.start_of(at);
        self.inner.add(slot, window, amount)
    }

    /// Whether the window of this series that `at` is in is still open, as this box sees site time: it began, and its
    /// end and the grace are not over.
    pub fn open_at(&self, slot: Slot, at: SiteTime) -> bool {
        let Limits { base, grace_ms, .. } = self.inner.limits;
        let is_open = |span: Span| span.end_of(span.start_of(at)).0.saturating_add(grace_ms) > self.now.0;
        if at > self.now {
            return false;
        }
        // Most series have the shortest span; only of others the site needs to be asked.
        is_open(base)
            || self.site.is_some_and(|site| {
                let site = site.lock().unwrap_or_else(PoisonError::into_inner);
                self.inner.slots.name(slot).is_some_and(|name| is_open(site.settings().span_for(name)))
            })
    }
}

impl Inner {
    fn add(&mut self, slot: Slot, window: SiteTime, amount: Amount) -> Result<(), NotTaken> {
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.add_arrived(slot, window, amount, arrival)
    }

    fn add_arrived(
        &mut self,
        slot: Slot,
        window: SiteTime,
        amount: Amount,
        arrival: u64,
    ) -> Result<(), NotTaken> {
        let added = self.slots.add(slot, window, amount, arrival);
        self.overflowed += u64::from(added == Err(NotTaken::Refused(Refusal::Overflow)));
        added
    }
}

#[cfg(test)]
#[path = "accumulator_tests.rs"]
mod tests;
