use std::time::{Duration, Instant};

use super::receiver::{DATAGRAM_COST_MIN, cost};
use super::series_cache::SeriesCache;
use super::*;
use crate::accumulator::Limits;
use crate::clock::{SiteClock, TimeSource};
use quinn_udp::RecvMeta;
use tally_core::id::SourceId;
use tally_core::report::{Amount, Sample, Sum};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;

/// In the middle of a window.
const NOW: u64 = 1_700_000_010_000;
const LIMITS: Limits = Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max: 10, name_bytes_max: 200 };

fn accumulator(names_max: usize) -> Arc<Accumulator> {
    let clock = Arc::new(SiteClock::new(SiteTime(NOW), Elapsed(0), TimeSource::default()));
    Arc::new(Accumulator::new(clock, Limits { names_max, ..LIMITS }))
}

/// An amount without the time of its last value, which is when the test ran.
fn untimed(amount: Amount) -> Amount {
    match amount {
        Amount::Sample(mut sample) => {
            sample.last.at = SiteTime(0);
            Amount::Sample(sample)
        }
        other => other,
    }
}

/// Asserts that the accumulator holds exactly these, in whichever order.
#[track_caller]
fn assert_holds(accumulator: &Accumulator, expected: &[(&str, Amount)]) {
    let mut held: Vec<_> =
        accumulator.drain().into_iter().map(|(name, _, amount)| (name, untimed(amount))).collect();
    held.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected: Vec<_> =
        expected.iter().map(|(name, amount)| ((*name).to_owned(), untimed(*amount))).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(held, expected);
}

fn samples(values: &[f64]) -> Amount {
    let one = |&value: &f64| Sample::observed(value, SiteTime(0), SourceId(0)).unwrap();
    Amount::Sample(values.iter().map(one).reduce(|a, b| a.merged(b).unwrap()).unwrap())
}

/// Takes lines and returns how many values were taken, and why others were not.
fn take(accumulator: &Accumulator, cache: &mut SeriesCache, lines: &[&str]) -> (u64, Vec<Reason>) {
    let mut bulk = accumulator.lock();
    let mut refused = Vec::new();
    let taken =
        lines.iter().map(|line| cache.take(&mut bulk, line.as_bytes(), |reason| refused.push(reason))).sum();
    (taken, refused)
}

#[test]
fn increments_of_a_name_meet_however_they_are_spelled() {
    let accumulator = accumulator(10);
    let lines = ["a:1|c", "a:2|c|#", "b:1|c|#x:1,y:2", "b:10|c|#y:2,x:1", "a:3:4|c", "a:0|c", "a:+5|c"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (8, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(15)), ("b/x=1/y=2", Amount::Counter(11))]);
}

#[test]
fn what_rates_leave_over_is_carried_per_series() {
    let accumulator = accumulator(10);
    let mut cache = SeriesCache::default();
    let lines = ["a:1|c|@0.3", "b:1|c|@0.7", "a:1|c|@0.3", "b:1|c|@0.7"];
    assert_eq!(take(&accumulator, &mut cache, &lines), (4, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(6)), ("b", Amount::Counter(2))]);
    assert_eq!(take(&accumulator, &mut cache, &["a:1|c|@0.3"]), (1, vec![]));
    // 3 / 0.3 = 10 in all.
    assert_holds(&accumulator, &[("a", Amount::Counter(4))]);
}

#[test]
fn a_signed_gauge_moves_the_value_and_observes_the_result() {
    let accumulator = accumulator(10);
    let mut cache = SeriesCache::default();
    let lines = ["g:10|g", "g:+0.1|g", "g:-0.3|g", "g:5|g", "g:-7|g", "n:-4|g"];
    assert_eq!(take(&accumulator, &mut cache, &lines), (6, vec![]));
    assert_holds(&accumulator, &[("g", samples(&[10.0, 10.1, 9.8, 5.0, -2.0])), ("n", samples(&[-4.0]))]);
}

#[test]
fn timers_histograms_and_distributions_are_samples_of_what_was_observed() {
    let accumulator = accumulator(10);
    let lines = ["t:3.5|ms", "t:-1:2|h", "t:1e3|d"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (4, vec![]));
    assert_holds(&accumulator, &[("t", samples(&[3.5, -1.0, 2.0, 1000.0]))]);
}

