use super::entry::BodyKind;
use super::testing::*;
use super::*;
use tally_core::id::{Epoch, KeyHash, LogIndex, NodeId, ReportNumber, SeriesName, SourceId};
use tally_core::raft::MemberRole;
use tally_core::report::{Amount, Kind, Sample};
use tally_core::time::{Elapsed, SiteTime};

const ONE: Amount = Amount::Counter(1);

fn started() -> (Driver, Reporter) {
    let mut driver = Driver::new();
    let reporter = driver.open("press3", 1);
    (driver, reporter)
}

// Reports.

#[test]
fn a_receipt_names_the_refused_cells_and_the_others_count() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", Amount::Counter(5));
    let window = driver.window();
    let verdict = driver.report(&mut reporter, |writer| {
        writer.cell(named("parts", &ONE), window, &ONE);
        writer.cell(named("parts", &Amount::updown(1)), window, &Amount::updown(1));
        writer.cell(named("others", &ONE), window, &ONE);
        assert_eq!(writer.cells(), 3);
    });
    let wrong = Refusal::WrongKind { is: Kind::Counter, asked: Kind::Updown };
    assert_eq!(verdict, receipt(&[(1, wrong)]));
    assert_eq!((driver.total("parts"), driver.total("others")), (6, 1));
}

#[test]
fn a_repeated_report_gets_the_same_refused_cells_and_changes_nothing() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    let mut writer = ReportWriter::new(reporter.source, reporter.epoch, reporter.next, 7);
    let amount = sample(1.0, 0);
    writer.cell(named("parts", &amount), driver.window(), &amount);
    writer.cell(named("parts", &ONE), driver.window(), &ONE);
    let body = writer.finish();
    let Verdict::Receipt { repeated: false, refused, .. } = driver.send(&body) else { panic!() };
    assert_eq!(refused.len(), 1);
    for _ in 0..2 {
        let again = Verdict::Receipt { repeated: true, refused: refused.clone(), keyed: Vec::new() };
        assert_eq!(driver.send(&body), again);
        assert_eq!(driver.total("parts"), 2);
    }
}

#[test]
fn the_last_number_with_another_hash_is_changed() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    let mut writer = ReportWriter::new(reporter.source, reporter.epoch, ReportNumber::FIRST, 99);
    writer.cell(named("parts", &ONE), driver.window(), &ONE);
    let verdict = driver.send(&writer.finish());
    assert_eq!(verdict, Verdict::Changed { last: ReportNumber::FIRST });
    assert_eq!(driver.total("parts"), 1);
}

#[test]
fn any_other_number_is_out_of_order() {
    let (mut driver, reporter) = started();
    let third = ReportNumber::new(3).unwrap();
    let body = ReportWriter::new(reporter.source, reporter.epoch, third, 1).finish();
    assert_eq!(driver.send(&body), Verdict::OutOfOrder { last: None });
}

#[test]
fn an_epoch_that_was_never_opened_is_unknown() {
    let (mut driver, reporter) = started();
    for (source, epoch) in [(reporter.source, Epoch(12)), (SourceId(77), reporter.epoch)] {
        let body = ReportWriter::new(source, epoch, ReportNumber::FIRST, 1).finish();
        assert_eq!(driver.send(&body), Verdict::UnknownEpoch { last: LastApplied::Unknown });
    }
}

// Cells.

#[test]
fn a_cell_of_another_kind_is_refused_with_both_kinds() {
    let (mut driver, mut reporter) = started();
    let amounts = [ONE, Amount::updown(-1), sample(1.0, 0)];
    for (name, amount) in ["c", "u", "s"].into_iter().zip(amounts) {
        driver.add(&mut reporter, name, amount);
        for other in amounts.into_iter().filter(|other| other.kind() != amount.kind()) {
            let window = driver.window();
            let refusal = driver.try_add(&mut reporter, name, window, other);
            assert_eq!(refusal, Some(Refusal::WrongKind { is: amount.kind(), asked: other.kind() }));
        }
    }
}

