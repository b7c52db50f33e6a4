//! Series that are removed and renamed.

use super::testing::*;
use super::*;
use tally_core::id::SeriesName;
use tally_core::meter::MeterRule;
use tally_core::report::Amount;

use entry::ReadingCell;

const ONE: Amount = Amount::Counter(1);

fn started() -> (Driver, Reporter) {
    let mut driver = Driver::new();
    let reporter = driver.open("press3", 1);
    (driver, reporter)
}

impl Driver {
    /// Lets the present window and its grace end, and closes it.
    fn close_window(&mut self) {
        self.pass(MINUTE + 3000);
        self.close_due();
    }

    fn remove(&mut self, name: &str, is_prefix: bool) -> Result<Removed, SeriesRefused> {
        match self.apply(&entry::remove(1000 + self.log.len() as u64, name, is_prefix)) {
            Applied::SeriesRemoved { result, .. } => result,
            other => panic!("no removal: {other:?}"),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<SeriesId, SeriesRefused> {
        match self.apply(&entry::rename(1000 + self.log.len() as u64, from, to)) {
            Applied::SeriesRenamed { result, .. } => result,
            other => panic!("no renaming: {other:?}"),
        }
    }

    /// Numbers and delivers everything, and clears all names that left; which.
    fn clear(&mut self) -> Vec<(String, bool)> {
        self.number_all();
        self.apply(&entry::delivered(self.site.numbered_last()));
        let due = self.site.departures_due(usize::MAX);
        due.iter().for_each(|due| drop(self.apply(&entry::cleared(due.id))));
        due.into_iter().map(|due| (due.name, due.is_overtaken)).collect()
    }

    /// The same state by a snapshot.
    fn restored(&self) -> Site {
        let bytes = self.site.snapshot();
        let site = Site::restore(&founding(), &bytes).expect("a snapshot");
        assert!(site.snapshot() == bytes, "a restored state has the same bytes");
        site
    }

    /// A report of a box that knew of so many changes of names.
    fn report_as_of(
        &mut self,
        from: &mut Reporter,
        changes: u32,
        write: impl FnOnce(&mut ReportWriter),
    ) -> Option<Refusal> {
        let mut writer = ReportWriter::as_of(from.source, from.epoch, from.next, 0, changes);
        write(&mut writer);
        from.next = from.next.next();
        match self.send(&writer.finish_hashed().0) {
            Verdict::Receipt { refused, .. } => refused.first().map(|(_, why)| *why),
            other => panic!("no receipt: {other:?}"),
        }
    }
}

#[test]
fn what_a_removed_series_counted_is_summarised_before_its_row_is_free() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", Amount::Counter(5));
    driver.close_window();
    driver.add(&mut reporter, "a", Amount::Counter(2));
    driver.add(&mut reporter, "b", ONE);
    let removed = driver.remove("a", false).unwrap();
    assert_eq!((removed.removed[0].total, removed.more), (7, false));
    assert_eq!((driver.site.find("a"), driver.site.series_len()), (None, 1));
    assert_eq!(driver.remove("a", false), Err(SeriesRefused::NotThere));
    assert!(driver.site.departures_due(9).is_empty(), "the broker does not have it yet");
    driver.restored();
    let summaries = driver.number_all();
    assert_eq!(summaries.iter().map(|summary| summary.total).collect::<Vec<_>>(), [Some(5), Some(7)]);
    let (id, seq) = (summaries[1].series, summaries[1].seq.unwrap());
    assert_eq!(driver.site.name_of(id, seq), ("a", false));
    driver.apply(&entry::cleared(1));
    assert_eq!(driver.site.departures_len(), 1, "nobody clears what is not delivered");
    assert_eq!(driver.clear(), [("a".to_owned(), false)]);
    driver.restored();
    // The row is another series' then.
    driver.add(&mut reporter, "c", ONE);
    assert_eq!((driver.site.find("c"), driver.total("c"), driver.site.series_len()), (Some(id), 1, 2));
    driver.restored();
}

#[test]
fn a_new_series_of_the_name_begins_at_zero_and_says_since_when() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", Amount::Counter(5));
    let before = driver.site.since(driver.site.find("a").unwrap());
    driver.remove("a", false).unwrap();
    driver.pass(1500);
    let window = driver.window();
    let refused = driver.report_as_of(&mut reporter, 1, |report| {
        report.cell(named("a", &sample(3.0, START)), window, &sample(3.0, START));
    });
    assert_eq!(refused, None, "of another kind, even");
    let id = driver.site.find("a").unwrap();
    assert_eq!((driver.total("a"), before, driver.site.since(id)), (1, START, START + 1500));
    driver.close_window();
    driver.number_all();
    // The total there is the new one's by then.
    assert_eq!(driver.clear(), [("a".to_owned(), true)]);
    assert_eq!(driver.total("a"), 1);
}

