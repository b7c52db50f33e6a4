//! Sets of a configuration's members, a bit each.

use super::configuration::CONFIGURATION_MEMBERS_MAX;
use crate::id::NodeId;

/// A set of places in a configuration's list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Set(u16);

impl Set {
    pub(super) const NONE: Set = Set(0);

    pub(super) const fn of(place: usize) -> Set {
        Set(1 << place)
    }

    pub(super) const fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    #[inline(never)]
    pub(super) const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn with(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub(super) const fn both(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    /// A place was put in; nobody is there.
    pub(super) const fn widened(self, place: usize) -> Set {
        let below = (1 << place) - 1;
        Set((self.0 & below) | ((self.0 & !below) << 1))
    }

    /// A place was taken out.
    pub(super) const fn narrowed(self, place: usize) -> Set {
        let below = (1 << place) - 1;
        Set((self.0 & below) | ((self.0 >> 1) & !below))
    }
}

/// The members of a set, ascending.
#[derive(Clone, Debug)]
pub(super) struct Named<'a> {
    ids: &'a [NodeId; CONFIGURATION_MEMBERS_MAX],
    set: Set,
}

impl Named<'_> {
    pub(super) const fn new(ids: &[NodeId; CONFIGURATION_MEMBERS_MAX], set: Set) -> Named<'_> {
        Named { ids, set }
    }
}

impl Iterator for Named<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let place = self.set.0.trailing_zeros() as usize;
        // The lowest one is taken out.
        self.set = Set(self.set.0 & self.set.0.wrapping_sub(1));
        self.ids.get(place).copied()
    }
}
