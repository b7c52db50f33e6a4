use super::super::testing::*;
use super::super::*;
use super::*;
use crate::site::entry::ReadingCell;
use proptest::prelude::*;
use tally_core::id::SeriesName;
use tally_core::meter::GLITCH_WINDOW_MS;
use tally_core::report::{Amount, Kind};

/// A reading heard `ago` milliseconds ago.
#[derive(Clone, Copy)]
struct Heard<'a> {
    series: &'a str,
    meter: &'a str,
    value: u64,
    ago: u64,
    incarnation: u64,
    rule: MeterRule,
}

const PARTS: Heard<'static> =
    Heard { series: "parts", meter: "m", value: 0, ago: 0, incarnation: 0, rule: MeterRule::DEFAULT };

const fn parts(value: u64) -> Heard<'static> {
    Heard { value, ..PARTS }
}

fn write(driver: &Driver, writer: &mut ReportWriter, heard: &Heard<'_>) {
    let known = driver.site.find(heard.series).map(SeriesRef::Id);
    let name = SeriesName::new(heard.series).unwrap();
    let at = SiteTime(driver.now.site.0.saturating_sub(heard.ago));
    let cell = ReadingCell {
        series: known.unwrap_or(SeriesRef::Name(name, Kind::Counter)),
        meter: heard.meter,
        value: heard.value,
        heard: at,
        incarnation: heard.incarnation,
        rule: heard.rule,
    };
    writer.reading(&cell, driver.site.settings().window_base().start_of(at));
}

/// Sends one reading; why it was refused.
fn read(driver: &mut Driver, from: &mut Reporter, heard: Heard<'_>) -> Option<Refusal> {
    let mut writer = ReportWriter::new(from.source, from.epoch, from.next, 0);
    write(driver, &mut writer, &heard);
    from.next = from.next.next();
    match driver.send(&writer.finish_hashed().0) {
        Verdict::Receipt { repeated: false, refused, .. } => refused.first().map(|(_, why)| *why),
        other => panic!("no receipt: {other:?}"),
    }
}

fn driver() -> (Driver, Reporter, Reporter) {
    let mut driver = Driver::new();
    let one = driver.open("box1", 1);
    let two = driver.open("box2", 2);
    (driver, one, two)
}

/// What of a series is in summaries and open windows together.
fn summed(site: &Site, series: &str) -> i128 {
    let id = site.find(series).unwrap();
    let numbered = site.numbered(0, usize::MAX).into_iter();
    let all = numbered.chain(site.outbox.unnumbered()).filter(|summary| summary.series == id);
    let open = site.table.open_amounts(id.0).into_iter().map(|amount| amount.increase().unwrap());
    all.map(|summary| summary.amount.increase().unwrap()).sum::<i128>() + open.sum::<i128>()
}

#[test]
fn the_first_reading_is_the_base_and_growth_is_counted_whoever_hears_it() {
    let (mut driver, mut one, mut two) = driver();
    assert_eq!(read(&mut driver, &mut one, parts(1_000)), None);
    assert_eq!(driver.total("parts"), 0);
    driver.pass(500);
    read(&mut driver, &mut two, parts(1_010));
    // Of the same moment, or before it: who knows.
    read(&mut driver, &mut one, parts(1_010));
    read(&mut driver, &mut two, parts(1_007));
    assert_eq!(driver.total("parts"), 10);
    // An outage of a day, and both boxes hear what it has come to.
    driver.pass(86_400_000);
    read(&mut driver, &mut one, parts(51_010));
    read(&mut driver, &mut two, parts(51_011));
    assert_eq!(driver.total("parts"), 50_011);
    assert_eq!(driver.site.meters_len(), 1);
    // The same meter in another series is of its own, and so is another meter in the same series.
    read(&mut driver, &mut one, Heard { series: "others", ..parts(7) });
    read(&mut driver, &mut one, Heard { meter: "n", ..parts(60_000) });
    read(&mut driver, &mut one, Heard { meter: "n", ..parts(60_001) });
    assert_eq!((driver.total("others"), driver.total("parts"), driver.site.meters_len()), (0, 50_012, 3));
}

