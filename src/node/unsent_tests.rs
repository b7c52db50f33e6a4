use std::time::{Duration, Instant};

use proptest::prelude::*;
use tally_core::id::Term;
use tally_core::report::Amount;
use tally_core::time::SiteTime;

use super::*;
use crate::node::batches::{Batches, FileTask};
use crate::site::entry::SeriesRef;
use crate::site::{LastApplied, SeriesId};

const OWNER: Owner = Owner { site_id: 7, node: 2 };

fn number(number: u64) -> ReportNumber {
    ReportNumber::new(number).unwrap()
}

fn body(source: u64, epoch: u64, at: u64, amount: u128) -> Body {
    let mut writer = ReportWriter::new(SourceId(source), Epoch(epoch), number(at), 0);
    writer.cell(SeriesRef::Id(SeriesId(5)), SiteTime(60_000), &Amount::Counter(amount));
    writer.finish_hashed().0
}

/// Numbers 4, 5 and 6 of epoch 9.
fn three() -> Unsent {
    let bodies = (4..7).map(|at| body(3, 9, at, at.into())).collect();
    Unsent { nonce: 77, epoch: Some((SourceId(3), Epoch(9))), first: number(4), bodies }
}

fn resumed(unsent: Unsent) -> (Batches, Instant) {
    let now = Instant::now();
    let mut batches = Batches::new(1, Duration::from_secs(1), now);
    batches.resume(unsent);
    (batches, now)
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    for unsent in [three(), Unsent { epoch: None, ..three() }] {
        assert_eq!(Unsent::decode(&unsent.encode(OWNER), OWNER), Ok(unsent));
    }
}

#[test]
fn a_file_of_another_box_or_site_is_not_taken() {
    let bytes = three().encode(OWNER);
    for other in [Owner { site_id: 8, ..OWNER }, Owner { node: 3, ..OWNER }] {
        assert_eq!(Unsent::decode(&bytes, other), Err(UnsentError::Foreign));
    }
}

#[test]
fn a_batch_that_says_another_number_is_not_taken() {
    let mut unsent = three();
    unsent.bodies.swap(0, 1);
    assert_eq!(Unsent::decode(&unsent.encode(OWNER), OWNER), Err(UnsentError::Batch));
    unsent.bodies[0] = vec![0xff; 9].into();
    assert_eq!(Unsent::decode(&unsent.encode(OWNER), OWNER), Err(UnsentError::Batch));
}

proptest! {
    #[test]
    fn damage_anywhere_is_seen(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let mut bytes = three().encode(OWNER);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        prop_assert!(Unsent::decode(&bytes, OWNER).is_err());
    }
}

#[test]
fn saved_batches_go_in_order_and_what_is_new_goes_after_them_under_another_epoch() {
    let (mut batches, now) = resumed(three());
    let backlog = crate::accumulator::Backlog { waiting: 3, cells: 3, left_over: true };
    for at in 4..7 {
        assert!(batches.file_task(now).is_none());
        assert!(!batches.should_freeze(backlog, true, now));
        assert_eq!(batches.next_send(Term(1), false, now), Some((&body(3, 9, at, at.into()), false)));
        assert!(batches.take_judged(SourceId(3), Epoch(9), number(at)).is_some());
        batches.load_next_earlier();
    }
    assert!(!batches.should_freeze(backlog, true, now) && !batches.is_settled());
    assert!(matches!(batches.file_task(now), Some(FileTask::Remove)));
    batches.file_is_over(79);
    assert!(batches.is_settled() && !batches.should_freeze(backlog, true, now));
    assert!(!batches.opened(SourceId(3), Epoch(11)));
    assert!(batches.should_freeze(backlog, true, now));
    assert_eq!((batches.next_number(), batches.nonce()), (number(1), 79));
    // Whatever became of the file.
    batches.file_done(false, now);
    assert!(batches.file_task(now).is_none());
}

#[test]
fn what_the_site_certainly_did_not_apply_goes_under_a_new_epoch_once_the_file_says_so() {
    let (mut batches, now) = resumed(three());
    let batch = batches.take_judged(SourceId(3), Epoch(9), number(4)).unwrap();
    batches.reopen(78, Some(batch));
    // There is no epoch to say yet.
    assert!(batches.file_task(now).is_none());
    assert!(batches.opened(SourceId(3), Epoch(10)));
    batches.readdress();
    assert_eq!(batches.next_send(Term(1), false, now), None);
    let Some(FileTask::Write(unsent)) = batches.file_task(now) else { panic!() };
    let expected: Vec<_> = (1..4).map(|at| body(3, 10, at, u128::from(at) + 3)).collect();
    assert_eq!(
        unsent,
        Unsent {
            nonce: 78,
            epoch: Some((SourceId(3), Epoch(10))),
            first: number(1),
            bodies: expected.clone(),
        }
    );
    assert_eq!(batches.next_send(Term(1), false, now), None);
    // A full disk, say.
    batches.file_done(false, now);
    assert_eq!(batches.next_send(Term(1), false, now), None);
    assert!(batches.file_task(now).is_none());
    let later = now + Duration::from_secs(1);
    assert!(matches!(batches.file_task(later), Some(FileTask::Write(_))));
    batches.file_done(true, later);
    assert_eq!(batches.next_send(Term(1), false, later), Some((&expected[0], false)));
}

#[test]
fn a_write_that_was_overtaken_does_not_count() {
    let (mut batches, now) = resumed(Unsent { epoch: None, ..three() });
    assert!(batches.opened(SourceId(3), Epoch(9)));
    batches.readdress();
    assert!(matches!(batches.file_task(now), Some(FileTask::Write(_))));
    let batch = batches.take_judged(SourceId(3), Epoch(9), number(4)).unwrap();
    batches.reopen(78, Some(batch));
    assert!(batches.opened(SourceId(3), Epoch(10)));
    batches.readdress();
    assert!(batches.file_task(now).is_none(), "one at a time");
    batches.file_done(true, now);
    assert_eq!(batches.next_send(Term(1), false, now), None);
    assert!(matches!(batches.file_task(now), Some(FileTask::Write(_))));
}

#[test]
fn what_may_have_been_applied_never_goes_again() {
    let sent_again = |last| {
        let (mut batches, _) = resumed(three());
        assert!(batches.take_judged(SourceId(3), Epoch(9), number(4)).is_some());
        let given_up = batches.give_up_kept(last);
        batches.reopen(78, None);
        (given_up, batches.unsent().0.bodies.len())
    };
    assert_eq!(sent_again(LastApplied::Unknown), (2, 0));
    assert_eq!(sent_again(LastApplied::Number(number(4))), (0, 2));
    assert_eq!(sent_again(LastApplied::Number(number(5))), (1, 1));
}
