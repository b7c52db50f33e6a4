//! Who can be in a group, and as what.

use crate::id::NodeId;

/// The role of a member in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum MemberRole {
    /// Votes and is counted.
    Voter,
    /// Replicates only.
    Observer,
    /// Votes, has no log and keeps a few tens of bytes; see [`Witness`](super::Witness).
    Witness,
}

impl MemberRole {
    /// All roles.
    pub const ALL: [MemberRole; 3] = [MemberRole::Voter, MemberRole::Observer, MemberRole::Witness];

    /// The role as people and programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberRole::Voter => "voter",
            MemberRole::Observer => "observer",
            MemberRole::Witness => "witness",
        }
    }
}

/// A member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// As what.
    pub role: MemberRole,
}
