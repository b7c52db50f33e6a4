use super::*;
use proptest::prelude::*;
use std::vec::Vec as StdVec;

/// The driver's log: entry n stands at place n - 1; what is at or before `base` is gone.
struct Plain {
    base: u64,
    keys: StdVec<u64>,
}

impl Plain {
    fn at(&self, index: u64) -> Option<Position> {
        if index == 0 {
            return (self.base == 0).then_some(Position::ZERO);
        }
        let term = *self.keys.get(usize::try_from(index).unwrap() - 1)?;
        (index >= self.base).then_some(Position {
            index: LogIndex(index),
            term: Term(term),
            subterm: Subterm(0),
        })
    }

    fn last(&self) -> Position {
        self.at(self.keys.len() as u64).unwrap()
    }
}

impl LogView for Plain {
    fn position(&self, index: LogIndex) -> Option<Position> {
        self.at(index.0)
    }

    fn fit(&self, _first: LogIndex, last: LogIndex, _bytes_max: u32) -> (LogIndex, u32) {
        (last, 0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { newer: u64, count: u64 },
    Truncate { back: u64 },
    Compact { back: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = StdVec<Step>> {
    let step = prop_oneof![
        4 => (0u64..3, 1u64..4).prop_map(|(newer, count)| Step::Append { newer, count }),
        2 => (0u64..9).prop_map(|back| Step::Truncate { back }),
        1 => (0u64..9).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

fn take(log: &mut Log<3>, plain: &mut Plain, term: &mut u64, step: &Step) {
    let last = plain.keys.len() as u64;
    match *step {
        Step::Append { newer, count } => {
            *term += newer;
            plain.keys.extend(core::iter::repeat_n(*term, usize::try_from(count).unwrap()));
            let range = EntryRange {
                term: Term(*term),
                subterm: Subterm(0),
                first: LogIndex(last + 1),
                last: LogIndex(last + count),
            };
            log.append(&range);
        }
        Step::Truncate { back } => {
            let to = last.saturating_sub(back).max(plain.base);
            plain.keys.truncate(usize::try_from(to).unwrap());
            log.truncate(plain.last());
            *term += 1;
        }
        Step::Compact { back } => {
            plain.base = last.saturating_sub(back).max(plain.base);
            log.compact(plain.at(plain.base).unwrap());
        }
        Step::Restart => *log = Log::new(plain.at(plain.base).unwrap(), plain.last()),
    }
}

proptest! {
    #[test]
    fn three_runs_and_the_view_know_what_the_whole_log_knows(steps in steps()) {
        let mut plain = Plain { base: 0, keys: StdVec::new() };
        let mut log = Log::<3>::new(Position::ZERO, Position::ZERO);
        let mut term = 1;
        for step in &steps {
            take(&mut log, &mut plain, &mut term, step);
            let last = plain.keys.len() as u64;
            prop_assert_eq!(log.last(), plain.last());
            for index in 0..last + 2 {
                let here = plain.at(index);
                prop_assert_eq!(log.position(LogIndex(index), &plain), here, "{:?}", index);
                let Some(here) = here else { continue };
                let end = (index..=last).take_while(|i| plain.at(*i).unwrap().key() == here.key()).last();
                prop_assert_eq!(log.run_end(LogIndex(index), LogIndex(last), &plain), end.map(LogIndex));
                for term in 0..=term {
                    let key = (Term(term), Subterm(0));
                    let found = (plain.base..=index).rev().filter_map(|i| plain.at(i)).find(|p| p.key() <= key);
                    prop_assert_eq!(log.latest_at_most(LogIndex(index), key, &plain), found);
                }
            }
        }
    }
}
