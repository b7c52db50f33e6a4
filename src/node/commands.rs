//! The commands of handles, as the node carries them out.

use super::shared::Command;
use super::successors::TransferReason;
use tally_core::id::NodeId;

use super::wire::Frame;
use super::{Node, Stopping};
use crate::request::RequestError;
use crate::site::NOBODY;
use crate::transport::Lane;

impl Node {
    pub(super) fn on_command(&mut self, command: Command) {
        let now = self.moment.now;
        match command {
            Command::Propose { body, reply } => {
                let tag = self.random.next_u64().max(NOBODY + 1);
                self.proposals.add(tag, body, reply, now);
            }
            Command::ProposeLocally { reply, .. } if self.state_check.is_out() => {
                let why = "this box's state is wrong".to_owned();
                // The asker may have gone.
                let _ = reply.send(Err(RequestError::NotCommitted { why }));
            }
            Command::ProposeLocally { body, reply } => match self.append(body) {
                Ok(index) => {
                    self.local_proposals.insert(index, (self.raft.term(), reply));
                }
                Err(why) => {
                    // The asker may have gone.
                    let _ = reply.send(Err(RequestError::NotCommitted { why }));
                }
            },
            Command::Connect { links } => {
                self.links = Some(links);
                self.connect_members();
            }
            Command::Transfer { to, reply } => {
                // The asker may have gone.
                let _ = reply.send(self.ask_for_transfer(to));
            }
            Command::Refresh { reply } => {
                self.status_at = None;
                self.refresh_status();
                // The asker may have gone.
                let _ = reply.send(Ok(()));
            }
            Command::Fence { reply } => self.reads.add(reply, now),
            Command::AnswerBy(by) => self.answer_by = Some(by),
            Command::Hurry => {
                self.hurries = true;
                self.answer_by = Some(now);
                if let Some(stopping) = &mut self.stopping {
                    stopping.hurry(now);
                }
            }
            Command::Stop { times, reply } => match &mut self.stopping {
                Some(stopping) => stopping.asked_again(times, reply),
                None => {
                    let mut stopping = Stopping::new(times, reply, now);
                    if self.hurries {
                        stopping.hurry(now);
                    }
                    self.stopping = Some(stopping);
                }
            },
            Command::CommitInterval(interval) => self.batches.commit_every(interval),
        }
    }

    /// Transfers leadership, or asks the leader to.
    fn ask_for_transfer(&mut self, to: Option<NodeId>) -> Result<(), RequestError> {
        let refused = |why: String| Err(RequestError::NotCommitted { why });
        if self.leads() {
            return match self.transfer_leadership(to, TransferReason::Asked) {
                Ok(_) => Ok(()),
                Err(error) => refused(error.to_string()),
            };
        }
        match self.raft.leader() {
            Some(leader) if self.send(leader, Lane::Requests, &Frame::Transfer { to }) => Ok(()),
            _ => refused("this box is not connected to a leader".to_owned()),
        }
    }
}
