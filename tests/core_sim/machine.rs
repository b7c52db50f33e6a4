//! The state machine of a box, which is the real site's, and what the log says to it.

use std::rc::Rc;

use tally_core::id::{Epoch, LogIndex, ReportNumber, SeriesName, SourceId};
use tally_core::raft::Configuration;
use tally_core::report::{Amount, Kind};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tallyd::site::entry::{self, ReportWriter, SeriesRef, SourceKind};
use tallyd::site::{Applied, BootstrapSettings, Site, Stamp, StampedEntry, Summary};

use crate::members;
use crate::plan::Micros;

/// Site time when a history begins.
const START_MS: u64 = 20_000 * 86_400_000;
const SPAN_MS: u64 = 500;

/// So many summaries get their numbers at once.
const NUMBERED_AT_ONCE: u32 = 5;

#[derive(Debug)]
pub(crate) struct Machine(Site);

fn founding() -> BootstrapSettings {
    let base_span = Span::from_millis(SPAN_MS).expect("a span");
    BootstrapSettings {
        site: "simulated".to_string(),
        site_id: 0x5151,
        base_span,
        level: tallyd::site::Level::MAX,
    }
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine(Site::new(&founding()))
    }

    pub(crate) fn restore(snapshot: &[u8]) -> Machine {
        Machine(Site::restore(&founding(), snapshot).expect("a box reads its own snapshots"))
    }

    pub(crate) fn snapshot(&self) -> Box<[u8]> {
        self.0.snapshot().into()
    }

    pub(crate) fn apply(&mut self, index: LogIndex, payload: &[u8]) -> Applied {
        assert_eq!(index, self.applied().next(), "entries are applied one after the other");
        self.0.apply(index, &StampedEntry::from(payload)).expect("a box reads its own entries")
    }

    /// The configuration whose entry was applied last, if there was any.
    pub(crate) fn configuration(&self) -> Option<Configuration> {
        self.0.configuration().map(members::from_parts)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.0.stamp()
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.0.applied()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.digest()
    }

    pub(crate) fn total(&self, series: u64) -> u64 {
        let total = self.0.find(&series_name(series)).map_or(0, |id| self.0.series_total(id));
        u64::try_from(total).expect("counters do not fall")
    }

    /// The number of the series that a summary is of.
    pub(crate) fn series_of(&self, summary: &Summary) -> u64 {
        let name = self.0.name(summary.series);
        name.trim_start_matches("series/").parse().expect("a series of these clients")
    }

    /// How many reports of an epoch were applied.
    pub(crate) fn reports_of(&self, source: SourceId, epoch: Epoch) -> u64 {
        let epochs = self.0.epochs_of(source);
        let last = epochs.into_iter().find(|(known, _)| *known == epoch).and_then(|(_, last)| last);
        last.map_or(0, ReportNumber::get)
    }

    /// The payload of a leader's entry: its time, then what a box asked for.
    pub(crate) fn stamped(&self, clock: Micros, body: &[u8]) -> Rc<[u8]> {
        let elapsed = clock / 1000;
        let before = self.0.stamp();
        let stamp = Stamp {
            site: SiteTime(START_MS + elapsed).max(before.site),
            elapsed: Elapsed(elapsed).max(before.elapsed),
            synced: true,
        };
        Rc::from(&StampedEntry::new(stamp, body)[..])
    }

    /// What a leader should propose on the site's own account, and the summaries that it publishes before.
    pub(crate) fn housekeeping(&self, clock: Micros) -> (Vec<Summary>, Option<Rc<[u8]>>) {
        let published = self.0.numbered(self.0.delivered(), usize::MAX);
        let body = if let Some(until) = self.0.close_due(SiteTime(START_MS + clock / 1000)) {
            Some(entry::close(until))
        } else if let Some(last) = published.last() {
            Some(entry::delivered(last.seq.expect("a numbered summary has its number")))
        } else {
            (self.0.unnumbered_len() > 0).then(|| entry::number(NUMBERED_AT_ONCE))
        };
        (published, body.map(|body| Rc::from(&*body)))
    }

    /// All windows are closed and all summaries delivered.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.0.outbox_len() == 0 && self.0.close_due(SiteTime(u64::MAX)).is_none()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.0.delivered()
    }
}

/// What a source says: open an epoch for me. The box proposes which.
pub(crate) fn open(name: &str, nonce: u128, epoch: Epoch) -> Rc<[u8]> {
    Rc::from(&*entry::open(SourceKind::Named, name, nonce, epoch))
}

/// What a source says: add these amounts to these series, in the window of that moment.
pub(crate) fn report(
    source: SourceId,
    epoch: Epoch,
    number: ReportNumber,
    at: Micros,
    cells: &[(u64, u64)],
) -> Rc<[u8]> {
    let mut writer = ReportWriter::new(source, epoch, number, 0);
    let span = founding().base_span;
    let window = span.start_of(SiteTime(START_MS + at / 1000));
    for (series, amount) in cells {
        let name = series_name(*series);
        let name = SeriesName::new(&name).expect("a name");
        writer.cell(SeriesRef::Name(name, Kind::Counter), window, &Amount::Counter(u128::from(*amount)));
    }
    Rc::from(&*writer.finish_hashed().0)
}

fn series_name(series: u64) -> String {
    format!("series/{series}")
}
