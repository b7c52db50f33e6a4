use super::file::FILE_BYTES_MAX;
use super::*;
use crate::accumulator::Limits;
use crate::accumulator::ReadingsMode;
use crate::clock::TimeSource;
use crate::site::entry::ReportWriter;
use std::time::Duration;
use tally_core::id::{Epoch, ReportNumber};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

const LIMITS: Limits = Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max: 10, name_bytes_max: 200 };

fn config(file: PathBuf, kind: PollKind) -> PollConfig {
    PollConfig {
        series: "host/n".to_owned(),
        file,
        pattern: r"^n (\S+)".to_owned(),
        kind,
        every: "10ms".to_owned(),
        ceiling: None,
        noise: None,
        glitch_window: None,
        step_max: None,
        boot_id: None,
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    accumulator: Arc<Accumulator>,
    clock: Arc<SiteClock>,
}

impl Fixture {
    fn new() -> Fixture {
        let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default()));
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
        self.start_polls(&[(self.path(), kind)])
    }

    fn start_polls(&self, files: &[(PathBuf, PollKind)]) -> Polls {
        let poll = |(file, kind): &(PathBuf, PollKind)| config(file.clone(), *kind).check(0).unwrap();
        let to = Destination { node: "box1", accumulator: &self.accumulator, clock: &self.clock };
        Polls::begin(files.iter().map(poll).collect(), &to)
    }

    fn takes_readings(&self) {
        self.accumulator.set_readings_mode(ReadingsMode::Taken);
    }
}

