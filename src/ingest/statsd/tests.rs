use super::*;
use crate::site::entry::{ReportWriter, SeriesRef};
use tally_core::id::{Epoch, ReportNumber, SeriesName, SourceId};
use tally_core::report::{Amount, Sample};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

/// A clock that nobody has told the time stands still at 0.
fn clock() -> Arc<SiteClock> {
    Arc::new(SiteClock::new(SiteTime(1), Elapsed(0)))
}

fn accumulator(series_max: usize) -> Arc<Accumulator> {
    Arc::new(Accumulator::new(clock(), Span::DEFAULT, series_max))
}

fn report() -> ReportWriter {
    ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0)
}

/// Asserts that the accumulator holds exactly these, in whichever order.
#[track_caller]
fn assert_holds(accumulator: &Accumulator, expected: &[(&str, Amount)]) {
    let written = |order: &mut dyn Iterator<Item = &(&str, Amount)>| {
        let mut wanted = report();
        for (name, amount) in order {
            let name = SeriesName::new(name).unwrap();
            wanted.cell(SeriesRef::Name(name, amount.kind()), SiteTime(0), amount);
        }
        wanted.finish_hashed().0
    };
    assert!(expected.len() <= 2, "two series have two orders");
    let wanted = [written(&mut expected.iter()), written(&mut expected.iter().rev())];
    let held = accumulator.freeze(report()).body;
    assert!(wanted.contains(&held), "expected {expected:?}, found {held:x?}");
}

fn samples(values: &[f64]) -> Amount {
    let one = |&value: &f64| Sample::observed(value, SiteTime(0), SourceId(0)).unwrap();
    Amount::Sample(values.iter().map(one).reduce(|a, b| a.merged(b).unwrap()).unwrap())
}

/// Takes lines and returns how many values were taken, and why others were not.
fn take(accumulator: &Accumulator, book: &mut Book, lines: &[&str]) -> (u64, Vec<Reason>) {
    let mut bulk = accumulator.lock();
    let mut refused = Vec::new();
    let taken = lines
        .iter()
        .map(|line| book.take(&mut bulk, SiteTime(0), line.as_bytes(), |reason| refused.push(reason)))
        .sum();
    (taken, refused)
}

#[test]
fn increments_of_a_name_meet_however_they_are_spelled() {
    let accumulator = accumulator(10);
    let lines = ["a:1|c", "a:2|c|#", "b:1|c|#x:1,y:2", "b:10|c|#y:2,x:1", "a:3:4|c", "a:0|c", "a:+5|c"];
    assert_eq!(take(&accumulator, &mut Book::default(), &lines), (8, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(15)), ("b/x=1/y=2", Amount::Counter(11))]);
}

#[test]
fn what_rates_leave_over_is_carried_per_series() {
    let accumulator = accumulator(10);
    let mut book = Book::default();
    let lines = ["a:1|c|@0.3", "b:1|c|@0.7", "a:1|c|@0.3", "b:1|c|@0.7"];
    assert_eq!(take(&accumulator, &mut book, &lines), (4, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(6)), ("b", Amount::Counter(2))]);
    assert_eq!(take(&accumulator, &mut book, &["a:1|c|@0.3"]), (1, vec![]));
    // 3 / 0.3 = 10 in all.
    assert_holds(&accumulator, &[("a", Amount::Counter(4))]);
}

#[test]
fn a_signed_gauge_moves_the_value_and_observes_the_result() {
    let accumulator = accumulator(10);
    let mut book = Book::default();
    let lines = ["g:10|g", "g:+0.1|g", "g:-0.3|g", "g:5|g", "g:-7|g", "n:-4|g"];
    assert_eq!(take(&accumulator, &mut book, &lines), (6, vec![]));
    assert_holds(&accumulator, &[("g", samples(&[10.0, 10.1, 9.8, 5.0, -2.0])), ("n", samples(&[-4.0]))]);
}

#[test]
fn timers_histograms_and_distributions_are_samples_of_what_was_observed() {
    let accumulator = accumulator(10);
    let lines = ["t:3.5|ms|@0.1", "t:-1:2|h", "t:1e3|d"];
    assert_eq!(take(&accumulator, &mut Book::default(), &lines), (4, vec![]));
    assert_holds(&accumulator, &[("t", samples(&[3.5, -1.0, 2.0, 1000.0]))]);
}

#[test]
fn a_bad_value_does_not_hold_up_its_neighbours() {
    let accumulator = accumulator(10);
    let lines = ["a:1:x:3|c", "a:-1:4|c", "a:9007199254740992|c", "a:9007199254740991|c", "t:1e19:1|ms"];
    let refused = vec![Reason::BadValue, Reason::Negative, Reason::TooLarge, Reason::TooLarge];
    assert_eq!(take(&accumulator, &mut Book::default(), &lines), (5, refused));
    assert_holds(&accumulator, &[("a", Amount::Counter((1 << 53) + 7)), ("t", samples(&[1.0]))]);
}

#[test]
fn a_name_of_another_kind_and_one_name_too_many_are_refused() {
    let accumulator = accumulator(2);
    let mut book = Book::default();
    let lines = ["a:1|c", "a:1|g", "b:1|g", "b:1|c", "c:1|c", "a:1|c", "c:1|c"];
    let refused = vec![Reason::WrongKind, Reason::WrongKind, Reason::TooManySeries, Reason::TooManySeries];
    assert_eq!(take(&accumulator, &mut book, &lines), (3, refused));
    assert_holds(&accumulator, &[("a", Amount::Counter(2)), ("b", samples(&[1.0]))]);
}

