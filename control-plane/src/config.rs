//! Settings: flags, environment and a TOML file.

/// The settings of a running control plane.
#[derive(Debug, Clone)]
pub struct Config {}
