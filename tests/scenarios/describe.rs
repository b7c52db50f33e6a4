//! Messages, logs and writes in words: `7/3` is the entry at index 7 that was written in term 3.

use std::fmt::Write as _;

use tally_core::id::NodeId;
use tally_core::raft::{Body, EntryRange, Ignored, Message, Position, Role};

use crate::node::{Disk, Packet, Write};
use crate::plain_log::PlainLog;

pub(crate) fn position(at: Position) -> String {
    match at.subterm.0 {
        0 => format!("{}/{}", at.index, at.term),
        subterm => format!("{}/{}.{subterm}", at.index, at.term),
    }
}

pub(crate) fn range(range: &EntryRange) -> String {
    let first = position(Position { index: range.first, term: range.term, subterm: range.subterm });
    let last = position(Position { index: range.last, term: range.term, subterm: range.subterm });
    if range.first == range.last { first } else { format!("{first}..{last}") }
}

/// What kind of message it is: the word that scripts select by.
pub(crate) fn kind(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteAnswer { .. } => "PreVoteAnswer",
        Body::Vote { .. } => "Vote",
        Body::VoteAnswer { .. } => "VoteAnswer",
        Body::Append { .. } => "Append",
        Body::Appended { .. } => "Appended",
        Body::Rejected { .. } => "Rejected",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatAnswer { .. } => "HeartbeatAnswer",
        Body::Snapshot { .. } => "Snapshot",
        Body::TimeoutNow => "TimeoutNow",
        Body::WitnessVote { .. } => "WitnessVote",
        Body::WitnessAppend { .. } => "WitnessAppend",
        Body::WitnessAppended { .. } => "WitnessAppended",
        Body::WitnessPing { .. } => "WitnessPing",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let what = match &message.body {
        Body::PreVote { last } | Body::Vote { last, transfer: false } => format!("last={}", position(*last)),
        Body::Vote { last, transfer: true } => format!("last={} by transfer", position(*last)),
        Body::TimeoutNow => String::new(),
        Body::WitnessVote { pre, last_term, last_subterm, votes } => {
            let pre = if *pre { " before a campaign" } else { "" };
            format!("last term={last_term}.{last_subterm} votes={votes:?}{pre}")
        }
        Body::WitnessAppend { subterm, voters } => format!("subterm={subterm} voters={voters:?}"),
        Body::WitnessAppended { subterm, taken } => {
            format!("subterm={subterm} {}", if *taken { "taken" } else { "refused" })
        }
        Body::WitnessPing { round } => format!("round={round}"),
        Body::PreVoteAnswer { granted } | Body::VoteAnswer { granted } => {
            if *granted { "granted" } else { "refused" }.to_owned()
        }
        Body::Append { previous, entries: Some(entries), commit } => {
            format!("after={} entries={} commit={commit}", position(*previous), range(entries))
        }
        Body::Append { previous, entries: None, commit } => {
            format!("after={} commit={commit}", position(*previous))
        }
        Body::Appended { matched, received } => format!("durable={matched} received={received}"),
        Body::Rejected { previous, hint } => format!("after={previous} hint={}", position(*hint)),
        Body::Heartbeat { commit, round } => format!("commit={commit} round={round}"),
        Body::HeartbeatAnswer { round } => format!("round={round}"),
        Body::Snapshot { last } => format!("last={}", position(*last)),
    };
    format!("{} term={} {what}", kind(&message.body), message.term).trim_end().to_owned()
}

/// A message with the configuration that it carries.
pub(crate) fn packet(packet: &Packet) -> String {
    let with = packet.configuration.as_ref().map_or_else(String::new, |held| format!(" with {held:?}"));
    format!("{}{with}", message(&packet.message))
}

pub(crate) fn ignored(why: Ignored) -> &'static str {
    match why {
        Ignored::UnknownSender => "the sender is no member",
        Ignored::TooManyMembers => "it has too many members",
        Ignored::NotVoter => "the sender has no vote",
        Ignored::Malformed => "it contradicts what is known",
        Ignored::Stale => "it is stale",
        Ignored::Leased => "a leader is heard",
        Ignored::NotAwaited => "nobody waits for it",
        Ignored::Busy => "a record is being stored",
        Ignored::LogUnreadable => "the log cannot be read",
    }
}

/// The runs of a log: `1-3/1 4/2` are entries 1 to 3 of term 1 and entry 4 of term 2.
pub(crate) fn log(log: &PlainLog) -> String {
    let mut text = String::new();
    if log.base.index.0 > 0 {
        let _ = write!(text, "snapshot {} ", position(log.base));
    }
    let key = |at: &Position| (at.term, at.subterm);
    for run in log.entries().chunk_by(|one, next| key(one) == key(next)) {
        let last = run[run.len() - 1];
        if run.len() > 1 {
            let _ = write!(text, "{}-", run[0].index);
        }
        let _ = write!(text, "{} ", position(last));
    }
    if text.is_empty() { "empty".to_owned() } else { text.trim_end().to_owned() }
}

pub(crate) fn vote(disk: &Disk) -> String {
    disk.vote.map_or_else(|| "no vote".to_owned(), |vote| format!("vote for {vote}"))
}

pub(crate) fn disk(disk: &Disk) -> String {
    format!("term {}, {}, log {}", disk.term, vote(disk), log(&disk.log))
}

pub(crate) fn write(write: &Write) -> String {
    let persist = &write.persist;
    let mut parts = Vec::new();
    if let Some(hard_state) = persist.hard_state {
        let vote = hard_state.vote.map_or_else(|| "nobody".to_owned(), |vote| vote.to_string());
        parts.push(format!("term {} with a vote for {vote}", hard_state.term));
    }
    if let Some(base) = persist.reset {
        parts.push(format!("snapshot {} in place of the log", position(base)));
    }
    if let Some(last) = persist.truncate_after {
        parts.push(format!("the log cut after {last}"));
    }
    if let [(first, _), .., (last, _)] = write.entries[..] {
        parts.push(format!("entries {}..{}", position(first), position(last)));
    } else if let [(entry, _)] = write.entries[..] {
        parts.push(format!("entry {}", position(entry)));
    }
    parts.join(", ")
}

pub(crate) fn role(role: Role, leader: Option<NodeId>) -> String {
    match (role, leader) {
        (Role::Follower, Some(leader)) => format!("follower of {leader}"),
        (Role::Follower, None) => "follower of nobody".to_owned(),
        (Role::PreCandidate, _) => "pre-candidate".to_owned(),
        (Role::Candidate, _) => "candidate".to_owned(),
        (Role::Leader, _) => "leader".to_owned(),
    }
}
