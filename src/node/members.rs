//! The members: the leader brings what the site agreed on into force, step by step. A change is first replicated as a
//! wish; the leader compares wishes with the configuration and makes the next step. So no step is lost with a leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{
    Change, Configuration, ConfigurationEntry, ConfigurationError, ConfigurationParts, Leave, Member,
    MemberRole, MembershipError, Position,
};
use tracing::{info, warn};

use super::Node;
use super::votes::Holds;
use super::wire::Frame;
use crate::deliberate::{self, Bug};
use crate::dropped::Reason;
use crate::identity::{Identity, MEMBERS_MAX};
use crate::site::{ConfigurationRecord, Envelope, MemberRecord, Part, Site, entry};
use crate::storage::Entry;
use crate::transport::Lane;

/// While a step is to be made it is tried this often.
const STEP_EVERY: Duration = Duration::from_millis(20);
/// While all that is left waits for somebody (a box that is not started, perhaps for days) is looked this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// No log becomes that long; the core believes no index from here on either.
const TOLD_INDEX_LIMIT: u64 = 1 << 62;

/// The members as this box knows them, beyond the core's numbers.
#[derive(Debug)]
pub(super) struct Members {
    /// Everybody whom the site names or named while the configuration still does.
    known: BTreeMap<NodeId, MemberRecord>,
    /// The next step is not tried before.
    next_step: Instant,
    /// Nothing is left to be changed, until something changes.
    settled: bool,
    /// Why the next step is not made; logged once.
    waits: Option<String>,
    /// The witness does not know, for all that this leader knows, who the members are now.
    witness_untold: bool,
    /// Whom others say the members are as of an entry that is not applied here yet. The leader may be among those of whom
    /// this box's log does not tell: then it is connected to only so.
    told: Option<(LogIndex, Vec<MemberRecord>)>,
    /// A new leader's no-op: when it is applied, so are the wishes of all leaders before.
    leads_from: LogIndex,
    /// Another member has said that the number of this box was retired.
    is_retired: bool,
}

impl Members {
    /// Those whom the site names (before it does, the identity), and those whom the log brings: it says who they are
    /// before anybody can say that it is committed, which may take them.
    pub(super) fn new(identity: &Identity, site: &Site, entries: &[Entry], now: Instant) -> Members {
        let stamped = entries.iter().filter_map(|entry| Some(Envelope::read(&entry.payload)?.inside));
        let known = site.members_to_come(identity.members.clone(), stamped);
        Members {
            known: known.into_iter().map(|record| (record.id, record)).collect(),
            next_step: now,
            settled: false,
            waits: None,
            witness_untold: true,
            told: None,
            leads_from: LogIndex::ZERO,
            is_retired: false,
        }
    }

    /// This box begins to lead, with its no-op at this index.
    pub(super) fn begin_to_lead(&mut self, noop: LogIndex) {
        self.leads_from = noop;
        self.settled = false;
        self.witness_untold = true;
    }

    /// Has the witness told again: it may have been replaced or restarted.
    pub(super) fn tell_witness_again(&mut self) {
        self.witness_untold = true;
    }

