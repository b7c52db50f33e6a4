//! `tallyd status`: shows the state of a box and its site.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tally_core::raft::MemberRole;

use super::client::{Call, Client, ClientError, Server};
use super::reads::{parse_answer, print_json};
use super::text::{Side, Table};
use super::{print, text};
use crate::node::NodeRole;

/// Show the state of a box and its site
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd status
  tallyd status --url http://10.0.0.11:7480 --json")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    let body = client.call(&Call::get("/v1/status".to_owned())).await?;
    if args.server.json {
        return print_json(&body);
    }
    let status: Value = parse_answer(&args.server, &body)?;
    if said(&status["role"]) == Some(MemberRole::Witness) {
        return print(&super::witness::in_words(&status));
    }
    if let ("waiting" | "joining", Some(text)) =
        (status["role"].as_str().unwrap_or_default(), status["text"].as_str())
    {
        return print(&format!("{}: {}\n", of(&status, "node"), text::printable(text)));
    }
    print(&in_words(&status))
}

fn in_words(status: &Value) -> String {
    let ready = if status["ready"] == true { "ready" } else { "NOT READY" };
    let role = match said(&status["role"]) {
        Some(NodeRole::None) => "not a member (removed, or not yet added)".to_owned(),
        _ => of(status, "role"),
    };
    let leader = match (status["leader"].as_str(), status["leader_since"].as_u64()) {
        (None, _) => "no leader known".to_owned(),
        (Some(name), None) => format!("leader {name}"),
        (Some(name), Some(since)) => format!("leader {name} since {}", text::time(since)),
    };
    // An answer of an earlier release has no verdict.
    let verdict = status["verdict"]["text"].as_str().map(text::printable);
    let mut lines: Vec<String> = verdict.into_iter().collect();
    lines.extend([
        format!(
            "{} of site {} ({}): {role}, {ready}",
            of(status, "node"),
            of(status, "site"),
            of(status, "site_id"),
        ),
        format!("{leader}, term {}; {}", of(status, "term"), of(&status["tolerates"], "text")),
    ]);
    let waits = status["changing"]["waits"].as_str();
    lines.extend(waits.map(|why| format!("the members cannot change yet: {}", text::printable(why))));
    if let Some(why) = status["refused"].as_str() {
        lines.push(format!("the site does not accept what this box counts: {}", text::printable(why)));
    }
    if let Some(text) = status["state_check"]["text"].as_str() {
        lines.push(format!("STATE {}: {}", of(&status["state_check"], "state"), text::printable(text)));
    }
    lines.extend(status["adaptive_timeout"]["text"].as_str().map(text::printable));
    if let Some(batches) = status["accumulator"]["unsettled"].as_u64().filter(|batches| *batches > 0) {
        lines.push(format!("batches saved at the last stop, not yet committed: {batches}"));
    }
    let level = &status["level"];
    if level["site"].as_u64() < level["max"].as_u64() {
        lines.push(format!(
            "feature level {} of {}: new features wait until every member runs this release",
            of(level, "site"),
            of(level, "max")
        ));
    }
    lines.push(String::new());
    lines.push(members(status).text());
    let members = status["members"].as_array().into_iter().flatten();
    lines.extend(members.filter_map(|member| member["vote_waits"].as_str().map(text::printable)));
    lines.extend(refusals(status));
    lines.extend(adaptive_timeout(&status["adaptive_timeout"]));
    lines.extend(parts(status).map(|(name, words)| format!("{name:<9} {words}")));
    lines.extend(disk_trouble(&status["storage"]));
    lines.extend(transfer(&status["transfers"]["last"]));
    let ways_in = status["ingest"].as_object().into_iter().flatten();
    for (name, ingest) in ways_in.filter(|(_, ingest)| !ingest.as_array().is_some_and(Vec::is_empty)) {
        lines.push(format!("{name:<9} {}", part(ingest)));
        lines.extend(troubles(ingest).chain(refused_lines(ingest)).map(|what| format!("{:<9} {what}", "")));
    }
    lines.push(format!(
        "version   {}, up {}",
        of(status, "version"),
        text::seconds(status["uptime_s"].as_u64().unwrap_or_default())
    ));
    lines.iter().map(|line| text_line(line)).collect()
}

