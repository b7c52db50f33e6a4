//! The fault tolerance of the site, in words.

use tally_core::raft::MemberRole;

use super::{MemberStatus, Tolerates};
use crate::deliberate::{self, Bug};

/// What the leader knows of the witness, and whether the boxes are enough to commit anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// The box that the witness stands in for, or for which it may not vote yet.
    pub(super) witness_for: Option<&'a str>,
    /// The witness does not vote for this box.
    pub(super) refused_by_witness: bool,
    /// A majority is connected and its disks take writes.
    pub(super) majority: bool,
}

/// Whether a member is connected and its disk takes writes, as far as this box knows.
pub(super) fn writes(member: &MemberStatus) -> bool {
    member.connected && member.disk_ok != Some(false)
}

/// How many failures the site tolerates: the boxes that are connected and can write, beyond a majority; and whether they
/// are one. `witness_for`: the box that the witness stands in for or may not vote for yet, as the leader knows; `refused`:
/// the witness does not vote for this box. While the members change, majorities of two groups are needed, and the result
/// is that of the weaker group.
pub(super) fn tolerates(
    members: &[MemberStatus],
    witness_for: Option<&str>,
    refused: bool,
) -> (bool, Tolerates) {
    let is_witness = |member: &MemberStatus| member.membership == Some(MemberRole::Witness);
    let of = |votes: &dyn Fn(&MemberStatus) -> bool| {
        let boxes: Vec<&MemberStatus> =
            members.iter().filter(|member| !is_witness(member) && votes(member)).collect();
        let up = boxes.iter().filter(|member| writes(member)).count();
        let connected = boxes.iter().filter(|member| member.connected).count();
        match members.iter().find(|member| is_witness(member) && votes(member)) {
            None => (up > boxes.len() / 2, of_boxes(boxes.len(), up, connected)),
            Some(witness) => {
                let majority = up + usize::from(witness.connected) > boxes.len().div_ceil(2);
                (majority, beside_witness(&boxes, up, witness, witness_for, refused))
            }
        }
    };
    let now = of(&|member| member.votes);
    if !members.iter().any(|member| member.outgoing) {
        return now;
    }
    let before = of(&|member| member.outgoing);
    let (majority, worse) =
        [before, now].into_iter().min_by_key(|(majority, of)| (*majority, of.failures)).unwrap_or_default();
    (majority, Tolerates { text: format!("the members are changing; {}", worse.text), ..worse })
}

/// The fault tolerance that a removed box reports.
pub(super) fn removed() -> Tolerates {
    let text =
        "this box was removed from the site and counts no more; stop it; to use it again, provision it anew"
            .to_owned();
    Tolerates { failures: 0, text }
}

fn of_boxes(voters: usize, up: usize, connected: usize) -> Tolerates {
    let quorum = voters / 2 + 1;
    let failures = up.saturating_sub(quorum) as u64;
    let bad = match connected - up {
        0 => String::new(),
        1 => ", 1 with a disk that takes no writes".to_owned(),
        bad => format!(", {bad} with disks that take no writes"),
    };
    let reach = format!("{} of {voters} connected{bad}", some_boxes(connected));
    let text = if up < quorum && connected >= quorum {
        format!("{reach}: nothing is committed until the disks take writes again")
    } else if up < quorum {
        format!("{reach}: nothing is committed until {}", more_boxes(quorum - up))
    } else if failures == 0 {
        format!("{reach}: tolerates no failure")
    } else {
        format!("{reach}: tolerates {}", failure_count(failures))
    };
    Tolerates { failures, text }
}

fn beside_witness(
    boxes: &[&MemberStatus],
    up: usize,
    witness: &MemberStatus,
    witness_for: Option<&str>,
    refused: bool,
) -> Tolerates {
    let away: Vec<&str> =
        boxes.iter().filter(|member| !writes(member)).map(|member| member.name.as_str()).collect();
    let all = boxes.len();
    // Of the boxes and the witness.
    let quorum = all.div_ceil(2) + 1;
    let votes = up + usize::from(witness.connected);
    if refused && !away.is_empty() {
        let away = away.join(" or ");
        let text = format!(
            "no leader until {away} returns: together with the witness it may have committed entries that \
             this box lacks"
        );
        return Tolerates { failures: 0, text };
    }
    let reachable = match (away.is_empty(), witness.connected) {
        (true, true) => format!("{} and a witness", in_words(all)),
        (false, true) => format!("{} of {all} and the witness connected", some_boxes(up)),
        (_, false) => format!("{} of {all} connected, without the witness", some_boxes(up)),
    };
    if votes < quorum {
        let mut missing = away;
        missing.extend((!witness.connected).then_some(witness.name.as_str()));
        let (missing, more) = (missing.join(" or "), quorum - votes);
        let returns = if more == 1 { "returns".to_owned() } else { format!("({more} of them) return") };
        let text = format!("{reachable}: nothing is committed until {missing} {returns}");
        return Tolerates { failures: 0, text };
    }
    // Until a box that was away has caught up, what was counted without it is at the others alone.
    let is_mindful = !deliberate::is(Bug::ToleratesWhileCatchingUp);
    if let Some(name) = witness_for.filter(|name| is_mindful && !away.contains(name)) {
        let text = format!(
            "{reachable}; {name} is catching up: tolerates no failure of another box until it has caught up"
        );
        return Tolerates { failures: 0, text };
    }
    let failures = (votes - quorum) as u64 + u64::from(deliberate::is(Bug::ToleratesOneMore));
    let text = match failures {
        0 => format!("{reachable}: tolerates no failure"),
        _ => format!("{reachable}: tolerates {}", failure_count(failures)),
    };
    Tolerates { failures, text }
}

fn some_boxes(count: usize) -> String {
    if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") }
}