#[test]
fn more_spellings_than_are_remembered_lose_no_counts() {
    let accumulator = accumulator(10);
    let mut book = Book::default();
    let mut bulk = accumulator.lock();
    // Each number's bits as tags x and y: all but two are spellings of a/x/y.
    for number in 1..(1u32 << 17) - 1 {
        let tags: Vec<&str> = (0..17).map(|bit| if number >> bit & 1 == 0 { "x" } else { "y" }).collect();
        let line = format!("a:1|c|#{}", tags.join(","));
        assert_eq!(book.take(&mut bulk, SiteTime(0), line.as_bytes(), |reason| panic!("{reason:?}")), 1);
        assert!(book.spellings_kept() <= 65_536);
    }
    drop(bulk);
    assert_holds(&accumulator, &[("a/x/y", Amount::Counter((1 << 17) - 2))]);
}

/// Waits until a condition holds; fails after a generous time.
#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

fn start(accumulator: &Arc<Accumulator>) -> Statsd {
    Statsd::start("127.0.0.1:0".parse().unwrap(), Arc::clone(accumulator), clock()).unwrap()
}

#[test]
fn every_datagram_is_counted() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 1..=5_000u64 {
        sender.send_to(b"a:1|c\nb:2|c\r\na:3:1|c\n\n", statsd.address()).unwrap();
        if number % 50 == 0 {
            // Not faster than it is read: the kernel's buffer is not what is tested.
            eventually("the datagrams are read", || statsd.status().received_datagrams == number);
        }
    }
    let status = statsd.status();
    assert_eq!((status.metrics, status.lost), (20_000, 0));
    assert_eq!(status.refused, []);
    statsd.stop();
    assert_holds(&accumulator, &[("a", Amount::Counter(25_000)), ("b", Amount::Counter(10_000))]);
}

#[test]
fn a_train_of_datagrams_is_counted_whole() {
    let accumulator = accumulator(2_000);
    let statsd = start(&accumulator);
    let names: Vec<String> = (0..1_000).map(|number| format!("bench/{number:04}")).collect();
    let span = Duration::from_millis(200);
    let sent = crate::cli::bench::statsd::send(statsd.address(), &names, 100_000, span, true).unwrap();
    assert!(sent.datagrams > 0);
    eventually("what was sent is counted", || statsd.status().metrics == sent.increments);
    assert_eq!(statsd.status().received_datagrams, sent.datagrams);
}

#[test]
fn what_is_refused_is_counted_by_reason_with_its_first_example() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let long = [&[b'x'; 5_000][..], b"\x1b\xff"].concat();
    for datagram in [&b"u:1|s\nv:2|s\n\x07:1|c"[..], b"", &long, b"ok:1|c"] {
        sender.send_to(datagram, statsd.address()).unwrap();
    }
    eventually("all four came", || statsd.status().received_datagrams == 3 && statsd.status().metrics == 1);
    let refused = statsd.status().refused;
    let of = |reason: Reason| refused.iter().find(|refused| refused.reason == reason.as_str()).unwrap();
    assert_eq!((of(Reason::Set).count, of(Reason::Set).example.as_str()), (2, "u:1|s"));
    assert_eq!(of(Reason::BadCharacter).example, "\\u{7}:1|c");
    assert_eq!(of(Reason::NoValue).example, "x".repeat(EXAMPLE_BYTES_MAX));
    assert_eq!(refused.len(), 3);
}

#[test]
fn what_arrived_before_the_stop_is_counted() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Few enough for the smallest buffer.
    for _ in 0..50 {
        sender.send_to(b"a:1|c", statsd.address()).unwrap();
    }
    statsd.stop();
    assert_holds(&accumulator, &[("a", Amount::Counter(50))]);
}

#[test]
fn a_stop_ends_though_more_and_more_comes() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    // It takes longer to read than to send.
    let datagram = "a:1|c\n".repeat(20);
    let (address, ended, begun) = (statsd.address(), AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                while !ended.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
                    // When the listener is gone the system may say so.
                    let _ = sender.send_to(datagram.as_bytes(), address);
                }
            });
        }
        eventually("much came", || statsd.status().received_datagrams > 1000);
        let stopping = Instant::now();
        statsd.stop();
        let took = stopping.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(took < Duration::from_secs(20), "what comes goes on holding the stop up: {took:?}");
    });
}

#[test]
fn what_a_stop_reads_is_bounded_by_the_buffer_also_when_datagrams_are_empty() {
    let of = |len| RecvMeta { len, ..RecvMeta::default() };
    assert_eq!(cost(&[of(0), of(6), of(9000)]), 2 * DATAGRAM_COST_MIN + 9000);
}

#[test]
fn a_port_in_use_is_an_error_that_names_it_and_the_key() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let error = Statsd::start(statsd.address(), Arc::clone(&accumulator), clock()).unwrap_err().to_string();
    assert!(error.starts_with("ingest.statsd.listen: "), "{error}");
    assert!(error.contains(&statsd.address().to_string()) && error.contains("in use"), "{error}");
    let elsewhere = Statsd::start("192.0.2.1:8125".parse().unwrap(), accumulator, clock()).unwrap_err();
    assert!(elsewhere.to_string().contains("cannot listen on UDP address 192.0.2.1:8125"), "{elsewhere}");
}
