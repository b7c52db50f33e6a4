//! The end of a box, in good order: no way in takes anything more, what was counted is committed or saved, who waits is
//! answered.

use std::time::{Duration, Instant};

use tally_core::raft::MemberRole;
use tokio::task::{JoinError, JoinHandle};
use tracing::{info, warn};

use super::Ways;
use crate::node::{Handle, MemberStatus, NodeError, StopTimes};
use crate::signals::{self, Signals};
use crate::startup::{STOP_MAX, Serving};

/// How long the ways in and out have to end in good order,
const CLOSE_WAIT: Duration = Duration::from_millis(3_500);
/// ways in, in a hurry, to count what they have read,
const HURRY_WAIT: Duration = Duration::from_millis(300);
/// those who wait for an answer to get it,
const ANSWER_WAIT: Duration = Duration::from_millis(2_500);
/// what was counted to be committed,
const COMMIT_WAIT: Duration = Duration::from_millis(6_500);
/// and the rest to be saved. All of them from the signal on.
const SAVE_WAIT: Duration = Duration::from_millis(8_500);

/// How the node's task ended.
pub(super) type Ended = Result<Result<(), NodeError>, JoinError>;

/// Stops what serves, before the process ends. `ended`: the node has stopped by itself.
pub(super) async fn stop(
    (ways, serving): (Ways, Serving),
    node: (&Handle, JoinHandle<Result<(), NodeError>>, Option<Ended>),
    signals: &mut Signals,
) -> Ended {
    signals::end_within(STOP_MAX);
    leave((ways, Some(serving)), node, signals).await
}

/// The same for a process that goes on; whoever serves requests then goes on, too, and says that the node is stopping.
pub(super) async fn leave(
    (ways, serving): (Ways, Option<Serving>),
    (handle, node, ended): (&Handle, JoinHandle<Result<(), NodeError>>, Option<Ended>),
    signals: &mut Signals,
) -> Ended {
    let since = Instant::now();
    if ended.is_none() {
        handle.answer_by(since + ANSWER_WAIT).await;
    }
    close(ways, handle, serving, signals).await;
    if let Some(ended) = ended {
        return ended;
    }
    let times = StopTimes { commit_by: since + COMMIT_WAIT, end_by: since + SAVE_WAIT };
    let stopped = handle.stop(times);
    tokio::pin!(stopped);
    tokio::select! {
        () = &mut stopped => {}
        signal = signals.stop() => {
            info!("{signal} again: no longer waiting for commits");
            handle.hurry().await;
            stopped.await;
        }
    }
    node.await
}

/// Ends the API of a box that has no node.
pub(super) async fn end_api(Serving { stop, task }: Serving) {
    signals::end_within(STOP_MAX);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(CLOSE_WAIT, task).await;
}

/// Closes the ways in and out, and the API, all at once: in good order as far as they do it in time, and as far as no
/// second signal asks to hurry. Requests that wait are answered while the node still runs.
async fn close(ways: Ways, handle: &Handle, serving: Option<Serving>, signals: &mut Signals) {
    let is_box = |member: &&MemberStatus| member.connected && member.membership != Some(MemberRole::Witness);
    let last = handle.status().members.iter().filter(is_box).count() <= 1;
    let mut serving = serving.map(|Serving { stop, task }| {
        let _ = stop.send(true);
        task
    });
    let Ways { ways_in, upstream } = ways;
    // What they have read is counted by then.
    let mut ways_in = tokio::spawn(ways_in.stop());
    let closed = async {
        // A panic in there is in the log already.
        let _ = (&mut ways_in).await;
        let served = async {
            if let Some(task) = &mut serving {
                let _ = task.await;
            }
        };
        tokio::join!(upstream.stop(last), served)
    };
    let in_time = tokio::time::timeout(CLOSE_WAIT, closed);
    tokio::select! {
        closed = in_time => if closed.is_err() {
            warn!("not everything was closed in time: no longer waiting");
        },
        signal = signals.stop() => {
            info!("{signal} again: no longer waiting");
            handle.hurry().await;
        }
    }
    if let Some(task) = serving {
        task.abort();
    }
    // However much of a hurry: what they have read is to be saved, and takes no time to count.
    if !ways_in.is_finished() {
        let _ = tokio::time::timeout(HURRY_WAIT, ways_in).await;
    }
}
