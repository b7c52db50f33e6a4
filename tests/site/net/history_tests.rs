//! The checker of histories, against right ones, wrong ones, and a twin that tries all orders.

use proptest::prelude::*;

use super::history::{Op, Summary, Told, check};

fn added(begun: u64, ended: u64, amount: u64, total: u64) -> Op {
    Op { begun, told: Told::Added { amount, total, ended } }
}

fn read(begun: u64, ended: u64, total: u64) -> Op {
    Op { begun, told: Told::Read { total, ended } }
}

fn unknown(begun: u64) -> Op {
    Op { begun, told: Told::Unknown }
}

/// Tries all orders that time permits, and all subsets of the unknown.
fn is_linearizable(ops: &[Op]) -> bool {
    fn go_on(ops: &[Op], done: u32, total: u64) -> bool {
        let open = |at: &usize| done & (1 << at) == 0;
        let end = |op: &Op| match op.told {
            Told::Added { ended, .. } | Told::Read { ended, .. } => ended,
            Told::Unknown => u64::MAX,
        };
        let left = || (0..ops.len()).filter(open).map(|at| (at, &ops[at]));
        if left().all(|(_, op)| op.told == Told::Unknown) {
            return true;
        }
        let first_end = left().map(|(_, op)| end(op)).min().unwrap_or(u64::MAX);
        left().filter(|(_, op)| op.begun <= first_end).any(|(at, op)| {
            let next = match op.told {
                Told::Added { amount, total: told, .. } => {
                    Some(total + amount).filter(|total| *total == told)
                }
                Told::Read { total: told, .. } => Some(told).filter(|told| *told == total),
                Told::Unknown => Some(total + 1),
            };
            next.is_some_and(|next| go_on(ops, done | 1 << at, next))
        })
    }
    go_on(ops, 0, 0)
}

/// Few operations, close together, with totals that are often possible.
fn any_history() -> impl Strategy<Value = Vec<Op>> {
    let op =
        (0u64..12, 0u64..8, 0u8..8, 1u64..3, 0u64..8).prop_map(
            |(begun, span, kind, amount, total)| match kind {
                0..4 => added(begun, begun + span, amount, total.max(amount)),
                4..7 => read(begun, begun + span, total),
                _ => unknown(begun),
            },
        );
    prop::collection::vec(op, 1..7)
}

/// A history as a right site gives it: each step takes effect at 10, 20, 30 ..., begins before that and ends
/// after it; the last thing is a read that began after everything. With 8 `kinds` each add is acknowledged,
/// with 10 not.
fn right_history(kinds: u8) -> impl Strategy<Value = Vec<Op>> {
    let step = (0..kinds, 1u64..10, 0u64..200, 0u64..200);
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut total = 0;
        let mut ops = Vec::new();
        for (at, (kind, amount, before, after)) in (1..).map(|at| 1000 + at * 10).zip(steps) {
            let (begun, ended) = (at - before, at + after);
            match kind {
                0..6 => {
                    total += amount;
                    ops.push(added(begun, ended, amount, total));
                }
                6..8 => ops.push(read(begun, ended, total)),
                // Counted, but nobody was told.
                8 => {
                    total += 1;
                    ops.push(unknown(begun));
                }
                _ => ops.push(unknown(begun)),
            }
        }
        ops.push(read(10_000, 10_001, total));
        ops
    })
}

/// Adds to every total that was told from some operation on.
fn raise_after(ops: &mut [Op], from: usize, by: i64) {
    for op in &mut ops[from..] {
        if let Told::Added { total, .. } | Told::Read { total, .. } = &mut op.told {
            *total = total.saturating_add_signed(by);
        }
    }
}

