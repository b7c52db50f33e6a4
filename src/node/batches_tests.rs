//! When batches are frozen and sent.

use super::*;

const NONE: Backlog = Backlog { waiting: 0, cells: 0, left_over: false };

fn open() -> (Batches, Instant) {
    let now = Instant::now();
    let mut batches = Batches::new(7, Duration::from_secs(1), now);
    assert!(batches.should_open(Term(1), now));
    assert!(!batches.opened(SourceId(1), Epoch(1)));
    (batches, now)
}

fn waiting(count: usize) -> Backlog {
    Backlog { waiting: count, cells: 0, left_over: false }
}

fn receipt(batches: &mut Batches, number: u64) {
    let number = ReportNumber::new(number).unwrap();
    assert!(batches.take_judged(SourceId(1), Epoch(1), number).is_some());
}

#[test]
fn a_single_client_never_waits() {
    let (mut batches, now) = open();
    for number in 1..10 {
        assert!(batches.should_freeze(waiting(1), false, now));
        batches.on_frozen(Batch::default(), false, now);
        receipt(&mut batches, number);
        batches.on_answered(1, 0, now);
    }
}

#[test]
fn two_halves_of_a_closed_loop_become_one_batch() {
    let (mut batches, now) = open();
    batches.on_frozen(Batch::default(), false, now);
    receipt(&mut batches, 1);
    batches.on_answered(8, 8, now);
    assert!(!batches.should_freeze(waiting(15), false, now));
    assert!(batches.should_freeze(waiting(16), false, now));
    assert!(batches.should_freeze(waiting(1), false, now + GATHER));
}

#[test]
fn counts_that_nobody_waits_for_go_once_an_interval() {
    let (mut batches, now) = open();
    let counted = Backlog { waiting: 0, cells: 3, left_over: false };
    batches.follow_site_time(Some(SiteTime(5_100)), counted, now);
    assert!(!batches.should_freeze(counted, false, now));
    assert_eq!(batches.due(counted, true), Some(now + Duration::from_millis(900)));
    assert!(batches.should_freeze(counted, false, now + Duration::from_millis(900)));
    assert!(batches.should_freeze(counted, true, now));
    assert!(!batches.should_freeze(NONE, true, now + Duration::from_secs(9)));
}

#[test]
fn a_batch_without_a_receipt_goes_again_unchanged_and_at_once_to_a_new_leader() {
    let (mut batches, now) = open();
    let mut batch = Batch::default();
    batch.body = vec![1, 2].into();
    batches.on_frozen(batch, false, now);
    assert_eq!(batches.next_send(Term(1), false, now), Some((&Body::from(vec![1, 2]), false)));
    assert_eq!(batches.next_send(Term(1), false, now), None);
    assert_eq!(batches.next_send(Term(2), false, now), Some((&Body::from(vec![1, 2]), false)));
    assert_eq!(batches.next_send(Term(2), false, now + RESEND_FIRST), Some((&Body::from(vec![1, 2]), false)));
    assert!(!batches.should_freeze(waiting(5), true, now));
}

#[test]
fn a_batch_that_nobody_waits_for_is_patient_until_somebody_waits_behind_it() {
    for hurries in [true, false] {
        let (mut batches, now) = open();
        batches.on_frozen(Batch::default(), true, now);
        let sent = |batches: &mut Batches, hurry, now| batches.next_send(Term(1), hurry, now).map(|it| it.1);
        assert_eq!(sent(&mut batches, false, now), Some(true));
        assert_eq!(sent(&mut batches, hurries, now), hurries.then_some(false), "at once, or not yet");
        assert_eq!(sent(&mut batches, hurries, now), None, "once");
        let later = now + RESEND_FIRST * 2;
        assert_eq!(sent(&mut batches, false, later), Some(false), "what goes again waits for nobody");
    }
}

#[test]
fn an_opening_that_is_told_again_readdresses_no_batch() {
    let (mut batches, now) = open();
    batches.on_frozen(Batch::default(), false, now);
    assert!(
        !batches.opened(SourceId(1), Epoch(1)),
        "a second copy of the entry: the batch stays number one's"
    );
    batches.reopen(8, Some(Batch::default()));
    assert!(batches.opened(SourceId(1), Epoch(2)), "it was frozen under an epoch that is gone");
    assert!(!batches.opened(SourceId(1), Epoch(2)));
}

#[test]
fn another_sources_receipt_is_not_taken_for_this_boxs() {
    let (mut batches, now) = open();
    batches.on_frozen(Batch::default(), false, now);
    assert!(batches.take_judged(SourceId(2), Epoch(1), ReportNumber::FIRST).is_none());
    assert!(batches.take_judged(SourceId(1), Epoch(2), ReportNumber::FIRST).is_none());
    assert!(batches.take_judged(SourceId(1), Epoch(1), ReportNumber::FIRST.next()).is_none());
    receipt(&mut batches, 1);
}
