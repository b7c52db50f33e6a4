//! Who was ever provisioned for the site, as `tallyd provision` and `tallyd provision --extend` write it down.

use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;
use tallyd::identity::{Identity, MEMBERS_MAX, MemberRecord};

use crate::boxes::SITE_ID;
use crate::plan::Plan;
use crate::witnesses::{FIRST_WITNESS, is_witness};

#[derive(Debug, Default)]
pub(crate) struct Roster {
    provisioned: Vec<MemberRecord>,
    /// So many more may come.
    comers: u64,
}

impl Roster {
    pub(crate) fn new(plan: &Plan) -> Roster {
        let witness = plan.founds_witness().then(|| record(FIRST_WITNESS, MemberRole::Witness));
        let founders = (1..=plan.boxes).map(|id| record(id, MemberRole::Voter)).chain(witness);
        Roster { provisioned: founders.collect(), comers: plan.comers }
    }

    /// The identities that the site is founded with, by number.
    pub(crate) fn founders(&self, plan: &Plan) -> Vec<Identity> {
        let identity = |member: &MemberRecord| identity(plan, member.id, self.provisioned.clone());
        self.provisioned.iter().map(identity).collect()
    }

    /// Whether a box has no successor yet.
    pub(crate) fn knows(&self, id: NodeId) -> bool {
        self.provisioned.iter().any(|member| member.id == id)
    }

    /// A further box, or one in the place of another; none if as many have come as were to.
    pub(crate) fn extend(&mut self, plan: &Plan, replaces: Option<&str>) -> Option<Identity> {
        self.comers = self.comers.checked_sub(1)?;
        let boxes = self.provisioned.iter().map(|member| member.id).filter(|id| !is_witness(*id));
        let id = boxes.map(|id| id.0).max().unwrap_or(0) + 1;
        let mut made = record(id, MemberRole::Observer);
        if let Some(name) = replaces
            && let Some(place) = self.provisioned.iter().position(|member| member.name == name)
        {
            let old = self.provisioned.remove(place);
            (made.name, made.address) = (old.name, old.address);
        }
        // It follows in silence until the site's leader says more; the newest of the others are enough.
        let mut members = self.provisioned.clone();
        members.retain(|member| !is_witness(member.id));
        members.drain(..members.len().saturating_sub(MEMBERS_MAX - 1));
        members.push(made.clone());
        self.provisioned.push(MemberRecord { role: MemberRole::Voter, ..made });
        Some(identity(plan, NodeId(id), members))
    }
}

/// A witness that comes to a site that has none, after so many others.
pub(crate) fn witness(plan: &Plan, others: usize, boxes: &[MemberRecord]) -> Identity {
    let own = record(FIRST_WITNESS + others as u64, MemberRole::Witness);
    let boxes = boxes.iter().map(|member| MemberRecord { role: MemberRole::Voter, ..member.clone() });
    identity(plan, own.id, boxes.chain([own.clone()]).collect())
}

fn record(id: u64, role: MemberRole) -> MemberRecord {
    // One that replaces another has its name.
    let name = if role == MemberRole::Witness { "witness".to_owned() } else { format!("box{id}") };
    MemberRecord {
        id: NodeId(id),
        name,
        address: format!("10.0.0.{id}:7400"),
        role,
        key: KeyHash([id as u8; 32]),
    }
}

fn identity(plan: &Plan, node: NodeId, members: Vec<MemberRecord>) -> Identity {
    Identity {
        site: "simulated".to_owned(),
        site_id: SITE_ID,
        node: node.0,
        window_ms: plan.window_ms,
        level: plan.level,
        members,
    }
}
