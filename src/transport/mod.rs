//! (room of the transport)