#[test]
fn a_total_that_would_overflow_refuses_the_cell() {
    let (mut driver, mut reporter) = started();
    let full = i128::MAX as u128;
    let window = driver.window();
    let overflow = Some(Refusal::Overflow);
    assert_eq!(driver.try_add(&mut reporter, "c", window, Amount::Counter(full + 1)), overflow);
    assert_eq!(driver.site.find("c"), None);
    assert_eq!(driver.try_add(&mut reporter, "c", window, Amount::Counter(full)), None);
    assert_eq!(driver.try_add(&mut reporter, "c", window, ONE), overflow);
    assert_eq!(driver.total("c"), i128::MAX);

    // Of an updown all that was added and all that was taken away are bounded, each for itself.
    let both = Amount::Updown { up: full, down: full };
    assert_eq!(driver.try_add(&mut reporter, "u", window, both), None);
    assert_eq!(driver.try_add(&mut reporter, "u", window, Amount::updown(1)), overflow);
    assert_eq!(driver.try_add(&mut reporter, "u", window, Amount::updown(-1)), overflow);
    assert_eq!(driver.total("u"), 0);

    // A count that one report could fill is bounded from level 2 on.
    let mut driver = Driver::new();
    driver.site = Site::new(&BootstrapSettings { level: Level::ONE, ..founding() });
    let mut reporter = driver.open("press3", 1);
    let Amount::Sample(one) = sample(1.0, 0) else { panic!() };
    let many = Amount::Sample(Sample { count: u64::MAX, ..one });
    assert_eq!(driver.try_add(&mut reporter, "s", window, many), None);
    assert_eq!(driver.try_add(&mut reporter, "s", window, Amount::Sample(one)), overflow);
    assert_eq!(driver.total("s"), i128::from(u64::MAX));
}

#[test]
fn a_site_has_no_more_series_than_its_setting() {
    let (mut driver, mut reporter) = started();
    driver.set("series.max", "2");
    driver.add(&mut reporter, "a", ONE);
    driver.add(&mut reporter, "b", ONE);
    let window = driver.window();
    assert_eq!(driver.try_add(&mut reporter, "c", window, ONE), Some(Refusal::TooManySeries));
    assert_eq!(driver.try_add(&mut reporter, "a", window, ONE), None);
    assert_eq!(driver.site.series_len(), 2);
}

#[test]
fn a_window_more_than_two_base_spans_ahead_is_refused() {
    let (mut driver, mut reporter) = started();
    let ahead = |ms| SiteTime(START + ms);
    for series in ["new", "old"] {
        if series == "old" {
            driver.add(&mut reporter, series, ONE);
        }
        let refusal = driver.try_add(&mut reporter, series, ahead(2 * MINUTE + 1), ONE);
        assert_eq!(refusal, Some(Refusal::WindowInFuture), "{series}");
        let refusal = driver.try_add(&mut reporter, series, SiteTime(u64::MAX), ONE);
        assert_eq!(refusal, Some(Refusal::WindowInFuture), "{series}");
    }
    assert_eq!(driver.site.find("new"), None);
    assert_eq!(driver.try_add(&mut reporter, "old", ahead(2 * MINUTE), ONE), None);
    assert_eq!(driver.total("old"), 2);
}

#[test]
fn a_cell_whose_content_is_out_of_bounds_is_malformed() {
    let (mut driver, mut reporter) = started();
    let Amount::Sample(one) = sample(1.0, 0) else { panic!() };
    let window = driver.window();
    for amount in [
        Amount::Counter(0),
        Amount::Updown { up: 0, down: 0 },
        Amount::Sample(Sample { count: 0, ..one }),
        Amount::Sample(Sample { min: 2.0, ..one }),
        Amount::Sample(Sample { max: f64::NAN, ..one }),
    ] {
        assert_eq!(driver.try_add(&mut reporter, "a", window, amount), Some(Refusal::Malformed));
    }
    let verdict = driver.report(&mut reporter, |writer| {
        writer.cell(SeriesRef::Id(SeriesId(0)), window, &ONE);
        writer.cell(SeriesRef::Name(SeriesName::new("a").unwrap(), Kind::Sample), window, &ONE);
    });
    assert_eq!(verdict, receipt(&[(0, Refusal::Malformed), (1, Refusal::Malformed)]));
    assert_eq!(driver.site.series_len(), 0);
}