fn more_boxes(count: usize) -> String {
    if count == 1 { "1 more box returns".to_owned() } else { format!("{count} more boxes return") }
}

fn failure_count(count: u64) -> String {
    if count == 1 { "1 failure".to_owned() } else { format!("{count} failures") }
}

fn in_words(boxes: usize) -> String {
    match boxes {
        2 => "two boxes".to_owned(),
        4 => "four boxes".to_owned(),
        6 => "six boxes".to_owned(),
        8 => "eight boxes".to_owned(),
        _ => some_boxes(boxes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTER: MemberRole = MemberRole::Voter;

    fn member(name: &str, role: MemberRole, connected: bool) -> MemberStatus {
        let membership = Some(role);
        MemberStatus { name: name.to_owned(), membership, connected, votes: true, ..MemberStatus::default() }
    }

    fn site(up: &[bool], witness: bool) -> Vec<MemberStatus> {
        let boxes = (1..).zip(up).map(|(number, up)| member(&format!("box{number}"), VOTER, *up));
        boxes.chain([member("w", MemberRole::Witness, witness)]).collect()
    }

    fn says(members: &[MemberStatus], witness_for: Option<&str>, refused: bool) -> (u64, String) {
        let (_, Tolerates { failures, text }) = tolerates(members, witness_for, refused);
        (failures, text)
    }

    #[test]
    fn two_boxes_and_a_witness_in_words() {
        for (up, witness, failures, text) in [
            ([true, true], true, 1, "two boxes and a witness: tolerates 1 failure"),
            ([true, false], true, 0, "1 box of 2 and the witness connected: tolerates no failure"),
            ([true, true], false, 0, "2 boxes of 2 connected, without the witness: tolerates no failure"),
            (
                [true, false],
                false,
                0,
                "1 box of 2 connected, without the witness: nothing is committed until box2 or w \
                 returns",
            ),
        ] {
            assert_eq!(says(&site(&up, witness), None, false), (failures, text.to_owned()));
        }
    }

    #[test]
    fn a_box_that_catches_up_and_a_witness_that_refuses_are_told() {
        let (failures, text) = says(&site(&[true, true], true), Some("box2"), false);
        assert_eq!(
            (failures, &*text),
            (
                0,
                "two boxes and a witness; box2 is catching up: tolerates no failure of another box until it \
                 has caught up"
            )
        );
        let (failures, text) = says(&site(&[true, false], true), None, true);
        assert!(failures == 0 && text.starts_with("no leader until box2 returns: "), "{text}");
        // It refuses and everybody is there: an election goes on.
        assert_eq!(says(&site(&[true, true], true), None, true).0, 1);
    }

    #[test]
    fn more_boxes_tolerate_more() {
        assert_eq!(
            says(&site(&[true; 4], true), None, false),
            (2, "four boxes and a witness: tolerates 2 failures".to_owned())
        );
        assert_eq!(says(&site(&[true, true, false, false], true), None, false).0, 0);
        let (_, text) = says(&site(&[true, false, false, false], false), None, false);
        assert!(
            text.ends_with("nothing is committed until box2 or box3 or box4 or w (2 of them) return"),
            "{text}"
        );
    }

    #[test]
    fn while_the_members_change_the_group_that_bears_less_is_told() {
        // Of three, with one away, another one leaves: the two that stay cannot go on.
        let mut members = vec![member("a", VOTER, true), member("b", VOTER, true), member("c", VOTER, false)];
        members.iter_mut().for_each(|member| member.outgoing = true);
        members[1].votes = false;
        let (failures, text) = says(&members, None, false);
        assert_eq!(
            (failures, &*text),
            (
                0,
                "the members are changing; 1 box of 2 connected: nothing is committed until 1 more box \
                 returns"
            )
        );
        // One of two is replaced: the old group bears nothing, the new one of three one failure.
        let mut members: Vec<_> = ["a", "b", "c", "d"].map(|name| member(name, VOTER, true)).into();
        members[0].outgoing = true;
        members[1].outgoing = true;
        members[1].votes = false;
        let (failures, text) = says(&members, None, false);
        assert_eq!(
            (failures, &*text),
            (0, "the members are changing; 2 boxes of 2 connected: tolerates no failure")
        );
    }

    #[test]
    fn a_box_whose_disk_takes_no_writes_is_connected_and_bears_nothing() {
        let boxes = |disks: &[bool]| -> Vec<MemberStatus> {
            let of = |ok: &bool| MemberStatus { disk_ok: Some(*ok), ..member("b", VOTER, true) };
            disks.iter().map(of).collect()
        };
        for (disks, majority, text) in [
            (
                &[false][..],
                false,
                "1 box of 1 connected, 1 with a disk that takes no writes: nothing is committed until the disks take \
                 writes again",
            ),
            (
                &[true, true, false],
                true,
                "3 boxes of 3 connected, 1 with a disk that takes no writes: tolerates no failure",
            ),
        ] {
            let (enough, tolerates) = tolerates(&boxes(disks), None, false);
            assert_eq!((enough, tolerates.failures, &*tolerates.text), (majority, 0, text));
        }
    }

    #[test]
    fn boxes_alone_are_told_as_ever() {
        let boxes =
            |up: &[bool]| -> Vec<MemberStatus> { up.iter().map(|up| member("b", VOTER, *up)).collect() };
        for (up, failures, text) in [
            (&[true][..], 0, "1 box of 1 connected: tolerates no failure"),
            (&[true, true, true][..], 1, "3 boxes of 3 connected: tolerates 1 failure"),
            (
                &[true, false, false][..],
                0,
                "1 box of 3 connected: nothing is committed until 1 more box returns",
            ),
        ] {
            assert_eq!(says(&boxes(up), None, false), (failures, text.to_owned()));
        }
    }
}
