//! `tallyd doctor`: what is wrong with this machine and this box, and what to do about it. It asks the daemon if that
//! runs, and looks at the machine and the data directory itself.

mod broker;
mod card;
mod clock;
mod directory;
mod host;
mod limits;
mod machine;
mod network;
mod site;
mod sync;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use self::machine::Machine;
use super::client::{Call, Client, ClientError, Server};
use super::{print, text};
use crate::config::{Config, Found};
use crate::identity::Identity;

/// Check this machine and this box, and say what to do
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo tallyd doctor
  tallyd doctor --data-dir ./tally --json

Each line is ok, look (works, but may be better) or wrong (with what to do). Exit status: 0, or
1 if something is wrong. It asks the daemon if that runs, and works without it, too. Run it as root
or as the daemon's user: others may not see everything. It writes 400 KiB into the data directory
to measure the disk and removes them again, and logs in at the broker under a name of its own.")]
pub(super) struct DoctorArgs {
    /// Configuration file; default: the daemon's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory; default: the daemon's
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Ok,
    Look,
    Wrong,
}

impl Mark {
    const fn as_str(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Look => "look",
            Mark::Wrong => "wrong",
        }
    }
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    check: &'static str,
    state: Mark,
    what: String,
    /// What to do; none if it is ok.
    advice: Option<String>,
}

fn ok(check: &'static str, what: impl Into<String>) -> Line {
    Line { check, state: Mark::Ok, what: what.into(), advice: None }
}

fn look(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Line {
    Line { check, state: Mark::Look, what: what.into(), advice: Some(advice.into()) }
}

fn wrong(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Line {
    Line { check, state: Mark::Wrong, what: what.into(), advice: Some(advice.into()) }
}

/// What is examined.
struct Subject {
    machine: Machine,
    found: Found,
    /// Of the data directory, if it has a readable one.
    identity: Option<Identity>,
    /// The daemon's status; null: it does not answer.
    status: Value,
    /// Why the daemon does not answer.
    silent: Option<String>,
}

impl Subject {
    /// The daemon's process, as its status or its lock says.
    fn pid(&self) -> Option<u64> {
        let said = self.status["pid"].as_u64();
        said.or_else(|| self.machine.lock_holder(&self.found.dir))
    }

    /// Whether a daemon runs on this directory.
    fn runs(&self) -> bool {
        !self.status.is_null() || self.machine.lock_holder(&self.found.dir).is_some()
    }
}

pub(super) async fn run(args: DoctorArgs) -> Result<(), ClientError> {
    let lines = match Config::find(args.config.clone(), args.data_dir.clone()) {
        Ok(found) => all(&subject(&args, found).await?).await,
        Err(error) => vec![wrong("config", error.to_string(), "correct the configuration")],
    };
    let count = |mark| lines.iter().filter(|line| line.state == mark).count();
    let (wrongs, looks) = (count(Mark::Wrong), count(Mark::Look));
    if args.server.json {
        let answer = json!({"wrong": wrongs, "look": looks, "lines": lines});
        print(&format!("{answer:#}\n"))?;
    } else {
        print(&in_words(&lines))?;
    }
    match wrongs {
        0 => Ok(()),
        1 => Err(ClientError::Found("1 check found something wrong".to_owned())),
        _ => Err(ClientError::Found(format!("{wrongs} checks found something wrong"))),
    }
}

async fn subject(args: &DoctorArgs, found: Found) -> Result<Subject, ClientError> {
    let server = Server { url: api_url(args, &found), ..args.server.clone() };
    let client = Client::new(&server)?;
    let answer = client.call(&Call::get("/v1/status".to_owned())).await;
    let (status, silent) = match answer.map(|body| serde_json::from_slice::<Value>(&body)) {
        Ok(Ok(status)) => (status, None),
        Ok(Err(error)) => (Value::Null, Some(format!("{}: not an answer of tallyd ({error})", server.url))),
        Err(error) => (Value::Null, Some(error.to_string())),
    };
    let identity = Identity::load(&found.dir).ok().flatten();
    Ok(Subject { machine: Machine::new("/"), found, identity, status, silent })
}

/// Where the daemon of this configuration listens, unless another address was asked for.
fn api_url(args: &DoctorArgs, found: &Found) -> String {
    let default = "http://127.0.0.1:7480";
    let mut listen = found.config.api.listen;
    if args.server.url != default || listen.to_string() == "127.0.0.1:7480" {
        return args.server.url.clone();
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{listen}")
}

/// All checks, in the order in which they are shown.
async fn all(subject: &Subject) -> Vec<Line> {
    let mut lines = site::check(subject);
    lines.extend(directory::check(subject));
    lines.extend(sync::check(subject));
    lines.extend(card::check(subject));
    lines.extend(network::check(subject).await);
    lines.extend(broker::check(subject).await);
    lines.extend(clock::check(subject));
    lines.extend(limits::check(subject));
    lines.extend(host::check(subject));
    lines
}

fn in_words(lines: &[Line]) -> String {
    let mut words = String::new();
    for line in lines {
        let what = text::printable(&line.what);
        words.push_str(&format!("{:<6} {:<10} {what}\n", line.state.as_str(), line.check));
        if let Some(advice) = &line.advice {
            words.push_str(&format!("{:<17} do: {}\n", "", text::printable(advice)));
        }
    }
    words
}

#[cfg(test)]
#[path = "doctor/doctor_tests.rs"]
mod tests;