#[test]
fn a_samples_last_value_is_of_the_reports_source() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "temperature", sample(21.5, START));
    driver.add(&mut reporter, "temperature", sample(20.5, START - 5));
    let view = driver.site.series(SeriesId(0)).sample.unwrap();
    assert_eq!((view.count, view.min, view.max, view.last.value), (2, 20.5, 21.5, 21.5));
    assert_eq!(view.last.source, reporter.source);
    assert_eq!(view.sum.to_string(), "42");
}

// Keys.

fn keyed(driver: &mut Driver, reporter: &mut Reporter, key: u128, check: u64, taken: u64) -> KeyOutcome {
    let add = KeyedAdd {
        series: named("parts", &ONE),
        window: driver.window(),
        amount: ONE,
        key,
        check,
        taken: Elapsed(taken),
    };
    match driver.report(reporter, |writer| writer.keyed(&add)) {
        Verdict::Receipt { repeated: false, refused, keyed } if refused.is_empty() => keyed[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_known_key_gets_the_first_ones_result() {
    let (mut driver, mut reporter) = started();
    let time = driver.now.site;
    assert_eq!(keyed(&mut driver, &mut reporter, 5, 1, 1000), KeyOutcome::Added { total: 1, time });
    driver.pass(1000);
    driver.add(&mut reporter, "parts", ONE);
    assert_eq!(keyed(&mut driver, &mut reporter, 5, 1, 1000), KeyOutcome::Known { total: 1, time });
    assert_eq!(driver.total("parts"), 2);
    // However long it was on its way: the key says what became of it.
    driver.pass(899_000 - 1);
    assert_eq!(keyed(&mut driver, &mut reporter, 5, 1, 0), KeyOutcome::Known { total: 1, time });
}

#[test]
fn a_known_key_with_another_check_is_reused() {
    let (mut driver, mut reporter) = started();
    keyed(&mut driver, &mut reporter, 5, 1, 1000);
    assert_eq!(keyed(&mut driver, &mut reporter, 5, 2, 1000), KeyOutcome::Reused);
    assert_eq!(driver.total("parts"), 1);
}

#[test]
fn a_keyed_add_of_more_than_a_third_of_the_age_is_stale() {
    let (mut driver, mut reporter) = started();
    driver.now.elapsed = Elapsed(1000 + 300_000);
    assert!(matches!(keyed(&mut driver, &mut reporter, 5, 1, 1000), KeyOutcome::Added { .. }));
    assert_eq!(keyed(&mut driver, &mut reporter, 6, 1, 999), KeyOutcome::Stale);
    assert_eq!(driver.total("parts"), 1);
}

#[test]
fn a_live_key_is_never_evicted_and_a_full_table_refuses() {
    let (mut driver, mut reporter) = started();
    driver.set("keys.max", "3");
    for key in 0..3 {
        assert!(matches!(keyed(&mut driver, &mut reporter, key, 1, 1000), KeyOutcome::Added { .. }));
    }
    assert_eq!(keyed(&mut driver, &mut reporter, 9, 1, 1000), KeyOutcome::TableFull);
    assert!(matches!(keyed(&mut driver, &mut reporter, 0, 1, 1000), KeyOutcome::Known { .. }));
    driver.pass(900_000);
    let now = driver.now.elapsed.0;
    assert!(matches!(keyed(&mut driver, &mut reporter, 9, 1, now), KeyOutcome::Added { .. }));
    assert_eq!((driver.total("parts"), driver.site.keys_len()), (4, 1));
}

#[test]
fn a_key_whose_add_is_refused_is_not_kept() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", Amount::updown(1));
    let refused = Refusal::WrongKind { is: Kind::Updown, asked: Kind::Counter };
    for _ in 0..2 {
        assert_eq!(keyed(&mut driver, &mut reporter, 5, 1, 1000), KeyOutcome::Refused(refused));
    }
    assert_eq!(driver.site.keys_len(), 0);
}

#[test]
fn keyed_adds_and_cells_have_places_of_their_own() {
    let (mut driver, mut reporter) = started();
    let window = driver.window();
    let bad = Amount::Counter(0);
    let verdict = driver.report(&mut reporter, |writer| {
        for key in 0..2 {
            let series = named("parts", &ONE);
            writer.keyed(&KeyedAdd { series, window, amount: ONE, key, check: 0, taken: Elapsed(1000) });
            writer.cell(named("x", &bad), window, &bad);
        }
        assert_eq!((writer.cells(), writer.keyed_adds()), (2, 2));
    });
    let Verdict::Receipt { refused, keyed, .. } = verdict else { panic!() };
    assert_eq!(refused, [(0, Refusal::Malformed), (1, Refusal::Malformed)]);
    let totals = keyed.iter().map(|outcome| match outcome {
        KeyOutcome::Added { total, .. } => *total,
        other => panic!("{other:?}"),
    });
    assert_eq!(totals.collect::<Vec<_>>(), [1, 2]);
}

// Entries.

#[test]
fn time_never_goes_back() {
    let (mut driver, _) = started();
    driver.now = Stamp { site: SiteTime(5), elapsed: Elapsed(5), synced: false };
    driver.apply(&entry::tick());
    let expected = Stamp { site: SiteTime(START), elapsed: Elapsed(1000), synced: false };
    assert_eq!(driver.site.stamp(), expected);
}

#[test]
fn an_entry_that_is_not_the_next_or_of_a_newer_release_changes_nothing() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    let before = driver.site.snapshot();
    let next = driver.site.applied().next();
    let tick = StampedEntry::new(driver.now, &entry::tick());
    for index in [LogIndex(0), driver.site.applied(), next.next()] {
        let error = driver.site.apply(index, &tick).unwrap_err();
        assert_eq!(error, EntryError::NotNext { index: index.0, applied: next.0 - 1 });
    }
    let unknown = StampedEntry::new(driver.now, &[99]);
    assert_eq!(driver.site.apply(next, &unknown), Err(EntryError::UnknownKind(99)));
    let newer = [entry::level(Level::MAX)[0], 4];
    let level = Level::new(4).unwrap();
    assert_eq!(
        driver.site.apply(next, &StampedEntry::new(driver.now, &newer)),
        Err(EntryError::Level(level))
    );
    assert_eq!(driver.site.snapshot(), before);
    assert_eq!(driver.site.apply(next, &StampedEntry::default()), Ok(Applied::Nothing));
}

#[test]
fn a_malformed_entry_of_a_known_kind_is_passed_and_adds_nothing() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    // A report of which only the last cell is cut off.
    let mut writer = ReportWriter::new(reporter.source, reporter.epoch, reporter.next, 1);
    writer.cell(named("parts", &ONE), driver.window(), &ONE);
    writer.cell(named("others", &ONE), driver.window(), &ONE);
    let cut = StampedEntry::new(driver.now, &writer.finish());
    let far = Stamp { site: SiteTime(1 << 48), ..driver.now };
    let far = StampedEntry::new(far, &entry::tick());
    // What a door of the first release let through: an address that no box can decode.
    let record = MemberRecord {
        id: NodeId(7),
        name: "box7".to_owned(),
        address: format!("10.0.0.7:{:0>300}", 7400),
        key: KeyHash([7; 32]),
        role: MemberRole::Voter,
    };
    let member = StampedEntry::new(driver.now, &entry::member(1, &MemberChange::Put(record)));
    for entry in [StampedEntry::from(&cut[..cut.len() - 1]), far, member, StampedEntry::from(vec![0])] {
        let next = driver.site.applied().next();
        assert_eq!(driver.site.apply(next, &entry), Ok(Applied::Malformed));
        assert_eq!(driver.site.applied(), next);
    }
    assert_eq!((driver.total("parts"), driver.site.find("others")), (1, None));
    assert_eq!(driver.site.stamp(), driver.now);
    driver.add(&mut reporter, "parts", ONE);
    assert_eq!(driver.total("parts"), 2);
}

