use super::*;
use crate::accumulator::Limits;
use std::time::Duration;
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

const LIMITS: Limits = Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max: 10, name_bytes_max: 200 };

struct Fixture {
    folder: tempfile::TempDir,
    accumulator: Arc<Accumulator>,
    clock: Arc<SiteClock>,
}

impl Fixture {
    fn new() -> Fixture {
        let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0)));
        let accumulator = Arc::new(Accumulator::new(Arc::clone(&clock), LIMITS));
        Fixture { folder: tempfile::tempdir().unwrap(), accumulator, clock }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("numbers")
    }

    /// Replaced whole, as a reader of `/proc` would see it.
    fn write(&self, text: &str) {
        let beside = self.folder.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path()).unwrap();
    }

    fn start(&self, kind: PollKind) -> Polls {
        let config = PollConfig {
            series: "host/n".to_owned(),
            file: self.path(),
            pattern: r"^n (\S+)".to_owned(),
            kind,
            every: "10ms".to_owned(),
            ceiling: None,
        };
        Polls::start(vec![config.check(0).unwrap()], &self.accumulator, &self.clock)
    }
}

async fn eventually(polls: &Polls, what: &str, condition: impl Fn(&PollStatus) -> bool) {
    let wait = async {
        while !condition(&polls.status()[0]) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{what}: {:?}", polls.status());
}

#[tokio::test]
async fn a_counter_is_counted_from_its_first_reading_on() {
    let fixture = Fixture::new();
    fixture.write("m 1\nn 1000\n");
    let polls = fixture.start(PollKind::Counter);
    eventually(&polls, "the base is read", |status| status.last == Some(1_000.0)).await;
    assert_eq!(fixture.accumulator.backlog().cells, 0);
    fixture.write("m 1\nn 1007\n");
    eventually(&polls, "the rise is read", |status| status.last == Some(1_007.0)).await;
    assert_eq!(fixture.accumulator.backlog().cells, 1);
}

#[tokio::test]
async fn a_file_that_is_missing_or_wrong_is_shown_until_it_is_good() {
    let fixture = Fixture::new();
    let polls = fixture.start(PollKind::Sample);
    let shows = |text: &'static str| {
        move |status: &PollStatus| status.error.as_ref().is_some_and(|error| error.contains(text))
    };
    eventually(&polls, "missing", shows("cannot read the file")).await;
    fixture.write("x 1\n");
    eventually(&polls, "no match", shows("matches nothing")).await;
    fixture.write("n five\n");
    eventually(&polls, "no number", shows("\"five\"")).await;
    fixture.write("n 5\n");
    eventually(&polls, "good", |status| status.error.is_none() && status.last == Some(5.0)).await;
    assert!(polls.status()[0].errors >= 3);
}

#[tokio::test]
async fn a_series_of_another_kind_is_an_error_and_what_it_missed_is_not_forgotten() {
    let fixture = Fixture::new();
    let mut bulk = fixture.accumulator.lock();
    let slot = bulk.slot(SeriesName::new("host/n").unwrap(), Kind::Sample).unwrap();
    bulk.add(slot, Amount::Sample(Sample::observed(1.0, SiteTime(0), SourceId(0)).unwrap())).unwrap();
    drop(bulk);
    fixture.write("n 1\n");
    let polls = fixture.start(PollKind::Counter);
    eventually(&polls, "the base is read", |status| status.readings > 0).await;
    fixture.write("n 5\n");
    eventually(&polls, "refused", |status| {
        status.error.as_ref().is_some_and(|error| error.contains("a sample, not a counter"))
    })
    .await;
    assert_eq!(polls.status()[0].last, Some(1.0));
}

#[test]
fn only_the_beginning_of_a_file_is_read_in_whole_lines() {
    let fixture = Fixture::new();
    fixture.write(&"n 123456789\n".repeat(10_000));
    let text = read_bounded(&fixture.path()).unwrap();
    assert!(text.len() <= FILE_BYTES_MAX && text.len() > FILE_BYTES_MAX - 12);
    assert!(text.ends_with(b"n 123456789\n"));
    fixture.write(&"9".repeat(100_000));
    assert_eq!(read_bounded(&fixture.path()).unwrap(), b"");
    assert!(read_bounded(fixture.folder.path()).is_err());
}

#[test]
fn a_file_of_the_kernel_is_read() {
    let config = PollConfig {
        series: "host/context-switches".to_owned(),
        file: "/proc/stat".into(),
        pattern: r"^ctxt (\d+)".to_owned(),
        kind: PollKind::Counter,
        every: "1s".to_owned(),
        ceiling: None,
    };
    let poll = config.check(0).unwrap();
    let text = read_bounded(&poll.file).unwrap();
    assert!(matches!(track::read(&text, &poll.pattern, poll.kind), Ok(Reading::Count(1..))));
}
