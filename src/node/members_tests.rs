use proptest::prelude::*;
use tally_core::id::KeyHash;
use tally_core::raft::Member;

use super::*;
use crate::site::{Body, StampedEntry};

fn configuration(members: &[(u64, MemberRole)]) -> Configuration {
    let members: Vec<Member> =
        members.iter().map(|(id, role)| Member { id: NodeId(*id), role: *role }).collect();
    Configuration::new(&members).unwrap()
}

fn voters(ids: &[u64]) -> Configuration {
    configuration(&ids.iter().map(|id| (*id, MemberRole::Voter)).collect::<Vec<_>>())
}

fn wishes(list: &[(u64, MemberRole)]) -> Vec<(NodeId, MemberRole)> {
    list.iter().map(|(id, role)| (NodeId(*id), *role)).collect()
}

const VOTER: MemberRole = MemberRole::Voter;
const OBSERVER: MemberRole = MemberRole::Observer;
const WITNESS: MemberRole = MemberRole::Witness;
const NOBODY: [u64; 0] = [];

fn lagging(ids: &[u64]) -> Holds {
    Holds { lagging: ids.iter().map(|id| NodeId(*id)).collect(), ..Holds::default() }
}

#[test]
fn a_voter_that_is_replaced_stays_until_its_successor_can_vote_and_then_both_change_places() {
    let wish = wishes(&[(1, VOTER), (2, VOTER), (4, VOTER)]);
    let now = configuration(&[(1, VOTER), (2, VOTER), (3, VOTER), (4, OBSERVER)]);
    let holds = Holds { staying: vec![NodeId(3)], ..lagging(&[4]) };
    assert_eq!(next_changes(&now, &wish, &holds), []);
    let both = [Change::Remove(NodeId(3)), Change::Promote(NodeId(4))];
    assert_eq!(next_changes(&now, &wish, &lagging(&[])), both);
    let patient = Holds { patient: vec![NodeId(4)], ..Holds::default() };
    assert_eq!(next_changes(&now, &wish, &patient), both);
    assert_eq!(next_changes(&now, &wish, &lagging(&[4])), [Change::Remove(NodeId(3))], "it is away");
}

#[test]
fn a_new_voter_comes_in_as_observer_and_is_promoted_when_it_has_caught_up() {
    let wish = wishes(&[(1, VOTER), (2, VOTER), (3, VOTER), (4, VOTER)]);
    assert_eq!(next_changes(&voters(&[1, 2, 3]), &wish, &lagging(&[])), [Change::AddObserver(NodeId(4))]);
    let with = configuration(&[
        (1, MemberRole::Voter),
        (2, MemberRole::Voter),
        (3, MemberRole::Voter),
        (4, MemberRole::Observer),
    ]);
    assert_eq!(next_changes(&with, &wish, &lagging(&[4])), []);
    assert_eq!(next_changes(&with, &wish, &lagging(&[])), [Change::Promote(NodeId(4))]);
}

#[test]
fn who_is_not_wished_for_leaves_and_who_is_to_observe_is_demoted_in_one_change() {
    let wish = wishes(&[(1, VOTER), (2, OBSERVER)]);
    let changes = next_changes(&voters(&[1, 2, 3]), &wish, &lagging(&[]));
    assert_eq!(changes, [Change::Demote(NodeId(2)), Change::Remove(NodeId(3))]);
}

#[test]
fn a_witness_stands_beside_an_even_number_of_others_and_leaves_while_they_change() {
    let wish = wishes(&[(1, VOTER), (2, VOTER), (9, WITNESS)]);
    assert_eq!(next_changes(&voters(&[1, 2]), &wish, &lagging(&[])), [Change::AddWitness(NodeId(9))]);
    let alone = wishes(&[(1, VOTER), (9, WITNESS)]);
    assert_eq!(next_changes(&voters(&[1]), &alone, &lagging(&[])), []);
    let with = configuration(&[(1, MemberRole::Voter), (2, MemberRole::Voter), (9, MemberRole::Witness)]);
    assert_eq!(next_changes(&with, &wish, &lagging(&[])), []);
    let changes = next_changes(&with, &alone, &lagging(&[]));
    assert_eq!(changes, [Change::Remove(NodeId(2)), Change::Remove(NodeId(9))]);
}

