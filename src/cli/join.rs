//! `tallyd init` and `tallyd join`: how a box that waits gets its site.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Call, Client, ClientError, Policy, Server};
use super::members::member_name;
use super::reads::outcome;
use super::{print_done, text};
use crate::environment;
use crate::join::Token;

/// How often the client looks how far the box is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A token is one line.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Found a site on this box, which waits for it
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd init --site plant7 --advertise 10.0.0.11:7400")]
pub(super) struct InitArgs {
    /// Name of the site, 1 to 32 of a-z 0-9 -
    #[arg(long, value_name = "NAME", value_parser = member_name)]
    site: String,
    /// Name of this box; default: node.name of its configuration, else its host name
    #[arg(long, value_name = "NODE", value_parser = member_name)]
    name: Option<String>,
    /// Where other boxes reach this one; default: cluster.advertise of its configuration
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Join a site by a token: this box follows it at once, and votes as soon as that helps
///
/// Can be repeated whatever happened before: the site knows this box by its key.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd join 10.0.0.11:7400 --token tally1-7h2kd-...
  tallyd join 10.0.0.11:7400 --token-file -          reads the token from standard input

Exit status: 0 joined; 1 refused, nothing was changed; 2 wrong usage, a mistyped token; 3 no box could be
asked, or the site has no leader; 4 may be a member already: run the same command again.")]
pub(super) struct JoinArgs {
    /// Address of any box of the site, with its cluster port (7400)
    #[arg(value_name = "HOST:PORT", value_parser = address)]
    address: String,
    /// File with the token; - reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "token", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself; other users of this machine can see it in the list of processes
    #[arg(long)]
    token: Option<String>,
    /// Name of this box; default: node.name of its configuration, else its host name
    #[arg(long, value_parser = member_name)]
    name: Option<String>,
    /// Where other boxes reach this one; default: cluster.advertise, else the address from which it dials
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    advertise: Option<String>,
    /// If this box has a site of its own: move its data out of the way
    #[arg(long)]
    set_aside: bool,
    /// Address of the API of this box
    #[arg(long, env = "TALLYD_URL", value_name = "URL", default_value = "http://127.0.0.1:7480")]
    url: String,
    /// How long to keep trying
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = text::duration)]
    timeout: Duration,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Founded {
    site: String,
    site_id: String,
    name: String,
    address: Option<String>,
}

#[derive(Deserialize)]
struct Joined {
    site: String,
    site_id: String,
    name: String,
    number: u64,
    replaces: Option<u64>,
    set_aside: Option<String>,
}

/// An address as other boxes dial it.
pub(super) fn address(text: &str) -> Result<String, String> {
    crate::identity::check_address(text).map(|_| text.to_owned())
}

pub(super) async fn init(args: InitArgs) -> Result<(), ClientError> {
    let InitArgs { site, name, advertise, server } = args;
    let body = json!({"site": site, "name": name, "advertise": advertise});
    let call = Call {
        method: Method::POST,
        path: "/v1/init".to_owned(),
        body: Bytes::from(body.to_string()),
        key: None,
        policy: Policy::Once,
    };
    let body = Client::new(&server)?.call(&call).await?;
    let founded: Founded = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    let Founded { site, site_id, name, address } = founded;
    let reached = address.map_or_else(
        || "not reached by others yet (tallyd token create --advertise HOST:PORT)".to_owned(),
        |address| format!("reached at {address}"),
    );
    print_done(&format!("{site} ({site_id}) has one box: {name}, {reached}\n"))
}

pub(super) async fn join(args: JoinArgs) -> Result<(), ClientError> {
    let token = read_token(&args)?;
    let server = Server {
        url: args.url.clone(),
        token_file: environment::value("TALLYD_TOKEN_FILE").map(PathBuf::from),
        timeout: args.timeout,
        json: args.json,
    };
    let body = json!({
        "address": args.address,
        "token": token.reveal(),
        "name": args.name,
        "advertise": args.advertise,
        "set_aside": args.set_aside,
        "timeout_ms": u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    });
    let call = Call {
        method: Method::POST,
        path: "/v1/join".to_owned(),
        body: Bytes::from(body.to_string()),
        key: None,
        policy: Policy::Once,
    };
    let begun = Instant::now();
    let body = Client::new(&server)?.call(&call).await.map_err(told)?;
    let joined: Joined = outcome(&body)?;
    let until = begun + args.timeout;
    let seen = until_settled(&server, &joined, until).await;
    if args.json {
        let Joined { site, site_id, name, number, replaces, set_aside } = &joined;
        let settled = seen.as_ref().map(|seen| json!({"applied": seen.applied, "votes": seen.votes}));
        let said = json!({
            "site": site, "site_id": site_id, "name": name, "number": number, "replaces": replaces,
            "set_aside": set_aside, "settled": settled,
        });
        return print_done(&format!("{said}\n"));
    }
    print_done(&in_words(&joined, seen.as_ref(), begun.elapsed()))
}

/// What a box says that could not ask anybody is no refusal.
fn told(error: ClientError) -> ClientError {
    match error {
        ClientError::Failed(refused) if refused.name == "join-unreached" => {
            ClientError::NotTried(refused.detail)
        }
        other => other,
    }
}