#[test]
fn a_late_reading_changes_nothing_but_its_reports_number() {
    let (mut driver, mut one, mut two) = driver();
    read(&mut driver, &mut one, parts(1_000));
    driver.pass(10_000);
    read(&mut driver, &mut one, parts(2_000));
    let known = *driver.site.meters.find(SeriesId(0), "m").unwrap();
    for (value, ago) in [(0, 3_000), (5_000, 2_001), (1_500, 1_000), (1_500, 0)] {
        assert_eq!(read(&mut driver, &mut two, Heard { ago, ..parts(value) }), None);
        assert_eq!(driver.site.meters.find(SeriesId(0), "m"), Some(&known), "{value}");
    }
    assert_eq!(driver.total("parts"), 1_000);
}

#[test]
fn growth_is_of_the_window_in_which_it_was_heard() {
    let (mut driver, mut one, _) = driver();
    read(&mut driver, &mut one, parts(0));
    driver.pass(3 * MINUTE);
    driver.apply(&entry::close(driver.window()));
    // A box that was without a quorum brings what it heard before.
    read(&mut driver, &mut one, Heard { ago: 150_000, ..parts(40) });
    read(&mut driver, &mut one, Heard { ago: 90_000, ..parts(45) });
    read(&mut driver, &mut one, parts(50));
    let late: Vec<(u64, i128)> = (driver.site.outbox.unnumbered().iter())
        .map(|summary| (summary.start.0, summary.amount.increase().unwrap()))
        .collect();
    assert_eq!(late, [(START, 40), (START + MINUTE, 5)]);
    let open = driver.site.table.open_amounts(0);
    assert_eq!(open, [Amount::Counter(5)]);
}

#[test]
fn what_cannot_be_a_reading_is_refused_and_changes_nothing() {
    let (mut driver, mut one, _) = driver();
    driver.add(&mut one, "load", sample(1.0, START));
    read(&mut driver, &mut one, parts(10));
    let wrong = Refusal::WrongKind { is: Kind::Sample, asked: Kind::Counter };
    let above = MeterRule { ceiling: Some(19), ..MeterRule::DEFAULT };
    let endless = MeterRule { glitch_window_ms: u64::MAX, ..MeterRule::DEFAULT };
    let long = "m".repeat(METER_NAME_BYTES_MAX + 1);
    for (heard, why) in [
        (Heard { series: "load", ..parts(20) }, wrong),
        (Heard { rule: above, ..parts(20) }, Refusal::Malformed),
        (Heard { rule: endless, ..parts(20) }, Refusal::Malformed),
        (Heard { meter: "", ..parts(20) }, Refusal::Malformed),
        (Heard { meter: &long, ..parts(20) }, Refusal::Malformed),
        (Heard { meter: "a\nb", series: "new", ..parts(20) }, Refusal::Malformed),
    ] {
        assert_eq!(read(&mut driver, &mut one, heard), Some(why));
    }
    assert_eq!((driver.site.series_len(), driver.site.meters_len(), driver.total("parts")), (2, 1, 0));
    // A key or another kind at a reading is what no version writes.
    let mut writer = ReportWriter::new(one.source, one.epoch, one.next, 0);
    write(&driver, &mut writer, &parts(20));
    let body = writer.finish();
    let tag = body.iter().rposition(|byte| byte & 0b0010_0000 != 0 && byte & 0b1100_0000 == 0);
    let tag = tag.filter(|_| entry::check(&body).is_ok()).unwrap();
    for flag in [0b0000_0001, 0b0000_0010, 0b0001_0000] {
        let mut other = body.to_vec();
        let at = other[..tag].iter().rposition(|byte| *byte == 0b0010_1000).unwrap_or(tag);
        other[at] |= flag;
        assert_eq!(entry::check(&other), Err(EntryError::Malformed), "{flag:#b}");
    }
}

