//! The box's clocks: its wall clock and whether that is synchronised, and its view of site time.

#[cfg(debug_assertions)]
mod injected;
mod source;

pub use source::TimeSource;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tally_core::time::{Elapsed, SiteTime};

/// How often the system is asked whether the wall clock is synchronised.
const SYNCED_EVERY: Duration = Duration::from_secs(1);

/// The mark of `systemd-timesyncd`, which is used where the kernel cannot be asked.
const SYNCED_MARK: &str = "/run/systemd/timesync/synchronized";

/// This box's wall clock as Unix milliseconds.
pub fn wall_ms() -> u64 {
    wall_us() / 1000
}

/// This box's wall clock as Unix microseconds.
pub fn wall_us() -> u64 {
    // A clock before 1970 is as good as unset.
    let us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_micros() as u64);
    #[cfg(debug_assertions)]
    if let Some(injected) = injected::now() {
        return us.saturating_add_signed(injected.offset_ms.saturating_mul(1000));
    }
    us
}

/// Whether a time service synchronises this box's wall clock, according to the kernel. Where the kernel cannot be
/// asked, only timesyncd counts; nothing is assumed about other services.
pub(crate) fn wall_is_synced() -> bool {
    #[cfg(debug_assertions)]
    if let Some(injected) = injected::now() {
        return injected.synced;
    }
    kernel_says_synced().unwrap_or_else(|| Path::new(SYNCED_MARK).exists())
}

/// Asks the kernel, which all time services (timesyncd, chrony, ntpd, ntpd-rs) inform. `None`: it does not answer,
/// because of a seccomp filter, say.
fn kernel_says_synced() -> Option<bool> {
    // In microseconds. The kernel lets the greatest error that it believes in grow by 500 ppm from what
    // the last synchronisation left; at 16 s it holds the clock for not synchronised. (The condition
    // that systemd goes by, too.)
    Some(tally_clock_state::max_error_us().ok()? < 16_000_000)
}

/// A reading of a wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wall {
    /// Unix microseconds.
    pub us: u64,
    /// Whether a time service synchronises the clock.
    pub synced: bool,
}

/// The time of a wake, read once, so that everything in that wake uses the same time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the monotonic clock.
    pub now: Instant,
    /// By the wall clock.
    pub wall: Wall,
}

impl Moment {
    /// The wall clock as Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        self.wall.us / 1000
    }
}

/// The machine's clocks. They ask only now and then whether the wall clock is synchronised.
#[derive(Debug, Default)]
pub struct MachineClocks {
    checked: Option<(Instant, bool)>,
}

impl MachineClocks {
    /// Reads the clocks.
    pub fn read(&mut self) -> Moment {
        let now = Instant::now();
        let synced = match self.checked {
            Some((at, synced)) if now < at + SYNCED_EVERY => synced,
            _ => wall_is_synced(),
        };
        if self.checked.is_none_or(|(at, _)| now >= at + SYNCED_EVERY) {
            self.checked = Some((now, synced));
        }
        Moment { now, wall: Wall { us: wall_us(), synced } }
    }
}

/// The longest jump ahead that site time makes at once, in milliseconds; a longer jump is held until a majority confirms it.
pub(crate) const JUMP_MS_MAX: u64 = 3_600_000;

/// By delays and drift, and by what a leader slews between two words, the view is ahead of that leader's word by less,
/// in milliseconds.
const AHEAD_MS_MAX: u64 = 10_000;
/// So many words of a leader are believed after a step back, or where one may have been: some may have been under way
/// then, or are of a leader that has not applied it yet.
const WORDS_BELIEVED: u32 = 64;

/// This box's view of site time: the last time that a leader announced, advanced by the monotonic clock.
/// Never goes back (unless an operator says so), and runs ahead of what a leader said plus the time
/// since only for as long as that takes to catch up.
#[derive(Debug)]
pub struct SiteClock {
    time: TimeSource,
    began: Instant,
    view: Mutex<View>,
}

/// The last time that a leader announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderTime {
    /// Site time; zero: not known yet.
    pub site: SiteTime,
    /// Whether it is that of synchronised clocks.
    pub synced: bool,
    /// Where the clocks would have site time jump to, if that is held.
    pub held: Option<SiteTime>,
}

