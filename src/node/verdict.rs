//! One sentence on whether a box counts: the first line of `tallyd status`, of the page and of systemd's STATUS.
//!
//! Always one of "works; tolerates N failing", "works; tolerates none: WHO is away" and "does NOT count: WHY; do: WHAT".

use serde::Serialize;
use tally_core::raft::MemberRole;

use super::disk_health::DiskFault;
use super::fault_tolerance::{Known, writes};
use super::status::{MemberStatus, NodeRole, NodeStatus, StateVerdict};

/// A write that the disk has had for so long, milliseconds, holds up everything that needs this box's disk.
const LONG_WRITE_MS: u64 = 2_000;

const OTHERS_COUNT: &str = "meanwhile count at another box, the others go on";

/// Whether what is counted at a box is committed, and if not, why and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether what is counted at this box can be committed now.
    pub counts: bool,
    /// The sentence.
    pub text: String,
    /// Why this box does not count; absent if it does.
    pub why: Option<String>,
    /// What to do about that; absent if it counts.
    pub advice: Option<String>,
}

impl Verdict {
    /// The box counts, and so many boxes more may fail. `note`: who is away, or why no box may fail.
    fn works(failures: u64, note: Option<String>) -> Verdict {
        let text = match (failures, note) {
            (0, None) => "works; tolerates none".to_owned(),
            (0, Some(note)) => format!("works; tolerates none: {note}"),
            (_, None) => format!("works; tolerates {failures} failing"),
            (_, Some(note)) => format!("works; tolerates {failures} failing; {note}"),
        };
        Verdict { counts: true, text, why: None, advice: None }
    }

    /// The box does not count.
    #[must_use]
    pub fn does_not_count(why: impl Into<String>, advice: impl Into<String>) -> Verdict {
        let (why, advice) = (why.into(), advice.into());
        let text = format!("does NOT count: {why}; do: {advice}");
        Verdict { counts: false, text, why: Some(why), advice: Some(advice) }
    }
}

/// The verdict on a box of which everything else is known.
pub(super) fn verdict(status: &NodeStatus, known: &Known<'_>, is_removed: bool) -> Verdict {
    match why_not(status, known, is_removed) {
        Some((why, advice)) => Verdict::does_not_count(why, advice),
        None => Verdict::works(status.tolerates.failures, note(status, known)),
    }
}

/// Why this box commits nothing, and what to do. The first reason that holds is the one to mend first.
fn why_not(status: &NodeStatus, known: &Known<'_>, is_removed: bool) -> Option<(String, String)> {
    let said = |why: &str, advice: &str| Some((why.to_owned(), advice.to_owned()));
    if is_removed {
        return said(
            "this box was removed from the site",
            "stop it; to use it again, remove its data directory and provision it anew",
        );
    }
    if let (Some(fault), Some(advice)) = (status.storage.state, status.storage.advice) {
        return Some(disk_trouble(status, fault, advice, known));
    }
    if status.state_check.state == StateVerdict::OutOfService {
        let advice = "wait, it resumes by itself; meanwhile count at another box, the others go on";
        return said(
            "this box's state differed from the other boxes' and is being fetched from one of them",
            advice,
        );
    }
    if !known.majority {
        return Some((status.tolerates.text.clone(), bring_back(&status.members)));
    }
    if status.leader.is_none() {
        let (why, advice) = match known.refused_by_witness {
            true => (status.tolerates.text.clone(), bring_back(&status.members)),
            false => (
                "no leader, an election is going on".to_owned(),
                "wait some seconds; if it persists, run `tallyd doctor` on each box".to_owned(),
            ),
        };
        return Some((why, advice));
    }
    if let Some(why) = &status.refused {
        return said(why, "see this box's log");
    }
    if status.role == NodeRole::None {
        return said("this box is not a member of the site yet", "wait, or add it with `tallyd member add`");
    }
    if status.storage.waiting_ms >= LONG_WRITE_MS && needs_own_disk(status) {
        let why =
            format!("the disk has not finished a write for {:.1} s", status.storage.waiting_ms as f64 / 1e3);
        return Some((why, DiskFault::Hung.advice().to_owned()));
    }
    if !status.ready {
        return said(
            "this box has just started and waits for the site to accept it",
            "wait some seconds; if it persists, see this box's log",
        );
    }
    None
}

