//! Who this box is, and how much of the disk it has.

use std::path::Path;

use tally_core::raft::MemberRole;
use tracing::{info, warn};

use super::RunError;
use crate::config::{Config, Found};
use crate::identity::{Identity, check_address, is_name};
use crate::startup;
use crate::storage::{Budget, partition_bytes};
use crate::units::Unit;

/// Who this box is: as provisioned, founded or joined; founded now if nothing at all was said about a site. `None`: there
/// is a configuration, so it waits to be told.
pub(super) fn identity(found: &Found) -> Result<Option<Identity>, RunError> {
    let Found { config, dir, has_file } = found;
    let identity = match Identity::load(dir)? {
        Some(identity) => identity,
        None if *has_file => return Ok(None),
        None => {
            let name = config.node.name.clone().unwrap_or_else(host_name);
            info!("founding a site of one box, {name:?}, in {}", dir.display());
            let address = config.cluster.advertise.as_deref().unwrap_or_default();
            if !address.is_empty() {
                check_address(address).map_err(|why| RunError::Other(format!("cluster.advertise: {why}")))?;
            }
            Identity::found_single(dir, &name, &name, address)?
        }
    };
    if identity.me().role == MemberRole::Witness {
        return Err(RunError::Other(format!(
            "{} belongs to {:?}, the witness of its site: run it with --witness",
            dir.display(),
            identity.me().name
        )));
    }
    startup::check_agreement(config, &identity, dir)?;
    Ok(Some(identity))
}

/// What log, snapshots and spare files may have together, told where the partition is small for it.
pub(super) fn budget(config: &Config, dir: &Path) -> Budget {
    let partition = partition_bytes(dir);
    let budget = match config.storage.bytes_max {
        Some(bytes) => Budget::new(bytes),
        // A file system that does not say its size is taken for a large one.
        None => Budget::of_partition(partition.unwrap_or(u64::MAX)),
    };
    if let Some(partition) = partition {
        let (has, bound) = (partition >> 20, Unit::Bytes.format(budget.bytes_max()));
        if partition < Budget::LEAST_PARTITION {
            warn!(
                "{} is on a partition of {has} MiB, which is too small: log and snapshots need up to \
                 {bound}, on a partition of {} MiB or more; the box continues while there is space",
                dir.display(),
                Budget::LEAST_PARTITION >> 20
            );
        } else if budget.bytes_max() > partition {
            warn!("storage.bytes_max is {bound}, but the partition of {} has {has} MiB", dir.display());
        }
    }
    budget
}

/// The host name as far as it can name a box.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String = name.split('.').next().unwrap_or_default().chars().take(32).collect();
    if is_name(&name) { name } else { "box1".to_owned() }
}
