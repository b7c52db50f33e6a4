//! (room of the storage)
