//! (room of the ingest)
