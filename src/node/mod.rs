//! The one loop that drives the core.
