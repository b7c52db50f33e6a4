//! `tallyd members`, `tallyd member` and `tallyd leader`: the members of the site, and its leader.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde_json::{Value, json};
use tally_core::id::NodeId;
use tally_core::raft::MemberRole;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::reads::{outcome, parse_answer, print_json};
use super::text::{Side, Table};
use super::{print, print_done, text};
use crate::node::role_or_none;

/// How often the client checks whether a change is in force.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// With `--no-wait` the client checks once, for so long at most, whether the change is in force already.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// List the members of the site and their roles
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd members")]
pub(super) struct MembersArgs {
    #[command(flatten)]
    server: Server,
}

/// Add, promote, demote or remove a member while the site runs
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example: a fourth box
  tallyd provision --extend plant7 --box box4=10.0.0.14:7400    prints the command that follows
  tallyd member add box4=10.0.0.14:7400 --id 4 --key 9f3c...")]
pub(super) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum MemberCommand {
    Add(AddArgs),
    /// Make an observer a voter; it votes once it runs, is connected and has caught up
    #[command(after_help = "\
Example:
  tallyd member promote box4")]
    Promote(NamedArgs),
    /// Make a voter an observer: it replicates all counts and is not part of the majority
    #[command(after_help = "\
Example:
  tallyd member demote box2")]
    Demote(NamedArgs),
    /// Remove a box, or the witness, from the site; once the removal is in force, switch it off
    #[command(after_help = "\
Example:
  tallyd member remove box3")]
    Remove(NamedArgs),
}

/// Add a member that `tallyd provision --extend` made; it votes once it has caught up
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd member add box4=10.0.0.14:7400 --id 4 --key 9f3c...")]
struct AddArgs {
    /// Name, and address at which the others reach it
    #[arg(value_name = "NAME=HOST:PORT", value_parser = name_and_address)]
    member: (String, String),
    /// Number, as printed by `tallyd provision --extend`
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// SHA-256 of its public key, as printed by `tallyd provision --extend`
    #[arg(long, value_name = "HEX")]
    key: String,
    /// What it is to be [default: voter; what it is, for a new address of a member]
    #[arg(long, value_parser = role_parser())]
    role: Option<MemberRole>,
    #[command(flatten)]
    change: Change,
}

// Each command that has these says in its own words what it does.
#[derive(Args, Clone, Debug)]
struct NamedArgs {
    /// The member
    #[arg(value_parser = member_name)]
    name: String,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Clone, Debug)]
struct Change {
    /// How long to wait until the change is in force; after that it is still in progress, and the exit status is 0 all the
    /// same (--json: "in_force" is false)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait_time)]
    wait: Duration,
    /// Do not wait, as with --wait 0s; the change comes into force all the same
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    #[command(flatten)]
    server: Server,
}

/// Hand leadership over to another box
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd leader transfer         to the best-prepared box
  tallyd leader transfer box2")]