/// The configuration after a change that needs no joint one, or after the joint one is left.
fn changed(configuration: &Configuration, changes: &[Change]) -> Configuration {
    let mut members: BTreeMap<NodeId, MemberRole> =
        configuration.ids().map(|id| (id, configuration.role(id).unwrap())).collect();
    for change in changes {
        match *change {
            Change::AddObserver(id) | Change::Demote(id) => members.insert(id, MemberRole::Observer),
            Change::AddWitness(id) => members.insert(id, MemberRole::Witness),
            Change::Promote(id) => members.insert(id, MemberRole::Voter),
            Change::Remove(id) => members.remove(&id),
        };
    }
    let members: Vec<Member> = members.into_iter().map(|(id, role)| Member { id, role }).collect();
    Configuration::new(&members).unwrap()
}

fn a_wish() -> impl Strategy<Value = Vec<(NodeId, MemberRole)>> {
    (prop::collection::btree_map(1u64..8, any::<bool>(), 1..7), prop::option::of(8u64..10)).prop_map(
        |(boxes, witness)| {
            let mut list: Vec<(NodeId, MemberRole)> = boxes
                .iter()
                .map(|(id, votes)| (NodeId(*id), if *votes { VOTER } else { OBSERVER }))
                .collect();
            // A site never wishes for no voter.
            list[0].1 = VOTER;
            list.extend(witness.map(|id| (NodeId(id), WITNESS)));
            list
        },
    )
}

fn identity(ids: &[u64]) -> Identity {
    let members = ids.iter().map(|id| record(*id, *id)).collect();
    let site_id = crate::identity::SiteId(7);
    Identity { site: "plant7".to_owned(), site_id, node: ids[0], window_ms: 60_000, level: 1, members }
}

fn record(id: u64, key: u64) -> MemberRecord {
    MemberRecord {
        id: NodeId(id),
        name: format!("box{key}"),
        address: format!("10.0.0.{key}:7400"),
        key: KeyHash([key as u8; 32]),
        role: VOTER,
    }
}

fn log(bodies: &[Body]) -> Vec<Entry> {
    let entry = |(index, body): (u64, &Body)| Entry {
        position: Position { index: LogIndex(index), ..Position::ZERO },
        payload: Envelope::plain(StampedEntry::new(crate::site::Stamp::default(), body)).encode(),
    };
    (1..).zip(bodies).map(entry).collect()
}

fn put(record: MemberRecord) -> Body {
    entry::member(1, &crate::site::MemberChange::Put(record))
}

fn known(identity: &Identity, bodies: &[Body]) -> Vec<MemberRecord> {
    let founding = crate::site::BootstrapSettings {
        site: identity.site.clone(),
        site_id: identity.site_id.0,
        base_span: tally_core::window::Span::DEFAULT,
        level: crate::site::Level::ONE,
    };
    let members = Members::new(identity, &Site::new(&founding), &log(bodies), Instant::now());
    members.connected()
}

#[test]
fn a_box_that_starts_knows_whom_its_log_adds_and_not_whom_the_site_refuses() {
    let three = identity(&[1, 2, 3]);
    let provisioned = three.members.clone();
    assert_eq!(known(&three, &[]), provisioned);
    let found = entry::bootstrap(&provisioned);
    // Under a number, a name, a key, an address of another member.
    let number = put(record(2, 4));
    let name = put(MemberRecord { name: "box3".to_owned(), ..record(4, 4) });
    let key = put(MemberRecord { key: KeyHash([1; 32]), ..record(4, 4) });
    let address = put(MemberRecord { address: "10.0.0.1:7400".to_owned(), ..record(4, 4) });
    for refused in [number, name, key, address] {
        assert_eq!(known(&three, &[found.clone(), refused.clone()]), provisioned);
        assert_eq!(known(&three, &[refused]), provisioned, "nothing can change before the site is told");
    }
    let fourth = known(&three, &[found, put(record(4, 4))]);
    assert_eq!(fourth[..3], provisioned);
    assert_eq!(fourth[3], record(4, 4));
}