/// The lines that every status has.
fn parts(status: &Value) -> impl Iterator<Item = (&'static str, String)> {
    let (outbox, clock, storage) = (&status["outbox"], &status["clock"], &status["storage"]);
    let log = format!(
        "committed up to {}, applied up to {}, digest {}",
        of(status, "commit"),
        of(status, "applied"),
        of(status, "digest")
    );
    let waiting = format!(
        "{} summaries waiting, {} of them unnumbered; numbered up to {}, delivered up to {}",
        of(outbox, "waiting"),
        of(outbox, "unnumbered"),
        of(outbox, "numbered"),
        of(outbox, "delivered")
    );
    let held = status["meters"]["held"].as_u64().filter(|held| *held > 0);
    let held = held.map(|held| format!(", {held} with an unconfirmed jump (see --json)"));
    let series = of(status, "series");
    let series = match status["meters"]["count"].as_u64() {
        None | Some(0) => series,
        Some(meters) => format!("{series}; {meters} meters{}", held.unwrap_or_default()),
    };
    let synced = if clock["synced"] == true { "synchronised" } else { "not synchronised" };
    let held = clock["text"].as_str().map(|words| format!("; HELD: {}", text::printable(words)));
    let time = text::time(clock["site_ms"].as_u64().unwrap_or_default());
    let size = |key: &str| text::bytes(storage[key].as_u64().unwrap_or_default());
    let written = format!(
        "{}; {} written in {} syncs; log {}, snapshot {}; {} of {} used{}",
        of(storage, "state"),
        size("bytes_written"),
        of(storage, "syncs"),
        size("log_bytes"),
        size("snapshot_bytes"),
        size("bytes_used"),
        size("bytes_max"),
        storage["beyond"]
            .as_str()
            .map(|why| format!("; OVER THE LIMIT: {}", text::printable(why)))
            .unwrap_or_default()
    );
    [
        ("log", log),
        ("series", series),
        ("outbox", waiting),
        ("clock", format!("{time}, {synced}{}", held.unwrap_or_default())),
        ("storage", written),
        ("upstream", upstream(&status["upstream"], status["leader"].as_str())),
    ]
    .into_iter()
}

fn disk_trouble(storage: &Value) -> Option<String> {
    let what = storage["what"].as_str()?;
    let since = text::time(storage["since"].as_u64().unwrap_or_default());
    Some(format!("{:<9} since {since}: {what}; {}", "disk", of(storage, "advice")))
}

/// The latest leadership transfer that this box made, since it started.
fn transfer(last: &Value) -> Option<String> {
    if last.is_null() {
        return None;
    }
    let at = text::time(last["at"].as_u64().unwrap_or_default());
    let why = match last["reason"].as_str() {
        Some("broker") => "this box did not reach the broker".to_owned(),
        Some("disk") => "this box's disk was unhealthy or slow".to_owned(),
        Some("asked") => "an operator requested it".to_owned(),
        _ => of(last, "reason"),
    };
    Some(format!("{:<9} leadership transferred to {} at {at}: {why}", "transfer", of(last, "to")))
}

/// The adaptive timeout and what it follows.
fn adaptive_timeout(adaptive_timeout: &Value) -> Option<String> {
    let (timeout, heartbeat) =
        (adaptive_timeout["election_timeout_ms"].as_u64()?, adaptive_timeout["heartbeat_ms"].as_u64()?);
    Some(format!(
        "{:<9} election timeout {timeout} ms, heartbeat {heartbeat} ms; round trip {}, sync {}",
        "timeout",
        measured(&adaptive_timeout["round_trip_us"]),
        measured(&adaptive_timeout["sync_us"])
    ))
}

/// A measured time; zero means that nothing was measured (only leaders measure round trips, say).
fn measured(value: &Value) -> String {
    if *value == 0 { "not measured".to_owned() } else { micros(value) }
}

/// Microseconds as milliseconds.
pub(super) fn micros(value: &Value) -> String {
    value.as_f64().map_or("?".to_owned(), |us| format!("{} ms", text::number(us / 1e3)))
}

