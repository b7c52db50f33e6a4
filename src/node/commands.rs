//! What handles ask for.

use std::time::{Duration, Instant};

use super::handle::{Command, random_u128};
use super::{Node, RequestError, Stopping, proposals};

/// How long an orderly stop waits for what was counted here to be committed.
const STOP_WAIT: Duration = Duration::from_secs(5);

impl Node {
    pub(super) fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Propose { body, retry, reply } => {
                self.proposals.add(random_u128() as u64, &body, retry, reply, now);
            }
            Command::ProposeHere { body, reply } => match self.append(proposals::plain(&body)) {
                Ok(index) => {
                    self.here.insert(index, (self.raft.term(), reply));
                }
                Err(why) => {
                    // The asker may have gone.
                    let _ = reply.send(Err(RequestError::NotCommitted { why }));
                }
            },
            Command::Fence { reply } => self.reads.add(reply, now),
            Command::Stop { reply } => self.stopping = Some(Stopping { until: now + STOP_WAIT, reply }),
        }
    }
}
