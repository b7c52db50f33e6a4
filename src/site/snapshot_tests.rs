use super::*;
use crate::site::testing::*;
use crate::site::{SourceKind, StampedEntry, entry};
use tally_core::id::Epoch;

#[test]
fn a_snapshot_of_another_site_or_version_is_refused() {
    let bytes = Driver::new().site.snapshot();
    let other = BootstrapSettings { site_id: 5, ..founding() };
    let foreign = SnapshotError::Foreign { found: founding().site_id, expected: 5 };
    assert_eq!(Site::restore(&other, &bytes).unwrap_err(), foreign);
    let mut newer = bytes.clone();
    newer[8] = 6;
    assert_eq!(Site::restore(&founding(), &newer).unwrap_err(), SnapshotError::Version(6));
    for damaged in [&b""[..], b"tally", &bytes[..30], &[&bytes[..], b"x"].concat()] {
        let error = Site::restore(&founding(), damaged).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged(_)), "{error}");
    }
}

#[test]
fn a_snapshot_of_each_older_version_is_read() {
    let site = Site::new(&BootstrapSettings { level: Level::ONE, ..founding() });
    let (mut without, mut requests, mut newest) = (Vec::new(), Vec::new(), Vec::new());
    site.members.put(&mut without);
    site.requests.put(&mut requests);
    site.put_newest(&mut newest);
    let mut older = site.snapshot();
    older.truncate(older.len() - newest.len());
    older[8] = 3;
    let restored = Site::restore(&founding(), &older).unwrap();
    assert_eq!(restored.level(), Level::ONE, "whatever the site was founded with");
    assert_eq!(restored.snapshot(), site.snapshot());
    older.truncate(older.len() - without.len() - requests.len());
    older[8] = 1;
    let restored = Site::restore(&founding(), &older).unwrap();
    assert_eq!(restored.snapshot(), site.snapshot());
    // Members, and nobody of them leaving: one byte less.
    without.remove(1);
    older.extend_from_slice(&without);
    older[8] = 2;
    let restored = Site::restore(&founding(), &older).unwrap();
    assert_eq!(restored.snapshot(), site.snapshot());
}

#[test]
fn a_restored_site_knows_all_that_the_first_one_knew() {
    let mut driver = Driver::new();
    let mut reporter = driver.open("press3", 9);
    driver.set("window.spans", "slow=10m");
    driver.set("keys.max", "77");
    for n in 0..40u32 {
        let amount = match kind_of(n) {
            Kind::Counter => Amount::Counter(u128::from(n + 1) << 60),
            Kind::Updown => Amount::updown(-i128::from(n) - 1),
            Kind::Sample => sample(f64::from(n) / 10.0, START),
        };
        driver.add(&mut reporter, &format!("line/{}", n % 9), amount);
        driver.add(&mut reporter, "slow", Amount::Counter(1));
        if n % 3 == 0 {
            driver.end_window();
        }
        if n == 20 {
            driver.apply(&entry::number(5));
            driver.apply(&entry::delivered(2));
        }
    }
    let site = &driver.site;
    let restored = Site::restore(&founding(), &site.snapshot()).unwrap();
    assert_eq!(restored.page("", None, 99), site.page("", None, 99));
    assert_eq!(restored.settings(), site.settings());
    assert_eq!(restored.numbered(0, 99), site.numbered(0, 99));
    assert_eq!(restored.closed_after(0, ""), site.closed_after(0, ""));
    assert_eq!(restored.epochs_of(reporter.source), site.epochs_of(reporter.source));
    assert_eq!(
        (restored.applied(), restored.stamp(), restored.digest()),
        (site.applied(), site.stamp(), site.digest())
    );
    let far = SiteTime(START * 2);
    assert!(site.close_due(far).is_some());
    assert_eq!(restored.close_due(far), site.close_due(far));
    assert_eq!(restored.outbox_bytes(), site.outbox_bytes());
    let (slow, ten) = (restored.find("slow").unwrap(), 10 * MINUTE);
    assert_eq!(restored.span(slow).as_millis(), ten);
}

#[test]
fn a_setting_of_the_founding_comes_back_though_it_is_out_of_bounds() {
    let founding =
        BootstrapSettings { base_span: tally_core::window::Span::from_millis(50).unwrap(), ..founding() };
    let mut site = Site::new(&founding);
    let open = entry::open(SourceKind::Box, "box1", 1, Epoch(1));
    site.apply(LogIndex(1), &StampedEntry::new(Stamp::default(), &open)).unwrap();
    let restored = Site::restore(&founding, &site.snapshot()).unwrap();
    assert_eq!(restored.settings().window_base().as_millis(), 50);
}
