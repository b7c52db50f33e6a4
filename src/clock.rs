//! The box's clocks, and its view of site time.

use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tally_core::time::{Elapsed, SiteTime};

/// This box's wall clock as Unix milliseconds.
pub fn wall_ms() -> u64 {
    // A clock before 1970 is as good as unset.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_millis() as u64)
}

/// What this box takes for site time: the last word of a leader, moved on by the monotonic clock.
/// Never goes back, and never runs ahead of what a leader said plus the time since.
#[derive(Debug)]
pub struct SiteClock {
    view: Mutex<View>,
}

#[derive(Clone, Copy, Debug)]
struct View {
    site: SiteTime,
    elapsed: Elapsed,
    heard: Instant,
    synced: bool,
}

impl SiteClock {
    /// A view that starts at a known site time (zero: nothing known yet).
    pub fn new(site: SiteTime, elapsed: Elapsed) -> SiteClock {
        SiteClock { view: Mutex::new(View { site, elapsed, heard: Instant::now(), synced: false }) }
    }

    /// What a leader (this box, perhaps) just said.
    pub fn hear(&self, site: SiteTime, synced: bool) {
        let mut view = self.lock();
        let now = Instant::now();
        let here = view.site_at(now);
        view.site = here.max(site);
        view.heard = now;
        view.synced = synced;
    }

    /// Elapsed time as last applied from the log.
    pub fn applied(&self, elapsed: Elapsed) {
        self.lock().elapsed = elapsed;
    }

    /// Site time now, as this box sees it.
    pub fn site(&self) -> SiteTime {
        self.lock().site_at(Instant::now())
    }

    /// Whether the leader's clock was synchronised when last heard.
    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    /// Elapsed time as last applied: what keyed adds carry.
    pub fn elapsed_applied(&self) -> Elapsed {
        self.lock().elapsed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, View> {
        // Nothing in here panics while holding the lock.
        self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl View {
    fn site_at(&self, now: Instant) -> SiteTime {
        if self.site == SiteTime(0) {
            // No leader has said anything yet: this box's own clock is the best guess.
            return SiteTime(wall_ms());
        }
        SiteTime(self.site.0 + now.saturating_duration_since(self.heard).as_millis() as u64)
    }
}

/// Whether a time service keeps this box's wall clock. `systemd-timesyncd` and `chrony` under systemd
/// leave a mark; without one nothing is claimed.
pub fn wall_is_synced() -> bool {
    ["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.pid", "/run/ntpd.pid"]
        .iter()
        .any(|mark| std::path::Path::new(mark).exists())
}
