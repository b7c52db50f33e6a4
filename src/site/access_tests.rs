use proptest::prelude::*;
use tally_core::id::LogIndex;

use super::*;
use crate::site::testing::{Driver, MINUTE, founding};
use crate::site::{Level, entry};

fn hash(number: u64) -> AccessHash {
    AccessHash([number as u8; 32])
}

fn new(number: u64, ttl_ms: Option<u64>) -> NewAccess {
    let (name, role) = (format!("token{number}"), AccessRole::Count);
    NewAccess { name, role, hash: hash(number), ttl_ms, made_by: NodeId(1) }
}

fn change(driver: &mut Driver, change: AccessChange) -> Result<(), AccessRefused> {
    let nonce = driver.log.len() as u64;
    match driver.apply(&entry::access(nonce, &change)) {
        Applied::Access { nonce: told, result } if told == nonce => result,
        other => panic!("{other:?}"),
    }
}

fn create(driver: &mut Driver, new: NewAccess) -> Result<(), AccessRefused> {
    change(driver, AccessChange::Create(new))
}

fn names(driver: &Driver) -> Vec<String> {
    driver.site.access_tokens().map(|token| token.name.clone()).collect()
}

fn assert_replicated(driver: &Driver) {
    let snapshot = driver.site.snapshot();
    let restored = Site::restore(&founding(), &snapshot).unwrap();
    assert!(restored.snapshot() == snapshot);
    let mut other = Site::new(&founding());
    for (at, payload) in (1..).zip(&driver.log) {
        other.apply(LogIndex(at), payload).unwrap();
    }
    assert_eq!(other.digest(), driver.site.digest());
    assert!(other.snapshot() == snapshot);
}

#[test]
fn a_token_is_known_by_its_hash_until_it_is_revoked() {
    let mut driver = Driver::new();
    create(&mut driver, new(7, None)).unwrap();
    create(&mut driver, NewAccess { role: AccessRole::Admin, ..new(8, None) }).unwrap();
    assert_eq!(driver.site.access_token(&hash(8)).unwrap().role, AccessRole::Admin);
    assert_eq!(driver.site.access_token(&hash(9)), None);
    assert_eq!(
        create(&mut driver, NewAccess { hash: hash(9), ..new(7, None) }),
        Err(AccessRefused::NameTaken)
    );
    driver.pass(1000 * MINUTE);
    driver.apply(&entry::tick());
    assert_replicated(&driver);
    change(&mut driver, AccessChange::Revoke("token7".to_owned())).unwrap();
    assert_eq!(driver.site.access_token(&hash(7)), None);
    assert_eq!(
        change(&mut driver, AccessChange::Revoke("token7".to_owned())),
        Err(AccessRefused::NoSuchName)
    );
    assert_eq!(names(&driver), ["token8"]);
    assert_replicated(&driver);
}

#[test]
fn a_token_is_good_for_the_site_s_elapsed_time_and_its_name_is_free_then() {
    let mut driver = Driver::new();
    create(&mut driver, new(7, Some(10 * MINUTE))).unwrap();
    driver.pass(10 * MINUTE - 1);
    driver.apply(&entry::number(1));
    assert!(driver.site.access_token(&hash(7)).is_some());
    driver.pass(1);
    driver.apply(&entry::number(1));
    assert_eq!(driver.site.access_token(&hash(7)), None, "before any tick");
    create(&mut driver, NewAccess { hash: hash(8), ..new(7, None) }).unwrap();
    assert_eq!(names(&driver), ["token7"]);
    assert_replicated(&driver);
}

#[test]
fn a_site_keeps_so_many_and_those_that_ended_make_room() {
    let mut driver = Driver::new();
    for number in 0..ACCESS_MAX as u64 {
        create(&mut driver, new(number, (number == 5).then_some(MINUTE))).unwrap();
    }
    assert_eq!(create(&mut driver, new(100, None)), Err(AccessRefused::TooMany));
    driver.pass(MINUTE);
    create(&mut driver, new(100, None)).unwrap();
    assert_eq!(names(&driver).len(), ACCESS_MAX);
    assert_replicated(&driver);
}

#[test]
fn below_level_five_there_are_none() {
    let mut driver = Driver::new();
    driver.site = Site::new(&crate::site::BootstrapSettings { level: Level::THREE, ..founding() });
    let change = AccessChange::Create(new(7, None));
    assert_eq!(driver.apply(&entry::access(1, &change)), Applied::Nothing);
    assert_eq!(driver.site.access_tokens().count(), 0);
    let snapshot = driver.site.snapshot();
    assert_eq!(snapshot[8..12], 5u32.to_le_bytes(), "a box of the release before can read it");
    driver.apply(&entry::level(Level::FIVE));
    create(&mut driver, new(7, None)).unwrap();
    assert_eq!(driver.site.snapshot()[8..12], 7u32.to_le_bytes());
}

proptest! {
    #[test]
    fn whatever_is_asked_names_are_single_and_a_change_says_what_it_did(
        all in proptest::collection::vec((0u64..6, prop::option::of(0u64..4), any::<bool>(), 0u64..3), 0..80),
    ) {
        let mut driver = Driver::new();
        for (number, ttl, revokes, minutes) in all {
            let name = format!("token{number}");
            driver.pass(minutes * MINUTE);
            driver.apply(&entry::tick());
            let was_there = names(&driver).contains(&name);
            let asked = match revokes {
                true => AccessChange::Revoke(name.clone()),
                false => AccessChange::Create(new(number, ttl.map(|ttl| ttl * MINUTE))),
            };
            let result = change(&mut driver, asked);
            prop_assert_eq!(result.is_ok(), revokes == was_there);
            let lasts = !revokes && ttl != Some(0);
            prop_assert_eq!(names(&driver).contains(&name), lasts || (was_there && !revokes));
            let single: std::collections::BTreeSet<_> = names(&driver).into_iter().collect();
            prop_assert_eq!(single.len(), names(&driver).len());
        }
        assert_replicated(&driver);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = read_change(&mut Reader::new(&bytes));
        let _ = AccessTokens::read(&mut Reader::new(&bytes));
    }
}