impl Fixture {
    /// Takes out what waits: how much it is.
    fn counted(&self) -> Vec<String> {
        let report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
        let batch = self.accumulator.freeze(report);
        vec![format!("{} cells, {} readings", batch.cells_len(), batch.readings_len())]
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
async fn where_no_readings_are_taken_a_counter_is_counted_from_its_first_reading_on() {
    let fixture = Fixture::new();
    fixture.accumulator.set_readings_mode(ReadingsMode::Refused);
    fixture.write("m 1\nn 1000\n");
    let polls = fixture.start(PollKind::Counter);
    eventually(&polls, "the base is read", |status| status.last == Some(1_000.0)).await;
    assert_eq!(fixture.accumulator.backlog().cells, 0);
    fixture.write("m 1\nn 1007\n");
    eventually(&polls, "the rise is read", |status| status.last == Some(1_007.0)).await;
    assert_eq!(fixture.counted(), ["1 cells, 0 readings"]);
    // From now on it is a meter; what grew until then is counted as before.
    fixture.write("m 1\nn 1010\n");
    eventually(&polls, "the rise is read", |status| status.last == Some(1_010.0)).await;
    fixture.takes_readings();
    fixture.write("m 1\nn 1012\n");
    eventually(&polls, "the rise is read", |status| status.last == Some(1_012.0)).await;
    assert_eq!(fixture.counted(), ["2 cells, 1 readings"]);
    fixture.write("m 1\nn 1013\n");
    eventually(&polls, "the rise is read", |status| status.last == Some(1_013.0)).await;
    assert_eq!(fixture.counted(), ["1 cells, 1 readings"]);
}

#[tokio::test]
async fn what_is_read_before_it_is_known_who_counts_it_is_counted_once() {
    for (mode, counted) in
        [(ReadingsMode::Taken, "2 cells, 2 readings"), (ReadingsMode::Refused, "1 cells, 0 readings")]
    {
        let fixture = Fixture::new();
        fixture.write("n 1000\n");
        let polls = fixture.start(PollKind::Counter);
        eventually(&polls, "the base is read", |status| status.last == Some(1_000.0)).await;
        fixture.write("n 1007\n");
        eventually(&polls, "the rise is read", |status| status.last == Some(1_007.0)).await;
        assert_eq!(fixture.accumulator.backlog().cells, 0);
        fixture.accumulator.set_readings_mode(mode);
        let readings = polls.status()[0].readings;
        eventually(&polls, "two more readings", |status| status.readings > readings + 1).await;
        assert_eq!(fixture.counted(), [counted]);
    }
}

#[tokio::test]
async fn two_files_of_one_series_have_figures_of_their_own() {
    let fixture = Fixture::new();
    fixture.write("n 1000\n");
    let good = (fixture.path(), PollKind::Counter);
    let polls = fixture.start_polls(&[good, (fixture.folder.path().join("none"), PollKind::Counter)]);
    eventually(&polls, "one is read and the other fails", |status| {
        status.readings > 0 && polls.status()[1].errors > 0
    })
    .await;
    let figures = polls.figures();
    let of = |name: &str, place: &str| {
        let family = figures.iter().find(|family| family.name == name).unwrap();
        let is_it =
            |(labels, _): &&(Vec<(&str, String)>, String)| labels.contains(&("poll", place.to_owned()));
        family.samples.iter().find(is_it).map(|(labels, value)| (labels[0].1.clone(), value.clone()))
    };
    let figure = |value: &str| Some(("host/n".to_owned(), value.to_owned()));
    assert_eq!(of("tallyd_poll_failing", "0"), figure("0"));
    assert_eq!(of("tallyd_poll_failing", "1"), figure("1"));
    assert_eq!(of("tallyd_poll_readings_total", "1"), figure("0"));
    assert!(of("tallyd_poll_last_reading_time_seconds", "0").is_some());
    assert_eq!(of("tallyd_poll_last_reading_time_seconds", "1"), None, "none was read");
}

/// What a state shows while its file does not answer.
#[test]
fn a_file_that_does_not_answer_shows_since_when() {
    let fixture = Fixture::new();
    let state = State::new(config(fixture.path(), PollKind::Counter).check(0).unwrap());
    state.begin();
    assert_eq!(state.status().reading_since, None, "it may take a moment");
    state.began_earlier(Duration::from_secs(5));
    let status = state.status();
    assert!(status.reading_since.is_some(), "{status:?}");
    assert!(status.error.unwrap().contains("has not answered for 5 s"));
    state.note(Ok(5.0));
    let status = state.status();
    assert_eq!((status.reading_since, status.error, status.last), (None, None, Some(5.0)));
    assert!(status.last_at.is_some());
}

#[test]
fn a_meter_is_named_by_its_box_file_and_pattern() {
    let poll = |file: &str| config(file.into(), PollKind::Counter).check(0).unwrap();
    let name = meter_name("box1", &poll("/proc/stat"));
    assert!(name.starts_with("box1:/proc/stat#") && name.len() == "box1:/proc/stat#".len() + 8, "{name}");
    let mut other = poll("/proc/stat");
    other.text.push('$');
    assert_ne!(meter_name("box1", &other), name);
    assert_ne!(meter_name("box2", &poll("/proc/stat")), name);
    let long = [1, 2].map(|n| meter_name("box1", &poll(&format!("/{}/{n}", "x".repeat(300)))));
    assert!(long.iter().all(|name| crate::site::is_meter_name(name)) && long[0] != long[1], "{long:?}");
}

#[test]
fn an_incarnation_is_named_by_the_content_of_a_file() {
    let fixture = Fixture::new();
    fixture.write("n 5\n");
    let beside = fixture.folder.path().join("boot");
    let config = PollConfig { boot_id: Some(beside.clone()), ..config(fixture.path(), PollKind::Counter) };
    let poll = config.check(0).unwrap();
    let error = file::read(&poll).unwrap_err().to_string();
    assert!(error.contains("boot_id"), "{error}");
    let mut named = [""; 2].map(|_| 0);
    for (place, text) in ["5f0c\n", "77aa\n"].iter().enumerate() {
        std::fs::write(&beside, text).unwrap();
        let (reading, incarnation) = file::read(&poll).unwrap();
        assert_eq!(reading, Reading::Count(5));
        named[place] = incarnation;
    }
    assert!(named[0] != named[1] && !named.contains(&0));
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
    eventually(&polls, "refused", |status| {
        status.error.as_ref().is_some_and(|error| error.contains("the series has kind sample, not counter"))
    })
    .await;
    assert_eq!((polls.status()[0].last, fixture.accumulator.backlog().cells), (None, 1), "the sample alone");
}

#[test]
fn of_a_file_1_mib_is_read_in_whole_lines_and_the_bound_is_told() {
    let fixture = Fixture::new();
    let read = |text: &str| {
        fixture.write(text);
        file::read_bounded(&fixture.path(), FILE_BYTES_MAX).unwrap()
    };
    let (text, is_whole) = read(&"n 123456789\n".repeat(100_000));
    assert!(!is_whole && text.len() <= FILE_BYTES_MAX && text.len() > FILE_BYTES_MAX - 12);
    assert!(text.ends_with(b"n 123456789\n"));
    assert_eq!(read(&"9".repeat(2 << 20)), (Vec::new(), false));
    assert_eq!(read(&"9".repeat(100_000)), ("9".repeat(100_000).into_bytes(), true));
    assert!(read(&"x\n".repeat(1 << 19)).1, "exactly the bound");
    assert!(file::read_bounded(fixture.folder.path(), FILE_BYTES_MAX).is_err());

    let poll = config(fixture.path(), PollKind::Counter).check(0).unwrap();
    fixture.write(&("m 1\n".repeat(100_000) + "n 17\n"));
    assert_eq!(file::read(&poll).unwrap().0, Reading::Count(17), "beyond 64 KiB");
    fixture.write(&("m 1\n".repeat(300_000) + "n 17\n"));
    let error = file::read(&poll).unwrap_err().to_string();
    assert!(error.contains("first 1 MiB"), "{error}");
}

#[test]
fn a_pipe_is_named_as_such_and_whoever_writes_to_it_is_not_disturbed() {
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
    let fixture = Fixture::new();
    mknodat(CWD, fixture.path(), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let poll = config(fixture.path(), PollKind::Counter).check(0).unwrap();
    let said = || file::read(&poll).unwrap_err().to_string();
    assert!(said().contains("the file is a pipe"), "{}", said());
    // With a writer, which has somebody else for its reader.
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let both = rustix::fs::open(fixture.path(), flags, Mode::empty()).unwrap();
    rustix::io::write(&both, b"n 1\n").unwrap();
    assert!(said().contains("the file is a pipe"), "{}", said());
    let mut text = [0; 8];
    assert_eq!(rustix::io::read(&both, &mut text), Ok(4), "nothing was taken from its reader");
}

#[test]
fn a_file_of_the_kernel_is_read() {
    let config =
        PollConfig { pattern: r"^ctxt (\d+)".to_owned(), ..config("/proc/stat".into(), PollKind::Counter) };
    let (reading, incarnation) = file::read(&config.check(0).unwrap()).unwrap();
    assert!(matches!(reading, Reading::Count(1..)));
    assert_ne!(incarnation, 0, "the system's boot id");
}