#[test]
fn one_that_is_not_named_is_connected_as_long_as_it_votes_leads_or_is_to_be_told() {
    let three = voters(&[1, 2, 3]);
    let is_needed = |id: u64, leader: u64, led: &[NodeId]| {
        super::is_needed(NodeId(id), &three, Some(NodeId(leader)), led)
    };
    assert!(is_needed(3, 1, &[]), "the configuration without it is not in this log");
    assert!(is_needed(4, 4, &[]), "it has removed itself, and leads until that is committed");
    assert!(is_needed(4, 1, &[NodeId(4)]));
    assert!(!is_needed(4, 1, &[NodeId(2), NodeId(3)]), "one that led before is a stranger now");
}

#[test]
fn a_change_that_would_leave_no_majority_of_those_who_answer_is_not_made() {
    let away_after = |now: &Configuration, changes: &[Change], dead: &[u64]| -> Vec<u64> {
        let away = missing(&voters_after(now, changes), |id| !dead.contains(&id.0));
        away.iter().map(|id| id.0).collect()
    };
    let three = voters(&[1, 2, 3]);
    assert_eq!(away_after(&three, &[Change::Remove(NodeId(2))], &[3]), [3]);
    assert_eq!(away_after(&three, &[Change::Demote(NodeId(2))], &[3]), [3]);
    assert_eq!(away_after(&three, &[Change::Remove(NodeId(3))], &[3]), NOBODY, "the dead one may go");
    assert_eq!(away_after(&three, &[Change::Promote(NodeId(4))], &[3]), NOBODY);
    let with = configuration(&[(1, MemberRole::Voter), (2, MemberRole::Voter), (9, MemberRole::Witness)]);
    assert_eq!(
        away_after(&with, &[Change::Remove(NodeId(9))], &[2]),
        [2],
        "two of two are needed without it"
    );
    assert_eq!(away_after(&with, &[Change::Remove(NodeId(2)), Change::Remove(NodeId(9))], &[2]), NOBODY);
    assert_eq!(away_after(&voters(&[1, 2]), &[Change::AddWitness(NodeId(9))], &[9]), NOBODY);
}

proptest! {
    #[test]
    fn every_wish_is_reached_from_every_other_by_configurations_that_may_be(from in a_wish(), to in a_wish()) {
        let mut now = voters(&[from[0].0.0]);
        for wish in [from, to] {
            let mut steps = 0;
            loop {
                let changes = next_changes(&now, &wish, &lagging(&[]));
                if changes.is_empty() {
                    break;
                }
                now = changed(&now, &changes);
                steps += 1;
                prop_assert!(steps <= 4, "{now:?} on the way to {wish:?}");
            }
            let others = wish.iter().filter(|(_, role)| *role == VOTER).count();
            for (id, role) in &wish {
                let can_be = *role != WITNESS || others.is_multiple_of(2);
                prop_assert_eq!(now.role(*id), can_be.then_some(*role));
            }
            prop_assert!(now.ids().all(|id| wish.iter().any(|(wished, _)| *wished == id)));
        }
    }

    #[test]
    fn a_configuration_is_the_same_after_its_entry(wish in a_wish()) {
        let others = wish.iter().filter(|(_, role)| *role == VOTER).count();
        let members: Vec<Member> = wish
            .iter()
            .filter(|(_, role)| *role != WITNESS || others.is_multiple_of(2))
            .map(|(id, role)| Member { id: *id, role: *role })
            .collect();
        let configuration = Configuration::new(&members).unwrap();
        prop_assert_eq!(from_parts(&to_parts(&configuration)), Ok(configuration));
        let body = entry::configuration(&to_parts(&configuration));
        let payload = Envelope::plain(StampedEntry::new(crate::site::Stamp::default(), &body)).encode();
        prop_assert_eq!(of_payload(&payload), Some(Ok(configuration)));
    }
}
