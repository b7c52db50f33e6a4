//! (room of the cli)
