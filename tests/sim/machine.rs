//! The state machine of a box, and what the log says to it.

use std::collections::BTreeMap;
use std::rc::Rc;

use tally_core::id::{Epoch, LogIndex, ReportNumber};
use tally_core::report::{Judgement, Numbering};

/// What applying an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// An epoch is open.
    Opened {
        epoch: Epoch,
    },
    /// A report was judged.
    Report {
        epoch: Epoch,
        number: ReportNumber,
        judgement: Option<Judgement>,
    },
}

/// A ledger of counters that is as plain as can be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    applied: u64,
    digest: u64,
    epochs: BTreeMap<u64, Numbering>,
    totals: BTreeMap<u64, u64>,
}

impl Machine {
    pub fn apply(&mut self, index: LogIndex, payload: &[u8]) -> Outcome {
        assert_eq!(index.0, self.applied + 1, "entries are applied one after the other");
        self.applied = index.0;
        self.digest = fold(self.digest, index.0);
        let words = words(payload);
        match words[..] {
            [] => Outcome::Nothing,
            [epoch] => {
                self.epochs.entry(epoch).or_default();
                Outcome::Opened { epoch: Epoch(epoch) }
            }
            [epoch, number, ref cells @ ..] => {
                let number = ReportNumber::new(number).expect("reports are numbered from 1");
                let judgement = self.report(epoch, number, cells);
                Outcome::Report { epoch: Epoch(epoch), number, judgement }
            }
        }
    }

    fn report(&mut self, epoch: u64, number: ReportNumber, cells: &[u64]) -> Option<Judgement> {
        let numbering = self.epochs.get_mut(&epoch)?;
        let hash = cells.iter().fold(0, |hash, cell| fold(hash, *cell));
        let judgement = numbering.judge(number, hash);
        if judgement == Judgement::Next {
            numbering.advance(number, hash);
            for cell in cells.chunks(2) {
                *self.totals.entry(cell[0]).or_default() += cell[1];
                self.digest = fold(fold(self.digest, cell[0]), cell[1]);
            }
        }
        Some(judgement)
    }

    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied)
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn total(&self, series: u64) -> u64 {
        self.totals.get(&series).copied().unwrap_or(0)
    }

    /// How many reports of an epoch were applied.
    pub fn reports_of(&self, epoch: Epoch) -> u64 {
        self.epochs.get(&epoch.0).and_then(|numbering| numbering.last).map_or(0, ReportNumber::get)
    }

    pub fn snapshot(&self) -> Rc<[u8]> {
        let head = [self.applied, self.digest, self.epochs.len() as u64];
        let number = |numbering: &Numbering| numbering.last.map_or(0, ReportNumber::get);
        let epochs = self.epochs.iter().flat_map(|(epoch, n)| [*epoch, number(n), n.last_hash]);
        let totals = self.totals.iter().flat_map(|(series, total)| [*series, *total]);
        bytes(head.into_iter().chain(epochs).chain(totals))
    }

    pub fn restore(snapshot: &[u8]) -> Machine {
        let words = words(snapshot);
        let (epochs, totals) = words[3..].split_at(3 * usize::try_from(words[2]).unwrap());
        let numbering = |cell: &[u64]| Numbering { last: ReportNumber::new(cell[1]), last_hash: cell[2] };
        Machine {
            applied: words[0],
            digest: words[1],
            epochs: epochs.chunks(3).map(|cell| (cell[0], numbering(cell))).collect(),
            totals: totals.chunks(2).map(|cell| (cell[0], cell[1])).collect(),
        }
    }
}

/// What a source says: open this epoch.
pub fn open(epoch: Epoch) -> Rc<[u8]> {
    bytes([epoch.0])
}

/// What a source says: add these amounts to these series.
pub fn report(epoch: Epoch, number: ReportNumber, cells: &[(u64, u64)]) -> Rc<[u8]> {
    let cells = cells.iter().flat_map(|(series, amount)| [*series, *amount]);
    bytes([epoch.0, number.get()].into_iter().chain(cells))
}

fn bytes(words: impl IntoIterator<Item = u64>) -> Rc<[u8]> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().expect("whole words"));
    bytes.chunks(8).map(word).collect()
}

fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}
