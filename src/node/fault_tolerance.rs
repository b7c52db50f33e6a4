//! What the site can lose from now on, in words.

use tally_core::raft::MemberRole;

use super::{MemberStatus, Tolerates};

/// What can fail from now on: boxes that are reachable beyond a majority. `witness_for`: whom the witness
/// stands in for, as the leader knows; `refused`: the witness does not vote for this box. While the members change,
/// majorities of two groups are needed, and what is said is of the one that bears less.
pub(super) fn tolerates(members: &[MemberStatus], witness_for: Option<&str>, refused: bool) -> Tolerates {
    let is_witness = |member: &MemberStatus| member.membership == Some(MemberRole::Witness);
    let of = |votes: &dyn Fn(&MemberStatus) -> bool| {
        let boxes: Vec<&MemberStatus> =
            members.iter().filter(|member| !is_witness(member) && votes(member)).collect();
        let up = boxes.iter().filter(|member| member.connected).count();
        match members.iter().find(|member| is_witness(member) && votes(member)) {
            None => (up > boxes.len() / 2, of_boxes(boxes.len(), up)),
            Some(witness) => {
                let majority = up + usize::from(witness.connected) > boxes.len().div_ceil(2);
                (majority, beside_witness(&boxes, up, witness, witness_for, refused))
            }
        }
    };
    let now = of(&|member| member.votes);
    if !members.iter().any(|member| member.outgoing) {
        return now.1;
    }
    let before = of(&|member| member.outgoing);
    let (_, worse) =
        [before, now].into_iter().min_by_key(|(majority, of)| (*majority, of.failures)).unwrap_or_default();
    Tolerates { text: format!("the members change; {}", worse.text), ..worse }
}

/// Of a box that is no member any more.
pub(super) fn removed() -> Tolerates {
    let text =
        "this box was removed from the site: it counts no more; stop it, and set it up anew to use it again"
            .to_owned();
    Tolerates { failures: 0, text }
}

fn of_boxes(voters: usize, up: usize) -> Tolerates {
    let quorum = voters / 2 + 1;
    let failures = up.saturating_sub(quorum) as u64;
    let text = if up < quorum {
        format!(
            "{} of {voters} reachable: nothing is committed until {} more return",
            some_boxes(up),
            some_boxes(quorum - up)
        )
    } else if failures == 0 {
        format!("{} of {voters} reachable: tolerates no failure", some_boxes(up))
    } else {
        format!("{} of {voters} reachable: tolerates {failures} failing", some_boxes(up))
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
        boxes.iter().filter(|member| !member.connected).map(|member| member.name.as_str()).collect();
    let all = boxes.len();
    // Of the boxes and the witness.
    let quorum = all.div_ceil(2) + 1;
    let votes = up + usize::from(witness.connected);
    if refused && !away.is_empty() {
        let away = away.join(" or ");
        let text = format!(
            "no leader until {away} returns: it may have counted, together with the witness, what this box has not"
        );
        return Tolerates { failures: 0, text };
    }
    let reachable = match (away.is_empty(), witness.connected) {
        (true, true) => format!("{} and a witness", in_words(all)),
        (false, true) => format!("{} of {all} and the witness reachable", some_boxes(up)),
        (_, false) => format!("{} of {all} reachable, the witness is not", some_boxes(up)),
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
    if let Some(name) = witness_for.filter(|name| !away.contains(name)) {
        let text =
            format!("{reachable}; {name} catches up: tolerates no failure of another box until it has");
        return Tolerates { failures: 0, text };
    }
    let failures = (votes - quorum) as u64;
    let text = match failures {
        0 => format!("{reachable}: tolerates no failure"),
        1 => format!("{reachable}: tolerates one failure"),
        _ => format!("{reachable}: tolerates {failures} failures"),
    };
    Tolerates { failures, text }
}

fn some_boxes(count: usize) -> String {
    if count == 1 { "1 box".to_owned() } else { format!("{count} boxes") }
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
        let Tolerates { failures, text } = tolerates(members, witness_for, refused);
        (failures, text)
    }

    #[test]
    fn two_boxes_and_a_witness_in_words() {
        for (up, witness, failures, text) in [
            ([true, true], true, 1, "two boxes and a witness: tolerates one failure"),
            ([true, false], true, 0, "1 box of 2 and the witness reachable: tolerates no failure"),
            ([true, true], false, 0, "2 boxes of 2 reachable, the witness is not: tolerates no failure"),
            (
                [true, false],
                false,
                0,
                "1 box of 2 reachable, the witness is not: nothing is committed until box2 or w returns",
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
            (0, "two boxes and a witness; box2 catches up: tolerates no failure of another box until it has")
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
            (0, "the members change; 1 box of 2 reachable: nothing is committed until 1 box more return")
        );
        // One of two is replaced: the old group bears nothing, the new one of three one failure.
        let mut members: Vec<_> = ["a", "b", "c", "d"].map(|name| member(name, VOTER, true)).into();
        members[0].outgoing = true;
        members[1].outgoing = true;
        members[1].votes = false;
        let (failures, text) = says(&members, None, false);
        assert_eq!(
            (failures, &*text),
            (0, "the members change; 2 boxes of 2 reachable: tolerates no failure")
        );
    }

    #[test]
    fn boxes_alone_are_told_as_ever() {
        let boxes =
            |up: &[bool]| -> Vec<MemberStatus> { up.iter().map(|up| member("b", VOTER, *up)).collect() };
        for (up, failures, text) in [
            (&[true][..], 0, "1 box of 1 reachable: tolerates no failure"),
            (&[true, true, true][..], 1, "3 boxes of 3 reachable: tolerates 1 failing"),
            (
                &[true, false, false][..],
                0,
                "1 box of 3 reachable: nothing is committed until 1 box more return",
            ),
        ] {
            assert_eq!(says(&boxes(up), None, false), (failures, text.to_owned()));
        }
    }
}
