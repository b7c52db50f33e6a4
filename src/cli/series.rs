//! `tallyd series remove` and `rename`: names that are wrong.

use std::io::{self, BufRead, IsTerminal, Write};

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::reads::{outcome, parse_answer};
use super::{print_done, series_name, text};

/// Changes of series.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum SeriesChange {
    Remove(RemoveArgs),
    Rename(RenameArgs),
}

/// Remove a series, or all whose names begin alike
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd series remove line1/press3/prats
  tallyd series remove 'sessions/*'         all that begin with sessions/, once you have confirmed it
  tallyd series remove 'sessions/*' --yes   the same in a script

What was counted is not taken back: it goes upstream, then the retained total is cleared. An add from now
on makes a new series that begins at 0; what was counted before and comes late is refused.")]
pub(super) struct RemoveArgs {
    /// Series; or PREFIX/* for all whose names begin with PREFIX/
    #[arg(value_name = "NAME or PREFIX/*")]
    name: String,
    /// Do not ask before removing all that begin alike
    #[arg(long)]
    yes: bool,
    /// The name is meant as it is, even if it ends in /*
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    server: Server,
}

/// Give a series another name
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd series rename line1/press3/prats line1/press3/parts

Its total and its windows stay. What is numbered already goes upstream under the old name; then the old
retained total is cleared. Change what counts, too: an add to the old name makes a new series.")]
pub(super) struct RenameArgs {
    /// Series
    #[arg(value_name = "OLD", value_parser = series_name)]
    old: String,
    /// New name, which no series has
    #[arg(value_name = "NEW")]
    new: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Removed {
    removed: Vec<Box<RawValue>>,
    more: bool,
}

#[derive(Deserialize)]
struct Series {
    series: String,
    kind: String,
    total: i128,
}

#[derive(Deserialize)]
struct Page {
    series: Vec<Series>,
    next: Option<String>,
}

impl SeriesChange {
    pub(super) async fn run(self) -> Result<(), ClientError> {
        match self {
            SeriesChange::Remove(args) => remove(&args).await,
            SeriesChange::Rename(args) => rename(&args).await,
        }
    }
}

async fn remove(args: &RemoveArgs) -> Result<(), ClientError> {
    let prefix = args.name.strip_suffix('*').filter(|prefix| prefix.ends_with('/') && !args.exact);
    let path = match prefix {
        Some("/") => return Err(ClientError::Usage("name the prefix before /*".to_owned())),
        Some(prefix) => {
            if !args.yes {
                confirm(prefix, &args.server).await?;
            }
            format!("/v1/series?prefix={}", text::in_query(prefix))
        }
        None => {
            let name = series_name(&args.name).map_err(ClientError::Usage)?;
            format!("/v1/series/{}", text::in_path(&name))
        }
    };
    let mut removed: Vec<Box<RawValue>> = Vec::new();
    loop {
        // Of each request its own time; sent again, it could remove what was made meanwhile.
        let call = Call {
            method: Method::DELETE,
            path: path.clone(),
            body: Bytes::new(),
            key: None,
            policy: Policy::Once,
        };
        let answer: Removed = outcome(&Client::new(&args.server)?.call(&call).await?)?;
        removed.extend(answer.removed);
        if !answer.more {
            break;
        }
    }
    if args.server.json {
        let list: Vec<&str> = removed.iter().map(|series| series.get()).collect();
        return print_done(&format!("{{\"removed\":[{}]}}\n", list.join(",")));
    }
    let mut lines = String::new();
    for raw in &removed {
        let Series { series, kind, total } = outcome(raw.get().as_bytes())?;
        lines.push_str(&format!("removed {}: {kind}, last total {total}\n", text::printable(&series)));
    }
    print_done(&lines)
}

/// Asks on the terminal whether all that begin so are meant.
async fn confirm(prefix: &str, server: &Server) -> Result<(), ClientError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let why = format!("this removes every series that begins with {prefix:?}: add --yes to do it");
        return Err(ClientError::Usage(why));
    }
    let path = format!("/v1/series?prefix={}&limit=1000", text::in_query(prefix));
    let page: Page = parse_answer(server, &Client::new(server)?.call(&Call::get(path)).await?)?;
    let more = if page.next.is_some() { "more than " } else { "" };
    let shown: Vec<&str> = page.series.iter().take(3).map(|series| series.series.as_str()).collect();
    let dots = if page.series.len() > shown.len() { ", ..." } else { "" };
    let question = format!(
        "remove {more}{} series ({}{dots})? Type yes: ",
        page.series.len(),
        text::printable(&shown.join(", "))
    );
    // Who cannot be asked has not said yes.
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(ClientError::NotTried("nothing was removed".to_owned())),
    }
}

async fn rename(args: &RenameArgs) -> Result<(), ClientError> {
    tally_core::id::SeriesName::new(&args.new)
        .map_err(|error| ClientError::Usage(format!("{:?}: {error}", args.new)))?;
    let call = Call {
        method: Method::POST,
        path: format!("/v1/series/{}/rename", text::in_path(&args.old)),
        body: Bytes::from(serde_json::json!({ "to": args.new }).to_string()),
        key: None,
        policy: Policy::Once,
    };
    let body = Client::new(&args.server)?.call(&call).await?;
    if args.server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("{} is {} now\n", text::printable(&args.old), text::printable(&args.new)))
}