fn members(status: &Value) -> Table {
    let mut table = Table::new(&[
        ("BOX", Side::Left),
        ("ROLE", Side::Left),
        ("ADDRESS", Side::Left),
        ("CONNECTED", Side::Left),
        ("ROUND TRIP", Side::Right),
        ("CLOCK", Side::Left),
        ("", Side::Left),
    ]);
    for member in status["members"].as_array().into_iter().flatten() {
        let role = match said(&member["membership"]) {
            Some(MemberRole::Observer) => MemberRole::Observer.as_str().to_owned(),
            _ => of(member, "role"),
        };
        // A name can have been another box's; older answers have no number.
        let here = match status["node_id"].as_u64() {
            Some(id) => member["id"] == id,
            None => member["name"] == status["node"],
        };
        let connected = member["connected"] == true;
        let reach = match (here, connected) {
            (true, _) => "this box",
            (false, true) => "yes",
            (false, false) => "NO",
        };
        // That of a connection which is gone tells nothing.
        let is_known = connected && !member["rtt_us"].is_null();
        let rtt = if is_known { micros(&member["rtt_us"]) } else { String::new() };
        let (name, address) = (of(member, "name"), of(member, "address"));
        table.row([name, role, address, reach.to_owned(), rtt, clock(member), notes(member)]);
    }
    table
}

/// Says how far a box's clock is ahead of site time.
pub(super) fn clock(member: &Value) -> String {
    let Some(ms) = member["clock_offset_ms"].as_i64() else { return String::new() };
    let ahead = match ms.unsigned_abs() {
        0 => "0 ms".to_owned(),
        1..10_000 => format!("{ms:+} ms"),
        _ => format!("{:+.1} s", ms as f64 / 1e3),
    };
    let unsynced = if member["clock_synced"] == false { ", unsynced" } else { "" };
    format!("{ahead}{unsynced}")
}

/// What is wrong with a box, or changing.
pub(super) fn notes(member: &Value) -> String {
    let becomes = match member["intended"].as_str() {
        Some("none") if member["membership"] != "none" => Some("being removed".to_owned()),
        Some(intended) if member["membership"] != intended => Some(format!("becoming {intended}")),
        _ => None,
    };
    let disk = (member["disk_ok"] == false).then(|| "disk trouble".to_owned());
    let refused = member["refused"].as_str().map(|why| format!("refused: {why}"));
    [becomes, disk, refused].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Why connections with boxes are refused, and what to do about it.
fn refusals(status: &Value) -> impl Iterator<Item = String> {
    let of_member = |member: &Value| {
        let why = member["refused_because"].as_str()?;
        Some(format!("{:<9} no connection with {}: {}", "refused", of(member, "name"), text::printable(why)))
    };
    status["members"].as_array().into_iter().flatten().filter_map(of_member)
}

/// What a word says; `None`: nothing that this version knows.
pub(super) fn said<'a, T: Deserialize<'a>>(word: &'a Value) -> Option<T> {
    T::deserialize(word).ok()
}

/// A member of an object as a text, whatever it is.
pub(super) fn of(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => "?".to_owned(),
        Value::String(text) => text::printable(text),
        other => other.to_string(),
    }
}

/// A part that another room fills: its plain members by name.
fn part(value: &Value) -> String {
    if let Some(list) = value.as_array() {
        return format!("{} configured", list.len());
    }
    let Some(map) = value.as_object() else {
        return if value.is_null() { "none".to_owned() } else { text::printable(&value.to_string()) };
    };
    let plain = map.iter().filter(|(_, value)| !value.is_object() && !value.is_array() && !value.is_null());
    let words: Vec<String> =
        plain.map(|(key, _)| format!("{} {}", key.replace('_', " "), of(value, key))).collect();
    words.join(", ")
}

/// What is wrong with each of several ways in of a kind: what it reads, and the error.
fn troubles(ingest: &Value) -> impl Iterator<Item = String> {
    let trouble = |way: &Value| {
        let why = way["error"].as_str()?;
        let reads = match way["file"].is_string() {
            true => format!("{} from {}", of(way, "series"), of(way, "file")),
            false => of(way, "reads"),
        };
        Some(format!("{reads}: {}", text::printable(why)))
    };
    ingest.as_array().into_iter().flatten().filter_map(trouble)
}

