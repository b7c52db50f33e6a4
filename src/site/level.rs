//! The feature level: the rules by which the entries of a site's log are applied.
//!
//! A box of an older release must never meet an entry that it cannot read, nor apply one otherwise
//! than its neighbours. So what is new in a release (kinds of entries, settings, rules) is in force
//! only from a level on, and the level is replicated: a leader raises it by an entry once every
//! member has said that it can.

use tally_core::id::{SERIES_NAME_BYTES_FIRST_MAX, SERIES_NAME_BYTES_MAX};
use tally_core::report::Ties;

use super::Site;
use super::digest::mix;

/// A feature level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// The rules before there were levels.
    pub const ONE: Level = Level(1);
    /// Meters; signed adds whose kind is decided where they are applied; set-aside summaries; the
    /// latest sample by time and arrival; bounds of samples; a box's own amounts are never refused
    /// for a clock, a box never for a full table of sources; `clock step` back lowers the watermark;
    /// names of up to 200 bytes.
    pub const TWO: Level = Level(2);
    /// Join tokens, and members who came by them.
    pub const THREE: Level = Level(3);
    /// Series are removed and renamed, and say since when they count. Meters follow jumps of site time.
    pub const FOUR: Level = Level(4);
    /// Access tokens of the API.
    pub const FIVE: Level = Level(5);
    /// The highest level that this program supports.
    pub const MAX: Level = Level::FIVE;

    /// Makes a level; `None` for zero.
    #[must_use]
    pub const fn new(level: u32) -> Option<Level> {
        if level == 0 { None } else { Some(Level(level)) }
    }

    /// The level as a number, 1 or more.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Level {
    fn default() -> Level {
        Level::ONE
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Site {
    /// The feature level in force.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How many bytes the name of a new series may have.
    #[must_use]
    pub fn name_bytes_max(&self) -> usize {
        if self.level >= Level::TWO { SERIES_NAME_BYTES_MAX } else { SERIES_NAME_BYTES_FIRST_MAX }
    }

    /// Raises the level; a lower one, which a delayed copy may bring, changes nothing.
    pub(super) fn raise_level(&mut self, level: Level) {
        if level <= self.level {
            return;
        }
        self.digest = mix(self.digest, u64::from(level.get()));
        if self.level < Level::FOUR && level >= Level::FOUR {
            self.leap.begin_term(self.stamp);
        }
        self.set_level(level);
    }

    /// Sets the rules of a level in all parts of the state.
    pub(super) fn set_level(&mut self, level: Level) {
        self.level = level;
        self.sources.level = level;
        let ties = if level >= Level::TWO { Ties::Later } else { Ties::Larger };
        self.table.ties = ties;
        self.outbox.ties = ties;
        self.history.ties = ties;
    }
}