fn disk_trouble(status: &NodeStatus, fault: DiskFault, advice: &str, known: &Known<'_>) -> (String, String) {
    let state = match fault {
        DiskFault::Full => "full",
        DiskFault::ReadOnly => "mounted read-only",
        DiskFault::Failing => "failing",
        DiskFault::Hung => "hung",
        DiskFault::Damaged => "damaged",
    };
    let what = status.storage.what.as_deref().unwrap_or("it takes no writes");
    let advice = match known.majority && !needs_own_disk(status) {
        true => format!("{advice}; {OTHERS_COUNT}"),
        false => advice.to_owned(),
    };
    (format!("this box's disk is {state} ({what})"), advice)
}

/// Whether nothing is committed without the disk of this box: the others are too few.
fn needs_own_disk(status: &NodeStatus) -> bool {
    let majority = |votes: &dyn Fn(&MemberStatus) -> bool| {
        let voters: Vec<_> = status.members.iter().filter(|member| votes(member)).collect();
        let others = voters.iter().filter(|member| member.id.0 != status.node_id && writes(member)).count();
        others > voters.len() / 2
    };
    !majority(&|member| member.votes) || (status.changing.joint && !majority(&|member| member.outgoing))
}

/// Who is to be brought back.
fn bring_back(members: &[MemberStatus]) -> String {
    let away = names(members, |member| !member.connected);
    let bad = names(members, |member| member.connected && !writes(member));
    let start = |names: &[&str]| {
        format!(
            "start {} or mend the network to {}",
            listed(names, "or"),
            if names.len() == 1 { "it" } else { "them" }
        )
    };
    match (away.is_empty(), bad.is_empty()) {
        (true, true) => "wait some seconds; if it persists, run `tallyd doctor` on each box".to_owned(),
        (false, _) => start(&away),
        (true, false) => format!("mend the disk of {}", listed(&bad, "or")),
    }
}

/// Who is away, and why no box more may fail.
fn note(status: &NodeStatus, known: &Known<'_>) -> Option<String> {
    let away = names(&status.members, |member| !member.connected);
    let bad = names(&status.members, |member| member.connected && !writes(member));
    let verb = |names: &[&str]| if names.len() == 1 { "is" } else { "are" };
    let mut notes = Vec::new();
    if !away.is_empty() {
        notes.push(format!("{} {} away", listed(&away, "and"), verb(&away)));
    }
    if !bad.is_empty() {
        notes.push(format!("the disk of {} takes no writes", listed(&bad, "and")));
    }
    if status.changing.joint {
        notes.push("the members are changing".to_owned());
    }
    if let Some(name) = known.witness_for.filter(|name| !away.contains(name)) {
        notes.push(format!("{name} is catching up"));
    }
    if notes.is_empty() && status.tolerates.failures == 0 {
        let voters = status.members.iter().filter(|member| member.votes).count();
        notes.push(match voters {
            1 => "the site has one box".to_owned(),
            _ => format!("all {voters} boxes are needed"),
        });
    }
    (!notes.is_empty()).then(|| notes.join(", "))
}

/// The names of the members that vote, witness included, and of which this holds.
fn names(members: &[MemberStatus], of: impl Fn(&MemberStatus) -> bool) -> Vec<&str> {
    let votes = |member: &&MemberStatus| {
        member.votes || member.outgoing || member.membership == Some(MemberRole::Witness)
    };
    members.iter().filter(votes).filter(|member| of(member)).map(|member| member.name.as_str()).collect()
}

fn listed(names: &[&str], and: &str) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