    /// Another box says who the members are as of that entry; whether that is news to one that has applied so much.
    fn hear(&mut self, index: LogIndex, members: Vec<MemberRecord>, applied: LogIndex) -> bool {
        let known = self.told.as_ref().map_or(applied, |(known, _)| applied.max(*known));
        let is_news = index > known;
        if is_news {
            self.told = Some((index, members));
        }
        is_news
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&MemberRecord> {
        self.known.get(&id)
    }

    /// Why the leader does not make the next step.
    pub(super) fn waits(&self) -> Option<&str> {
        self.waits.as_deref()
    }

    fn wait(&mut self, why: String) {
        if self.waits.as_ref() != Some(&why) {
            warn!("the members cannot change yet: {why}");
            self.waits = Some(why);
        }
    }

    /// Everybody whom this box keeps a connection to, by number: members, and removed ones that must still hear of
    /// their removal.
    fn connected(&self) -> Vec<MemberRecord> {
        self.known.values().cloned().collect()
    }
}

/// The configuration that the site was provisioned with.
pub(super) fn founding_configuration(identity: &Identity) -> Result<Configuration, ConfigurationError> {
    let member = |record: &MemberRecord| Member { id: record.id, role: record.role };
    let members: Vec<Member> = identity.members.iter().map(member).collect();
    Configuration::new(&members)
}

/// The two latest configurations of a log that is read in at the start, `base` being the one before it.
pub(super) fn latest(
    base: ConfigurationEntry,
    entries: &[Entry],
) -> Result<(ConfigurationEntry, Option<ConfigurationEntry>), ConfigurationError> {
    let mut found = (base, None);
    for entry in entries {
        if let Some(configuration) = of_payload(&entry.payload) {
            let entry = ConfigurationEntry { index: entry.position.index, configuration: configuration? };
            found = (entry, Some(found.0));
        }
    }
    Ok(found)
}

/// The configuration that an entry brings, if it brings one.
///
/// # Errors
/// The entry names members that are no configuration.
pub fn of_payload(payload: &Bytes) -> Option<Result<Configuration, ConfigurationError>> {
    entry::configuration_of(&Envelope::read(payload)?.inside).map(|parts| from_parts(&parts))
}

/// The core's form of what an entry says.
pub(super) fn from_parts(parts: &ConfigurationRecord) -> Result<Configuration, ConfigurationError> {
    let ids = |of: fn(&Part) -> bool| -> Vec<NodeId> {
        parts.parts.iter().filter(|part| of(part)).map(|part| part.id).collect()
    };
    Configuration::from_parts(&ConfigurationParts {
        voters: &ids(|part| part.voter),
        outgoing: &ids(|part| part.outgoing),
        observers: &ids(|part| part.observer),
        witness: parts.parts.iter().find(|part| part.witness).map(|part| part.id),
        leaves_by_itself: parts.leaves_by_itself,
    })
}

fn to_parts(configuration: &Configuration) -> ConfigurationRecord {
    let part = |id: NodeId| Part {
        id,
        voter: configuration.voters().any(|other| other == id),
        outgoing: configuration.outgoing().any(|other| other == id) && !deliberate::is(Bug::ForgetsOutgoing),
        observer: configuration.observers().any(|other| other == id),
        witness: configuration.witness() == Some(id),
    };
    let parts = configuration.ids().map(part).collect();
    ConfigurationRecord { parts, leaves_by_itself: configuration.leaves_by_itself() }
}

impl Node {
    /// A leader's own entry: a configuration, or nothing.
    pub(super) fn store_own(&mut self, position: Position, configuration: Option<Configuration>) {
        let payload = match configuration {
            Some(configuration) if !deliberate::is(Bug::WritesNoMembers) => {
                let body = entry::configuration(&to_parts(&configuration));
                let stamp = self.stamp().unwrap_or_else(|| self.site().stamp());
                Envelope::plain(body).stamped(stamp)
            }
            _ => Bytes::new(),
        };
        self.tail.push(position, payload);
    }

    pub(super) fn on_configuration(&mut self, entry: &ConfigurationEntry) {
        info!("configuration of entry {}: {:?}", entry.index, entry.configuration);
        self.count_voters_clocks();
        self.know_members();
    }

    /// Takes over what the site says of its members, and lets go of those who are gone for good.
    pub(super) fn know_members(&mut self) {
        self.members.settled = false;
        let (applied, mut known) = {
            let site = self.site();
            let leaving = if deliberate::is(Bug::LetsGoAtOnce) { &[] } else { site.members_leaving() };
            let named = site.members().iter().chain(leaving);
            let named: BTreeMap<_, _> = named.map(|record| (record.id, record.clone())).collect();
            (site.applied(), named)
        };
        // Before the site says who they are, they are those of the identity.
        let is_unsaid = known.is_empty() || deliberate::is(Bug::KeepsRemoved);
        let led: Vec<NodeId> = self.raft.status().peers.iter().map(|peer| peer.id).collect();
        let is_needed = |id: NodeId| is_needed(id, self.raft.configuration(), self.raft.leader(), &led);
        for (id, member) in &self.members.known {
            if !known.contains_key(id) && (is_unsaid || is_needed(*id) && !deliberate::is(Bug::LetsGoAtOnce))
            {
                known.insert(*id, member.clone());
            }
        }
        self.members.told.take_if(|(index, _)| *index <= applied);
        let told = self.members.told.iter().flat_map(|(_, told)| told);
        known.extend(told.map(|record| (record.id, record.clone())));
        if known == self.members.known {
            return;
        }
        self.members.known = known;
        self.members.witness_untold = true;
        self.status_at = None;
        self.connect_members();
        self.connected.iter().for_each(|peer| self.tell_members(*peer));
    }

