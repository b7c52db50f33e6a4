//! What operators ask of a box that is a member of a site, and that is not for its node.

use tokio::sync::mpsc;

use super::company::Company;
use crate::api::{Admin, JoinAsk, JoinedForm, Name, Problem, Reply};
use crate::node::Handle;

/// Answers until somebody wants this box to leave its site for another, which is to be done then.
pub(super) async fn serve(
    company: &mut Company,
    handle: &Handle,
    asked: &mut mpsc::Receiver<Admin>,
) -> (JoinAsk, Reply<JoinedForm>) {
    while let Some(request) = asked.recv().await {
        // Those who asked may have gone: what was done stays.
        match request {
            Admin::Advertise { address, reply } => {
                let _ = reply.send(company.advertise(handle, address).await);
            }
            Admin::Init { reply, .. } => {
                let _ = reply.send(Err(Problem::new(Name::JoinRefused, what_it_is(handle))));
            }
            Admin::Join { ask, reply } => {
                if ask.set_aside {
                    return (ask, reply);
                }
                let alone = handle.site(|site| site.members().len() < 2);
                let what_to_do = match alone {
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

/// What this box is and has.
fn what_it_is(handle: &Handle) -> String {
    let identity = handle.identity();
    let (members, series, waiting) = handle.site(|site| {
        let waiting = site.outbox_len() + site.held_len();
        (site.members().len(), site.series_len(), waiting)
    });
    format!(
        "this box is {} (number {}) of the site {} ({}), which has {members} box{}, {series} series and {waiting} \
         summaries that are not delivered",
        identity.me().name,
        identity.node,
        identity.site,
        identity.site_id,
        if members == 1 { "" } else { "es" }
    )
}
