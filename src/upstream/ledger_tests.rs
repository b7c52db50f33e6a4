use super::*;

use proptest::prelude::*;
use tally_core::id::SourceId;
use tally_core::report::{Amount, Sample};
use tally_core::time::SiteTime;

use crate::site::Summary;

fn numbered(seq: u64, series: u32) -> Numbered {
    let summary = Summary {
        seq: Some(seq),
        series: SeriesId(series),
        start: SiteTime(seq),
        span_ms: 1,
        amount: Amount::Counter(1),
        total: Some(i128::from(seq)),
        late: false,
        synced: true,
    };
    Numbered { seq, name: format!("s{series}"), since: 0, is_present: true, summary }
}

#[test]
fn a_number_is_settled_when_all_of_its_messages_are() {
    let mut ledger = Ledger::new(40);
    assert_eq!(ledger.next(), 41);
    let first = ledger.sent(41, 2);
    let second = ledger.sent(42, 1);
    assert!(!ledger.settle(second));
    assert!(!ledger.settle(first));
    assert_eq!(ledger.settled_up_to(), 40);
    assert!(ledger.settle(first));
    assert_eq!((ledger.settled_up_to(), ledger.next()), (42, 43));
}

#[test]
fn answers_to_an_earlier_try_count_nothing() {
    let mut ledger = Ledger::new(0);
    let old = ledger.sent(1, 1);
    ledger.rewind();
    assert!(!ledger.settle(old));
    assert!(!ledger.is_current(old));
    assert_eq!((ledger.settled_up_to(), ledger.next()), (0, 1));
    let again = ledger.sent(1, 1);
    assert!(!ledger.settle(old));
    assert!(ledger.settle(again));
    assert_eq!(ledger.settled_up_to(), 1);
}

#[test]
fn a_series_total_goes_once_and_as_of_its_latest_number() {
    let mut queue = Queue::default();
    queue.extend(vec![numbered(1, 7), numbered(2, 8), numbered(3, 7)]);
    assert_eq!(queue.last(), Some(3));
    let totals = |popped: Option<(Numbered, Option<Numbered>)>| {
        let (numbered, total) = popped.unwrap();
        (numbered.seq, total.map(|total| total.seq))
    };
    assert_eq!(totals(queue.pop()), (1, Some(3)));
    queue.extend(vec![numbered(4, 7)]);
    assert_eq!(totals(queue.pop()), (2, Some(2)));
    assert_eq!(totals(queue.pop()), (3, Some(4)));
    assert_eq!(totals(queue.pop()), (4, None));
    assert_eq!(queue.pop(), None);
}

#[test]
fn a_late_sample_does_not_take_the_place_of_a_total() {
    let sample = |seq, late| {
        let value = Sample::observed(2.0, SiteTime(seq), SourceId(1)).unwrap();
        let mut one = numbered(seq, 7);
        one.summary = Summary { amount: Amount::Sample(value), late, ..one.summary };
        one
    };
    let mut queue = Queue::default();
    queue.extend(vec![sample(1, false), sample(2, false), sample(3, true)]);
    let popped: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|(numbered, total)| (numbered.seq, total.map(|total| total.seq)))
        .collect();
    assert_eq!(popped, [(1, Some(2)), (2, None), (3, None)]);
    // The total went out: a late one that comes alone carries none, and none goes back.
    queue.extend(vec![sample(4, true), sample(5, false)]);
    assert_eq!(queue.pop().unwrap().1.map(|total| total.seq), Some(5));
}

proptest! {
    /// Acknowledgements in any order, some repeated, with rewinds in between: the settled run always ends at the
    /// end of the unbroken run of fully acknowledged numbers, never goes back, and gets to the end.
    #[test]
    fn only_the_unbroken_run_is_settled(
        messages in prop::collection::vec(1usize..3, 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0u8..20), 0..200),
        start in 0u64..1000,
    ) {
        let mut ledger = Ledger::new(start);
        let mut lacking: Vec<usize> = messages.clone();
        let send_rest = |ledger: &mut Ledger| -> Vec<Token> {
            let mut tokens = Vec::new();
            while ledger.next() <= start + messages.len() as u64 {
                let seq = ledger.next();
                let count = messages[(seq - start - 1) as usize];
                tokens.extend(std::iter::repeat_n(ledger.sent(seq, count), count));
            }
            tokens
        };
        let run = |lacking: &[usize]| start + lacking.iter().take_while(|lack| **lack == 0).count() as u64;
        let mut open = send_rest(&mut ledger);
        for (index, action) in order {
            if action == 0 {
                ledger.rewind();
                let from = (ledger.settled_up_to() - start) as usize;
                lacking[from..].copy_from_slice(&messages[from..]);
                open = send_rest(&mut ledger);
            } else if !open.is_empty() {
                let token = open.swap_remove(index.index(open.len()));
                lacking[(token.seq - start - 1) as usize] -= 1;
                let before = ledger.settled_up_to();
                let moved = ledger.settle(token);
                prop_assert_eq!(moved, ledger.settled_up_to() > before);
            }
            prop_assert_eq!(ledger.settled_up_to(), run(&lacking));
        }
        for token in open {
            ledger.settle(token);
        }
        prop_assert_eq!(ledger.settled_up_to(), start + messages.len() as u64);
    }
}
