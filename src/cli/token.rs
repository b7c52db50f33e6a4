//! `tallyd token`: join tokens.

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tally_core::raft::MemberRole;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::members::{member_name, role_parser};
use super::reads::{outcome, parse_answer, print_json};
use super::text::{Side, Table};
use super::{print, print_done, text};
use crate::units::Unit;

/// Make, list or revoke the tokens by which boxes join the site
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd token create --uses 2           prints what to type on two other boxes
  tallyd token create --replace box3     for the board that takes the place of box3")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum TokenCommand {
    Create(CreateArgs),
    /// List the tokens that are good, without their secrets
    #[command(after_help = "\
Example:
  tallyd token list")]
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a token; it is shown once
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd token create --uses 2
  tallyd token create --replace box3
  tallyd token create --advertise 10.0.0.11:7400    on a box that was alone until now")]
struct CreateArgs {
    /// How long it is good: 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = life)]
    ttl: String,
    /// How many boxes may join by it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    uses: u32,
    /// What they are to be: voter or observer
    #[arg(long, value_parser = role_parser())]
    role: Option<MemberRole>,
    /// The box in whose place the new one comes, under its name
    #[arg(long, value_name = "NAME", value_parser = member_name)]
    replace: Option<String>,
    /// Where other boxes reach this one: once, on a box that was alone
    #[arg(long, value_name = "HOST:PORT", value_parser = super::join::address)]
    advertise: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
}

/// Revoke a token: nobody joins by it any more
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd token revoke 7ed93ee5f2d1ba61")]
struct RevokeArgs {
    /// Its id, as `tallyd token list` shows it
    id: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Created {
    token: String,
    address: String,
    replaces: Option<String>,
    uses_left: u64,
    ends_in_ms: u64,
}

#[derive(Deserialize)]
struct List {
    tokens: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    role: String,
    uses_left: u64,
    ends_in_ms: u64,
    replaces: Option<String>,
    made_by: String,
    used_by: Vec<String>,
}

/// A duration, as it was written.
fn life(text: &str) -> Result<String, String> {
    Unit::Duration.parse(text).map(|_| text.to_owned())
}

pub(super) async fn run(args: TokenArgs) -> Result<(), ClientError> {
    match args.command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(ListArgs { server }) => list(&server).await,
        TokenCommand::Revoke(RevokeArgs { id, server }) => revoke(&server, &id).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), ClientError> {
    let CreateArgs { ttl, uses, role, replace, advertise, server } = args;
    let body = json!({
        "ttl": ttl, "uses": uses, "role": role, "replace": replace, "advertise": advertise,
    });
    let call = Call {
        method: Method::POST,
        path: "/v1/tokens".to_owned(),
        body: Bytes::from(body.to_string()),
        key: None,
        // Each would be another token, of which nobody knows.
        policy: Policy::Once,
    };
    let body = Client::new(&server)?.call(&call).await?;
    let created: Created = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    let where_ = match (&created.replaces, created.uses_left) {
        (Some(name), _) => format!("on the board that takes the place of {name}"),
        (None, 1) => "on the other box".to_owned(),
        (None, _) => "on the other boxes".to_owned(),
    };
    print_done(&format!(
        "{where_}, within {}:\n  sudo tallyd join {} --token {}\n",
        span(created.ends_in_ms),
        text::printable(&created.address),
        text::printable(&created.token)
    ))
}

async fn list(server: &Server) -> Result<(), ClientError> {
    let body = Client::new(server)?.call(&Call::get("/v1/tokens".to_owned())).await?;
    if server.json {
        return print_json(&body);
    }
    let list: List = parse_answer(server, &body)?;
    let columns = [
        ("TOKEN", Side::Left),
        ("ROLE", Side::Left),
        ("USES LEFT", Side::Right),
        ("ENDS IN", Side::Left),
        ("REPLACES", Side::Left),
        ("MADE BY", Side::Left),
        ("USED BY", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for token in list.tokens {
        table.row([
            token.id,
            token.role,
            token.uses_left.to_string(),
            span(token.ends_in_ms),
            token.replaces.unwrap_or_default(),
            token.made_by,
            token.used_by.join(", "),
        ]);
    }
    if table.is_empty() {
        return print("no token is good now\n");
    }
    print(&table.text())
}

async fn revoke(server: &Server, id: &str) -> Result<(), ClientError> {
    let call = Call {
        method: Method::DELETE,
        path: format!("/v1/tokens/{}", text::in_path(id)),
        body: Bytes::new(),
        key: None,
        policy: Policy::Once,
    };
    let body = Client::new(server)?.call(&call).await?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("token {} is not good any more\n", text::printable(id)))
}

/// How long, in the unit that people would use.
fn span(ms: u64) -> String {
    let minutes = ms.div_ceil(60_000);
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes.div_ceil(60)),
        _ => format!("{} d", minutes.div_ceil(1440)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_unit_that_people_would_use() {
        let hour = 3_600_000;
        let spans = [59_999, 30 * 60_000, 24 * hour - 17, 72 * hour].map(span);
        assert_eq!(spans, ["1 min", "30 min", "24 h", "3 d"]);
    }
}