#[test]
fn a_sampled_timer_stands_for_as_many_as_its_rate_says() {
    let accumulator = accumulator(10);
    let lines = ["t:20|ms|@0.1", "t:5|h|@0.4", "t:7|d|@0.4", "t:1|ms", "g:3|g|@0.1"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (5, vec![]));
    // 10 times 20; 2.5 times 5 and then 7: two of them, then three; once 1.
    let values = [&[20.0; 10][..], &[5.0; 2], &[7.0; 3], &[1.0]].concat();
    assert_holds(&accumulator, &[("t", samples(&values)), ("g", samples(&[3.0]))]);
    let lines = ["t:1e18|ms|@1e-15", "t:1|ms|@1e-20", "t:1e18|ms|@1e-5"];
    let refused = vec![Reason::TooLarge; 3];
    assert_eq!(
        take(&accumulator, &mut SeriesCache::default(), &lines),
        (0, refused),
        "a few such would fill the series' sum"
    );
    // What comes to more in one cell is refused here, and what is there stays.
    let lines = ["u:9e17|ms|@1e-4", "u:9e17|ms|@5e-4", "u:5|ms"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (2, vec![Reason::Overflow]));
}

#[test]
fn a_bad_value_does_not_hold_up_its_neighbours() {
    let accumulator = accumulator(10);
    let lines = ["a:-1:4|c", "a:9007199254740992|c", "a:9007199254740991|c", "t:1e19:1|ms"];
    let refused = vec![Reason::Negative, Reason::TooLarge, Reason::TooLarge];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (3, refused));
    assert_holds(&accumulator, &[("a", Amount::Counter((1 << 53) + 3)), ("t", samples(&[1.0]))]);
}

#[test]
fn a_line_with_a_value_that_is_no_number_is_refused_whole() {
    let accumulator = accumulator(10);
    let lines = [
        "app.Foo::Bar:1|c",
        "app.Foo::Baz:1|c",
        "app.Foo:1:x|c",
        "app.Foo:1:|ms",
        "app.Foo:1:-:2|g",
        "a:b:1|c",
    ];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (0, vec![Reason::BadValue; 6]));
    assert_holds(&accumulator, &[]);
}

#[test]
fn a_thousand_small_doubles_as_languages_print_them_are_taken() {
    let accumulator = accumulator(10);
    let mut cache = SeriesCache::default();
    let mut state = 1_u64;
    for _ in 0..1_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let double = (state >> 11) as f64 / (1u64 << 53) as f64 * 0.01;
        for text in [format!("{double}"), format!("{double:e}"), format!("{double:.20}")] {
            for (line, what) in [(format!("c:{text}|c"), "value"), (format!("r:1|c|@{text}"), "rate")] {
                assert_eq!(take(&accumulator, &mut cache, &[&line]), (1, vec![]), "{what} of {line}");
            }
            assert_eq!(take(&accumulator, &mut cache, &[&format!("s:{text}|ms")]), (1, vec![]));
        }
    }
    let lines = ["n:1|c|@0.0007142857142857143", "n:5e-05|c"];
    assert_eq!(take(&accumulator, &mut cache, &lines), (2, vec![]));
    let held = accumulator.drain();
    assert!(
        held.iter().any(|(name, _, amount)| name == "n" && *amount == Amount::Counter(1_400)),
        "{held:?}"
    );
}

#[test]
fn fields_that_say_nothing_about_the_count_are_passed_over() {
    let accumulator = accumulator(10);
    let lines = [
        "a:1|c|e:it-false,cn-nginx,pu-810fe89d",
        "a:1|c|card:low",
        "a:1|c|c:ci-83c0a99c0a54",
        "a:1|c|whatever|@0.5|!",
        "a:1|c|",
        "a:1|c|Tx",
    ];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (6, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(7))]);
}

#[test]
fn a_timestamp_names_the_window_if_that_is_open_still() {
    let window = Span::DEFAULT.start_of(SiteTime(NOW)).0;
    // 1 s into its window: the one before is closed in a second.
    let clock = Arc::new(SiteClock::new(SiteTime(window + 1_000), Elapsed(0), TimeSource::default()));
    let accumulator = Accumulator::new(clock, LIMITS);
    let s = |ms: u64| ms / 1000;
    let lines = [
        format!("a:1|c|T{}", s(window - 5_000)),
        format!("a:10|c|T{}", s(window - 65_000)),
        format!("a:100|c|T{}", s(window + 500_000)),
        format!("a:1000|c|T{}", s(window)),
        format!("a:10000|c|T{}", "9".repeat(30)),
        format!("t:7|ms|T{}", s(window - 5_000)),
        format!("t:8|ms|@0.5|T{}", s(window - 9_000)),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (7, vec![]));
    let mut held: Vec<_> = accumulator.drain();
    held.sort_by_key(|(name, at, _)| (name.clone(), *at));
    let before = SiteTime(window - 60_000);
    assert_eq!(held[0], ("a".to_owned(), before, Amount::Counter(1)));
    assert_eq!(held[1], ("a".to_owned(), SiteTime(window), Amount::Counter(11_110)));
    let Amount::Sample(sample) = held[2].2 else { panic!("{held:?}") };
    assert_eq!(
        (held[2].1, sample.count, sample.last.value),
        (before, 3, 7.0),
        "the later one of those times"
    );
    assert_eq!(sample.last.at, SiteTime(window - 5_000));
    assert_eq!(sample.sum, Sum(23 * Sum::UNITS));
    assert_eq!(held.len(), 3);
}

