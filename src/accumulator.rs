//! What was counted here and is not yet committed.