/// What was refused, with an example of each reason.
fn refused_lines(ingest: &Value) -> impl Iterator<Item = String> {
    let words = |refused: &Value| {
        let [count, reason, example] = ["count", "reason", "example"].map(|member| of(refused, member));
        format!("refused {count}: {reason}, for example \"{example}\"")
    };
    ingest["refused"].as_array().into_iter().flatten().map(words)
}

/// What the upstream is doing, in words. The leader sends.
fn upstream(value: &Value, leader: Option<&str>) -> String {
    let sender =
        leader.map_or("no leader to send".to_owned(), |name| format!("sent by {}", text::printable(name)));
    let mut words = match value["state"].as_str() {
        Some("off") => return "no broker configured: summaries wait in the outbox".to_owned(),
        Some("standby") => match value["probe"]["reached"].as_bool() {
            None => return sender,
            Some(true) => format!("{sender}; this box reached the broker at its last probe"),
            Some(false) => format!(
                "{sender}; this box did not reach the broker at its last probe: {}",
                of(&value["probe"], "what")
            ),
        },
        Some(state) => text::printable(state),
        None => return part(value),
    };
    if let Some(url) = value["url"].as_str() {
        words = format!("{words}, {}", text::printable(url));
    }
    let formats = value["formats"].as_array().into_iter().flatten().map(|format| of(format, "name"));
    let formats = formats.collect::<Vec<String>>().join(" and ");
    if !formats.is_empty() {
        words = format!("{words}, in {formats}");
    }
    if !value["last_error"].is_null() {
        words = format!("{words}; last error: {}", part(&value["last_error"]));
    }
    if let Some(what) = value["other_site"]["what"].as_str() {
        words = format!("{words}; {}", text::printable(what));
    }
    for refused in value["refuses"].as_array().into_iter().flatten() {
        words = format!("{words}; the broker refuses {}: {}", of(refused, "topic"), of(refused, "cause"));
    }
    for held in value["held_first"].as_array().into_iter().flatten() {
        let [seq, series, topic, cause] = ["seq", "series", "topic", "cause"].map(|member| of(held, member));
        words = format!("{words}; held: number {seq} of {series}, topic {topic}: {cause}");
    }
    let shown = value["held_first"].as_array().map_or(0, Vec::len) as u64;
    match value["held"].as_u64() {
        Some(held) if held > shown => words = format!("{words}; and {} more", held - shown),
        _ => {}
    }
    words
}