proptest! {
    #[test]
    fn it_agrees_with_trying_all_orders(ops in any_history()) {
        let verdict = check(&ops);
        prop_assert_eq!(verdict.is_ok(), is_linearizable(&ops), "{:?}", verdict);
    }

    #[test]
    fn what_a_right_site_tells_passes(ops in right_history(10), order in any::<u64>()) {
        let mut ops = ops;
        // Clients' notes come in any order.
        ops.sort_by_key(|op| (op.begun ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let summary = check(&ops).unwrap();
        prop_assert!(summary.counted <= summary.unknown);
    }

    #[test]
    fn an_acknowledged_add_that_was_lost_is_seen(ops in right_history(8), pick in any::<prop::sample::Index>()) {
        let mut ops = ops;
        let adds = adds_of(&ops);
        prop_assume!(!adds.is_empty());
        let at = adds[pick.index(adds.len())];
        let Told::Added { amount, .. } = ops[at].told else { unreachable!() };
        // Its total was told, and everything after goes on without it.
        raise_after(&mut ops, at + 1, -(amount as i64));
        prop_assert!(check(&ops).is_err());
    }

    #[test]
    fn an_add_that_was_counted_twice_is_seen(ops in right_history(8), pick in any::<prop::sample::Index>()) {
        let mut ops = ops;
        let adds = adds_of(&ops);
        prop_assume!(!adds.is_empty());
        let at = adds[pick.index(adds.len())];
        let Told::Added { amount, .. } = ops[at].told else { unreachable!() };
        raise_after(&mut ops, at + 1, amount as i64);
        prop_assert!(check(&ops).is_err());
    }

    #[test]
    fn a_read_of_an_old_total_is_seen(ops in right_history(10), back in 1u64..10) {
        let mut ops = ops;
        let last = ops.len() - 1;
        let Told::Read { total, .. } = ops[last].told else { unreachable!() };
        prop_assume!(ops[..last].iter().any(|op| matches!(op.told, Told::Added { total: told, .. } if told == total)));
        let old = Told::Read { total: total.saturating_sub(back), ended: 20_001 };
        ops.push(Op { begun: 20_000, told: old });
        prop_assert!(check(&ops).is_err());
    }
}

fn adds_of(ops: &[Op]) -> Vec<usize> {
    (0..ops.len()).filter(|at| matches!(ops[*at].told, Told::Added { .. })).collect()
}

#[test]
fn unknown_adds_count_at_most_once_and_not_before_they_began() {
    let counted = Summary { adds: 1, reads: 1, unknown: 1, counted: 1 };
    assert_eq!(check(&[added(0, 9, 5, 5), unknown(1), read(10, 19, 6)]), Ok(counted));
    assert_eq!(
        check(&[added(0, 9, 5, 5), unknown(1), read(10, 19, 5)]),
        Ok(Summary { counted: 0, ..counted })
    );
    assert!(check(&[added(0, 9, 5, 5), unknown(1), read(10, 19, 7)]).is_err(), "twice");
    assert!(check(&[added(0, 9, 5, 5), unknown(20), read(10, 19, 6)]).is_err(), "before it began");
    assert!(check(&[unknown(20), unknown(1), read(10, 19, 1)]).is_ok(), "the other one was it");
}

#[test]
fn a_total_cannot_be_read_in_the_middle_of_an_add() {
    assert!(check(&[added(0, 9, 5, 5), read(0, 9, 3)]).is_err());
    assert!(check(&[added(0, 9, 5, 5), read(0, 9, 3), unknown(0), unknown(0), unknown(0)]).is_err());
    assert!(check(&[added(0, 9, 5, 5), read(0, 9, 0), read(0, 9, 5)]).is_ok());
}

#[test]
fn two_adds_with_the_same_total_are_one_too_many() {
    assert!(check(&[added(0, 9, 1, 1), added(0, 9, 1, 1)]).is_err());
    assert!(check(&[added(0, 9, 1, 1), added(0, 9, 1, 2)]).is_ok());
    assert!(
        check(&[added(0, 9, 1, 2), added(10, 19, 1, 1)]).is_err(),
        "the later one cannot have come first"
    );
}
