use proptest::prelude::*;

use super::*;

fn record(id: u64, role: MemberRole) -> MemberRecord {
    MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        key: KeyHash([id as u8; 32]),
        role,
    }
}

fn three() -> Members {
    let mut members = Members::default();
    let records = [3, 1, 2].map(|id| record(id, MemberRole::Voter)).to_vec();
    members.bootstrap(records, 0);
    members
}

fn remove(name: &str) -> MemberChange {
    MemberChange::Remove { name: name.to_owned() }
}

fn role(name: &str, role: MemberRole) -> MemberChange {
    MemberChange::Role { name: name.to_owned(), role }
}

#[test]
fn a_site_is_founded_once_and_its_members_stand_by_number() {
    let mut members = three();
    let ids: Vec<u64> = members.list().iter().map(|member| member.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(members.bootstrap(vec![record(9, MemberRole::Voter)], 7), 7);
    assert_eq!(members, three());
}

#[test]
fn nothing_changes_before_the_members_are_known() {
    let mut members = Members::default();
    let put = MemberChange::Put(record(4, MemberRole::Voter));
    assert_eq!(members.change(put, 0), Err(MemberRefused::TooEarly));
    assert_eq!(members, Members::default());
}

#[test]
fn what_is_anothers_is_refused_and_changes_nothing() {
    let mut members = three();
    let fresh = record(4, MemberRole::Observer);
    let cases = [
        (MemberRecord { id: NodeId(2), ..fresh.clone() }, MemberRefused::IdUsed),
        (MemberRecord { name: "box1".into(), ..fresh.clone() }, MemberRefused::NameTaken),
        (MemberRecord { key: KeyHash([3; 32]), ..fresh.clone() }, MemberRefused::KeyTaken),
        (MemberRecord { address: "10.0.0.1:7400".into(), ..fresh.clone() }, MemberRefused::AddressTaken),
        (MemberRecord { name: "Box 4".into(), ..fresh.clone() }, MemberRefused::Malformed),
        (MemberRecord { id: NodeId(0), ..fresh.clone() }, MemberRefused::Malformed),
        (MemberRecord { address: "a".repeat(300), ..fresh }, MemberRefused::Malformed),
    ];
    for (record, why) in cases {
        assert_eq!(members.change(MemberChange::Put(record), 0), Err(why));
        assert_eq!(members, three());
    }
}

#[test]
fn the_same_member_put_again_takes_its_new_address_and_role() {
    let mut members = three();
    let moved = MemberRecord { address: "10.9.9.9:7400".into(), ..record(2, MemberRole::Observer) };
    members.change(MemberChange::Put(moved.clone()), 0).unwrap();
    assert_eq!(members.list()[1], moved);
    assert_eq!(members.list().len(), 3);
}

#[test]
fn a_removed_number_never_returns() {
    let mut members = three();
    members.change(remove("box2"), 0).unwrap();
    assert_eq!(members.list().len(), 2);
    let again = MemberChange::Put(record(2, MemberRole::Voter));
    members.enforce(in_force(&[1, 3]), 0);
    assert_eq!(members.change(again, 0), Err(MemberRefused::IdUsed));
    assert_eq!(members.change(remove("box2"), 0), Err(MemberRefused::NoSuchMember));
}

#[test]
fn a_known_box_keeps_its_name() {
    let mut members = three();
    let renamed = MemberRecord { name: "other".into(), ..record(2, MemberRole::Voter) };
    assert_eq!(members.change(MemberChange::Put(renamed), 0), Err(MemberRefused::OtherName));
    assert_eq!(members, three());
}

fn in_force(ids: &[u64]) -> ConfigurationRecord {
    let part =
        |id: &u64| Part { id: NodeId(*id), voter: true, outgoing: false, observer: false, witness: false };
    ConfigurationRecord { parts: ids.iter().map(part).collect(), leaves_by_itself: false }
}

#[test]
fn who_was_removed_is_known_until_the_configuration_is_without_it() {
    let mut members = three();
    members.enforce(in_force(&[1, 2, 3]), 0);
    members.change(remove("box2"), 0).unwrap();
    assert_eq!(members.leaving(), [record(2, MemberRole::Voter)]);
    let copied = MemberRecord { key: KeyHash([2; 32]), ..record(4, MemberRole::Voter) };
    assert_eq!(members.change(MemberChange::Put(copied), 0), Err(MemberRefused::KeyTaken));
    members.enforce(in_force(&[1, 3]), 0);
    assert_eq!(members.leaving(), []);
    // One that never came in is forgotten at once.
    members.change(MemberChange::Put(record(4, MemberRole::Voter)), 0).unwrap();
    members.change(remove("box4"), 0).unwrap();
    assert_eq!(members.leaving(), []);
}

#[test]
fn several_who_leave_are_read_again_in_whatever_order_they_were_removed() {
    let mut members = three();
    members.enforce(in_force(&[1, 2, 3]), 0);
    members.change(remove("box3"), 0).unwrap();
    members.change(remove("box2"), 0).unwrap();
    let mut out = Vec::new();
    members.put(&mut out);
    assert_eq!(Members::read(&mut Reader::new(&out), true), Ok(members));
}

#[test]
fn who_leaves_keeps_its_place_until_it_has_left() {
    let mut members = three();
    for id in 4..=9 {
        members.change(MemberChange::Put(record(id, MemberRole::Observer)), 0).unwrap();
    }
    members.enforce(in_force(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), 0);
    members.change(remove("box9"), 0).unwrap();
    let tenth = MemberChange::Put(record(10, MemberRole::Observer));
    assert_eq!(members.change(tenth.clone(), 0), Err(MemberRefused::TooMany));
    members.enforce(in_force(&[1, 2, 3, 4, 5, 6, 7, 8]), 0);
    members.change(tenth, 0).unwrap();
}

#[test]
fn the_last_voter_neither_leaves_nor_is_demoted() {
    let mut members = three();
    members.change(role("box1", MemberRole::Observer), 0).unwrap();
    members.change(remove("box2"), 0).unwrap();
    assert_eq!(members.change(remove("box3"), 0), Err(MemberRefused::LastVoter));
    let demoted = members.change(role("box3", MemberRole::Observer), 0);
    assert_eq!(demoted, Err(MemberRefused::LastVoter));
    // Who does not vote may leave.
    members.change(remove("box1"), 0).unwrap();
}

#[test]
fn a_site_has_one_witness_at_most_and_a_witness_is_one_for_life() {
    let mut members = three();
    members.change(MemberChange::Put(record(4, MemberRole::Witness)), 0).unwrap();
    let second = MemberChange::Put(record(5, MemberRole::Witness));
    assert_eq!(members.change(second, 0), Err(MemberRefused::SecondWitness));
    let promoted = members.change(role("box4", MemberRole::Voter), 0);
    assert_eq!(promoted, Err(MemberRefused::WitnessForLife));
    let turned = members.change(role("box1", MemberRole::Witness), 0);
    assert_eq!(turned, Err(MemberRefused::WitnessForLife));
}

#[test]
fn a_tenth_member_is_refused() {
    let mut members = three();
    for id in 4..=9 {
        members.change(MemberChange::Put(record(id, MemberRole::Observer)), 0).unwrap();
    }
    let tenth = MemberChange::Put(record(10, MemberRole::Observer));
    assert_eq!(members.change(tenth, 0), Err(MemberRefused::TooMany));
}

proptest! {
    #[test]
    fn what_was_put_is_read_again(
        roles in prop::collection::vec(0u8..3, 0..=9),
        gone in prop::collection::btree_set(any::<u64>(), 0..20),
        leaving in prop::collection::btree_set(10u64..200, 0..3),
        parts in prop::option::of((any::<bool>(), prop::collection::btree_map(any::<u64>(), 0u8..16, 0..=16))),
    ) {
        let list = roles.iter().enumerate().map(|(place, code)| {
            record(place as u64 + 1, read_role(&mut Reader::new(&[*code])).unwrap())
        });
        let in_force = parts.map(|(leaves_by_itself, parts)| {
            let parts = parts.into_iter().map(|(id, flags)| Part {
                id: NodeId(id),
                voter: flags & 1 != 0,
                outgoing: flags & 2 != 0,
                observer: flags & 4 != 0,
                witness: flags & 8 != 0,
            });
            ConfigurationRecord { parts: parts.collect(), leaves_by_itself }
        });
        let leaving = leaving.into_iter().map(|id| record(id, MemberRole::Voter)).collect();
        let members = Members { list: list.collect(), leaving, retired: gone.into_iter().collect(), in_force, ..Members::default() };
        let mut out = Vec::new();
        members.put(&mut out);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(Members::read(&mut reader, true).unwrap(), members);
        prop_assert_eq!(reader.done(), Ok(()));
    }

    #[test]
    fn any_bytes_are_members_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(members) = Members::read(&mut Reader::new(&bytes), true) {
            let mut out = Vec::new();
            members.put(&mut out);
            prop_assert_eq!(&bytes[..out.len()], &out[..]);
        }
    }
}
