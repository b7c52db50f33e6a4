use std::format;
use std::vec::Vec as List;

use super::*;

fn ids(numbers: &[u64]) -> List<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn of(voters: &[u64], observers: &[u64], witness: Option<u64>) -> Configuration {
    parts(voters, &[], observers, witness).unwrap()
}

fn parts(
    voters: &[u64],
    outgoing: &[u64],
    observers: &[u64],
    witness: Option<u64>,
) -> Result<Configuration, ConfigurationError> {
    Configuration::from_parts(&ConfigurationParts {
        voters: &ids(voters),
        outgoing: &ids(outgoing),
        observers: &ids(observers),
        witness: witness.map(NodeId),
        leaves_by_itself: !outgoing.is_empty(),
    })
}

fn changed(from: &Configuration, changes: &[Change]) -> Result<Configuration, MembershipError> {
    let mut next = *from;
    next.change(changes, true).map(|()| next)
}

#[test]
fn what_is_no_configuration_is_refused() {
    use ConfigurationError::*;
    let too_many: List<u64> = (1..=17).collect();
    assert_eq!(parts(&too_many, &[], &[], None), Err(TooManyMembers { most: 16 }));
    assert_eq!(parts(&[], &[], &[1], None), Err(NoVoter));
    assert_eq!(parts(&[1, 2], &[], &[2], None), Err(VoterAndObserver(NodeId(2))));
    assert_eq!(parts(&[1, 1], &[], &[], None), Err(MemberTwice(NodeId(1))));
    assert_eq!(parts(&[1, 2], &[], &[3], Some(3)), Err(WitnessWithoutVote(NodeId(3))));
    assert_eq!(parts(&[1, 2], &[], &[], Some(4)), Err(WitnessWithoutVote(NodeId(4))));
    assert_eq!(parts(&[1, 2], &[], &[], Some(2)), Err(WitnessBesideOdd(1)));
    assert_eq!(parts(&[1, 2, 3, 4], &[], &[], Some(4)), Err(WitnessBesideOdd(3)));
    assert_eq!(parts(&[1, 2, 9], &[1, 3, 9], &[], Some(9)), Err(WitnessInBothHalves(NodeId(9))));
    assert_eq!(parts(&[9], &[1], &[], Some(9)), Err(NoVoter));
    let twice = [MemberRole::Voter, MemberRole::Observer].map(|role| Member { id: NodeId(1), role });
    assert_eq!(Configuration::new(&twice), Err(MemberTwice(NodeId(1))));
    let roles = [MemberRole::Voter, MemberRole::Voter, MemberRole::Witness, MemberRole::Witness];
    let two: List<Member> =
        roles.into_iter().zip(1..).map(|(role, id)| Member { id: NodeId(id), role }).collect();
    assert_eq!(Configuration::new(&two), Err(WitnessTwice(NodeId(4))));
}

#[test]
fn a_configuration_can_be_taken_apart_and_put_together() {
    for (voters, outgoing, observers, witness) in [
        (&[1, 2, 3][..], &[][..], &[4][..], None),
        (&[2, 3, 5], &[1, 2, 3], &[1, 4], None),
        (&[1], &[1, 2, 9], &[], Some(9)),
        (&[1, 2, 9], &[], &[], Some(9)),
    ] {
        let configuration = parts(voters, outgoing, observers, witness).unwrap();
        assert_eq!(configuration.voters().collect::<List<_>>(), ids(voters));
        assert_eq!(configuration.outgoing().collect::<List<_>>(), ids(outgoing));
        assert_eq!(configuration.observers().collect::<List<_>>(), ids(observers));
        assert_eq!(configuration.witness(), witness.map(NodeId));
        assert_eq!(configuration.is_joint(), !outgoing.is_empty());
    }
}

