//! Where the configuration and the data directory are.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError};
use crate::environment;

/// Where a configuration is looked for when none is named, after the data directory.
const SYSTEM_CONFIG: &str = "/etc/tallyd/tallyd.toml";

/// Where root's data is if nobody says.
pub(crate) const SYSTEM_DATA_DIR: &str = "/var/lib/tallyd";

/// A configuration and the data directory that goes with it.
#[derive(Debug)]
pub struct Found {
    /// What the file and the environment say.
    pub config: Config,
    /// The data directory.
    pub dir: PathBuf,
    /// Whether there was a file.
    pub has_file: bool,
}

impl Config {
    /// Finds file and data directory, by what the command line says of them (`file`, `data_dir`), and reads the file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn find(file: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<Found, ConfigError> {
        let explicit = data_dir.or_else(|| environment::value("TALLYD_NODE_DATA_DIR").map(PathBuf::from));
        let guess = explicit.clone().unwrap_or_else(default_data_dir);
        let system = Path::new(SYSTEM_CONFIG).exists().then(|| PathBuf::from(SYSTEM_CONFIG));
        let inside = guess.join("tallyd.toml");
        let file = file.or_else(|| inside.exists().then_some(inside)).or(system);
        let config = Config::load(file.as_deref(), environment::text)?;
        let dir = explicit.or_else(|| config.node.data_dir.clone()).unwrap_or(guess);
        Ok(Found { config, dir, has_file: file.is_some() })
    }
}

/// Where the data is if nobody says.
pub(crate) fn default_data_dir() -> PathBuf {
    if let Some(dirs) = environment::value("STATE_DIRECTORY") {
        // systemd names all that a unit has, divided by colons.
        return std::env::split_paths(&dirs).next().unwrap_or_default();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM_DATA_DIR);
    }
    let state = environment::value("XDG_STATE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(environment::value("HOME").unwrap_or_default()).join(".local/state");
    state.unwrap_or_else(home).join("tallyd")
}
