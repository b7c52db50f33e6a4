//! StatsD datagrams: what is good is counted exactly, what is not is counted by reason.

use std::collections::BTreeMap;

use crate::boxes::Site;
use crate::harness::until;

const QUICK: &str = "[commit]\ninterval = \"50ms\"\n";

#[test]
fn garbage_is_counted_by_reason_and_the_good_lines_around_it_exactly() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    let long = format!("{}:1|c", "n".repeat(201));
    // What it is told by, how often, and the lines.
    let table: &[(&str, &[&str])] = &[
        ("no value", &["garbage", "garbage", "a:|c"]),
        ("no type", &["a:1"]),
        ("sets (type s)", &["users:joe|s"]),
        ("unknown type", &["a:1|x"]),
        ("rate must", &["a:1|c|@0", "a:1|c|@2", "a:1|c|@x"]),
        ("name is empty", &[":1|c"]),
        ("more than 200 bytes", &[&long]),
        (
            "value is not a number",
            &["a:x|c", "nan:nan|g", "a:1 1|c", "a\u{7}b:x|c", "app.Foo::Bar:1|c", "app.Foo::Baz:1|c"],
        ),
        ("negative", &["a:-5|c"]),
        ("too large", &["a:9007199254740992|c", "b:1e30|g"]),
        ("another kind", &["good:1|g"]),
        ("events and service checks", &["_e{5,4}:title|text", "_sc|name|0"]),
    ];
    let mut sent = 0;
    for (_, lines) in table {
        for line in *lines {
            one.statsd(&format!("good:1|c\n{line}\ngood:2|c"));
            sent += 3;
        }
    }
    one.statsd("packed:1:2:3|c");
    one.statsd("packed:4|c|#b:2,a:1\n\n\n");
    one.until_total("good", sent);
    one.until_total("packed", 6);
    one.until_total("packed/a=1/b=2", 4);
    let refused = until("all that was refused shows", || {
        let status = one.try_status()?;
        let refused: BTreeMap<String, (u64, String)> =
            (status["ingest"]["statsd"]["refused"].as_array()?.iter())
                .map(|one| {
                    let text = |member: &str| one[member].as_str().unwrap().to_owned();
                    (text("reason"), (one["count"].as_u64().unwrap(), text("example")))
                })
                .collect();
        let count: u64 = refused.values().map(|(count, _)| count).sum();
        let expected: usize = table.iter().map(|(_, lines)| lines.len()).sum();
        (count >= expected as u64).then_some(refused)
    });
    for (reason, lines) in table {
        let found = refused.iter().find(|(known, _)| known.contains(reason));
        let (_, (count, example)) = found.unwrap_or_else(|| panic!("{reason:?} is not in {refused:#?}"));
        assert_eq!(*count, lines.len() as u64, "{reason}: {refused:#?}");
        assert!(!example.is_empty() && example.len() <= 400 && !example.contains('\u{7}'), "{example:?}");
    }
    assert_eq!(refused.len(), table.len(), "{refused:#?}");
}

#[test]
fn hostile_datagrams_stop_nothing() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // A fixed sequence of bytes without sense (Knuth's multiplier), among them many colons and bars.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..300 {
        let length = 1 + next() % 1400;
        let bytes: Vec<u8> = (0..length)
            .map(|_| if next() % 3 == 0 { b":|@#cg\n\0"[next() % 8] } else { next() as u8 })
            .collect();
        socket.send_to(&bytes, ("127.0.0.1", one.statsd)).unwrap();
    }
    // One without a byte says nothing, and is not among those that are counted.
    socket.send_to(&[], ("127.0.0.1", one.statsd)).unwrap();
    socket.send_to(&vec![b'x'; 65_000], ("127.0.0.1", one.statsd)).unwrap();
    one.statsd("good:5|c");
    one.until_total("good", 5);
    let status = until("the datagrams show", || {
        let status = one.try_status()?["ingest"]["statsd"].clone();
        (status["received_datagrams"].as_u64()? + status["lost"].as_u64()? >= 302).then_some(status)
    });
    assert_eq!(status["lost"], 0, "{status}");
}

#[test]
fn rates_are_scaled_without_rounding_away() {
    let site = Site::start_with(3, "1s", QUICK);
    // A third of the boxes each: the series is one, the fractions are each box's own.
    for one in &site.boxes {
        for _ in 0..30 {
            one.statsd("scaled:1|c|@0.4");
        }
    }
    // 30 / 0.4 = 75 at each box.
    site.boxes[0].until_total("scaled", 225);
}

#[test]
fn a_refused_line_does_not_decide_what_a_series_is() {
    let site = Site::start_with(1, "1s", QUICK);
    let one = &site.boxes[0];
    one.statsd("x:nonsense|c\nx:5|g\nx:6|g");
    one.until_total("x", 2);
}

#[test]
fn what_dogstatsd_clients_add_to_a_line_costs_no_count() {
    let site = Site::start_with(1, "1h", QUICK);
    let one = &site.boxes[0];
    let now_s = one.status()["clock"]["site_ms"].as_u64().unwrap() / 1000;
    one.statsd(&format!("a:1|c|#env:prod|e:it-false,cn-nginx|card:low|c:ci-83c0|T{now_s}\na:5e-05|c|@1e-4"));
    one.until_total("a/env=prod", 1);
    one.statsd("b:1|c|@0.0007142857142857143\nb:0.00000000000000000001|c");
    one.until_total("b", 1_400);
    one.statsd("t:20|ms|@0.1\nt:2|ms");
    one.until_total("t", 11);
    let view = one.client().get("/v1/series/t").unwrap().ok();
    assert_eq!((view["sum"].as_f64(), view["last"].as_f64()), (Some(202.0), Some(2.0)), "{view}");
    one.statsd("url:1|c|#url:http://x,lang:c++");
    one.until_total("url/lang=c%252B%252B/url=http:/%252Fx", 1);
}

#[test]
fn both_loopbacks_are_listened_to() {
    let site = Site::provision(1, "1s", "");
    let one = &site.boxes[0];
    let file = one.directory.join("tallyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let alone = format!("listen = \"127.0.0.1:{}\"", one.statsd);
    let both = format!("listen = [\"127.0.0.1:{0}\", \"[::1]:{0}\"]", one.statsd);
    assert!(text.contains(&alone), "{text}");
    std::fs::write(&file, text.replace(&alone, &both)).unwrap();
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("there is no IPv6 here");
        return;
    }
    let mut site = site;
    site.start_all();
    let one = &site.boxes[0];
    one.statsd("a:1|c");
    std::net::UdpSocket::bind("[::1]:0").unwrap().send_to(b"a:2|c", ("::1", one.statsd)).unwrap();
    one.until_total("a", 3);
}