#[test]
fn there_are_no_more_meters_than_series_and_silent_ones_give_way() {
    let (mut driver, mut one, _) = driver();
    driver.set("series.max", "3");
    for meter in ["a", "b", "c"] {
        assert_eq!(read(&mut driver, &mut one, Heard { meter, ..parts(5) }), None);
    }
    let fourth = Heard { meter: "d", ..parts(5) };
    assert_eq!(read(&mut driver, &mut one, fourth), Some(Refusal::TooManyMeters));
    // No series is left behind either.
    let fourth = Heard { series: "new", ..fourth };
    assert_eq!(read(&mut driver, &mut one, fourth), Some(Refusal::TooManyMeters));
    assert_eq!(driver.site.find("new"), None);
    driver.pass(15 * 86_400_000);
    read(&mut driver, &mut one, Heard { meter: "a", ..parts(6) });
    driver.pass(15 * 86_400_000);
    read(&mut driver, &mut one, Heard { meter: "c", ..parts(7) });
    assert_eq!(read(&mut driver, &mut one, Heard { meter: "d", ..parts(5) }), None);
    assert_eq!(driver.site.meters_len(), 3);
    assert!(driver.site.meters.find(SeriesId(0), "b").is_none(), "heard longest ago");
    read(&mut driver, &mut one, Heard { meter: "a", ..parts(16) });
    assert_eq!(driver.total("parts"), 1 + 2 + 10);
}

#[test]
fn a_fall_to_zero_that_stays_counts_without_a_further_reading() {
    let (mut driver, mut one, _) = driver();
    read(&mut driver, &mut one, parts(5_000_000));
    read(&mut driver, &mut one, parts(700));
    driver.pass(GLITCH_WINDOW_MS);
    driver.apply(&entry::tick());
    assert_eq!(driver.total("parts"), 0, "another box may bring what was heard by now");
    driver.pass(2_000);
    driver.apply(&entry::tick());
    assert_eq!(driver.total("parts"), 700);
    read(&mut driver, &mut one, parts(800));
    assert_eq!((driver.total("parts"), summed(&driver.site, "parts")), (800, 800));
}

#[test]
fn after_site_time_was_set_back_a_reading_counts() {
    let (mut driver, mut one, _) = driver();
    read(&mut driver, &mut one, parts(1_000));
    driver.now.site.0 -= 3_600_000;
    driver.apply(&entry::step_clock());
    driver.pass(1_000);
    read(&mut driver, &mut one, parts(1_005));
    assert_eq!(driver.total("parts"), 5);
}

const OUTAGE_MS: u64 = 7_200_000;

/// Site time as it goes on after an outage: a leader begins, and learns of the boxes' clocks half a second later.
fn outage(driver: &mut Driver, meanwhile: impl FnOnce(&mut Driver)) {
    driver.pass(120_000);
    driver.apply(&entry::tick());
    driver.apply_empty();
    driver.pass(500);
    meanwhile(driver);
    driver.now.site = SiteTime(driver.now.site.0 + OUTAGE_MS);
}

#[test]
fn a_reading_that_was_taken_before_another_is_no_fall_though_site_time_jumped_in_between() {
    let (mut driver, mut one, mut two) = driver();
    read(&mut driver, &mut one, parts(1_000));
    outage(&mut driver, |driver| assert_eq!(read(driver, &mut two, parts(1_100)), None));
    read(&mut driver, &mut one, Heard { ago: 300, ..parts(1_090) });
    assert_eq!(driver.total("parts"), 100);
    read(&mut driver, &mut one, parts(1_110));
    assert_eq!(driver.total("parts"), 110);
    driver.pass(10_000);
    read(&mut driver, &mut two, parts(50));
    assert_eq!(driver.total("parts"), 160, "a restart is one still");
}

#[test]
fn a_reading_under_a_leader_that_failed_before_it_knew_the_clocks_is_no_fall_either() {
    let (mut driver, mut one, mut two) = driver();
    read(&mut driver, &mut one, parts(1_000));
    outage(&mut driver, |driver| {
        assert_eq!(read(driver, &mut two, parts(1_100)), None);
        driver.apply_empty();
        driver.pass(500);
    });
    read(&mut driver, &mut one, Heard { ago: 800, ..parts(1_090) });
    assert_eq!(driver.total("parts"), 100);
}

