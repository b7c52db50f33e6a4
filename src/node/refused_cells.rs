//! Cells of this box's own batches that the site refused: logged once for each reason. The waiter of an add hears of
//! its refusal anyway; for counts without a waiter there is only this log line and the figure in status and metrics.

use tracing::warn;

use crate::site::Refusal;

/// Which reasons were told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RefusedCells {
    told: [bool; 7],
}

impl RefusedCells {
    /// Tells what is new among the refused cells of a batch; how many reasons that were.
    pub(super) fn tell(&mut self, refused: &[(u32, Refusal)]) -> usize {
        let mut new = 0;
        for (_, why) in refused {
            let told = &mut self.told[place(*why)];
            if !std::mem::replace(told, true) {
                new += 1;
                warn!(
                    "the site refused counts of this box: {why} (the first such refusal; \
                     tallyd_refused_cells_total counts them)"
                );
            }
        }
        new
    }
}

const fn place(why: Refusal) -> usize {
    match why {
        Refusal::WrongKind { .. } => 0,
        Refusal::Overflow => 1,
        Refusal::TooManySeries => 2,
        Refusal::WindowInFuture => 3,
        Refusal::Malformed => 4,
        Refusal::TooManyMeters => 5,
        Refusal::Removed => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once() {
        let mut cells = RefusedCells::default();
        assert_eq!(cells.tell(&[(0, Refusal::TooManySeries), (1, Refusal::TooManySeries)]), 1);
        assert_eq!(cells.tell(&[(0, Refusal::TooManySeries), (3, Refusal::Overflow)]), 1);
        assert_eq!(cells.tell(&[(0, Refusal::Overflow)]), 0);
    }
}
