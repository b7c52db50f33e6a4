use super::*;

const AGE: u64 = 1000;

fn record(key: u128, added: u64) -> KeyRecord {
    let total = -(key as i128) - 1;
    KeyRecord { key, check: key as u64 ^ 5, total, time: SiteTime((1 << 48) - 1), added: Elapsed(added) }
}

/// A key as a hash would make it.
fn spread(n: u64) -> u128 {
    u128::from(mix(n, 1)) << 64 | u128::from(mix(n, 2))
}

#[test]
fn a_table_without_keys_has_no_memory() {
    let keys = Keys::new(1);
    assert_eq!((keys.index.capacity(), keys.chunks.capacity()), (0, 0));
    assert_eq!(keys.find(1, Elapsed(0), AGE), None);
}

#[test]
fn every_live_key_is_found_with_its_record_and_no_other() {
    let mut keys = Keys::new(1);
    for n in 0..10_000 {
        keys.insert(record(spread(n), n));
    }
    let now = Elapsed(10_000);
    for n in 0..10_000 {
        let expected = (n > 9000).then(|| record(spread(n), n));
        assert_eq!(keys.find(spread(n), now, AGE), expected, "{n}");
    }
    assert_eq!(keys.find(spread(10_000), now, AGE), None);
}

#[test]
fn keys_leave_in_order_when_their_lifetime_is_over_a_bounded_number_at_once() {
    let mut keys = Keys::new(1);
    for n in 0..5000 {
        keys.insert(record(spread(n), n));
    }
    keys.expire(Elapsed(3999), AGE, 10);
    assert_eq!(keys.len(), 4990);
    keys.expire(Elapsed(3999), AGE, u32::MAX);
    assert_eq!(keys.len(), 2000);
    assert!(keys.find(spread(3000), Elapsed(3999), AGE).is_some());
    assert_eq!(keys.chunks.len(), 3);
    keys.expire(Elapsed(9999), AGE, u32::MAX);
    assert_eq!((keys.len(), keys.index.capacity()), (0, 0));
}

#[test]
fn a_key_that_comes_again_after_its_lifetime_is_kept_anew() {
    let mut keys = Keys::new(1);
    let key = spread(1);
    keys.insert(record(key, 0));
    assert_eq!(keys.find(key, Elapsed(AGE), AGE), None);
    keys.insert(record(key, AGE));
    assert_eq!(keys.find(key, Elapsed(AGE), AGE), Some(record(key, AGE)));
    // The old record goes; the new one stays.
    keys.expire(Elapsed(AGE), AGE, u32::MAX);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.find(key, Elapsed(AGE), AGE), Some(record(key, AGE)));
}

#[test]
fn a_snapshot_does_not_show_what_left_before() {
    let mut keys = Keys::new(1);
    for n in 0..3000 {
        keys.insert(record(spread(n), n));
    }
    keys.expire(Elapsed(2500), AGE, u32::MAX);
    let mut out = Vec::new();
    keys.put(&mut out);
    let mut restored = Keys::read(1, &mut Reader::new(&out)).unwrap();
    assert_eq!((restored.len(), restored.first), (1499, 0));
    for n in 3000..5000 {
        keys.insert(record(spread(n), n));
        restored.insert(record(spread(n), n));
        keys.expire(Elapsed(n), AGE, 3);
        restored.expire(Elapsed(n), AGE, 3);
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    keys.put(&mut a);
    restored.put(&mut b);
    assert!(a == b);
    assert!((0..5000).all(|n| {
        let at = Elapsed(5000);
        keys.find(spread(n), at, AGE) == restored.find(spread(n), at, AGE)
    }));
}

#[test]
fn a_snapshot_whose_keys_are_not_in_the_order_of_their_lifetimes_is_refused() {
    let mut keys = Keys::new(1);
    keys.insert(record(1, 9));
    keys.insert(record(2, 8));
    let mut out = Vec::new();
    keys.put(&mut out);
    assert_eq!(Keys::read(1, &mut Reader::new(&out)).unwrap_err(), Malformed);
}
