//! `tallyd status`: how the site is, as one box sees it.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::client::{Client, ClientArgs};
use super::table::{Lean, bytes, list, plain, span, table, time, whole};
use super::{Failure, parsed, print};

/// Show how the site is
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  tallyd status\n  tallyd status --url http://box2:7480 --json")]
pub struct StatusArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Shows it.
pub async fn run(args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let body = Client::new(&args.client)?.read("/v1/status".to_owned()).await?;
    if args.client.json {
        return print(out, &body);
    }
    print(out, &told(&parsed(&body)?))
}

/// Boxes of other versions may tell less or more: what is missing is a dash.
fn told(status: &Value) -> String {
    let at = |pointer: &str| text(status.pointer(pointer));
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let count = |pointer: &str| number(pointer).map_or_else(dash, whole);
    let size = |pointer: &str| number(pointer).map_or_else(dash, bytes);
    let ready = match status.get("ready").and_then(Value::as_bool) {
        Some(true) => "ready",
        _ => "NOT READY: it cannot commit now",
    };
    let up = number("/uptime_s").map_or_else(dash, |s| span(s.saturating_mul(1000)));
    let clock = number("/clock/site_ms").map_or_else(dash, |ms| format!("{} UTC", time(ms / 1000 * 1000)));
    let synced = match status.pointer("/clock/synced").and_then(Value::as_bool) {
        Some(true) => "",
        _ => ", the leader's clock is not synchronised",
    };
    let rows = [
        ("site", format!("{} ({})", at("/site"), at("/site_id"))),
        ("box", format!("{}, {}, {ready}, up {up}, version {}", at("/node"), at("/role"), at("/version"))),
        ("leader", format!("{} in term {}", at("/leader"), at("/term"))),
        ("tolerates", at("/tolerates/text")),
        ("log", format!("applied {}, committed {}", count("/applied"), count("/commit"))),
        ("digest", at("/digest")),
        ("series", count("/series")),
        (
            "outbox",
            format!(
                "{} wait, numbered to {}, delivered to {}",
                count("/outbox/waiting"),
                count("/outbox/numbered"),
                count("/outbox/delivered")
            ),
        ),
        ("clock", format!("{clock}{synced}")),
        (
            "storage",
            format!(
                "{}, log {}, snapshot {}, written {}",
                at("/storage/state"),
                size("/storage/log_bytes"),
                size("/storage/snapshot_bytes"),
                size("/storage/bytes_written")
            ),
        ),
    ];
    format!("{}\n{}", list(&rows), members(status))
}

fn members(status: &Value) -> String {
    let columns = [
        ("BOX", Lean::Left),
        ("ROLE", Lean::Left),
        ("MEMBER", Lean::Left),
        ("ADDRESS", Lean::Left),
        ("CONNECTED", Lean::Left),
        ("RTT", Lean::Right),
        ("LOG TO", Lean::Right),
    ];
    let members = status.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let of = |key: &str| text(member.get(key));
            let number = |key: &str| member.get(key).and_then(Value::as_u64);
            let connected = match member.get("connected").and_then(Value::as_bool) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            let rtt = number("rtt_us").map_or_else(dash, |us| format!("{:.2} ms", us as f64 / 1000.0));
            let matched = number("matched").map_or_else(dash, whole);
            vec![of("name"), of("role"), of("membership"), of("address"), connected.to_owned(), rtt, matched]
        })
        .collect();
    table(&columns, &rows)
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => dash(),
        Some(Value::String(text)) if text.is_empty() => dash(),
        Some(Value::String(text)) => plain(text),
        Some(other) => plain(&other.to_string()),
    }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::{MemberStatus, NodeStatus};

    #[test]
    fn what_a_box_tells_of_itself_is_shown() {
        let mut status = NodeStatus {
            node: "box1".to_owned(),
            site: "plant7".to_owned(),
            role: "leader",
            leader: Some("box1".to_owned()),
            term: 7,
            ready: true,
            applied: 1234,
            uptime_s: 61,
            ..NodeStatus::default()
        };
        status.members.push(MemberStatus {
            name: "box2".to_owned(),
            membership: "voter",
            role: "follower",
            address: "10.0.0.12:7400".to_owned(),
            rtt_us: Some(250),
            ..MemberStatus::default()
        });
        let text = told(&serde_json::to_value(&status).unwrap());
        for part in [
            "plant7 (-)",
            "box1, leader, ready, up 1m 1s",
            "box1 in term 7",
            "applied 1,234",
            "box2  follower  voter   10.0.0.12:7400  NO         0.25 ms       -",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn an_answer_with_nothing_in_it_is_shown_as_dashes() {
        let text = told(&serde_json::json!({}));
        assert!(text.contains("NOT READY") && text.contains("leader     - in term -"), "{text}");
    }
}
