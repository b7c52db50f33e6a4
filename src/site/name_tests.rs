//! Names of series in logs: what was taken once is taken again, whatever doors refuse by now.

use tally_core::id::SeriesName;
use tally_core::report::Amount;

use super::testing::*;
use super::*;

const ONE: Amount = Amount::Counter(1);

/// What comes of a cell for a series of that name.
fn try_name(driver: &mut Driver, from: &mut Reporter, name: &str) -> Option<Refusal> {
    let window = driver.window();
    let series = SeriesRef::Name(SeriesName::stored(name).unwrap(), Kind::Counter);
    match driver.report(from, |writer| writer.cell(series, window, &ONE)) {
        Verdict::Receipt { refused, .. } => refused.first().map(|(_, why)| *why),
        other => panic!("no receipt: {other:?}"),
    }
}

fn at_level_one() -> Driver {
    let mut driver = Driver::new();
    driver.site = Site::new(&BootstrapSettings { level: Level::ONE, ..founding() });
    driver
}

#[test]
fn a_noncharacter_in_a_log_or_a_snapshot_is_what_it_was() {
    for mut driver in [Driver::new(), at_level_one()] {
        let mut from = driver.open("p", 1);
        let name = "temp\u{ffff}/\u{fdd0}\u{1fffe}";
        assert_eq!(try_name(&mut driver, &mut from, name), None);
        driver.set("window.spans", &format!("{name}=10m"));
        assert_eq!(try_name(&mut driver, &mut from, name), None);
        assert_eq!(driver.total(name), 2);
        let founding = BootstrapSettings { level: driver.site.level(), ..founding() };
        let again = Site::restore(&founding, &driver.site.snapshot()).unwrap();
        assert_eq!(again.find(name), driver.site.find(name));
        assert_eq!(again.digest(), driver.site.digest());
    }
}

#[test]
fn a_name_has_96_bytes_until_the_level_is_raised_and_200_then() {
    let (long, longest) = ("n".repeat(97), "n".repeat(200));
    let mut driver = at_level_one();
    let mut from = driver.open("p", 1);
    assert_eq!(driver.site.name_bytes_max(), 96);
    assert_eq!(try_name(&mut driver, &mut from, &long[..96]), None);
    assert_eq!(try_name(&mut driver, &mut from, &long), Some(Refusal::Malformed));
    let spans = |driver: &mut Driver, nonce: u64| match driver.apply(&entry::set(
        nonce,
        "window.spans",
        &format!("{long}/*=10m"),
    )) {
        Applied::Set { result, .. } => result,
        other => panic!("{other:?}"),
    };
    let before = driver.site.settings().clone();
    assert!(spans(&mut driver, 1).unwrap_err().contains("at most 96 bytes"));
    assert_eq!(driver.site.settings().list(), before.list());
    driver.apply(&entry::level(Level::TWO));
    assert_eq!(driver.site.name_bytes_max(), 200);
    assert_eq!(try_name(&mut driver, &mut from, &long), None);
    assert_eq!(try_name(&mut driver, &mut from, &longest), None);
    assert!(spans(&mut driver, 2).is_ok());
    let founding = BootstrapSettings { level: Level::ONE, ..founding() };
    let again = Site::restore(&founding, &driver.site.snapshot()).unwrap();
    assert_eq!(again.find(&longest), driver.site.find(&longest));
}