    /// Tells a box who the members are, in case that it has been away: it lets in whom it knows, and the leader may be
    /// one that came meanwhile. A witness is told by its leader, again and again if that gets lost, but not by one that it
    /// does not know: so all others tell it once.
    pub(super) fn tell_members(&self, peer: NodeId) {
        let Some(role) = self.members.get(peer).map(|member| member.role) else { return };
        if self.state_check.is_out() || deliberate::is(Bug::TellsNobody) {
            return;
        }
        if role == MemberRole::Witness {
            let may_tell = !self.leads() && !deliberate::is(Bug::LeadersAloneTell);
            if may_tell && !self.site().members().is_empty() && !self.is_removed() {
                self.send(peer, Lane::Control, &self.members_for_witness());
            }
            return;
        }
        let (index, mut members) = {
            let site = self.site();
            (site.applied(), site.members().iter().chain(site.members_leaving()).cloned().collect::<Vec<_>>())
        };
        members.sort_by_key(|member| member.id);
        if !members.is_empty() {
            self.send(peer, Lane::Control, &Frame::Members { index, members });
        }
    }

    /// Another box says who the members are. One that names nobody, or an entry that no log will ever have, is not
    /// believed. It need not name itself: a removed box may be the only one that this box can still ask.
    pub(super) fn on_members(&mut self, from: NodeId, index: LogIndex, members: Vec<MemberRecord>) {
        if members.is_empty() || members.len() > 2 * MEMBERS_MAX || index.0 >= TOLD_INDEX_LIMIT {
            return self.refuse(from, Reason::Implausible);
        }
        let applied = self.site().applied();
        if self.members.hear(index, members, applied) {
            self.know_members();
        }
    }

    /// Updates the connections to all known members.
    pub(super) fn connect_members(&self) {
        let list = self.members.connected();
        let Some(links) = &self.links else { return };
        links.retire(self.site().members_retired().collect());
        if let Err(error) = links.set_members(&list) {
            warn!("cannot connect to the members: {error}");
        }
    }

    /// Another member says that the number of this box was retired. The keys of both have proved who they are, and no
    /// number is used again: it is so for good.
    pub(super) fn on_retired(&mut self, by: NodeId) {
        if !std::mem::replace(&mut self.members.is_retired, true) {
            let by = self.name_of(by);
            warn!("{by} says that this box was removed from the site, or replaced");
            self.status_at = None;
        }
    }

    /// The members: whom the site names, and whom the configuration in force still has.
    pub(super) fn member_list(&self) -> Vec<MemberRecord> {
        let agreed: Vec<NodeId> = self.site().members().iter().map(|member| member.id).collect();
        let configuration = self.raft.configuration();
        let is_member =
            |id: &NodeId| agreed.is_empty() || agreed.contains(id) || configuration.role(*id).is_some();
        let known = self.members.known.iter().filter(|(id, _)| is_member(id));
        known.map(|(_, member)| member.clone()).collect()
    }

