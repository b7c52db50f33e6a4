//! The members of the site over HTTP: the list, changes, and leadership transfer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;

use super::problem::{Name, Problem};
use super::reads::to_json;
use super::{ApiState, BODY_BYTES_MAX, body, json_response, parse};
use crate::identity::{check_address, is_name};
use crate::node::{MemberStatus, NodeStatus, role_or_none};
use crate::request::MemberError;
use crate::site::{MemberChange, MemberRecord, MemberRefused};

const EXAMPLE: &str = r#"{"id": 4, "name": "box4", "address": "10.0.0.14:7400", "key": "64 hexadecimal digits", "role": "voter"}"#;

/// A member as the API shows it.
#[derive(Serialize)]
struct MemberForm {
    id: NodeId,
    name: String,
    address: String,
    /// The intended role.
    #[serde(with = "role_or_none")]
    role: Option<MemberRole>,
    /// The role in the configuration in force.
    #[serde(with = "role_or_none")]
    membership: Option<MemberRole>,
    connected: bool,
    matched: Option<u64>,
    key: KeyHash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    id: u64,
    name: String,
    address: String,
    key: String,
    /// The role; default: the present role of a known member, else voter.
    role: Option<MemberRole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    role: MemberRole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferBody {
    to: Option<String>,
}

/// `GET /v1/members`
pub(super) async fn list(State(shared): State<Arc<ApiState>>) -> Result<Response<Body>, Problem> {
    shared.node.fence().await?;
    let status = shared.node.fresh_status().await?;
    let forms: Vec<MemberForm> = status
        .members
        .into_iter()
        .map(|member| MemberForm {
            id: member.id,
            name: member.name,
            address: member.address,
            role: member.intended,
            membership: member.membership,
            connected: member.connected,
            matched: member.matched,
            key: member.key,
        })
        .collect();
    to_json(&json!({"members": forms, "leader": status.leader})).map(json_response)
}

/// `POST /v1/members`
pub(super) async fn add(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let (mut record, role) = member_of(&body)?;
    check_can_have_company(&shared.node.status())?;
    let known = shared.node.site(|site| {
        let known = site.members().iter().find(|member| (member.id, member.key) == (record.id, record.key));
        known.map(|member| member.role)
    });
    record.role = role.or(known).unwrap_or(MemberRole::Voter);
    let role = Some(record.role);
    let name = record.name.clone();
    change(&shared, &MemberChange::Put(record)).await?;
    accepted_change(&shared, &name, role)
}

/// Parses the body of `POST /v1/members`: the member, and the role if the body names one.
///
/// # Errors
/// What is wrong with the request, as it is answered.
pub fn member_of(body: &[u8]) -> Result<(MemberRecord, Option<MemberRole>), Problem> {
    let AddBody { id, name, address, key, role } = parse::json(body, EXAMPLE)?;
    if id == 0 {
        return Err(Problem::malformed("id: must be 1 or more"));
    }
    if !is_name(&name) {
        return Err(Problem::malformed(format!("name: {name:?} is not a name (1 to 32 of a-z 0-9 -)")));
    }
    check_address(&address).map_err(|why| Problem::malformed(format!("address: {why}")))?;
    let Some(key) = KeyHash::from_hex(&key) else {
        let why =
            "key: must be 64 hexadecimal digits; `tallyd provision --extend` prints the key of a new box";
        return Err(Problem::malformed(why));
    };
    Ok((MemberRecord { id: NodeId(id), name, address, key, role: MemberRole::Voter }, role))
}

/// `PUT /v1/members/NAME`
pub(super) async fn set_role(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let name = name_in(&params);
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let RoleBody { role } = parse::json(&body, r#"{"role": "voter"}"#)?;
    if role == MemberRole::Observer {
        check_goes_on_without(&shared, &name).await?;
    }
    change(&shared, &MemberChange::Role { name: name.clone(), role }).await?;
    accepted_change(&shared, &name, Some(role))
}

/// `DELETE /v1/members/NAME`
pub(super) async fn remove(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
) -> Result<Response<Body>, Problem> {
    let name = name_in(&params);
    check_goes_on_without(&shared, &name).await?;
    change(&shared, &MemberChange::Remove { name: name.clone() }).await?;
    accepted_change(&shared, &name, None)
}

/// `POST /v1/leader/transfer`
pub(super) async fn transfer(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let to = match body.is_empty() {
        true => None,
        false => parse::json::<TransferBody>(&body, r#"{"to": "box2"}"#)?.to,
    };
    let status = shared.node.status();
    let to = to.as_deref().map(|name| who_could_lead(&status, name)).transpose()?;
    let members = status.members;
    if to.is_none() && members.iter().filter(|member| could_lead(member)).count() < 2 {
        return Err(Problem::new(Name::MemberRefused, "there is no other voter that could lead"));
    }
    let leader = shared.node.transfer(to).await?;
    let name = members.into_iter().find(|member| member.id == leader).map(|member| member.name);
    to_json(&json!({"leader": name})).map(json_response)
}

/// Whether a member votes and has a log.
fn could_lead(member: &MemberStatus) -> bool {
    member.votes && member.membership == Some(MemberRole::Voter)
}

/// Finds the named member and checks by its role that it could lead.
fn who_could_lead(status: &NodeStatus, name: &str) -> Result<NodeId, Problem> {
    let member = status.members.iter().find(|member| member.name == name);
    let member = member.ok_or_else(|| refusal(MemberRefused::NoSuchMember))?;
    if could_lead(member) {
        return Ok(member.id);
    }
    let what = match member.membership {
        None => "is not a member yet".to_owned(),
        Some(role) => format!("is {}", role.as_str()),
    };
    Err(Problem::new(Name::MemberRefused, format!("{name} {what}: only a voter can lead")))
}

/// Checks that the site was founded with an address: without one, other boxes could not reach this box.
fn check_can_have_company(status: &NodeStatus) -> Result<(), Problem> {
    let alone = status.members.len() == 1 && status.members.iter().all(|member| member.address.is_empty());
    if !alone {
        return Ok(());
    }
    let why = "nobody can reach this box yet: `tallyd token create --advertise HOST:PORT` says where others \
        will, and makes a token by which they join";
    Err(Problem::new(Name::MemberRefused, why))
}

/// Checks that a majority of the other voters is connected: without one the site could not commit anything, not even
/// another change of the members. The leader checks again before it makes the change; this check informs the client.
async fn check_goes_on_without(shared: &ApiState, name: &str) -> Result<(), Problem> {
    // While no leader is known nobody knows who can be reached.
    shared.node.fence().await?;
    let status = shared.node.fresh_status().await?;
    let voters: Vec<&MemberStatus> = status.members.iter().filter(|member| could_lead(member)).collect();
    if !voters.iter().any(|member| member.name == name) {
        return Ok(());
    }
    let others = voters.iter().filter(|member| member.name != name);
    let (there, away): (Vec<&MemberStatus>, Vec<&MemberStatus>) = others.partition(|member| member.connected);
    if there.len() > away.len() || away.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = away.iter().map(|member| member.name.as_str()).collect();
    let (names, one) = (names.join(" and "), names.len() == 1);
    let (is, it) = if one { ("is", "it") } else { ("are", "them") };
    let why = format!(
        "without {name} the site could not commit, because {names} {is} not connected; bring {it} back or \
         remove {it} first"
    );
    Err(Problem::new(Name::MemberRefused, why))
}

async fn change(shared: &ApiState, change: &MemberChange) -> Result<(), Problem> {
    shared.node.change_members(change).await.map_err(|error| match error {
        MemberError::Refused(why) => refusal(why),
        MemberError::Request(error) => error.into(),
    })
}

/// The answer to an accepted change, with the reason why a witness waits for its place, if it does.
fn accepted_change(
    shared: &ApiState,
    name: &str,
    role: Option<MemberRole>,
) -> Result<Response<Body>, Problem> {
    let note = shared.node.site(|site| waiting_witness(site.members()));
    to_json(&json!({"name": name, "role": role, "note": note})).map(json_response)
}

/// Says why a witness waits for its place.
fn waiting_witness(wished: &[MemberRecord]) -> Option<String> {
    let witness = wished.iter().find(|member| member.role == MemberRole::Witness)?;
    let voters = wished.iter().filter(|member| member.role == MemberRole::Voter).count();
    (!voters.is_multiple_of(2)).then(|| {
        format!(
            "a witness requires an even number of voting boxes, not {voters}: {} waits until a box \
             is added or removed",
            witness.name
        )
    })
}

fn refusal(why: MemberRefused) -> Problem {
    let name = match why {
        MemberRefused::NoSuchMember => Name::NoSuchMember,
        MemberRefused::Malformed => Name::Malformed,
        _ => Name::MemberRefused,
    };
    Problem::new(name, why.to_string())
}

pub(super) fn name_in(params: &RawPathParams) -> String {
    params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_witness_waiting_is_said() {
        let member = |id: u64, role| MemberRecord {
            id: NodeId(id),
            name: format!("box{id}"),
            address: String::new(),
            key: KeyHash([0; 32]),
            role,
        };
        let (voter, observer) = (MemberRole::Voter, MemberRole::Observer);
        let of = |roles: &[MemberRole]| {
            let members: Vec<_> = (1..).zip(roles).map(|(id, role)| member(id, *role)).collect();
            waiting_witness(&members)
        };
        assert_eq!(of(&[voter, voter, voter]), None);
        assert_eq!(of(&[voter, voter, MemberRole::Witness]), None);
        let note = of(&[voter, observer, MemberRole::Witness]).unwrap();
        assert!(note.contains("not 1: box3 waits"), "{note}");
    }
}