#[test]
fn what_was_counted_before_a_removal_does_not_bring_the_series_back() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", ONE);
    let (id, window) = (driver.site.find("a").unwrap(), driver.window());
    driver.remove("a", false).unwrap();
    let by_name = |report: &mut ReportWriter| report.cell(named("a", &ONE), window, &ONE);
    let by_id = |report: &mut ReportWriter| report.cell(SeriesRef::Id(id), window, &ONE);
    assert_eq!(driver.report_as_of(&mut reporter, 0, by_name), Some(Refusal::Removed));
    assert_eq!(driver.report_as_of(&mut reporter, 0, by_id), Some(Refusal::Removed));
    assert_eq!(driver.report_as_of(&mut reporter, 1, by_id), Some(Refusal::Removed));
    // Nor when the name, or the number, is another series'.
    assert_eq!(driver.clear(), [("a".to_owned(), false)]);
    driver.add(&mut reporter, "other", ONE);
    assert_eq!(driver.site.find("other"), Some(id));
    assert_eq!(driver.report_as_of(&mut reporter, 0, by_id), Some(Refusal::Removed));
    assert_eq!(driver.total("other"), 1);
    assert_eq!(driver.report_as_of(&mut reporter, 1, by_name), None);
    assert_eq!(driver.report_as_of(&mut reporter, 0, by_name), Some(Refusal::Removed));
    assert_eq!(driver.total("a"), 1);
    // Other names are nobody's.
    assert_eq!(driver.try_add(&mut reporter, "new", window, ONE), None);
}

#[test]
fn a_source_that_names_an_old_window_or_reading_means_the_removed_series() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", ONE);
    let window = driver.window();
    driver.pass(MINUTE + 5000);
    driver.remove("a", false).unwrap();
    // It comes by a box that knows of the removal.
    let late = |report: &mut ReportWriter| report.cell(named("a", &ONE), window, &ONE);
    assert_eq!(driver.report_as_of(&mut reporter, 1, late), Some(Refusal::Removed));
    let heard = driver.now.site;
    let read = |value, heard| {
        move |report: &mut ReportWriter| {
            let series = SeriesRef::Name(SeriesName::new("a").unwrap(), Kind::Counter);
            let cell =
                ReadingCell { series, meter: "m", value, heard, incarnation: 0, rule: MeterRule::DEFAULT };
            report.reading(&cell, window);
        }
    };
    assert_eq!(driver.report_as_of(&mut reporter, 1, read(5, heard)), Some(Refusal::Removed));
    assert_eq!(driver.site.find("a"), None);
    driver.pass(1000);
    assert_eq!(driver.report_as_of(&mut reporter, 1, read(7, driver.now.site)), None);
    assert_eq!(driver.total("a"), 0, "its first reading counts nothing: the old ones are forgotten");
    let id = driver.site.find("a").unwrap();
    let by_id = |report: &mut ReportWriter| report.cell(SeriesRef::Id(id), window, &ONE);
    assert_eq!(driver.report_as_of(&mut reporter, 1, by_id), Some(Refusal::Removed));
    let present = driver.window();
    let by_id = |report: &mut ReportWriter| report.cell(SeriesRef::Id(id), present, &ONE);
    assert_eq!(driver.report_as_of(&mut reporter, 1, by_id), None);
}

