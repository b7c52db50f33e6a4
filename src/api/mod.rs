//! (room of the api)
