//! The refused cells of a report, in a few bytes, so that a repeated report gets the same receipt.

use super::entry::REPORT_CELLS_MAX;
use super::view::Refusal;
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use tally_core::report::Kind;

/// Refused cells, as runs: places skipped, length, reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    None,
    Kept(Box<[u8]>),
    /// There were some, and no room for the list.
    Dropped,
}

const KINDS: [Kind; 3] = [Kind::Counter, Kind::Updown, Kind::Sample];

impl Refused {
    /// From cells by place, ascending.
    pub(super) fn new(cells: &[(u32, Refusal)]) -> Refused {
        let mut out = Vec::new();
        let mut next = 0;
        for run in cells.chunk_by(|a, b| a.1 == b.1 && a.0 + 1 == b.0) {
            let (first, reason) = run[0];
            put_varint(&mut out, u64::from(first - next));
            put_varint(&mut out, run.len() as u64);
            out.push(code(reason));
            next = first + run.len() as u32;
        }
        if out.is_empty() { Refused::None } else { Refused::Kept(out.into()) }
    }

    /// The cells again; `None` if they were not kept.
    pub(super) fn cells(&self) -> Option<Vec<(u32, Refusal)>> {
        match self {
            Refused::None => Some(Vec::new()),
            Refused::Dropped => None,
            Refused::Kept(bytes) => {
                let mut cells = Vec::new();
                let mut next = 0u32;
                let mut reader = Reader::new(bytes);
                while let Ok((skipped, length, reason)) = read_run(&mut reader) {
                    next = next.saturating_add(skipped);
                    for _ in 0..length {
                        cells.push((next, reason));
                        next = next.saturating_add(1);
                    }
                }
                Some(cells)
            }
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        match self {
            Refused::Kept(bytes) => bytes.len(),
            Refused::None | Refused::Dropped => 0,
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Refused::None => out.push(0),
            Refused::Dropped => out.push(1),
            Refused::Kept(bytes) => {
                out.push(2);
                put_bytes(out, bytes);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Refused, Malformed> {
        match reader.u8()? {
            0 => Ok(Refused::None),
            1 => Ok(Refused::Dropped),
            2 => {
                let bytes = reader.bytes()?;
                let mut runs = Reader::new(bytes);
                let mut cells = 0u64;
                while runs.left() > 0 {
                    let (skipped, length, _) = read_run(&mut runs)?;
                    cells += u64::from(skipped) + u64::from(length);
                    // No entry has more: a few bytes must not claim a giant's memory.
                    if cells > u64::from(REPORT_CELLS_MAX) {
                        return Err(Malformed);
                    }
                }
                Ok(Refused::Kept(bytes.into()))
            }
            _ => Err(Malformed),
        }
    }
}

fn read_run(reader: &mut Reader<'_>) -> Result<(u32, u32, Refusal), Malformed> {
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Malformed);
    Ok((narrow(reader.varint()?)?, narrow(reader.varint()?)?, reason(reader.u8()?)?))
}

fn code(refusal: Refusal) -> u8 {
    let place = |kind| KINDS.iter().position(|known| *known == kind).map_or(0, |place| place as u8);
    match refusal {
        Refusal::Overflow => 0,
        Refusal::TooManySeries => 1,
        Refusal::WindowInFuture => 2,
        Refusal::Malformed => 3,
        Refusal::TooManyMeters => 4,
        Refusal::Removed => 5,
        Refusal::WrongKind { is, asked } => 16 + place(is) * 4 + place(asked),
    }
}

fn reason(code: u8) -> Result<Refusal, Malformed> {
    let kind = |place: u8| KINDS.get(usize::from(place)).copied().ok_or(Malformed);
    Ok(match code {
        0 => Refusal::Overflow,
        1 => Refusal::TooManySeries,
        2 => Refusal::WindowInFuture,
        3 => Refusal::Malformed,
        4 => Refusal::TooManyMeters,
        5 => Refusal::Removed,
        16..32 => Refusal::WrongKind { is: kind((code - 16) / 4)?, asked: kind((code - 16) % 4)? },
        _ => return Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_cells_come_back_and_runs_take_three_bytes() {
        let wrong = Refusal::WrongKind { is: Kind::Sample, asked: Kind::Updown };
        let cells = vec![
            (0, wrong),
            (1, wrong),
            (5, Refusal::Overflow),
            (6, Refusal::Malformed),
            (7, Refusal::TooManyMeters),
            (9, Refusal::Removed),
            (400, wrong),
        ];
        let refused = Refused::new(&cells);
        assert_eq!(refused.cells(), Some(cells));
        let all: Vec<_> = (0..100).map(|place| (place, Refusal::TooManySeries)).collect();
        assert_eq!(Refused::new(&all).bytes(), 3);
        assert_eq!(Refused::new(&[]), Refused::None);
        for refused in [refused, Refused::None, Refused::Dropped] {
            let mut out = Vec::new();
            refused.put(&mut out);
            assert_eq!(Refused::read(&mut Reader::new(&out)), Ok(refused));
        }
    }

    #[test]
    fn a_run_of_more_cells_than_an_entry_has_is_refused() {
        let mut run = Vec::new();
        put_varint(&mut run, 0);
        put_varint(&mut run, u64::from(u32::MAX));
        run.push(0);
        let mut out = vec![2];
        put_bytes(&mut out, &run);
        assert_eq!(Refused::read(&mut Reader::new(&out)), Err(Malformed));
    }
}
