//! Votes that wait. One voter and a second one tolerate as little as one, twice as often: so a box that joined by a token
//! gets its vote only where that helps. And the vote of a box that is replaced stays until its successor can vote.

use tally_core::id::NodeId;
use tally_core::raft::{Change, Configuration, MemberRole};

use super::Node;

/// What holds up some of what the site wishes.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Observers that are to vote and cannot yet.
    pub(super) lagging: Vec<NodeId>,
    /// Members whose vote waits until it helps.
    pub(super) patient: Vec<NodeId>,
    /// Removed voters that stay until those who take their places can vote.
    pub(super) staying: Vec<NodeId>,
    /// A witness is wished for that can take its place now.
    pub(super) has_witness: bool,
    /// A witness is wished for that cannot.
    pub(super) awaits_witness: bool,
}

impl Holds {
    /// Whether nothing changes until somebody asks for a change.
    pub(super) fn is_over(&self) -> bool {
        let nobody_waits = self.patient.is_empty() || !self.awaits_witness;
        self.lagging.is_empty() && self.staying.is_empty() && nobody_waits
    }

    /// Whose votes come in now, of those that wait: as many as make an odd number of voters, or all of them where a
    /// witness stands beside an even one.
    pub(super) fn votes_that_help<'a>(
        &self,
        configuration: &Configuration,
        changes: &[Change],
        waiting: &'a [NodeId],
    ) -> impl Iterator<Item = NodeId> + use<'a> {
        let votes = |id: NodeId| configuration.role(id) == Some(MemberRole::Voter);
        let mut voters = configuration.ids().filter(|id| votes(*id)).count();
        for change in changes {
            match *change {
                Change::Promote(_) => voters += 1,
                Change::Demote(id) | Change::Remove(id) if votes(id) => voters -= 1,
                _ => {}
            }
        }
        let all = waiting.len();
        let is_odd = !(voters + all).is_multiple_of(2);
        let helping = if is_odd || self.has_witness { all } else { all.saturating_sub(1) };
        waiting.iter().take(helping).copied()
    }
}

/// Why the vote of a box waits, for people.
pub(super) fn why_it_waits(name: &str, voters: usize) -> String {
    let (for_whom, needed) = if voters < 2 { ("a third", "then both are needed") } else { ("another", "") };
    let needed = if needed.is_empty() { String::new() } else { format!(" ({needed})") };
    format!(
        "{name} holds all counts and waits for {for_whom} box or a witness to vote; `tallyd member promote {name}` \
         makes it vote now{needed}"
    )
}

impl Node {
    /// What holds up the wishes: asked of the core, by way of what it knows, and of the site.
    pub(super) fn holds(&self, configuration: &Configuration, wishes: &[(NodeId, MemberRole)]) -> Holds {
        let status = self.raft.status();
        let me = self.shared.identity.node_id();
        let (patient, replacements) = {
            let site = self.site();
            (site.patient_members().collect::<Vec<_>>(), site.replacements().collect::<Vec<_>>())
        };
        let peer = |id: NodeId| status.peers.iter().find(|peer| peer.id == id);
        let answers = |id: NodeId| id == me || peer(id).is_some_and(|peer| peer.active);
        let lags = |id: NodeId| peer(id).is_none_or(|peer| !peer.caught_up);
        let is_voter = |id: NodeId| wishes.contains(&(id, MemberRole::Voter));
        let to_promote = wishes
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| is_voter(*id) && configuration.role(*id) == Some(MemberRole::Observer));
        // A vote that is to help is none of a box that is away.
        let lagging = to_promote.filter(|id| lags(*id) || (patient.contains(id) && !answers(*id))).collect();
        let stays = |new: NodeId, old: NodeId| {
            let can_vote = match configuration.role(new) {
                None => false,
                Some(MemberRole::Observer) => !lags(new),
                Some(MemberRole::Voter | MemberRole::Witness) => true,
            };
            configuration.role(old) == Some(MemberRole::Voter) && is_voter(new) && !can_vote && answers(old)
        };
        let staying =
            replacements.iter().filter(|(new, old)| stays(*new, *old)).map(|(_, old)| *old).collect();
        let witness = wishes.iter().find(|(_, role)| *role == MemberRole::Witness).map(|(id, _)| *id);
        let has_witness =
            witness.is_some_and(|id| configuration.witness() == Some(id) || self.connected.contains(&id));
        let awaits_witness = witness.is_some() && !has_witness;
        Holds { lagging, patient, staying, has_witness, awaits_witness }
    }

    /// Whose votes wait, as far as this box can tell: of those that are reached and have caught up, the ones that would
    /// not help if they voted now. The others vote in a moment.
    pub(super) fn waiting_votes(&self, is_reached: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let (configuration, status) = (self.raft.configuration(), self.raft.status());
        let (mut waiting, witness, leaving) = {
            let site = self.site();
            let members = site.members();
            let is_voter =
                |id: NodeId| members.iter().any(|member| member.id == id && member.role == MemberRole::Voter);
            let waiting: Vec<NodeId> = site.patient_members().filter(|id| is_voter(*id)).collect();
            let witness = members.iter().find(|member| member.role == MemberRole::Witness);
            let leaving = site.replacements().map(|(_, old)| Change::Remove(old)).collect::<Vec<_>>();
            (waiting, witness.map(|member| member.id), leaving)
        };
        waiting.retain(|id| {
            let peer = status.peers.iter().find(|peer| peer.id == *id);
            configuration.role(*id) == Some(MemberRole::Observer)
                && is_reached(*id)
                && peer.is_none_or(|peer| peer.caught_up)
        });
        let has_witness =
            witness.is_some_and(|id| configuration.witness() == Some(id) || self.connected.contains(&id));
        let holds = Holds { has_witness, ..Holds::default() };
        let helping: Vec<NodeId> = holds.votes_that_help(configuration, &leaving, &waiting).collect();
        waiting.retain(|id| !helping.contains(id));
        waiting
    }
}

#[cfg(test)]
#[path = "votes_tests.rs"]
mod tests;
