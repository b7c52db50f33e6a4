//! `tallyd members`, `tallyd member` and `tallyd leader`: who belongs to the site, and who leads it.

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
use super::reads::{outcome, parsed, print_json};
use super::text::{Side, Table};
use super::{print, print_done, text};
use crate::node::role_or_none;

/// How often is looked whether a change is in force.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who does not wait still hears that a change is in force already: one look, for so long at most.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// Show the boxes of the site, and what each is
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd members")]
pub(super) struct MembersArgs {
    #[command(flatten)]
    server: Server,
}

/// Add, promote, demote or remove a box, while the site goes on
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
    /// Make an observer a voter: it votes once it runs, is reached and has caught up
    #[command(after_help = "\
Example:
  tallyd member promote box4")]
    Promote(NamedArgs),
    /// Make a voter an observer: it follows and holds all counts, and no majority needs it
    #[command(after_help = "\
Example:
  tallyd member demote box2")]
    Demote(NamedArgs),
    /// Take a box, or the witness, out of the site: once that is in force it can be switched off
    #[command(after_help = "\
Example:
  tallyd member remove box3")]
    Remove(NamedArgs),
}

/// Add a box that `tallyd provision --extend` made: it follows, and votes once it has caught up
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd member add box4=10.0.0.14:7400 --id 4 --key 9f3c...")]
struct AddArgs {
    /// Its name and where the others reach it
    #[arg(value_name = "NAME=HOST:PORT", value_parser = name_and_address)]
    member: (String, String),
    /// Its number, as `tallyd provision --extend` says it
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// SHA-256 of its public key, as `tallyd provision --extend` says it
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
    /// How long to wait until the change is in force; after that it is on its way, with exit status 0 all the
    /// same (--json: "in_force" is false)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait_time)]
    wait: Duration,
    /// Only ask for the change, as --wait 0s: it comes into force all the same
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    #[command(flatten)]
    server: Server,
}

/// Hand leadership over to another box
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd leader transfer         to the box that is best prepared
  tallyd leader transfer box2")]
pub(super) struct LeaderArgs {
    #[command(subcommand)]
    command: LeaderCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum LeaderCommand {
    Transfer(TransferArgs),
}

/// Hand leadership over: to the box that is best prepared, or to the one that is named
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd leader transfer
  tallyd leader transfer box2")]
struct TransferArgs {
    /// Who is to lead
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

/// The answer to leadership that was handed over.
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
    let (name, address) = text.split_once('=').ok_or("it is NAME=HOST:PORT")?;
    crate::identity::check_address(address)?;
    Ok((member_name(name)?, address.to_owned()))
}

fn member_name(text: &str) -> Result<String, String> {
    match crate::identity::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not the name of a member: 1 to 32 of a-z 0-9 -")),
    }
}

/// How long to wait; zero: not at all.
fn wait_time(text: &str) -> Result<Duration, String> {
    if ["0", "0s", "0ms"].contains(&text) { Ok(Duration::ZERO) } else { text::duration(text) }
}

/// The role of a member, by its name.
fn role_parser() -> impl TypedValueParser<Value = MemberRole> {
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
    let list: List = parsed(&args.server, &body)?;
    let columns = [
        ("BOX", Side::Left),
        ("NUMBER", Side::Right),
        ("IS", Side::Left),
        ("ADDRESS", Side::Left),
        ("REACHED", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for member in &list.members {
        let [now, becomes] =
            [member.membership, member.role].map(|role| role.map_or("none", MemberRole::as_str));
        let is = if now == becomes { now.to_owned() } else { format!("{now}, to become {becomes}") };
        let reached = if member.connected { "yes" } else { "no" };
        table.row([
            member.name.clone(),
            member.id.to_string(),
            is,
            member.address.clone(),
            reached.to_owned(),
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

/// What is to be in force.
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
        (Some(role), false) if is_kept => format!("{name} is to be {}\n{note}", role.as_str()),
        (Some(role), true) => format!("{name} is {}\n{note}", role.as_str()),
        (None, true) => format!("{name} is no member any more\n{note}"),
        (Some(MemberRole::Voter), false) => {
            format!(
                "{name} is to vote: it will once it runs, is reached and has caught up (tallyd members)\n{note}"
            )
        }
        (Some(role), false) => {
            format!("{name} is to be {}: it is on its way (tallyd members)\n{note}", role.as_str())
        }
        (None, false) => format!("{name} is to leave: it is on its way (tallyd members)\n{note}"),
    })
}

/// Whether the change came into force in time: looked for at least once.
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

/// One look. A box that cannot be asked now can be soon: the change is accepted in any case.
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
    let handed: LastTransfer = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    let leader = handed.leader.as_str().map_or("another box".to_owned(), text::printable);
    print_done(&format!("{leader} leads\n"))
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
