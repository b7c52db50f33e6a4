//! Shared helpers of this module's tests: a site with a clock, and sources that report to it.

use tally_core::id::{Epoch, ReportNumber, SeriesName, SourceId};
use tally_core::report::{Amount, Kind, Sample};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

use super::*;

pub(super) const MINUTE: u64 = 60_000;
/// A moment at which windows of up to a day begin.
pub(super) const START: u64 = 20_000 * 86_400_000;

pub(super) fn founding() -> BootstrapSettings {
    BootstrapSettings {
        site: "plant7".to_string(),
        site_id: 0x9f3c_51d2_a07b_e644,
        base_span: Span::DEFAULT,
        level: Level::MAX,
    }
}

/// A site, and the leader's clock that stamps what it is given.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) site: Site,
    pub(super) now: Stamp,
    /// All payloads so far, to be applied elsewhere.
    pub(super) log: Vec<StampedEntry>,
}

/// A source with an open epoch that numbers its reports.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) source: SourceId,
    pub(super) epoch: Epoch,
    pub(super) next: ReportNumber,
}

impl Driver {
    pub(super) fn new() -> Driver {
        let now = Stamp { site: SiteTime(START), elapsed: Elapsed(1000), synced: true };
        Driver { site: Site::new(&founding()), now, log: Vec::new() }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.site.0 += ms;
        self.now.elapsed.0 += ms;
    }

    pub(super) fn apply(&mut self, body: &[u8]) -> Applied {
        let payload = StampedEntry::new(self.now, body);
        self.log.push(payload.clone());
        self.site.apply(self.site.applied().next(), &payload).expect("the entry can be read")
    }

    /// A leader's first entry, which has nothing in it.
    pub(super) fn apply_empty(&mut self) {
        let empty = StampedEntry::default();
        self.site.apply(self.site.applied().next(), &empty).unwrap();
        self.log.push(empty);
    }

    pub(super) fn open(&mut self, name: &str, nonce: u128) -> Reporter {
        let epoch = Epoch(nonce as u64 ^ 0xabcd);
        match self.apply(&entry::open(SourceKind::Named, name, nonce, epoch)) {
            Applied::Opened { result: Ok((source, epoch)), .. } => {
                Reporter { source, epoch, next: ReportNumber::FIRST }
            }
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        match self.apply(&entry::set(1000 + self.log.len() as u64, key, value)) {
            Applied::Set { result: Ok(_), .. } => {}
            other => panic!("not set: {other:?}"),
        }
    }

    /// Sends the reporter's next report.
    pub(super) fn report(&mut self, from: &mut Reporter, write: impl FnOnce(&mut ReportWriter)) -> Verdict {
        let mut writer = ReportWriter::new(from.source, from.epoch, from.next, 0);
        write(&mut writer);
        from.next = from.next.next();
        self.send(&writer.finish_hashed().0)
    }

    pub(super) fn send(&mut self, body: &[u8]) -> Verdict {
        match self.apply(body) {
            Applied::Report { verdict, .. } => verdict,
            other => panic!("no report: {other:?}"),
        }
    }

    /// One cell in the window that is open now; panics if it is refused.
    pub(super) fn add(&mut self, from: &mut Reporter, series: &str, amount: Amount) {
        let window = self.window();
        let verdict = self.report(from, |writer| writer.cell(named(series, &amount), window, &amount));
        assert_eq!(verdict, receipt(&[]));
    }

    /// One cell; the reason if it is refused.
    pub(super) fn try_add(
        &mut self,
        from: &mut Reporter,
        series: &str,
        window: SiteTime,
        amount: Amount,
    ) -> Option<Refusal> {
        match self.report(from, |writer| writer.cell(named(series, &amount), window, &amount)) {
            Verdict::Receipt { repeated: false, refused, .. } => refused.first().map(|(_, why)| *why),
            other => panic!("no receipt: {other:?}"),
        }
    }

    pub(super) fn window(&self) -> SiteTime {
        self.site.settings().window_base().start_of(self.now.site)
    }

    /// Lets the present window end and closes what is due.
    pub(super) fn end_window(&mut self) {
        let span = self.site.settings().window_base().as_millis();
        self.pass(span);
        self.close_due();
    }

    pub(super) fn close_due(&mut self) {
        if let Some(until) = self.site.close_due(self.now.site) {
            self.apply(&entry::close(until));
        }
    }

    pub(super) fn total(&self, series: &str) -> i128 {
        self.site.series_total(self.site.find(series).expect("the series is there"))
    }

    /// Numbers everything, and returns it.
    pub(super) fn number_all(&mut self) -> Vec<Summary> {
        let before = self.site.numbered_last();
        self.apply(&entry::number(u32::MAX));
        self.site.numbered(before, usize::MAX)
    }
}

pub(super) fn named<'a>(series: &'a str, amount: &Amount) -> SeriesRef<'a> {
    SeriesRef::Name(SeriesName::new(series).expect("a name"), amount.kind())
}

pub(super) fn receipt(refused: &[(u32, Refusal)]) -> Verdict {
    Verdict::Receipt { repeated: false, refused: refused.to_vec(), keyed: Vec::new() }
}

pub(super) fn sample(value: f64, at: u64) -> Amount {
    Amount::Sample(Sample::observed(value, SiteTime(at), SourceId(0)).expect("a value"))
}

pub(super) const fn kind_of(index: u32) -> Kind {
    match index % 3 {
        0 => Kind::Counter,
        1 => Kind::Updown,
        _ => Kind::Sample,
    }
}