#[test]
fn the_last_of_a_gauge_is_what_came_last_and_a_negative_one_stays_negative() {
    let accumulator = accumulator(10);
    let lines = ["g:20|g", "g:15|g", "g:10|g", "g:5|g", "n:7|g", "n:0|g", "n:-5|g"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (7, vec![]));
    let lasts: Vec<f64> = accumulator
        .drain()
        .into_iter()
        .map(|(_, _, amount)| match amount {
            Amount::Sample(sample) => sample.last.value,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lasts, [5.0, -5.0]);
}

#[test]
fn a_name_that_a_series_cannot_have_is_one_all_the_same() {
    let accumulator = accumulator(10);
    let lines = ["lang+:1|c|#c++", "lang+:2|c|#c++", "temp\u{ffff}:1|c"];
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &lines), (3, vec![]));
    let held = [("lang%2B/c%2B%2B", Amount::Counter(3)), ("temp%EF%BF%BF", Amount::Counter(1))];
    assert_holds(&accumulator, &held);
    accumulator.configure(Limits { name_bytes_max: 96, ..LIMITS });
    let long = format!("{}:1|c", "n".repeat(97));
    assert_eq!(take(&accumulator, &mut SeriesCache::default(), &[&long]), (0, vec![Reason::LongNameYet]));
}

#[test]
fn a_place_that_another_name_has_by_now_is_not_counted_in() {
    let accumulator = accumulator(2);
    let mut cache = SeriesCache::default();
    // Nothing is pending of what counted less than one.
    assert_eq!(take(&accumulator, &mut cache, &["a:0.5|c", "b:0.5|c"]), (2, vec![]));
    for number in 0..100 {
        let line = format!("junk{number}:0.1|c");
        assert_eq!(take(&accumulator, &mut cache, &[&line]), (1, vec![]));
    }
    assert_eq!(cache.series_kept(), 2, "as many as there are places");
    assert_eq!(take(&accumulator, &mut cache, &["a:1|c", "b:2|c", "a:10|c"]), (3, vec![]));
    assert_holds(&accumulator, &[("a", Amount::Counter(11)), ("b", Amount::Counter(2))]);
}

#[test]
fn a_name_of_another_kind_and_one_name_too_many_are_refused() {
    let accumulator = accumulator(2);
    let mut cache = SeriesCache::default();
    let lines = ["a:1|c", "a:1|g", "b:1|g", "b:1|c", "c:1|c", "a:1|c", "c:1|c"];
    let refused = vec![Reason::WrongKind, Reason::WrongKind, Reason::TooManySeries, Reason::TooManySeries];
    assert_eq!(take(&accumulator, &mut cache, &lines), (3, refused), "something is pending of both");
    assert_holds(&accumulator, &[("a", Amount::Counter(2)), ("b", samples(&[1.0]))]);
}

#[test]
fn more_cached_names_than_are_remembered_lose_no_counts() {
    let accumulator = accumulator(10);
    let mut cache = SeriesCache::default();
    let mut bulk = accumulator.lock();
    // Each number's bits as tags x and y: all but two are cached_names of a/x/y.
    for number in 1..(1u32 << 17) - 1 {
        let tags: Vec<&str> = (0..17).map(|bit| if number >> bit & 1 == 0 { "x" } else { "y" }).collect();
        let line = format!("a:1|c|#{}", tags.join(","));
        assert_eq!(cache.take(&mut bulk, line.as_bytes(), |reason| panic!("{reason:?}")), 1);
        assert!(cache.cached_names_kept() <= 65_536);
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
    Statsd::listen(&["127.0.0.1:0".parse().unwrap()], false, Arc::clone(accumulator)).unwrap()
}

#[test]
fn every_datagram_is_counted() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 1..=5_000u64 {
        sender.send_to(b"a:1|c\nb:2|c\r\na:3:1|c\n\n", statsd.addresses()[0]).unwrap();
        if number % 50 == 0 {
            // Not faster than it is read: the kernel's buffer is not what is tested.
            eventually("the datagrams are read", || statsd.status().received_datagrams == number);
        }
    }
    let status = statsd.status();
    assert_eq!((status.metrics, status.lost), (20_000, 0));
    assert_eq!(status.refused, []);
    drop(statsd);
    assert_holds(&accumulator, &[("a", Amount::Counter(25_000)), ("b", Amount::Counter(10_000))]);
}

