//! A box that counts nothing. It has a configuration and no identity: it founds nothing by itself, since a disk may not
//! be mounted, and waits until an operator founds or joins a site, or until an identity appears. Or it was removed from
//! its site, and waits to be stopped, or to join anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::door::Door;
use super::founding::host_name;
use super::removed::Removed;
use super::{RunError, stop};
use crate::api::{
    ADMIN_MAX, Admin, Founded, Idle, InitAsk, JoinAsk, JoinedForm, NO_SITE, Name, Problem, Reply, Waiting,
    WaitingState,
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
pub(super) enum Waited {
    /// A signal stops the process.
    Stopped,
    /// There may be an identity, or another configuration.
    Again,
    /// A box that was removed is to join anew, with what it has set aside.
    Joins(JoinAsk, Reply<JoinedForm>),
}

/// Why a box waits.
pub(super) struct Waits {
    idle: Idle,
    /// What it would be called, or was.
    name: String,
    /// What the log says.
    line: String,
}

impl Waits {
    /// It has no site yet.
    pub(super) fn no_site(found: &Found) -> Waits {
        let line = format!(
            "{} has no identity, and there is a configuration, so no site is founded here (a disk may not be \
             mounted): {NO_SITE}",
            found.dir.display()
        );
        Waits { idle: Idle::no_site(), name: own_name(&found.config), line }
    }

    /// It was removed from its site.
    pub(super) fn removed(removed: &Removed, identity: &Identity) -> Waits {
        let idle = removed.idle(identity);
        let line = idle.text().to_owned();
        Waits { idle, name: identity.me().name.clone(), line }
    }
}

/// Waits. `told`: what the log says already.
pub(super) async fn wait(
    found: &Found,
    Waits { idle, name, line }: Waits,
    door: &mut Door,
    signals: &mut Signals,
    told: &mut String,
) -> Result<Waited, RunError> {
    let Found { config, dir, .. } = found;
    let listeners = door.open(config, dir).await?;
    let mut api_config = startup::api_config(config, dir, (&own_name(config), ""))?;
    api_config.socket = door.socket();
    let (admin, mut asked) = mpsc::channel(ADMIN_MAX);
    let was_member = idle.was_member();
    let state = Arc::new(WaitingState::new(name, idle));
    let serving = startup::serve(listeners, Waiting::new(&api_config, admin, Arc::clone(&state)), api_config);
    signals.listen_to_stops();
    if *told != line {
        match was_member {
            true => warn!("{line}"),
            false => info!("{line}"),
        }
        *told = line;
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
            _ = look.tick() => if !was_member && dir.join(IDENTITY).exists() {
                info!("{} has an identity now", dir.display());
                break Waited::Again;
            },
            Some(request) = asked.recv() => {
                let request = match request {
                    Admin::Join { ask, reply } if was_member && ask.set_aside => {
                        break Waited::Joins(ask, reply);
                    }
                    request if was_member => {
                        refuse(&state, request);
                        continue;
                    }
                    request => request,
                };
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
    if let Waited::Stopped = waited {
        service.stopping();
        door.close();
        stop::end_api(serving).await;
    } else {
        // Its requests are answered meanwhile; the next ones come to what follows.
        let _ = serving.stop.send(true);
    }
    Ok(waited)
}

/// What a box that was removed is asked for, other than to join anew.
fn refuse(state: &WaitingState, request: Admin) {
    let problem = Problem::new(Name::JoinRefused, state.line());
    match request {
        Admin::Init { reply, .. } => drop(reply.send(Err(problem))),
        Admin::Join { reply, .. } => drop(reply.send(Err(problem))),
        Admin::Advertise { reply, .. } => drop(reply.send(Err(problem))),
        Admin::RotateKey { reply } => drop(reply.send(Err(problem))),
    }
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
            let _ = reply.send(Err(no_site()));
            false
        }
        Admin::RotateKey { reply } => {
            let _ = reply.send(Err(no_site()));
            false
        }
    }
}

fn no_site() -> Problem {
    Problem::new(Name::NotCommitted, format!("this box has {NO_SITE}"))
}

fn own_name(config: &Config) -> String {
    config.node.name.clone().unwrap_or_else(host_name)
}

/// The name that an operator gives this box, if that is not another than the configuration has.
pub(super) fn chosen_name(config: &Config, asked: Option<&str>) -> Result<Option<String>, Problem> {
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

fn check_unused(dir: &Path) -> Result<(), Problem> {
    super::founding::check_unused(dir).map_err(|why| Problem::new(Name::JoinRefused, why))
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
        set_aside_holds: None,
    })
}
