use super::testing::*;
use super::*;
use tally_core::report::Amount;

const NOT_AUTHORIZED: u8 = 0x87;

/// A site with so many numbered summaries of one series, each of one.
fn numbered(count: u64) -> Driver {
    let mut driver = Driver::new();
    let mut reporter = driver.open("press3", 1);
    for _ in 0..count {
        driver.add(&mut reporter, "parts", Amount::Counter(1));
        driver.end_window();
    }
    driver.pass(MINUTE);
    driver.close_due();
    assert_eq!(driver.number_all().len() as u64, count);
    driver
}

fn held(site: &Site) -> Vec<(u64, u8)> {
    site.held(0, usize::MAX).iter().map(|held| (held.summary.seq.unwrap(), held.cause)).collect()
}

#[test]
fn delivered_passes_over_a_held_number_and_does_not_forget_it() {
    let mut driver = numbered(3);
    let second = driver.site.numbered(1, 1)[0].clone();
    driver.apply(&entry::set_aside(2, NOT_AUTHORIZED));
    driver.apply(&entry::delivered(3));
    assert_eq!((driver.site.delivered(), driver.site.outbox_len(), driver.site.held_len()), (3, 0, 1));
    assert_eq!(driver.site.held(0, 9), [Held { summary: second, cause: NOT_AUTHORIZED }]);
    driver.apply(&entry::released(2));
    assert_eq!(driver.site.held_len(), 0);
}

#[test]
fn only_what_is_numbered_and_not_delivered_is_held_and_once() {
    let mut driver = numbered(3);
    driver.apply(&entry::delivered(1));
    for seq in [0, 1, 4, u64::MAX] {
        driver.apply(&entry::set_aside(seq, 1));
    }
    assert_eq!(held(&driver.site), []);
    driver.apply(&entry::set_aside(3, 1));
    driver.apply(&entry::set_aside(3, 2));
    driver.apply(&entry::released(2));
    assert_eq!(held(&driver.site), [(3, 1)]);
}

#[test]
fn a_snapshot_has_what_is_held_and_replicas_agree_on_it() {
    let mut driver = numbered(4);
    for seq in [1, 3] {
        driver.apply(&entry::set_aside(seq, NOT_AUTHORIZED));
    }
    driver.apply(&entry::delivered(4));
    let bytes = driver.site.snapshot();
    let restored = Site::restore(&founding(), &bytes).unwrap();
    assert_eq!(held(&restored), [(1, NOT_AUTHORIZED), (3, NOT_AUTHORIZED)]);
    assert!(restored.snapshot() == bytes);
    let mut replica = Site::new(&founding());
    for payload in &driver.log {
        replica.apply(replica.applied().next(), payload).unwrap();
    }
    assert!(replica.snapshot() == bytes);
    let before = driver.site.digest();
    driver.apply(&entry::released(1));
    assert_ne!(driver.site.digest(), before);
}

/// Counts one in each of these series, and closes the window.
fn count(driver: &mut Driver, reporter: &mut Reporter, series: impl IntoIterator<Item = String>) {
    for name in series {
        driver.add(reporter, &name, Amount::Counter(1));
    }
    driver.end_window();
    driver.pass(MINUTE);
    driver.close_due();
}

#[test]
fn of_a_series_that_is_refused_for_long_no_more_is_numbered_and_others_go_on() {
    let most = SERIES_HELD_MAX as u64;
    let mut driver = numbered(most);
    for seq in 1..=most {
        driver.apply(&entry::set_aside(seq, NOT_AUTHORIZED));
    }
    driver.apply(&entry::delivered(most));
    let mut reporter = driver.open("press4", 2);
    for _ in 0..3 {
        count(&mut driver, &mut reporter, ["parts".to_owned(), "scrap".to_owned()]);
    }
    assert_eq!((driver.site.unnumbered_len(), driver.site.numberable_len()), (6, 3));
    let names = |driver: &Driver, numbered: Vec<Summary>| -> Vec<String> {
        numbered.iter().map(|summary| driver.site.name(summary.series).to_owned()).collect()
    };
    let numbered = driver.number_all();
    assert_eq!(names(&driver, numbered), ["scrap"; 3]);
    assert_eq!((driver.site.unnumbered_len(), driver.site.numberable_len()), (3, 0));
    // A replica that begins with a snapshot numbers the same.
    let mut restored = Site::restore(&founding(), &driver.site.snapshot()).unwrap();
    assert_eq!(restored.numberable_len(), 0);
    let before = driver.log.len();
    driver.apply(&entry::released(1));
    let numbered = driver.number_all();
    assert_eq!(names(&driver, numbered), ["parts"; 3], "what waited has its numbers now, oldest first");
    for payload in &driver.log[before..] {
        restored.apply(restored.applied().next(), payload).unwrap();
    }
    assert!(restored.snapshot() == driver.site.snapshot());
}

#[test]
fn however_many_series_are_refused_each_can_be_held_and_none_beyond_one_where_there_are_many() {
    let mut driver = Driver::new();
    let mut reporter = driver.open("press3", 1);
    let series = HELD_MANY as u64 + 500;
    driver.set("outbox.numbered_max", "10000");
    count(&mut driver, &mut reporter, (0..series).map(|at| format!("refused/{at}")));
    assert_eq!(driver.number_all().len() as u64, series);
    for seq in 1..=series {
        driver.apply(&entry::set_aside(seq, NOT_AUTHORIZED));
    }
    driver.apply(&entry::delivered(series));
    assert_eq!((driver.site.held_len() as u64, driver.site.outbox_len()), (series, 0));
    count(&mut driver, &mut reporter, ["refused/7".to_owned(), "taken".to_owned()]);
    assert_eq!(driver.number_all().len(), 1);
    for seq in HELD_MANY as u64..=series {
        driver.apply(&entry::released(seq));
    }
    assert_eq!(driver.number_all().len(), 1, "with fewer held in all, one of a series stops it no more");
}

#[test]
fn at_level_1_nothing_is_held() {
    let mut site = Site::new(&BootstrapSettings { level: Level::ONE, ..founding() });
    let mut driver = numbered(2);
    driver.log.retain(|payload| !payload.is_empty());
    for payload in &driver.log {
        site.apply(site.applied().next(), payload).unwrap();
    }
    let before = site.held_len();
    let payload = StampedEntry::new(driver.now, &entry::set_aside(1, 0));
    site.apply(site.applied().next(), &payload).unwrap();
    assert_eq!((before, site.held_len()), (0, 0));
}