pub(super) struct LeaderArgs {
    #[command(subcommand)]
    command: LeaderCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum LeaderCommand {
    Transfer(TransferArgs),
}

/// Transfer leadership to the best-prepared box, or to the named one
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd leader transfer
  tallyd leader transfer box2")]
struct TransferArgs {
    /// The next leader
    #[arg(value_parser = member_name)]
    node: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct List {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    id: NodeId,
    name: String,
    address: String,
    #[serde(with = "role_or_none")]
    role: Option<MemberRole>,
    #[serde(with = "role_or_none")]
    membership: Option<MemberRole>,
    connected: bool,
}

/// The answer to a leadership transfer.
#[derive(Deserialize)]
struct LastTransfer {
    /// The name; nothing where it is not known.
    leader: Value,
}

/// The answer to a change that was accepted.
#[derive(Deserialize)]
struct Accepted {
    #[serde(rename = "name")]
    _name: String,
    role: Option<MemberRole>,
    note: Option<String>,
}

fn name_and_address(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=HOST:PORT")?;
    crate::identity::check_address(address)?;
    Ok((member_name(name)?, address.to_owned()))
}

pub(super) fn member_name(text: &str) -> Result<String, String> {
    match crate::identity::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a member name (1 to 32 of a-z 0-9 -)")),
    }
}

/// Parses how long to wait; zero means not at all.
fn wait_time(text: &str) -> Result<Duration, String> {
    if ["0", "0s", "0ms"].contains(&text) { Ok(Duration::ZERO) } else { text::duration(text) }
}

/// The role of a member, by its name.
pub(super) fn role_parser() -> impl TypedValueParser<Value = MemberRole> {
    let role =
        |name: String| MemberRole::deserialize(IntoDeserializer::<ValueError>::into_deserializer(name));
    PossibleValuesParser::new(MemberRole::ALL.map(MemberRole::as_str)).try_map(role)
}

pub(super) async fn list(args: MembersArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    let body = client.call(&Call::get("/v1/members".to_owned())).await?;
    if args.server.json {
        return print_json(&body);
    }
    let list: List = parse_answer(&args.server, &body)?;
    let columns = [
        ("BOX", Side::Left),
        ("NUMBER", Side::Right),
        ("ROLE", Side::Left),
        ("ADDRESS", Side::Left),
        ("CONNECTED", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for member in &list.members {
        let [now, becomes] =
            [member.membership, member.role].map(|role| role.map_or("none", MemberRole::as_str));
        let role = match becomes {
            _ if now == becomes => now.to_owned(),
            "none" => format!("{now}, being removed"),
            _ => format!("{now}, becoming {becomes}"),
        };
        let connected = if member.connected { "yes" } else { "NO" };
        table.row([
            member.name.clone(),
            member.id.to_string(),
            role,
            member.address.clone(),
            connected.to_owned(),
        ]);
    }
    print(&table.text())
}

pub(super) async fn change(args: MemberArgs) -> Result<(), ClientError> {
    match args.command {
        MemberCommand::Add(AddArgs { member: (name, address), id, key, role, change }) => {
            let body = json!({"id": id, "name": name, "address": address, "key": key, "role": role});
            let wished = Wished { name: &name, id: Some(NodeId(id)), role };
            ask(&change, Method::POST, "/v1/members".to_owned(), Some(body), wished).await
        }
        MemberCommand::Promote(args) => set_role(&args, MemberRole::Voter).await,
        MemberCommand::Demote(args) => set_role(&args, MemberRole::Observer).await,
        MemberCommand::Remove(NamedArgs { name, change }) => {
            let path = format!("/v1/members/{}", text::in_path(&name));
            ask(&change, Method::DELETE, path, None, Wished { name: &name, id: None, role: None }).await
        }
    }
}

async fn set_role(args: &NamedArgs, role: MemberRole) -> Result<(), ClientError> {
    let path = format!("/v1/members/{}", text::in_path(&args.name));
    let wished = Wished { name: &args.name, id: None, role: Some(role) };
    ask(&args.change, Method::PUT, path, Some(json!({ "role": role })), wished).await
}

/// The change that the command waits for.
struct Wished<'a> {
    name: &'a str,
    /// Its number, where it is known: one who leaves can have had the same name.
    id: Option<NodeId>,
    /// What the member is then; `None`: no member, or what the answer says.
    role: Option<MemberRole>,
}

impl Wished<'_> {
    fn holds(&self, members: &[Member]) -> bool {
        let is_meant =
            |member: &&Member| member.name == self.name && self.id.is_none_or(|id| member.id == id);
        members.iter().find(is_meant).map(|member| member.membership) == self.role.map(Some)
    }
}

/// Asks for a change and waits until it is in force.
async fn ask(
    change: &Change,
    method: Method,
    path: String,
    body: Option<Value>,
    wished: Wished<'_>,
) -> Result<(), ClientError> {
    let client = Client::new(&change.server)?;
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    // Sent again, it could undo what somebody else has changed meanwhile.
    let answer = client.call(&Call { method, path, body, key: None, policy: Policy::Once }).await?;
    let Accepted { note, role, .. } = outcome(&answer)?;
    let wished = &Wished { role: wished.role.or(role), ..wished };
    let Wished { name, role, .. } = *wished;
    let note = note.as_deref().map(text::printable);
    // What keeps a witness waiting: then there is nothing to wait for here.
    let is_kept = note.is_some() && role == Some(MemberRole::Witness);
    let in_force = !is_kept && comes_into_force(change, wished).await;
    if change.server.json {
        let said = json!({"name": name, "role": role, "in_force": in_force, "note": note});
        return print_done(&format!("{said}\n"));
    }
    let note = note.map_or(String::new(), |note| format!("{note}\n"));
    print_done(&match (role, in_force) {
        (Some(role), false) if is_kept => format!("{name} will become {}\n{note}", with_article(role)),
        (Some(role), true) => format!("{name} is {}\n{note}", with_article(role)),
        (None, true) => format!("{name} was removed from the site\n{note}"),
        (Some(MemberRole::Voter), false) => {
            format!(
                "{name} will become a voter once it runs, is connected and has caught up (see tallyd \
                 members)\n{note}"
            )
        }
        (Some(role), false) => {
            format!(
                "{name} will become {}; the change is in progress (see tallyd members)\n{note}",
                with_article(role)
            )
        }
        (None, false) => {
            format!("{name} will be removed; the change is in progress (see tallyd members)\n{note}")
        }
    })
}

const fn with_article(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "a voter",
        MemberRole::Observer => "an observer",
        MemberRole::Witness => "the witness",
    }
}

