//! Another name for a site of one box, and for the box: `tallyd init` on a box that has a site. The wish is on disk
//! first, then the site agrees, then the broker is told under the old name, and last the identity has the new one. So
//! whatever comes between, the next start goes on with it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::api::{Founded, InitAsk, Name, Problem};
use crate::config::Found;
use crate::identity::{Identity, IdentityError, write_file};
use crate::node::Handle;
use crate::request::{MemberError, RequestError};
use crate::site::MemberChange;
use crate::upstream;

/// The file in the data directory with the wish.
pub(super) const RENAMING: &str = "renaming.json";

/// How long the broker may take to forget what it retains under the old name.
const CLEAR_MAX: Duration = Duration::from_secs(10);
/// How long it is waited before the site is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a site of one box and this box are to be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renaming {
    site: String,
    name: String,
}

impl Renaming {
    /// What an operator asks for, if it can be done; it is on disk then.
    pub(super) fn begin(
        found: &Found,
        handle: &Handle,
        ask: &InitAsk,
        name: String,
    ) -> Result<Renaming, Problem> {
        let identity = handle.identity();
        let config = &found.config.upstream;
        let state = handle.status().upstream["state"].clone();
        let topics_change = ask.site != identity.site && config.base.is_none();
        if let Some(url) = config.url.as_ref().filter(|_| topics_change && state != "connected") {
            return Err(Problem::new(
                Name::NotCommitted,
                format!(
                    "the broker at {}:{} is not connected, so what it retains under tally/{} cannot be cleared: \
                     retry once it is (see tallyd status)",
                    url.host, url.port, identity.site
                ),
            ));
        }
        let renaming = Renaming { site: ask.site.clone(), name };
        let text = serde_json::to_vec(&renaming).expect("it has only texts");
        write_file(&found.dir.join(RENAMING), &text, 0o644)
            .map_err(|error| Problem::new(Name::NotCommitted, error.to_string()))?;
        Ok(renaming)
    }

    /// What a start before was asked for and did not finish.
    fn load(dir: &Path) -> Option<Renaming> {
        let path = dir.join(RENAMING);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|error| warn!("cannot use {}: {error}", path.display()))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!("cannot read {}: {error}", path.display());
                None
            }
        }
    }

    /// Waits until the site can be asked for what a start before did not finish, if there is any.
    pub(super) async fn left_over(handle: &Handle, dir: &Path) -> Renaming {
        let Some(renaming) = Renaming::load(dir) else { return std::future::pending().await };
        while handle.fence().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        renaming
    }

    /// Has the site agree.
    ///
    /// # Errors
    /// It does not: then it keeps its name. Or nobody knows: then the next start asks again.
    pub(super) async fn agree(&self, handle: &Handle, dir: &Path) -> Result<(), Problem> {
        let change = MemberChange::Rename { site: self.site.clone(), name: self.name.clone() };
        let problem = match handle.change_members(&change).await {
            Ok(()) => return Ok(()),
            Err(MemberError::Request(error @ RequestError::OutcomeUnknown { .. })) => {
                return Err(error.into());
            }
            Err(MemberError::Request(error)) => error.into(),
            Err(MemberError::Refused(why)) => Problem::new(Name::JoinRefused, why.to_string()),
        };
        forget(dir);
        Err(problem)
    }

    /// Clears what the broker retains under the old name, and gives the identity the new one. The node has stopped.
    ///
    /// # Errors
    /// The identity cannot be written.
    pub(super) async fn finish(
        &self,
        found: &Found,
        handle: &Handle,
        identity: &Identity,
    ) -> Result<Founded, IdentityError> {
        if self.site != identity.site {
            let names = handle.site(|site| site.series_ids().map(|id| site.name(id).to_owned()).collect());
            let config = &found.config.upstream;
            let cleared = upstream::clear_retained(config, &identity.site, identity.site_id, names);
            match tokio::time::timeout(CLEAR_MAX, cleared)
                .await
                .unwrap_or_else(|_| Err("no answer".to_owned()))
            {
                Ok(()) => {}
                Err(why) => warn!(
                    "the broker still retains messages under the old name of this site, {}: {why}; clear them there",
                    identity.site
                ),
            }
        }
        let mut identity = identity.clone();
        identity.site.clone_from(&self.site);
        let own = identity.node_id();
        for member in identity.members.iter_mut().filter(|member| member.id == own) {
            member.name.clone_from(&self.name);
        }
        identity.save(&found.dir)?;
        forget(&found.dir);
        info!("this site is called {} from now on, and this box {}", self.site, self.name);
        let address = identity.me().address.clone();
        Ok(Founded {
            site: identity.site.clone(),
            site_id: identity.site_id.to_string(),
            name: self.name.clone(),
            number: identity.node,
            address: Some(address).filter(|address| !address.is_empty()),
        })
    }
}

fn forget(dir: &Path) {
    if let Err(error) = fs::remove_file(dir.join(RENAMING)) {
        warn!("cannot remove {}: {error}", dir.join(RENAMING).display());
    }
}
