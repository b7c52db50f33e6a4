//! The plan of a history: everything that the seed decides before it begins.

use std::time::Duration;

use tallyd::site::Level;

use crate::broker::BrokerPlan;
use crate::rng::Rng;

/// Microseconds of simulated time.
pub(crate) type Micros = u64;

pub(crate) const SECOND: Micros = 1_000_000;

/// A number as a place or a count.
pub(crate) fn size(number: u64) -> usize {
    usize::try_from(number).expect("places and counts are small here")
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) boxes: u64,
    /// How long faults are injected.
    pub(crate) trouble: Micros,
    /// Between one trouble and the next, on average.
    pub(crate) calm: Micros,
    pub(crate) loss_permille: u64,
    pub(crate) duplicate_permille: u64,
    pub(crate) delay_max: Micros,
    pub(crate) sync_max: Micros,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) commit_interval: Duration,
    pub(crate) segment_bytes: u64,
    pub(crate) keep_entries: u64,
    pub(crate) window_ms: u64,
    pub(crate) level: u32,
    pub(crate) adders: u64,
    pub(crate) reporters: u64,
    pub(crate) counts_every: Micros,
    /// Meters that a box polls, and those that two gateways hear.
    pub(crate) pollers: u64,
    pub(crate) gateways: u64,
    /// Limits are set so low that they are reached.
    pub(crate) is_narrow: bool,
    /// A box is started for the first time when the others are at work.
    pub(crate) is_late: bool,
    /// The site stands still for so long before anybody uses it.
    pub(crate) sleeps: Option<Micros>,
    /// Whether the boards have clocks that go on without power.
    pub(crate) has_clocks: bool,
    /// Between one change of the members and the next, on average, if they change; and how many boxes may come.
    pub(crate) changes_every: Option<Micros>,
    pub(crate) comers: u64,
    /// Whether a witness is provisioned, at the founding if the boxes are even in number.
    pub(crate) has_witness: bool,
    pub(crate) broker: BrokerPlan,
    /// Clients whose series an operator removes and renames.
    pub(crate) fading: u64,
    /// The disk of a site of one box is put back to an older image.
    pub(crate) put_back: bool,
}

impl Plan {
    /// Whether the site begins with a witness.
    pub(crate) fn founds_witness(&self) -> bool {
        self.has_witness && self.boxes.is_multiple_of(2)
    }

    pub(crate) fn new(rng: &mut Rng) -> Plan {
        Plan {
            boxes: rng.pick(&[1, 2, 3, 3, 3, 4, 5]),
            trouble: rng.between(4, 12) * SECOND,
            calm: rng.between(200_000, 2 * SECOND),
            loss_permille: rng.pick(&[0, 5, 50]),
            duplicate_permille: rng.pick(&[0, 20]),
            delay_max: rng.pick(&[300, 3_000, 20_000]),
            sync_max: rng.pick(&[200, 4_000, 30_000]),
            snapshot_log_bytes: rng.pick(&[8_000, 60_000, 1 << 20]),
            commit_interval: Duration::from_millis(rng.pick(&[50, 200, 1000])),
            segment_bytes: rng.pick(&[3, 4, 16]) * 4096,
            keep_entries: rng.pick(&[0, 5, 100]),
            window_ms: rng.pick(&[500, 1000, 3000]),
            level: rng.pick(&[1, 2, 3, 4, 4, 4]),
            adders: rng.between(1, 3),
            reporters: rng.between(0, 2),
            counts_every: rng.pick(&[20_000, 100_000, 500_000]),
            pollers: rng.between(0, 2),
            gateways: rng.between(0, 1),
            is_narrow: rng.chance(150),
            is_late: rng.chance(200),
            sleeps: rng.chance(100).then(|| rng.between(3_600, 9_000) * SECOND),
            has_clocks: rng.chance(850),
            changes_every: rng.chance(400).then(|| rng.between(150_000, 1_500_000)),
            comers: rng.between(1, 4),
            has_witness: rng.chance(550),
            broker: BrokerPlan::new(rng),
            fading: if rng.chance(300) { rng.between(1, 3) } else { 0 },
            put_back: rng.chance(50),
        }
    }

    /// One box at the newest level, with nothing that is followed over its whole life.
    pub(crate) fn of_put_back(self) -> Plan {
        Plan {
            boxes: 1,
            level: Level::MAX.get(),
            pollers: 0,
            gateways: 0,
            has_witness: false,
            is_narrow: false,
            is_late: false,
            sleeps: None,
            changes_every: None,
            fading: 0,
            put_back: true,
            ..self
        }
    }
}