    /// A leader's next step from the configuration in force to what the site wishes.
    pub(super) fn step_membership(&mut self) {
        self.tell_witness();
        let now = self.moment.now;
        if !self.leads() || self.members.settled || now < self.members.next_step {
            return;
        }
        self.members.next_step = now + STEP_EVERY;
        if self.site().applied() < self.members.leads_from && !deliberate::is(Bug::WishesTooEarly) {
            return;
        }
        let wishes: Vec<(NodeId, MemberRole)> =
            self.site().members().iter().map(|member| (member.id, member.role)).collect();
        if wishes.is_empty() {
            let records = self.members.connected();
            if self.append(entry::bootstrap(&records)).is_ok() {
                // Once is enough: it is applied or this box does not lead any more.
                self.members.next_step = now + Duration::from_secs(1);
            }
            return;
        }
        let configuration = *self.raft.configuration();
        let holds = self.holds(&configuration, &wishes);
        let changes = next_changes(&configuration, &wishes, &holds);
        if changes.is_empty() {
            self.members.next_step = now + LOOK_EVERY;
            // Who was told that it left is let go.
            self.know_members();
        }
        if changes.is_empty() && self.is_to_restate() {
            return self.change_configuration(&changes);
        }
        if changes.is_empty() || configuration.is_joint() {
            self.members.waits = None;
            // The core lets go of who left a little after that is committed; then so is the connection.
            let nobody_leaves = self.members.known.len() == wishes.len();
            self.members.settled =
                holds.is_over() && changes.is_empty() && !configuration.is_joint() && nobody_leaves;
            return;
        }
        let away = self.away_after(&configuration, &changes);
        if !away.is_empty() && !deliberate::is(Bug::IgnoresMajority) {
            let names: Vec<String> = away.iter().map(|id| self.name_of(*id)).collect();
            self.members.next_step = now + LOOK_EVERY;
            return self.members.wait(format!(
                "the site could not commit afterwards, because {} cannot be reached",
                names.join(" and ")
            ));
        }
        self.change_configuration(&changes);
    }

    /// Whether the site waits for a configuration without those who are leaving, and none comes, because the one in force
    /// has never had them. They were removed before they got in, and there never was another one: so the log does not say
    /// who is in it.
    fn is_to_restate(&self) -> bool {
        let site = self.site();
        let waits = site.configuration().is_none() && !site.members_leaving().is_empty();
        waits && !deliberate::is(Bug::NeverRestates)
    }

    /// The entry that makes these changes; without any it says how it is.
    fn change_configuration(&mut self, changes: &[Change]) {
        let core_now = self.now();
        let changed = match changes {
            [] => self.raft.restate_configuration(core_now),
            changes => self.raft.change_membership(core_now, changes, Leave::ByItself),
        };
        match changed {
            Ok((range, configuration)) => {
                info!("changing the members: {changes:?}");
                self.members.waits = None;
                let position = Position { index: range.first, term: range.term, subterm: range.subterm };
                self.store_own(position, Some(configuration));
            }
            Err(error) => {
                let passing = matches!(
                    error,
                    MembershipError::InProgress | MembershipError::TooEarly | MembershipError::Transferring
                );
                if !passing {
                    self.members.wait(error.to_string());
                }
            }
        }
    }

    /// A witness has no log from which it could learn whom it may talk to: its leader tells it, also before it votes.
    fn tell_witness(&mut self) {
        let is_silent = deliberate::is(Bug::TellsNoWitness);
        if is_silent
            || !self.members.witness_untold
            || !self.leads()
            || self.site().applied() < self.members.leads_from
        {
            return;
        }
        let witness = self.members.known.values().find(|member| member.role == MemberRole::Witness);
        let Some(witness) = witness.map(|member| member.id) else {
            self.members.witness_untold = false;
            return;
        };
        let frame = self.members_for_witness();
        // Connected anew, it is told then.
        self.members.witness_untold =
            self.connected.contains(&witness) && !self.send(witness, Lane::Control, &frame);
    }

    fn members_for_witness(&self) -> Frame {
        Frame::Members { index: self.site().applied(), members: self.members.connected() }
    }

    /// Who cannot be reached of those who would vote after these changes, if the others would be no majority: then
    /// the site would stand still, for good if nobody comes back.
    fn away_after(&self, configuration: &Configuration, changes: &[Change]) -> Vec<NodeId> {
        let voters = voters_after(configuration, changes);
        let me = self.shared.identity.node_id();
        let peers = self.raft.status().peers;
        // Nothing is asked of a witness while all is well.
        let is_witness =
            |id: NodeId| configuration.witness() == Some(id) || changes.contains(&Change::AddWitness(id));
        let answers = |id: NodeId| {
            id == me
                || peers.iter().any(|peer| peer.id == id && peer.active)
                || (is_witness(id) && self.connected.contains(&id))
        };
        missing(&voters, answers)
    }