#[test]
fn changes_of_voters_go_through_both_halves_and_others_do_not() {
    let three = of(&[1, 2, 3], &[4], None);
    let cases = [
        (&[Change::AddObserver(NodeId(5))][..], "(1 2 3, observers 4 5)"),
        (&[Change::Remove(NodeId(4))], "(1 2 3)"),
        (&[Change::Promote(NodeId(4))], "(1 2 3 4 & 1 2 3, leaving)"),
        (&[Change::Demote(NodeId(1))], "(2 3 & 1 2 3, observers 1 4, leaving)"),
        (&[Change::Remove(NodeId(1)), Change::Promote(NodeId(4))], "(2 3 4 & 1 2 3, leaving)"),
        (
            &[Change::Remove(NodeId(1)), Change::AddWitness(NodeId(9))],
            "(2 3 9 & 1 2 3, observers 4, witness 9, leaving)",
        ),
    ];
    for (changes, expected) in cases {
        assert_eq!(format!("{:?}", changed(&three, changes).unwrap()), expected);
    }
}

#[test]
fn a_joint_configuration_is_left_for_its_incoming_half() {
    for (joint, left) in [
        (parts(&[1, 2, 3, 4], &[1, 2, 3], &[5], None), of(&[1, 2, 3, 4], &[5], None)),
        (parts(&[2, 3], &[1, 2, 3], &[1], None), of(&[2, 3], &[1], None)),
        (parts(&[1], &[1, 2, 9], &[], Some(9)), of(&[1], &[], None)),
        (parts(&[1, 2, 9], &[1], &[], Some(9)), of(&[1, 2, 9], &[], Some(9))),
    ] {
        assert_eq!(joint.unwrap().left(), left);
    }
}

#[test]
fn wishes_that_cannot_be_granted_are_refused() {
    let three = of(&[1, 2, 3], &[4], None);
    for (change, error) in [
        (Change::AddObserver(NodeId(4)), MembershipError::AlreadyMember(NodeId(4))),
        (Change::AddWitness(NodeId(1)), MembershipError::AlreadyMember(NodeId(1))),
        (Change::Promote(NodeId(1)), MembershipError::NotObserver(NodeId(1))),
        (Change::Promote(NodeId(7)), MembershipError::NotMember(NodeId(7))),
        (Change::Demote(NodeId(4)), MembershipError::NotVoter(NodeId(4))),
        (Change::Remove(NodeId(7)), MembershipError::NotMember(NodeId(7))),
        (
            Change::AddWitness(NodeId(9)),
            MembershipError::Configuration(ConfigurationError::WitnessBesideOdd(3)),
        ),
    ] {
        assert_eq!(changed(&three, &[change]), Err(error));
    }
    assert_eq!(changed(&three, &[]), Err(MembershipError::Unchanged));
    let back_and_forth = [Change::Demote(NodeId(1)), Change::Promote(NodeId(1))];
    assert_eq!(changed(&three, &back_and_forth), Err(MembershipError::Unchanged));
    let last = of(&[1], &[], None);
    let gone = changed(&last, &[Change::Remove(NodeId(1))]);
    assert_eq!(gone, Err(MembershipError::Configuration(ConfigurationError::NoVoter)));
}

#[test]
fn beside_a_witness_voters_change_only_when_it_goes() {
    let witnessed = of(&[1, 2, 9], &[3], Some(9));
    let swap = [Change::Remove(NodeId(2)), Change::Promote(NodeId(3))];
    let stays = MembershipError::Configuration(ConfigurationError::WitnessInBothHalves(NodeId(9)));
    assert_eq!(changed(&witnessed, &swap), Err(stays));
    let another = [Change::Remove(NodeId(9)), Change::AddWitness(NodeId(8))];
    assert_eq!(changed(&witnessed, &another), Err(stays));
    let alone = [Change::Remove(NodeId(2)), Change::Remove(NodeId(9))];
    assert_eq!(
        changed(&witnessed, &alone),
        parts(&[1], &[1, 2, 9], &[3], Some(9)).map_err(MembershipError::Configuration)
    );
    let fewer = changed(&witnessed, &[Change::Remove(NodeId(2))]);
    assert_eq!(fewer, Err(MembershipError::Configuration(ConfigurationError::WitnessBesideOdd(1))));
    assert_eq!(changed(&witnessed, &[Change::Remove(NodeId(3))]), Ok(of(&[1, 2, 9], &[], Some(9))));
}
