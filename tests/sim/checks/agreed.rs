//! Agreed members: after the same entry all boxes name the same members, with the same roles, and the same
//! configuration in force, whether they applied the log or took a snapshot; somebody votes, and who was taken out is
//! not named again.

use std::collections::BTreeMap;
use std::rc::Rc;

use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::MemberRole;
use tallyd::identity::MemberRecord;
use tallyd::site::{ConfigurationRecord, Site};

#[derive(Debug, PartialEq, Eq)]
struct Agreed {
    members: Vec<MemberRecord>,
    leaving: Vec<MemberRecord>,
    in_force: Option<ConfigurationRecord>,
}

#[derive(Debug, Default)]
pub(crate) struct AgreedMembers {
    /// After each entry after which a box was looked at, and by whom first.
    after: BTreeMap<LogIndex, (Rc<Agreed>, NodeId)>,
    /// What each box has shown last.
    seen: BTreeMap<NodeId, (LogIndex, Rc<Agreed>)>,
    /// Numbers that were taken out, and after which entry that was known.
    gone: BTreeMap<NodeId, LogIndex>,
}

impl AgreedMembers {
    /// Looks at a box; whether it shows others than when it was looked at last.
    pub(crate) fn look(&mut self, at: NodeId, site: &Site) -> bool {
        let index = site.applied();
        let before = self.seen.get(&at);
        if before.is_some_and(|(of, _)| *of == index) {
            return false;
        }
        let shows = |agreed: &Agreed| {
            agreed.members == site.members()
                && agreed.leaving == site.members_leaving()
                && agreed.in_force.as_ref() == site.configuration()
        };
        let same = before.map(|(_, agreed)| agreed).filter(|agreed| shows(agreed)).cloned();
        let has_changed = same.is_none();
        let now = same.unwrap_or_else(|| {
            Rc::new(Agreed {
                members: site.members().to_vec(),
                leaving: site.members_leaving().to_vec(),
                in_force: site.configuration().cloned(),
            })
        });
        let (first, by) = self.after.entry(index).or_insert_with(|| (now.clone(), at));
        assert!(
            Rc::ptr_eq(first, &now) || *first == now,
            "agreed members: {by} and {at} differ after entry {index}: {first:?} and {now:?}"
        );
        if has_changed {
            self.judge(index, &now);
        }
        self.seen.insert(at, (index, now));
        has_changed
    }

    fn judge(&mut self, index: LogIndex, now: &Agreed) {
        let votes = |member: &MemberRecord| member.role == MemberRole::Voter;
        assert!(
            now.members.is_empty() || now.members.iter().any(votes),
            "agreed members: nobody is to vote after entry {index}: {now:?}"
        );
        for member in &now.members {
            let gone = self.gone.get(&member.id).filter(|since| **since < index);
            assert!(
                gone.is_none(),
                "agreed members: {member:?} was taken out, and is named again at {index}"
            );
        }
        for member in &now.leaving {
            let since = self.gone.entry(member.id).or_insert(index);
            *since = index.min(*since);
        }
    }
}