    /// Whether this box was a member and is none any more: another member has said so; or the site does not name it, and
    /// the latest configuration in its log is without it. It is not told when that is committed: nobody talks to it any
    /// more.
    pub(super) fn is_removed(&self) -> bool {
        let me = self.shared.identity.node_id();
        let site = self.site();
        let is_named = site.members().iter().any(|record| record.id == me);
        self.members.is_retired
            || !site.members().is_empty() && !is_named && self.raft.configuration().role(me).is_none()
    }

    /// When the loop should look at the members again.
    pub(super) fn membership_due(&self) -> Option<Instant> {
        (self.leads() && !self.members.settled).then_some(self.members.next_step)
    }
}

/// Whether one whom the site does not name any more is still to be connected: it has a part in the configuration, leads
/// (until what removes it is committed), or is to hear from this leader that it left.
fn is_needed(id: NodeId, configuration: &Configuration, leader: Option<NodeId>, led: &[NodeId]) -> bool {
    configuration.role(id).is_some() || leader == Some(id) || led.contains(&id)
}

/// Who does not answer, if those who do are no majority.
fn missing(voters: &[NodeId], answers: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let (there, away): (Vec<NodeId>, Vec<NodeId>) = voters.iter().partition(|id| answers(**id));
    if there.len() > away.len() { Vec::new() } else { away }
}

/// Who votes after these changes, the witness among them.
fn voters_after(configuration: &Configuration, changes: &[Change]) -> Vec<NodeId> {
    let mut voters: Vec<NodeId> = configuration.voters().collect();
    for change in changes {
        match *change {
            Change::Promote(id) | Change::AddWitness(id) => voters.push(id),
            Change::Demote(id) | Change::Remove(id) => voters.retain(|voter| *voter != id),
            Change::AddObserver(_) => {}
        }
    }
    voters
}

/// What is to be changed next. First the new ones come in as observers; then all that is left changes at once,
/// but for what is held up. A witness stands beside an even number of other voters only, and leaves while these
/// change.
fn next_changes(
    configuration: &Configuration,
    wishes: &[(NodeId, MemberRole)],
    holds: &Holds,
) -> Vec<Change> {
    let known = |id: NodeId| configuration.role(id).is_some();
    let fresh = wishes.iter().filter(|(id, role)| !known(*id) && *role != MemberRole::Witness);
    let fresh: Vec<Change> = fresh.map(|(id, _)| Change::AddObserver(*id)).collect();
    if !fresh.is_empty() {
        return fresh;
    }
    let wish_of = |id: NodeId| wishes.iter().find(|(other, _)| *other == id).map(|(_, role)| *role);
    let (mut changes, mut patient) = (Vec::new(), Vec::new());
    for id in configuration.ids() {
        match (configuration.role(id), wish_of(id)) {
            (Some(MemberRole::Witness), _) => {}
            (Some(_), None) if holds.staying.contains(&id) => {}
            (Some(_), None) => changes.push(Change::Remove(id)),
            (Some(MemberRole::Observer), Some(MemberRole::Voter)) if !holds.lagging.contains(&id) => {
                if holds.patient.contains(&id) {
                    patient.push(id);
                } else {
                    changes.push(Change::Promote(id));
                }
            }
            (Some(MemberRole::Voter), Some(MemberRole::Observer)) => changes.push(Change::Demote(id)),
            _ => {}
        }
    }
    changes.extend(holds.votes_that_help(configuration, &changes, &patient).map(Change::Promote));
    let voters = |now: Option<MemberRole>| now == Some(MemberRole::Voter);
    let others_now = configuration.ids().filter(|id| voters(configuration.role(*id))).count();
    let changes_voters = |change: &Change| match change {
        Change::Promote(_) | Change::Demote(_) => true,
        Change::Remove(id) => voters(configuration.role(*id)),
        Change::AddObserver(_) | Change::AddWitness(_) => false,
    };
    let wished = wishes.iter().find(|(_, role)| *role == MemberRole::Witness).map(|(id, _)| *id);
    let is_even = others_now.is_multiple_of(2);
    match configuration.witness() {
        Some(witness) if wished != Some(witness) || changes.iter().any(changes_voters) => {
            changes.push(Change::Remove(witness));
        }
        None if changes.is_empty() && is_even => changes.extend(wished.map(Change::AddWitness)),
        _ => {}
    }
    changes
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
