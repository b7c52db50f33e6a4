//! A box that has a configuration and no identity: it founds nothing by itself, since a disk may not be mounted. It
//! waits until an operator founds or joins a site, or until an identity appears.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::info;

use super::door::Door;
use super::founding::host_name;
use super::{RunError, stop};
use crate::api::{
    ADMIN_MAX, Admin, Founded, InitAsk, JoinAsk, JoinedForm, NO_SITE, Name, Problem, Waiting, WaitingState,
};
use crate::config::{Config, Found};
use crate::identity::{IDENTITY, Identity};
use crate::join::dial::{self, JoinFailure, JoinPlan};
use crate::service;
use crate::signals::{Heard, Signals};
use crate::startup;

/// How often an identity is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// A signal stops the process.
    Stopped,
    /// There may be an identity, or another configuration.
    Again,
}

/// Waits. `told`: whether the log says already what for.
pub(super) async fn wait(
    found: &Found,
    door: &mut Door,
    signals: &mut Signals,
    told: &mut bool,
) -> Result<Waited, RunError> {
    let Found { config, dir, .. } = found;
    let listener = door.open(config.api.listen).await?;
    let api_config = startup::api_config(config)?;
    let (admin, mut asked) = mpsc::channel(ADMIN_MAX);
    let state = Arc::new(WaitingState::new(own_name(config)));
    let serving = startup::serve(listener, Waiting::new(&api_config, admin, Arc::clone(&state)), api_config);
    signals.listen_to_stops();
    if !std::mem::replace(told, true) {
        info!(
            "{} has no identity, and there is a configuration, so no site is founded here (a disk may not be \
             mounted): {NO_SITE}",
            dir.display()
        );
    }
    let shown = Arc::clone(&state);
    let service = service::ready(move || shown.line());
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waited = loop {
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Stop(signal) => {
                    info!("{signal}: stopping");
                    break Waited::Stopped;
                }
                Heard::Reload => break Waited::Again,
            },
            _ = look.tick() => if dir.join(IDENTITY).exists() {
                info!("{} has an identity now", dir.display());
                break Waited::Again;
            },
            Some(request) = asked.recv() => {
                tokio::select! {
                    done = answer(found, &state, request) => if done {
                        break Waited::Again;
                    },
                    signal = signals.stop() => {
                        info!("{signal}: stopping");
                        break Waited::Stopped;
                    }
                }
                state.joins(None);
            }
        }
    };
    if waited == Waited::Stopped {
        service.stopping();
        door.close();
        stop::end_api(serving).await;
    } else {
        // Its requests are answered meanwhile; the next ones come to what follows.
        let _ = serving.stop.send(true);
    }
    Ok(waited)
}

/// Does what was asked for; whether there is an identity now.
async fn answer(found: &Found, state: &WaitingState, request: Admin) -> bool {
    // Those who asked may have gone: what was done stays.
    match request {
        Admin::Init { ask, reply } => {
            let result = init(found, &ask);
            let done = result.is_ok();
            let _ = reply.send(result);
            done
        }
        Admin::Join { ask, reply } => {
            state.joins(Some(ask.address.clone()));
            let result = join(found, &ask).await;
            let done = result.is_ok();
            let _ = reply.send(result);
            done
        }
        Admin::Advertise { reply, .. } => {
            let _ = reply.send(Err(Problem::new(Name::NotCommitted, format!("this box has {NO_SITE}"))));
            false
        }
    }
}

fn own_name(config: &Config) -> String {
    config.node.name.clone().unwrap_or_else(host_name)
}

/// The name that an operator gives this box, if that is not another than the configuration has.
fn chosen_name(config: &Config, asked: Option<&str>) -> Result<Option<String>, Problem> {
    match (&config.node.name, asked) {
        (Some(name), Some(asked)) if name != asked => Err(Problem::new(
            Name::JoinRefused,
            format!(
                "node.name is {name:?} in this box's configuration, and not {asked:?}: change one of them"
            ),
        )),
        (name, asked) => Ok(asked.map(str::to_owned).or_else(|| name.clone())),
    }
}

/// Checks that a data directory has nothing of another box.
fn check_unused(dir: &Path) -> Result<(), Problem> {
    let found = ["format", "log", "snapshots"].into_iter().find(|name| dir.join(name).exists());
    found.map_or(Ok(()), |name| {
        Err(Problem::new(
            Name::JoinRefused,
            format!(
                "{} is not empty: it has {name} and no {IDENTITY}, so it is half a box's data: bring the rest \
                 back, or move it away",
                dir.display()
            ),
        ))
    })
}

fn init(found: &Found, ask: &InitAsk) -> Result<Founded, Problem> {
    let Found { config, dir, .. } = found;
    let refused = |why: String| Problem::new(Name::JoinRefused, why);
    check_unused(dir)?;
    let name = chosen_name(config, ask.name.as_deref())?.unwrap_or_else(host_name);
    let address = ask.advertise.as_deref().or(config.cluster.advertise.as_deref()).unwrap_or_default();
    let identity = Identity::found_single(dir, &ask.site, &name, address);
    let identity = identity.map_err(|error| refused(error.to_string()))?;
    info!("founded the site {} ({}) with this box, {name}", identity.site, identity.site_id);
    Ok(Founded {
        site: identity.site.clone(),
        site_id: identity.site_id.to_string(),
        name,
        number: identity.node,
        address: Some(address.to_owned()).filter(|address| !address.is_empty()),
    })
}

/// Joins a site; the identity is on disk then.
pub(super) async fn join(found: &Found, ask: &JoinAsk) -> Result<JoinedForm, Problem> {
    let Found { config, dir, .. } = found;
    check_unused(dir)?;
    let name = chosen_name(config, ask.name.as_deref())?;
    let plan = JoinPlan {
        address: ask.address.clone(),
        token: ask.token.clone(),
        is_name_chosen: name.is_some(),
        name: name.unwrap_or_else(host_name),
        advertise: ask.advertise.clone().or_else(|| config.cluster.advertise.clone()),
        listen: config.cluster.listen,
        dir: dir.clone(),
        until: Instant::now() + Duration::from_millis(ask.timeout_ms),
    };
    let joined = Box::pin(dial::join(&plan)).await.map_err(|failure| {
        info!("did not join by {}: {failure}", plan.address);
        let name = match failure {
            JoinFailure::Refused(_) => Name::JoinRefused,
            JoinFailure::NotDone(_) => Name::JoinUnreached,
            JoinFailure::Unknown(_) => Name::OutcomeUnknown,
        };
        Problem::new(name, failure.to_string())
    })?;
    let identity = &joined.identity;
    Ok(JoinedForm {
        site: identity.site.clone(),
        site_id: identity.site_id.to_string(),
        name: identity.me().name.clone(),
        number: identity.node,
        replaces: joined.replaces,
        set_aside: None,
    })
}
