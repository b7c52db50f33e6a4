//! The replicated state machine, pure: what the same log makes the same on every box.

mod view;
pub use view::*;