#[test]
fn a_leader_can_check_every_body_before_it_proposes_it() {
    let mut writer = ReportWriter::new(SourceId(1), Epoch(2), ReportNumber::FIRST, 3);
    writer.cell(named("a", &ONE), SiteTime(START), &ONE);
    let report = writer.finish();
    for (body, kind) in [
        (entry::open(SourceKind::Box, "box1", 1, Epoch(1)), BodyKind::Open),
        (report, BodyKind::Report),
        (entry::close(SiteTime(START)), BodyKind::Close),
        (entry::number(9), BodyKind::Number),
        (entry::delivered(300), BodyKind::Delivered),
        (entry::set(1, "keys.age", "5m"), BodyKind::Set),
        (entry::tick(), BodyKind::Tick),
        (entry::step_clock(), BodyKind::StepClock),
        (entry::set_aside(300, 0x87), BodyKind::SetAside),
        (entry::released(300), BodyKind::Released),
        (entry::level(Level::TWO), BodyKind::Level),
    ] {
        assert_eq!(entry::check(&body), Ok(kind));
        for end in 0..body.len() {
            // A report can end between cells; nothing else can be cut.
            let cut = entry::check(&body[..end]);
            assert!(cut.is_err() || kind == BodyKind::Report && end == 19, "{kind:?} {end}");
        }
        let longer = [&body[..], &[0]].concat();
        assert!(entry::check(&longer).is_err(), "{kind:?}");
    }
}