/// Whether the change came into force in time; checked at least once.
async fn comes_into_force(change: &Change, wished: &Wished<'_>) -> bool {
    let once = change.no_wait || change.wait.is_zero();
    let until = Instant::now() + if once { ONE_LOOK } else { change.wait };
    loop {
        // A box that hangs must not make the wait longer than was asked for.
        let left = until.saturating_duration_since(Instant::now());
        let look = is_in_force(&change.server, left, wished);
        if tokio::time::timeout(left, look).await == Ok(true) {
            return true;
        }
        if once || Instant::now() + LOOK_EVERY >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Checks once. A box that cannot be asked now may answer soon: the change is accepted in any case.
async fn is_in_force(server: &Server, left: Duration, wished: &Wished<'_>) -> bool {
    let server = Server { timeout: server.timeout.min(left), ..server.clone() };
    let Ok(client) = Client::new(&server) else { return false };
    let Ok(body) = client.call(&Call::get("/v1/members".to_owned())).await else { return false };
    serde_json::from_slice::<List>(&body).is_ok_and(|list| wished.holds(&list.members))
}

pub(super) async fn leader(args: LeaderArgs) -> Result<(), ClientError> {
    let LeaderCommand::Transfer(TransferArgs { node, server }) = args.command;
    let client = Client::new(&server)?;
    let body = node.map_or_else(|| json!({}), |node| json!({ "to": node }));
    let call = Call {
        method: Method::POST,
        path: "/v1/leader/transfer".to_owned(),
        body: Bytes::from(body.to_string()),
        key: None,
        policy: Policy::Once,
    };
    let body = client.call(&call).await?;
    let transferred: LastTransfer = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    let leader = transferred.leader.as_str().map_or("another box".to_owned(), text::printable);
    print_done(&format!("{leader} is the leader\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_leaves_is_not_taken_for_the_one_who_comes_under_the_same_name() {
        let [voter, observer] = [MemberRole::Voter, MemberRole::Observer].map(Some);
        let member = |id, membership| Member {
            id: NodeId(id),
            name: "box3".to_owned(),
            address: String::new(),
            role: voter,
            membership,
            connected: true,
        };
        let new = Wished { name: "box3", id: Some(NodeId(4)), role: voter };
        assert!(!new.holds(&[member(3, voter), member(4, observer)]));
        assert!(new.holds(&[member(3, voter), member(4, voter)]));
        assert!(!new.holds(&[member(4, None)]), "added, and not in the group yet");
        let gone = Wished { name: "box3", id: None, role: None };
        assert!(!gone.holds(&[member(3, voter)]));
        assert!(!gone.holds(&[member(3, None)]), "it is a member still");
        assert!(gone.holds(&[]));
    }
}
