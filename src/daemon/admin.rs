//! What operators ask of a box that is a member of a site, and that is not for its node.

use tally_core::id::KeyHash;
use tokio::sync::mpsc;

use super::company::Company;
use super::renaming::Renaming;
use super::waiting::chosen_name;
use crate::api::{Admin, Founded, InitAsk, JoinAsk, JoinedForm, Name, Problem, Reply, RotatedForm};
use crate::config::Found;
use crate::node::Handle;
use crate::units::grouped;

/// What is to be done while nothing is served.
pub(super) enum Leaves {
    /// It leaves its site for another.
    Joins(Joins),
    /// It goes on under another name.
    Renames(Renaming, Option<Reply<Founded>>),
    /// It goes on under this key, which the site knows.
    Rekeys(KeyHash, Option<Reply<RotatedForm>>),
}

/// A box that leaves its site for another.
pub(super) struct Joins {
    pub(super) ask: JoinAsk,
    pub(super) reply: Reply<JoinedForm>,
    /// What it has, in words.
    pub(super) holds: String,
}

/// Answers until somebody wants what cannot be done while this box serves.
pub(super) async fn serve(
    company: &mut Company,
    handle: &Handle,
    found: &Found,
    asked: &mut mpsc::Receiver<Admin>,
) -> Leaves {
    while let Some(request) = asked.recv().await {
        // Those who asked may have gone: what was done stays.
        match request {
            Admin::Advertise { address, reply } => {
                let _ = reply.send(company.advertise(handle, address).await);
            }
            Admin::Init { ask, reply } => match rename(company, handle, found, &ask).await {
                Ok(Some(renaming)) => return Leaves::Renames(renaming, Some(reply)),
                Ok(None) => drop(reply.send(Ok(as_it_is(handle)))),
                Err(problem) => drop(reply.send(Err(problem))),
            },
            Admin::RotateKey { reply } => match company.rotate_key(handle).await {
                Ok(key) => return Leaves::Rekeys(key, Some(reply)),
                Err(problem) => drop(reply.send(Err(problem))),
            },
            Admin::Join { ask, reply } => {
                if ask.set_aside {
                    return Leaves::Joins(Joins { ask, reply, holds: what_it_has(handle) });
                }
                let what_to_do = match is_alone(handle) {
                    true => "--set-aside moves all of it out of the way first",
                    false => {
                        "remove it there first (tallyd member remove), then --set-aside moves its data out of the \
                         way"
                    }
                };
                let why = format!("{}: {what_to_do}", what_it_is(handle));
                let _ = reply.send(Err(Problem::new(Name::JoinRefused, why)));
            }
        }
    }
    // The API, which holds the other end, stops with this.
    std::future::pending().await
}

/// What `init` on a box with a site comes to: another name, if it is alone. `None`: it has that name.
async fn rename(
    company: &mut Company,
    handle: &Handle,
    found: &Found,
    ask: &InitAsk,
) -> Result<Option<Renaming>, Problem> {
    if !is_alone(handle) {
        let why = format!("{}: only a site of one box can be renamed", what_it_is(handle));
        return Err(Problem::new(Name::JoinRefused, why));
    }
    let me = handle.identity().me().name.clone();
    let name = match &ask.name {
        Some(_) => chosen_name(&found.config, ask.name.as_deref())?.unwrap_or(me.clone()),
        None => me.clone(),
    };
    if ask.advertise.is_some() {
        company.advertise(handle, ask.advertise.clone()).await?;
    }
    if ask.site == handle.identity().site && name == me {
        return Ok(None);
    }
    let renaming = Renaming::begin(found, handle, ask, name)?;
    // Whoever joined now would be told the old name.
    company.take_in_nobody();
    Ok(Some(renaming))
}

fn is_alone(handle: &Handle) -> bool {
    handle.site(|site| site.members().len() < 2 && site.members_leaving().is_empty())
}

fn as_it_is(handle: &Handle) -> Founded {
    let identity = handle.identity();
    let me = identity.node_id();
    let address = handle.site(|site| {
        site.members().iter().find(|member| member.id == me).map(|member| member.address.clone())
    });
    Founded {
        site: identity.site.clone(),
        site_id: identity.site_id.to_string(),
        name: identity.me().name.clone(),
        number: identity.node,
        address: address.filter(|address| !address.is_empty()),
    }
}

/// What this box is and has.
fn what_it_is(handle: &Handle) -> String {
    let identity = handle.identity();
    let members = handle.site(|site| site.members().len());
    format!(
        "this box is {} (number {}) of the site {} ({}), which has {members} box{}, {}",
        identity.me().name,
        identity.node,
        identity.site,
        identity.site_id,
        if members == 1 { "" } else { "es" },
        what_it_has(handle)
    )
}

/// What this box has counted.
fn what_it_has(handle: &Handle) -> String {
    let (series, counts, waiting) =
        handle.site(|site| (site.series_len(), site.counts(), site.outbox_len() + site.held_len()));
    format!(
        "{} series, {} count{}, {} summar{} not delivered",
        grouped(series as u128),
        grouped(counts),
        if counts == 1 { "" } else { "s" },
        grouped(waiting as u128),
        if waiting == 1 { "y" } else { "ies" },
    )
}