#[test]
fn a_train_of_datagrams_is_counted_whole() {
    let accumulator = accumulator(2_000);
    let statsd = start(&accumulator);
    let names: Vec<String> = (0..1_000).map(|number| format!("bench/{number:04}")).collect();
    let span = Duration::from_millis(200);
    let sent = crate::cli::bench::statsd::send(statsd.addresses()[0], &names, 100_000, span, true).unwrap();
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
    for datagram in [&b"u:1|s\nv:2|s\n\x07:x|c"[..], b"", &long, b"ok:1|c"] {
        sender.send_to(datagram, statsd.addresses()[0]).unwrap();
    }
    eventually("all four came", || statsd.status().received_datagrams == 3 && statsd.status().metrics == 1);
    let refused = statsd.status().refused;
    let of = |reason: Reason| refused.iter().find(|refused| refused.reason == reason.as_str()).unwrap();
    assert_eq!((of(Reason::Set).count, of(Reason::Set).example.as_str()), (2, "u:1|s"));
    assert_eq!(of(Reason::BadValue).example, "\\u{7}:x|c");
    assert_eq!(of(Reason::NoValue).example, "x".repeat(EXAMPLE_BYTES_MAX));
    assert_eq!(refused.len(), 3);
    let by = statsd.status().refused_by;
    assert_eq!((by["set"], by["bad-value"], by["long-name"], by.len()), (2, 1, 0, Reason::ALL.len()));
}

#[test]
fn several_addresses_count_into_one_book() {
    let accumulator = accumulator(10);
    let listen = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let Ok(statsd) = Statsd::listen(&listen, false, Arc::clone(&accumulator)) else {
        assert!(UdpSocket::bind("[::1]:0").is_err(), "there is IPv6");
        return;
    };
    for (round, signed) in ["g:10|g", "g:+1|g", "g:-5|g", "g:+2|g"].iter().enumerate() {
        let address = statsd.addresses()[round % 2];
        let sender = UdpSocket::bind((address.ip(), 0)).unwrap();
        sender.send_to(signed.as_bytes(), address).unwrap();
        eventually("it is counted", || statsd.status().metrics == round as u64 + 1);
    }
    // Those that wait when it stops are counted at all of them.
    for address in statsd.addresses() {
        UdpSocket::bind((address.ip(), 0)).unwrap().send_to(b"last:1|c", address).unwrap();
    }
    drop(statsd);
    let expected = [("g", samples(&[10.0, 11.0, 6.0, 8.0])), ("last", Amount::Counter(2))];
    assert_holds(&accumulator, &expected);
}

#[test]
fn an_address_of_a_family_that_there_is_not_is_left_out_only_where_nobody_asked_for_it() {
    let accumulator = accumulator(10);
    // Of this network no machine has an address: the system answers as where IPv6 is off.
    let listen = ["127.0.0.1:0".parse().unwrap(), "[2001:db8::1]:8125".parse().unwrap()];
    let turned = [listen[1], listen[0]];
    for listen in [listen, turned] {
        let statsd = Statsd::listen(&listen, true, Arc::clone(&accumulator)).unwrap();
        assert_eq!(statsd.addresses().len(), 1);
    }
    assert!(Statsd::listen(&listen[1..], true, Arc::clone(&accumulator)).is_err(), "one is to be there");
    let error = Statsd::listen(&listen, false, Arc::clone(&accumulator)).unwrap_err().to_string();
    assert!(error.contains("cannot listen on UDP address [2001:db8::1]:8125"), "{error}");
}

#[test]
fn what_arrived_before_the_stop_is_counted() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Few enough for the smallest buffer.
    for _ in 0..50 {
        sender.send_to(b"a:1|c", statsd.addresses()[0]).unwrap();
    }
    drop(statsd);
    assert_holds(&accumulator, &[("a", Amount::Counter(50))]);
}

#[test]
fn a_stop_ends_though_more_and_more_comes() {
    let accumulator = accumulator(10);
    let statsd = start(&accumulator);
    // It takes longer to read than to send.
    let datagram = "a:1|c\n".repeat(20);
    let (address, ended, begun) = (statsd.addresses()[0], AtomicBool::new(false), Instant::now());
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
        drop(statsd);
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
    let error = Statsd::listen(statsd.addresses(), true, Arc::clone(&accumulator)).unwrap_err().to_string();
    assert!(error.starts_with("ingest.statsd.listen: "), "{error}");
    assert!(error.contains(&statsd.addresses()[0].to_string()) && error.contains("in use"), "{error}");
    let elsewhere = Statsd::listen(&["192.0.2.1:8125".parse().unwrap()], true, accumulator).unwrap_err();
    assert!(elsewhere.to_string().contains("cannot listen on UDP address 192.0.2.1:8125"), "{elsewhere}");
}