#[test]
fn a_fall_that_waits_goes_on_waiting_when_site_time_jumps_ahead() {
    let (mut driver, mut one, _) = driver();
    read(&mut driver, &mut one, parts(1_000));
    outage(&mut driver, |driver| assert_eq!(read(driver, &mut one, parts(0)), None));
    driver.apply(&entry::tick());
    read(&mut driver, &mut one, parts(1_001));
    assert_eq!(driver.total("parts"), 1);
}

#[test]
fn what_was_heard_during_an_outage_counts_after_it() {
    let (mut driver, mut one, mut two) = driver();
    read(&mut driver, &mut one, parts(1_000));
    outage(&mut driver, |_| {});
    for (minutes, value) in [(90, 1_200), (60, 300), (30, 350)] {
        read(&mut driver, &mut two, Heard { ago: minutes * 60_000, ..parts(value) });
    }
    assert_eq!(driver.total("parts"), 550, "it grew by 200, began again, and shows 350");
}

#[test]
fn a_held_jump_is_shown_until_it_is_confirmed() {
    let (mut driver, mut one, _) = driver();
    let rule = MeterRule { step_max: Some(100), ..MeterRule::DEFAULT };
    read(&mut driver, &mut one, Heard { rule, ..parts(1_000) });
    read(&mut driver, &mut one, Heard { rule, ..parts(9_000) });
    let (meter, heard) = ("m".to_owned(), driver.now.site);
    let jump = HeldJump { meter, series: SeriesId(0), from: 1_000, to: 9_000, heard };
    assert_eq!(driver.site.held_jumps(9), [jump]);
    assert_eq!((driver.total("parts"), driver.site.held_jumps_len()), (0, 1));
    driver.pass(GLITCH_WINDOW_MS);
    read(&mut driver, &mut one, Heard { rule, ..parts(9_000) });
    assert_eq!((driver.total("parts"), driver.site.held_jumps_len()), (8_000, 0));
}

/// A site with meters in every state.
fn with_all() -> Driver {
    let (mut driver, mut one, mut two) = driver();
    let rule = MeterRule { step_max: Some(100), ceiling: Some(1 << 32), ..MeterRule::DEFAULT };
    for (meter, values) in [
        ("plain", &[1_000, 1_010][..]),
        ("fallen", &[5_000_000, 60]),
        ("jumped", &[1_000, 5_000]),
        ("jumped from zero", &[1_000, 500]),
    ] {
        for value in values {
            let rule = if meter.starts_with('j') { rule } else { MeterRule::DEFAULT };
            read(&mut driver, &mut one, Heard { meter, rule, incarnation: 77, ..parts(*value) });
            driver.pass(100);
        }
    }
    read(&mut driver, &mut two, Heard { series: "others", ..parts(3) });
    driver
}

#[test]
fn a_snapshot_has_the_meters_and_a_restored_site_goes_on_alike() {
    let mut driver = with_all();
    let bytes = driver.site.snapshot();
    let mut restored = Site::restore(&founding(), &bytes).unwrap();
    assert!(restored.snapshot() == bytes);
    assert_eq!(restored.held_jumps(9), driver.site.held_jumps(9));
    assert_eq!((restored.held_jumps_len(), restored.meters_len()), (2, 5));
    let logged = driver.log.len();
    let mut three = driver.open("box3", 3);
    driver.pass(60_000);
    for meter in ["plain", "fallen", "jumped", "jumped from zero", "new"] {
        read(&mut driver, &mut three, Heard { meter, ..parts(6_000_000) });
    }
    for payload in &driver.log[logged..] {
        restored.apply(restored.applied().next(), payload).unwrap();
    }
    assert_eq!(restored.digest(), driver.site.digest());
    assert!(restored.snapshot() == driver.site.snapshot());
}