#[test]
fn a_renamed_series_keeps_its_total_and_what_is_numbered_keeps_the_old_name() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", Amount::Counter(5));
    let id = driver.site.find("a").unwrap();
    driver.close_window();
    let numbered = driver.number_all();
    driver.add(&mut reporter, "a", Amount::Counter(2));
    driver.add(&mut reporter, "taken", ONE);
    assert_eq!(driver.rename("a", "taken"), Err(SeriesRefused::Taken));
    assert_eq!(driver.rename("none", "b"), Err(SeriesRefused::NotThere));
    assert_eq!(driver.rename("a", "b//"), Err(SeriesRefused::BadName));
    assert_eq!(driver.rename("a", "b"), Ok(id));
    assert_eq!((driver.site.find("a"), driver.total("b")), (None, 7));
    // A box that has not heard of it yet goes on counting by the number, and that is right.
    let window = driver.window();
    let by_id = |report: &mut ReportWriter| report.cell(SeriesRef::Id(id), window, &ONE);
    assert_eq!(driver.report_as_of(&mut reporter, 0, by_id), None);
    assert_eq!(driver.total("b"), 8);
    assert_eq!(driver.site.name_of(id, numbered[0].seq.unwrap()), ("a", false));
    assert_eq!(driver.site.name_of(id, numbered[0].seq.unwrap() + 1), ("b", true));
    driver.restored();
    assert_eq!(driver.clear(), [("a".to_owned(), false)]);
    assert_eq!(driver.site.name_of(id, numbered[0].seq.unwrap()), ("b", true));
    assert_eq!(driver.remove("b", false).unwrap().removed[0].total, 8);
    assert_eq!(driver.clear(), [("b".to_owned(), false)]);
    driver.restored();
}

#[test]
fn so_many_are_removed_at_once_and_so_many_wait_for_the_broker() {
    let (mut driver, mut reporter) = started();
    let window = driver.window();
    let names: Vec<String> = (0..SERIES_REMOVED_MAX + 5).map(|n| format!("ids/{n:05}")).collect();
    for some in names.chunks(200) {
        let verdict = driver.report(&mut reporter, |writer| {
            some.iter().for_each(|name| writer.cell(named(name, &ONE), window, &ONE));
        });
        assert_eq!(verdict, receipt(&[]));
    }
    driver.add(&mut reporter, "idsx", ONE);
    let first = driver.remove("ids/", true).unwrap();
    assert_eq!((first.removed.len(), first.more), (SERIES_REMOVED_MAX, true));
    assert_eq!(driver.site.series_len(), 6);
    driver.set("series.max", &SERIES_REMOVED_MAX.to_string());
    assert_eq!(driver.remove("ids/", true), Err(SeriesRefused::TooManyLeave));
    assert_eq!(driver.clear().len(), SERIES_REMOVED_MAX);
    let rest = driver.remove("ids/", true).unwrap();
    assert_eq!((rest.removed.len(), rest.more), (5, false));
    assert_eq!(driver.site.page("", None, 9).len(), 1, "only what begins so");
    driver.clear();
    // All places are used again before there are more.
    for name in &names[..SERIES_REMOVED_MAX - 1] {
        let refused = driver.report_as_of(&mut reporter, 2, |report| {
            report.cell(named(name, &ONE), window, &ONE);
        });
        assert_eq!(refused, None);
    }
    let ids: Vec<u32> = driver.site.series_ids().map(|id| id.0).collect();
    assert_eq!(ids.len(), SERIES_REMOVED_MAX);
    assert!(ids.iter().all(|id| (*id as usize) < SERIES_REMOVED_MAX + 6), "no row is added");
    driver.restored();
}

#[test]
fn a_second_copy_of_a_removal_removes_nothing_more() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "a", ONE);
    let body = entry::remove(5, "a", false);
    assert!(matches!(driver.apply(&body), Applied::SeriesRemoved { result: Ok(_), .. }));
    let window = driver.window();
    driver.report_as_of(&mut reporter, 1, |report| report.cell(named("a", &ONE), window, &ONE));
    assert_eq!(driver.apply(&body), Applied::Nothing);
    assert_eq!(driver.total("a"), 1);
}

#[test]
fn before_level_four_nothing_leaves_and_snapshots_are_as_they_were() {
    let founding = BootstrapSettings { level: Level::TWO, ..founding() };
    let mut driver = Driver { site: Site::new(&founding), ..Driver::new() };
    let mut reporter = driver.open("press3", 1);
    driver.add(&mut reporter, "a", ONE);
    assert_eq!(driver.remove("a", false), Err(SeriesRefused::TooEarly));
    assert_eq!(driver.rename("a", "b"), Err(SeriesRefused::TooEarly));
    let bytes = driver.site.snapshot();
    assert_eq!(bytes[8], 4, "boxes of the release before read it");
    assert_eq!(Site::restore(&founding, &bytes).unwrap().snapshot(), bytes);
    driver.apply(&entry::level(Level::FOUR));
    assert!(driver.remove("a", false).is_ok());
    assert_eq!(driver.site.snapshot()[8], 6);
}
