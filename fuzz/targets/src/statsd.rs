//! StatsD datagrams, line by line, into what a box has counted.

use std::sync::Arc;

use tally_core::id::{Epoch, ReportNumber, SERIES_NAME_BYTES_MAX, SourceId};
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tallyd::accumulator::{Accumulator, Limits};
use tallyd::clock::{SiteClock, TimeSource};
use tallyd::ingest::statsd::parse::Reason;
use tallyd::ingest::statsd::series_cache::SeriesCache;
use tallyd::site::{ReportWriter, entry};

const NOW: SiteTime = SiteTime(1_700_000_000_000);

pub(crate) fn run(bytes: &[u8]) {
    let accumulator = accumulator();
    let mut cache = SeriesCache::default();
    let mut bulk = accumulator.lock();
    let mut refused = 0_usize;
    let mut values = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let before = refused;
        let taken = cache.take(&mut bulk, line, |reason| {
            assert!(Reason::ALL.contains(&reason) && !reason.as_str().is_empty());
            refused += 1;
        });
        assert!(taken > 0 || refused > before, "{line:?} was dropped silently");
        values += taken;
    }
    drop(bulk);
    assert!(values <= bytes.len() as u64);
    // What was taken is a report that a site can read.
    let body = accumulator.freeze(ReportWriter::new(SourceId(1), Epoch(7), ReportNumber::FIRST, 0)).body;
    assert!(entry::check(&body).is_ok(), "what was counted cannot be reported");
}

fn accumulator() -> Accumulator {
    let clock = Arc::new(SiteClock::new(NOW, Elapsed(1000), TimeSource::default()));
    let limits = Limits {
        base: Span::DEFAULT,
        grace_ms: 2_000,
        names_max: 100,
        name_bytes_max: SERIES_NAME_BYTES_MAX,
    };
    Accumulator::new(clock, limits)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 15] = [
        b"parts:1|c",
        b"parts:5|c|@0.1|#press:3,line:1",
        b"parts:1:2:3|c",
        b"oven:21.5|g\noven:+1|g\noven:-0.5|g",
        b"took:320|ms|@0.5",
        b"took:1e3|h\ntook:2|d|#a,b:c|c:container",
        b"set:x|s",
        b"_e{5,4}:title|text",
        b"_sc|name|0",
        b"a//b:1|c\n:1|c\na:|c\na:1\na",
        b"big:9007199254740993|c\nneg:-1|c\nnan:nan|g\nbig:1e400|g",
        b"late:5e-05|ms|@0.0007142857142857143|T1700000000|e:it-1|card:low",
        b"app.Foo::Bar:1|c\nlang:1|c|#c++,x:#1,url:http://x",
        "temp\u{ffff}:1|c\n100%2B:1|c".as_bytes(),
        b"parts:1|c\r\nparts:1|g\r\nparts:0.25|c|@0.3",
    ];
    lines.into_iter().map(<[u8]>::to_vec).collect()
}
