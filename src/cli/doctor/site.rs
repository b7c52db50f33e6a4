//! The daemon and its site: whether it answers and counts, versions, differing states, copied cards.

use serde_json::Value;
use tally_core::raft::MemberRole;

use super::super::status::of;
use super::{Line, Subject, look, ok, wrong};
use crate::transport::Refusal;

/// Refusals that mean that one identity is used twice, or went back in time.
const COPIES: [Refusal; 5] = [
    Refusal::OwnKey,
    Refusal::Cloned,
    Refusal::OwnClone,
    Refusal::EarlierIncarnation,
    Refusal::OwnEarlierIncarnation,
];

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    if subject.status.is_null() {
        return vec![silent(subject)];
    }
    let status = &subject.status;
    let mut lines = vec![counts(status)];
    lines.extend(another(subject));
    lines.push(version(status));
    if let Some(text) = status["state_check"]["text"].as_str() {
        lines.push(wrong("state", text, "see the log of this box"));
    }
    let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
    if members.len() > 1 {
        lines.push(copies(status, members));
    }
    if let Some(held) = status["outbox"]["held"].as_u64().filter(|held| *held > 0) {
        let advice = "`tallyd status` shows which and why; mend that at the broker";
        lines.push(look("outbox", format!("the broker refuses {held} summaries, which are held"), advice));
    }
    lines
}

fn silent(subject: &Subject) -> Line {
    let why = subject.silent.clone().unwrap_or_default();
    match subject.machine.lock_holder(&subject.found.dir) {
        Some(pid) => wrong(
            "daemon",
            format!("process {pid} runs in {} and does not answer: {why}", subject.found.dir.display()),
            "see its log (`journalctl -u tallyd`), and whether api.listen is where --url points",
        ),
        None => look(
            "daemon",
            format!("does not run, only the machine and the data directory are checked ({why})"),
            "start it: `systemctl start tallyd`, or `tallyd run`",
        ),
    }
}

fn counts(status: &Value) -> Line {
    if status["role"] == MemberRole::Witness.as_str() {
        return ok("site", "a witness answers; ask a box how the site is");
    }
    let verdict = &status["verdict"];
    let text = of(verdict, "text");
    if verdict["counts"] == false {
        let (why, advice) = (of(verdict, "why"), of(verdict, "advice"));
        return wrong("site", format!("does NOT count: {why}"), advice);
    }
    let voters = status["members"].as_array().into_iter().flatten().filter(|member| member["votes"] == true);
    match (status["tolerates"]["failures"].as_u64(), voters.count()) {
        (Some(0), 2..) => {
            look("site", text, "bring back who is away; a site of two needs a third box or a witness")
        }
        _ => ok("site", text),
    }
}

/// The daemon that answers may be another box than the directory's.
fn another(subject: &Subject) -> Option<Line> {
    let identity = subject.identity.as_ref()?;
    let same = subject.status["node_id"] == identity.node
        && subject.status["site_id"] == identity.site_id.to_string();
    (!same).then(|| {
        look(
            "daemon",
            format!(
                "the daemon that answers is {} of site {}, and {} belongs to {} of site {}",
                of(&subject.status, "node"),
                of(&subject.status, "site"),
                subject.found.dir.display(),
                identity.me().name,
                identity.site
            ),
            "name the right one with --url or --data-dir",
        )
    })
}

fn version(status: &Value) -> Line {
    let own = env!("CARGO_PKG_VERSION");
    let level = &status["level"];
    let running = of(status, "version");
    if running != own {
        let advice = "restart the daemon to run what is installed";
        return look("version", format!("the daemon runs {running}, this program is {own}"), advice);
    }
    match (level["site"].as_u64(), level["max"].as_u64()) {
        (Some(site), Some(max)) if site < max => look(
            "version",
            format!(
                "{own}; the site is at feature level {site} of {max}: a box runs an older release, or was not heard yet"
            ),
            "bring all boxes to the same release",
        ),
        (Some(site), _) => ok("version", format!("{own}; all boxes can apply feature level {site}")),
        _ => ok("version", own),
    }
}

fn copies(status: &Value, members: &[Value]) -> Line {
    let copied =
        members.iter().find(|member| COPIES.iter().any(|refusal| member["refused"] == refusal.as_str()));
    let other = status["upstream"]["other_site"]["what"].as_str();
    match (copied, other) {
        (Some(member), _) => wrong(
            "copy",
            format!("the connection with {} is refused ({})", of(member, "name"), of(member, "refused")),
            of(member, "refused_because"),
        ),
        (None, Some(what)) => {
            wrong("copy", what, "give one of the two sites another name, or another upstream.base")
        }
        (None, None) => ok("copy", "no copy of this card or data directory was seen by the other boxes"),
    }
}