#[derive(Clone, Copy, Debug)]
struct View {
    told: LeaderTime,
    heard: Instant,
    /// The latest time that this view has returned.
    floor: SiteTime,
    /// So many more words of a leader are believed though they are far behind what was shown here.
    believed: u32,
    /// Elapsed time as last applied from the log; zero: nothing yet.
    applied: SiteTime,
    elapsed: Elapsed,
    /// When that entry was applied.
    applied_at: Instant,
}

impl SiteClock {
    /// Makes a view that starts at a known site time (zero: nothing known yet) and advances by this box's own clock.
    pub fn new(site: SiteTime, elapsed: Elapsed, time: TimeSource) -> SiteClock {
        let (told, now) = (LeaderTime { site, ..LeaderTime::default() }, time.now());
        let view = View {
            told,
            heard: now,
            floor: SiteTime(0),
            believed: 0,
            applied: site,
            elapsed,
            applied_at: now,
        };
        SiteClock { time, began: now, view: Mutex::new(view) }
    }

    /// Takes the time that a leader (perhaps this box) has just announced.
    pub fn hear(&self, told: LeaderTime) {
        if told.site == SiteTime(0) {
            return;
        }
        let mut view = self.lock();
        let now = self.time.now();
        if view.told.site > SiteTime(0) {
            view.floor = view.told_at(now);
        }
        if view.believed > 0 {
            view.believed -= 1;
            if view.floor.0 > told.site.0.saturating_add(AHEAD_MS_MAX) {
                view.floor = SiteTime(0);
            }
        }
        view.heard = now;
        view.told = told;
    }

    /// Takes the time that an operator has set, which may be back.
    pub fn stepped(&self, site: SiteTime) {
        let mut view = self.lock();
        let now = self.time.now();
        if site < self.site_of(&view) {
            view.believed = WORDS_BELIEVED;
        }
        view.floor = SiteTime(0);
        view.heard = now;
        view.told = LeaderTime { site, held: None, ..view.told };
    }

    /// Entries came as a snapshot, and an operator's step back may have been among them. Neither the state nor its
    /// time tells: that may be hours old and yet right. The leader, whose word follows soon, knows: whoever sends such
    /// a snapshot has applied the step. Without one its word is never far behind, but after this box was cut off for
    /// long while site time slewed; then following it here changes nothing that is agreed on.
    pub fn skipped(&self) {
        self.lock().believed = WORDS_BELIEVED;
    }

    /// Site time and elapsed time as last applied from the log.
    pub fn applied(&self, site: SiteTime, elapsed: Elapsed) {
        let mut view = self.lock();
        view.applied = site;
        view.elapsed = elapsed;
        view.applied_at = self.time.now();
    }

    /// Site time now, as this box sees it.
    pub fn site(&self) -> SiteTime {
        self.site_of(&self.lock())
    }

    /// Site time now, if any leader has ever said what it is.
    pub fn site_if_known(&self) -> Option<SiteTime> {
        let view = *self.lock();
        (view.told.site > SiteTime(0)).then(|| self.site_of(&view))
    }

    /// The same at this time by this box's monotonic clock.
    pub fn site_at(&self, now: Instant) -> Option<SiteTime> {
        let view = self.lock();
        (view.told.site > SiteTime(0)).then(|| view.told_at(now))
    }

    /// From when to when anything counted here since this process started can be: up to site time, or as long as
    /// no leader has told that up to what the log says. `None`: not even that is known.
    pub fn possible(&self) -> Option<(SiteTime, SiteTime)> {
        let applied = self.lock().applied;
        let known = self.site_if_known();
        let latest = known.or(Some(applied).filter(|applied| *applied > SiteTime(0)))?;
        let running_ms = self.time.now().saturating_duration_since(self.began).as_millis() as u64;
        Some((SiteTime(latest.0.saturating_sub(running_ms)), latest))
    }

    /// The leader's last announcement.
    pub fn leader_time(&self) -> LeaderTime {
        self.lock().told
    }

    /// Elapsed time as last applied: what keyed adds carry.
    pub fn elapsed_applied(&self) -> Elapsed {
        self.lock().elapsed
    }

    /// How long ago by this box's monotonic clock that was: in an idle site elapsed time goes on only now and then.
    pub fn elapsed_age(&self) -> Duration {
        self.time.now().saturating_duration_since(self.lock().applied_at)
    }