fn read_token(args: &JoinArgs) -> Result<Token, ClientError> {
    let text = match (&args.token, &args.token_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => {
            let mut text = String::new();
            let read = if file.as_os_str() == "-" {
                std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text)
            } else {
                std::fs::File::open(file)
                    .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
            };
            read.map_err(|error| ClientError::Usage(format!("cannot read {}: {error}", file.display())))?;
            text
        }
        (None, None) => return Err(ClientError::Usage("--token-file or --token is needed".to_owned())),
    };
    Token::parse(&text).map_err(|error| ClientError::Usage(error.to_string()))
}

/// How a box is once it has caught up.
#[derive(Debug, PartialEq)]
struct Settled {
    applied: u64,
    votes: bool,
    /// Why its vote waits.
    waits: bool,
    tolerates: String,
}

/// Waits until the box follows its site and nothing is left to change about it; `None`: the time is up.
async fn until_settled(server: &Server, joined: &Joined, until: Instant) -> Option<Settled> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let server = Server { timeout: Duration::from_secs(2).min(left), ..server.clone() };
        let client = Client::new(&server).ok()?;
        if let Ok(body) = client.call(&Call::get("/v1/status".to_owned())).await
            && let Ok(status) = serde_json::from_slice::<Value>(&body)
            && let Some(settled) = settled(&status, joined.number)
        {
            return Some(settled);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How the box is, if it has caught up and votes, or waits to, or is not to vote.
fn settled(status: &Value, number: u64) -> Option<Settled> {
    let members = status["members"].as_array()?;
    let me = members.iter().find(|member| member["id"] == number)?;
    let applied = status["applied"].as_u64()?;
    let caught_up =
        status["leader"].is_string() && status["ready"] == true && Some(applied) >= status["commit"].as_u64();
    let (votes, waits) = (me["votes"] == true, me["vote_waits"].is_string());
    let changes = status["changing"]["joint"] == true;
    let is_settled = !changes && (votes || waits || me["intended"] == "observer");
    let tolerates = status["tolerates"]["text"].as_str().map(text::printable).unwrap_or_default();
    (caught_up && is_settled).then_some(Settled { applied, votes, waits, tolerates })
}

fn in_words(joined: &Joined, seen: Option<&Settled>, took: Duration) -> String {
    let Joined { site, name, number, replaces, set_aside, .. } = joined;
    let place = replaces.map_or(String::new(), |old| {
        format!(", in the place of number {old}, which may not be started again")
    });
    let state = match seen {
        None => "it follows as soon as it can (see tallyd status)".to_owned(),
        Some(Settled { applied, votes, waits, tolerates }) => {
            let followed = format!("followed {applied} entries in {:.1} s", took.as_secs_f64());
            let vote = match (votes, waits) {
                (true, _) => format!("votes: {tolerates}"),
                (false, true) => "waits for another box to vote".to_owned(),
                (false, false) => "observes".to_owned(),
            };
            format!("{followed}; {vote}")
        }
    };
    let aside = set_aside
        .as_ref()
        .map_or(String::new(), |to| format!("what this box had is in {}\n", text::printable(to)));
    format!("{name} is number {number} of {site}{place}; {state}\n{aside}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> Joined {
        Joined {
            site: "plant7".to_owned(),
            site_id: "9f3c51d2a07be644".to_owned(),
            name: "box2".to_owned(),
            number: 2,
            replaces: None,
            set_aside: None,
        }
    }

    #[test]
    fn a_box_has_settled_when_it_has_caught_up_and_votes_or_waits_to() {
        let status = |applied: u64, votes: bool, waits: Value, intended: &str| {
            json!({
                "applied": applied, "commit": 9, "ready": true, "leader": "box1", "tolerates": {"text": "all"},
                "members": [{"id": 2, "votes": votes, "vote_waits": waits, "intended": intended}],
            })
        };
        let none = Value::Null;
        assert_eq!(settled(&status(8, true, none.clone(), "voter"), 2), None, "it lags");
        assert_eq!(settled(&status(9, false, none.clone(), "voter"), 2), None, "it will vote");
        assert_eq!(settled(&status(9, true, none.clone(), "voter"), 3), None, "it is no member there");
        assert!(settled(&status(9, true, none.clone(), "voter"), 2).unwrap().votes);
        assert!(settled(&status(9, false, json!("why"), "voter"), 2).unwrap().waits);
        assert!(!settled(&status(9, false, none, "observer"), 2).unwrap().waits);
    }

    #[test]
    fn what_became_of_a_join_is_one_sentence() {
        let waits = Settled { applied: 1204, votes: false, waits: true, tolerates: String::new() };
        let took = Duration::from_millis(312);
        assert_eq!(
            in_words(&joined(), Some(&waits), took),
            "box2 is number 2 of plant7; followed 1204 entries in 0.3 s; waits for another box to vote\n"
        );
        let replaced = Joined { number: 4, replaces: Some(3), ..joined() };
        let votes = Settled { votes: true, waits: false, tolerates: "all".to_owned(), ..waits };
        let text = in_words(&replaced, Some(&votes), took);
        assert!(text.contains("in the place of number 3") && text.ends_with("votes: all\n"), "{text}");
    }
}