#[test]
fn a_report_of_too_many_cells_is_not_read() {
    let mut writer = ReportWriter::new(SourceId(1), Epoch(2), ReportNumber::FIRST, 3);
    for _ in 0..entry::REPORT_CELLS_MAX {
        writer.cell(SeriesRef::Id(SeriesId(0)), SiteTime(START), &ONE);
    }
    assert_eq!(entry::check(&writer.clone().finish()), Ok(BodyKind::Report));
    writer.cell(SeriesRef::Id(SeriesId(0)), SiteTime(START), &ONE);
    assert_eq!(entry::check(&writer.finish()), Err(EntryError::Malformed));
}

#[test]
fn a_setting_is_told_in_its_normal_form_or_why_not() {
    let (mut driver, _) = started();
    let mut request = 42;
    let mut set = |driver: &mut Driver, value| {
        request += 1;
        match driver.apply(&entry::set(request, "window.base", value)) {
            Applied::Set { nonce, result } if nonce == request => result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set(&mut driver, "120s"), Ok("2m".to_string()));
    assert!(set(&mut driver, "0s").unwrap_err().contains("window.base must be between"));
    assert_eq!(driver.site.settings().window_base().as_millis(), 120_000);
}

#[test]
fn a_late_copy_of_a_change_does_not_undo_what_was_changed_in_between() {
    let (mut driver, _) = started();
    let keys_max = |driver: &Driver| driver.site.settings().keys_max();
    let (first, second) = (entry::set(1, "keys.max", "100"), entry::set(2, "keys.max", "200"));
    driver.apply(&first);
    driver.apply(&second);
    assert_eq!(driver.apply(&first), Applied::Nothing);
    assert_eq!(keys_max(&driver), 200);
    // Nor does a copy of what was refused.
    let record = |id: u64| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: String::new(),
        key: KeyHash([id as u8; 32]),
        role: MemberRole::Voter,
    };
    let add = entry::member(3, &MemberChange::Put(record(2)));
    let early = Applied::Member { nonce: 3, result: Err(MemberRefused::TooEarly) };
    assert_eq!(driver.apply(&add), early);
    driver.apply(&entry::bootstrap(&[record(1)]));
    assert_eq!(driver.apply(&add), Applied::Nothing);
    assert_eq!(driver.site.members(), [record(1)]);
    // A box that comes by a snapshot knows that, too.
    let mut restored = Site::restore(&founding(), &driver.site.snapshot()).unwrap();
    let payload = StampedEntry::new(driver.site.stamp(), &first);
    assert_eq!(restored.apply(restored.applied().next(), &payload), Ok(Applied::Nothing));
    assert_eq!(restored.settings().keys_max(), 200);
}

// Reads.

#[test]
fn those_who_watch_see_what_changed_since() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "line/a", ONE);
    let since = driver.site.applied();
    driver.add(&mut reporter, "line/b", ONE);
    driver.add(&mut reporter, "other", ONE);
    let names = |driver: &Driver, prefix| {
        let views = driver.site.changed_since(since, prefix);
        views.into_iter().map(|view| view.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&driver, "line/"), ["line/b"]);
    driver.add(&mut reporter, "line/a", ONE);
    assert_eq!(names(&driver, ""), ["line/a", "line/b", "other"]);
    assert_eq!(driver.site.page("line/", Some("line/a"), 9)[0].name, "line/b");
    assert_eq!(driver.site.page("", None, 1)[0].total, 2);
}