#[test]
fn a_damaged_room_of_meters_is_refused_or_goes_on() {
    let driver = with_all();
    let bytes = driver.site.snapshot();
    let mut room = Vec::new();
    driver.site.meters.put(&mut room);
    let at = bytes.windows(room.len()).position(|part| part == room).unwrap();
    for place in at..at + room.len() {
        for value in [bytes[place] ^ 1, bytes[place] ^ 0x80, 0xff, 0] {
            let mut mutated = bytes.clone();
            mutated[place] = value;
            let Ok(mut site) = Site::restore(&founding(), &mutated) else { continue };
            let mut now = driver.now;
            now.site.0 += 100_000;
            site.apply(site.applied().next(), &StampedEntry::new(now, &entry::tick())).unwrap();
            let mut goes_on = Driver { site, now, log: Vec::new() };
            let mut four = goes_on.open("box4", 4);
            for meter in ["plain", "fallen", "jumped", "jumped from zero"] {
                for value in [0, 70, 5_500, u64::MAX] {
                    read(&mut goes_on, &mut four, Heard { meter, ..parts(value) });
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Reads {
    source: bool,
    pass: u64,
    /// Meter, value, how long ago it was heard, incarnation.
    cells: Vec<(u8, u64, u64, u64)>,
    closes: bool,
}

fn reads() -> impl Strategy<Value = Reads> {
    let value = prop_oneof![4 => 0u64..5_000, 1 => Just(0), 1 => any::<u64>()];
    let ago = prop_oneof![3 => Just(0), 1 => 0u64..100_000];
    let cell = (0u8..4, value, ago, prop_oneof![4 => Just(0), 1 => 1u64..3]);
    let cells = prop::collection::vec(cell, 0..6);
    (any::<bool>(), 0u64..40_000, cells, any::<bool>()).prop_map(|(source, pass, cells, closes)| Reads {
        source,
        pass,
        cells,
        closes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_meters_come_to_is_conserved_and_replicas_agree(
        all in prop::collection::vec(reads(), 1..25),
        restored_at in 0usize..25,
    ) {
        let (mut driver, mut one, mut two) = driver();
        let rules = [
            MeterRule::DEFAULT,
            MeterRule { ceiling: Some(5_000), ..MeterRule::DEFAULT },
            MeterRule { step_max: Some(500), ..MeterRule::DEFAULT },
            MeterRule { noise: Some(100), glitch_window_ms: 0, ..MeterRule::DEFAULT },
        ];
        let series = ["parts", "parts", "s2", "s3"];
        let mut restored: Option<Site> = None;
        for (place, Reads { source, pass, cells, closes }) in all.iter().enumerate() {
            let logged = driver.log.len();
            driver.pass(*pass);
            let from = if *source { &mut one } else { &mut two };
            let mut writer = ReportWriter::new(from.source, from.epoch, from.next, 0);
            from.next = from.next.next();
            for (meter, value, ago, incarnation) in cells {
                let number = usize::from(*meter);
                let names = ["m0", "m1", "m2", "m3"];
                let (series, rule) = (series[number], rules[number]);
                let (value, ago, incarnation) = (*value, *ago, *incarnation);
                let heard = Heard { series, meter: names[number], value, ago, incarnation, rule };
                write(&driver, &mut writer, &heard);
            }
            driver.send(&writer.finish_hashed().0);
            if *closes {
                driver.close_due();
            }
            if let Some(restored) = &mut restored {
                for payload in &driver.log[logged..] {
                    restored.apply(restored.applied().next(), payload).unwrap();
                }
                prop_assert_eq!(restored.digest(), driver.site.digest());
            }
            if place == restored_at {
                restored = Some(Site::restore(&founding(), &driver.site.snapshot()).unwrap());
            }
            for id in 0..driver.site.series_len() {
                let name = driver.site.name(SeriesId(id as u32)).to_owned();
                prop_assert_eq!(driver.total(&name), summed(&driver.site, &name));
            }
        }
        let mut replica = Site::new(&founding());
        for payload in &driver.log {
            replica.apply(replica.applied().next(), payload).unwrap();
        }
        prop_assert!(replica.snapshot() == driver.site.snapshot());
    }
}
