//! The configuration file: TOML to validated types.
