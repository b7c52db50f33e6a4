//! The node's timers, all in one table: when it must wake though no input comes.

use std::time::{Duration, Instant};

use super::Node;

/// The node looks around at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The core: an election, a heartbeat.
    Raft,
    /// How late the loop wakes is to be seen.
    Lateness,
    /// A batch is to be frozen, or to go again.
    Batches,
    /// What was gathered at this leader is to go.
    Gathered,
    /// A body is to go again, or to be given up.
    Proposals,
    /// A read is to be asked for again, or to be given up.
    Reads,
    /// The disk is to be given up, or tried again.
    Disk,
    /// The members are to be changed further.
    Members,
    /// A part of a snapshot may go.
    Snapshots,
    /// The end of an orderly stop comes nearer.
    Stop,
    /// What nothing wakes the loop for.
    Look,
}

impl Timer {
    const ALL: [Timer; 11] = [
        Timer::Raft,
        Timer::Lateness,
        Timer::Batches,
        Timer::Gathered,
        Timer::Proposals,
        Timer::Reads,
        Timer::Disk,
        Timer::Members,
        Timer::Snapshots,
        Timer::Stop,
        Timer::Look,
    ];
}

impl Node {
    /// When it must be woken at the latest.
    pub fn due(&self) -> Instant {
        let due = Timer::ALL.into_iter().filter_map(|timer| self.due_of(timer)).min();
        due.unwrap_or(self.moment.now)
    }

    /// What is due when, for those who look for the reason of a wake.
    pub fn describe_due(&self) -> String {
        let of = |timer: Timer| {
            let due = self.due_of(timer)?.saturating_duration_since(self.moment.now);
            Some(format!("{timer:?} in {due:?}"))
        };
        Timer::ALL.into_iter().filter_map(of).collect::<Vec<String>>().join(", ")
    }

    fn due_of(&self, timer: Timer) -> Option<Instant> {
        let leader = self.leader_term();
        match timer {
            Timer::Raft => {
                Some(self.started + Duration::from_micros(self.raft.poll_timeout().0.min(u64::MAX >> 8)))
            }
            Timer::Lateness => Some(self.tick_due()),
            Timer::Batches => {
                self.batches.due(self.shared.accumulator.backlog(), self.batches_term().is_some())
            }
            Timer::Gathered => self.gathered.due(),
            Timer::Proposals => self.proposals.next_due(leader),
            Timer::Reads => self.reads.next_due(leader.filter(|_| !self.leads())),
            Timer::Disk => self.disk_health.next_due(),
            // A wrong state says wrongly what is due for the members.
            Timer::Members => self.membership_due().filter(|_| !self.state_check.is_out()),
            Timer::Snapshots => self.snapshots_due(),
            Timer::Stop => self.stop_due(),
            Timer::Look => Some(self.moment.now + LOOK_EVERY),
        }
    }
}
