//! (room of the upstream)