    /// This box's monotonic clock.
    pub fn now(&self) -> Instant {
        self.time.now()
    }

    /// This box's own wall clock, as Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        self.time.wall_ms()
    }

    fn site_of(&self, view: &View) -> SiteTime {
        // No leader has said anything yet: this box's own clock is the best guess.
        if view.told.site == SiteTime(0) { SiteTime(self.wall_ms()) } else { view.told_at(self.time.now()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, View> {
        // Nothing in here panics while holding the lock.
        self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl View {
    /// The leader's last announcement, advanced to now.
    fn told_at(&self, now: Instant) -> SiteTime {
        let passed_ms = now.saturating_duration_since(self.heard).as_millis() as u64;
        self.floor.max(SiteTime(self.told.site.0.saturating_add(passed_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(site: u64) -> LeaderTime {
        LeaderTime { site: SiteTime(site), synced: true, held: None }
    }

    #[test]
    fn the_view_never_goes_back_and_does_not_run_away_from_a_leader_that_slews() {
        let clock = SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default());
        assert_eq!(clock.site_if_known(), None);
        clock.hear(told(5_000_000));
        // A leader that stands still for a while: the view waits for it instead of adding up.
        let shown = clock.site();
        for _ in 0..1000 {
            clock.hear(told(4_000_000));
        }
        assert!(clock.site() >= shown);
        assert!(clock.site() < SiteTime(5_010_000), "{:?}", clock.site());
    }

    #[test]
    fn what_was_counted_is_of_the_time_since_the_start_as_far_as_that_is_known() {
        let clock = SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default());
        assert_eq!(clock.possible(), None, "this box's own clock may be years off");
        clock.applied(SiteTime(7_000_000), Elapsed(1));
        let (earliest, latest) = clock.possible().unwrap();
        assert!(latest == SiteTime(7_000_000) && earliest > SiteTime(6_900_000), "{earliest:?}");
        clock.hear(told(7_500_000));
        let (earliest, latest) = clock.possible().unwrap();
        assert!(latest >= SiteTime(7_500_000) && earliest > SiteTime(7_400_000), "{earliest:?}");
    }

    #[test]
    fn a_step_back_that_came_with_a_snapshot_is_learnt_from_the_leader() {
        let clock = SiteClock::new(SiteTime(9_000_000), Elapsed(0), TimeSource::default());
        clock.hear(told(9_000_000));
        clock.hear(told(1_000_000));
        assert!(clock.site() >= SiteTime(9_000_000), "without a reason it does not go back");
        clock.skipped();
        // A leader that has not applied the step yet is followed by one that has.
        clock.hear(told(9_000_000));
        clock.hear(told(1_000_000));
        assert!(clock.site() < SiteTime(2_000_000));
        (0..WORDS_BELIEVED).for_each(|_| clock.hear(told(1_000_000)));
        clock.hear(told(500_000));
        assert!(clock.site() >= SiteTime(1_000_000), "from then on it does not go back");
    }

    #[test]
    fn after_a_snapshot_the_view_goes_back_for_no_small_difference() {
        let clock = SiteClock::new(SiteTime(9_000_000), Elapsed(0), TimeSource::default());
        clock.hear(told(9_000_000));
        clock.skipped();
        clock.hear(told(9_000_000 - AHEAD_MS_MAX));
        assert!(clock.site() >= SiteTime(9_000_000));
    }

    #[test]
    fn a_word_that_was_under_way_during_a_step_back_does_not_undo_it() {
        let clock = SiteClock::new(SiteTime(9_000_000), Elapsed(0), TimeSource::default());
        clock.hear(told(9_000_000));
        clock.stepped(SiteTime(1_000_000));
        clock.hear(told(9_000_000));
        clock.hear(told(1_000_000));
        assert!(clock.site() < SiteTime(2_000_000));
    }

    #[test]
    fn an_operator_can_set_it_back() {
        let clock = SiteClock::new(SiteTime(9_000_000), Elapsed(0), TimeSource::default());
        clock.hear(told(9_000_000));
        clock.stepped(SiteTime(1_000_000));
        assert!(clock.site() < SiteTime(2_000_000));
        clock.hear(told(1_000_000));
        assert!(clock.site() < SiteTime(2_000_000));
    }
}