pub(super) fn text_line(line: &str) -> String {
    format!("{}\n", line.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_says_who_leads_and_who_is_away() {
        let status = json!({
            "node": "box1", "site": "plant7", "site_id": "9f3c51d2a07be644", "role": "follower", "leader": "box2", "term": 3,
            "commit": 10, "applied": 10, "ready": true, "digest": "00", "series": 2, "uptime_s": 60, "version": "0.1.0",
            "tolerates": {"failures": 0, "text": "no further box may fail"},
            "verdict": {"counts": true, "text": "works; tolerates none: box3 is away"}, "leader_since": 60_000,
            "members": [
                {"name": "box1", "membership": "voter", "role": "follower", "address": "a:1", "connected": true},
                {"name": "box2", "membership": "voter", "role": "leader", "address": "b:1", "connected": true, "rtt_us": 250},
                {"name": "box3", "membership": "voter", "role": "unknown", "address": "c:1", "connected": false}],
            "outbox": {"waiting": 1, "unnumbered": 1, "numbered": 5, "delivered": 5},
            "clock": {"site_ms": 0, "synced": true, "text": "the clocks are far ahead"}, "storage": {"state": "ok"},
            "transfers": {"last": {"to": "box2", "reason": "broker", "at": 0}},
            "upstream": {"state": "connected", "url": "mqtt://b:1883", "formats": [{"name": "json"}, {"name": "cbor"}], "last_error": {"what": "gone"}}, "ingest": {"statsd": {"datagrams": 7, "examples": {}}},
        });
        let text = in_words(&status);
        for line in [
            "box1 of site plant7 (9f3c51d2a07be644): follower, ready",
            "leader box2 since 1970-01-01 00:01:00Z, term 3; no further box may fail",
            "box2  leader    b:1      yes           0.25 ms",
            "box3  unknown   c:1      NO",
            "upstream  connected, mqtt://b:1883, in json and cbor; last error: what gone",
            "statsd    datagrams 7",
            "transfer  leadership transferred to box2 at 1970-01-01 00:00:00Z: this box did not reach the \
             broker",
            "clock     1970-01-01 00:00:00Z, synchronised; HELD: the clocks are far ahead",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        assert_eq!(text.lines().next(), Some("works; tolerates none: box3 is away"));
        assert!(in_words(&json!({})).contains("NOT READY"), "an answer of another version is shown, too");
    }

    #[test]
    fn what_a_way_in_does_not_take_is_shown_with_why() {
        let status = json!({"ingest": {
            "poll": [
                {"series": "a", "file": "/proc/stat", "error": null},
                {"series": "b", "file": "/mnt/b", "error": "the file has not answered for 9 s", "reading_since": 1}],
            "later": [{"reads": "mqtt://b:1883 #", "error": "gone", "messages": 4}],
            "statsd": {"metrics": 7, "refused": [{"count": 2, "reason": "the value is not a number", "example": "a:x|c"}]},
        }});
        let lines = lines_of(&status);
        for line in [
            "poll      2 configured",
            "          b from /mnt/b: the file has not answered for 9 s",
            "later     1 configured",
            "          mqtt://b:1883 #: gone",
            "statsd    metrics 7",
            "          refused 2: the value is not a number, for example \"a:x|c\"",
        ] {
            assert!(lines.iter().any(|l| l == line), "{line}\n---\n{}", lines.join("\n"));
        }
        assert!(!lines.iter().any(|line| line.contains("/proc/stat")), "what is well is only counted");
    }

    fn lines_of(status: &Value) -> Vec<String> {
        in_words(status).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_member_is_shown_with_its_clock_and_what_is_not_as_it_should_be() {
        let member = |id: u64, name: &str, more: Value| {
            let mut member = json!({"id": id, "name": name, "membership": "voter", "intended": "voter",
                "role": "follower", "address": format!("10.0.0.1{id}:7400"), "connected": true, "rtt_us": 31250});
            member.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            member
        };
        let status = json!({
            "node": "box2", "node_id": 5,
            "members": [
                member(1, "box1", json!({"clock_offset_ms": 3, "clock_synced": true, "disk_ok": false})),
                member(2, "box2", json!({"connected": false, "role": "unknown", "refused": "its disk was emptied"})),
                member(4, "box4", json!({"membership": "observer", "clock_offset_ms": -1250, "clock_synced": false})),
                member(5, "box2", json!({"rtt_us": null, "clock_offset_ms": 12_345, "intended": "none"}))],
        });
        let lines = lines_of(&status);
        for line in [
            "BOX   ROLE      ADDRESS         CONNECTED  ROUND TRIP  CLOCK",
            "box1  follower  10.0.0.11:7400  yes          31.25 ms  +3 ms               disk trouble",
            "box2  unknown   10.0.0.12:7400  NO                                         refused: its disk was emptied",
            "box4  observer  10.0.0.14:7400  yes          31.25 ms  -1250 ms, unsynced  becoming voter",
            "box2  follower  10.0.0.15:7400  this box               +12.3 s             being removed",
        ] {
            assert!(lines.iter().any(|l| l == line), "{line}\n---\n{}", lines.join("\n"));
        }
        assert!(lines.iter().all(|line| line.chars().count() <= 110));
    }

    #[test]
    fn the_timeouts_are_shown_and_a_box_that_is_no_member_says_so_first() {
        let status = json!({
            "node": "box3", "site": "plant7", "site_id": "9f3c51d2a07be644", "role": "none",
            "adaptive_timeout": {"election_timeout_ms": 200, "heartbeat_ms": 50, "round_trip_us": 310, "sync_us": 1204},
        });
        let lines = lines_of(&status);
        assert_eq!(
            lines[0],
            "box3 of site plant7 (9f3c51d2a07be644): not a member (removed, or not yet added), NOT READY"
        );
        let adaptive_timeout =
            "timeout   election timeout 200 ms, heartbeat 50 ms; round trip 0.31 ms, sync 1.204 ms";
        assert!(lines.iter().any(|line| line == adaptive_timeout), "{}", lines.join("\n"));
    }
}
