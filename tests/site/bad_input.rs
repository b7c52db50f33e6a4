//! HTTP that is wrong, too large or too much: each gets a clear answer, and nothing stops.

use std::io::{BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::http::read_answer;

const MALFORMED: (u16, &str) = (400, "malformed");

#[test]
fn what_is_malformed_is_refused_and_counts_nothing() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    one.add("a", 1);
    one.client().post("/v1/samples/s", r#"{"value":1}"#).unwrap().ok();
    let long = format!("/v1/counters/{}", "n".repeat(201));
    let good = r#"{"add":1}"#;
    let table: &[(&str, &str, (u16, &str))] = &[
        ("/v1/counters/a", "", MALFORMED),
        ("/v1/counters/a", "{", MALFORMED),
        ("/v1/counters/a", "null", MALFORMED),
        ("/v1/counters/a", "[1]", MALFORMED),
        ("/v1/counters/a", r#"{"add":1}{"add":1}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":1,"add":1}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":1,"more":1}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":"1"}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":1.5}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":0}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":-1}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":9007199254740992}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":18446744073709551616}"#, MALFORMED),
        ("/v1/counters/a", r#"{"add":1e400}"#, MALFORMED),
        ("/v1/counters/a", "\u{0}\u{1}", MALFORMED),
        ("/v1/updowns/u", r#"{"add":0}"#, MALFORMED),
        ("/v1/updowns/u", r#"{"add":-9007199254740992}"#, MALFORMED),
        ("/v1/samples/t", r#"{"value":null}"#, MALFORMED),
        ("/v1/samples/t", r#"{"value":1e999}"#, MALFORMED),
        ("/v1/samples/t", r#"{"values":[]}"#, MALFORMED),
        ("/v1/samples/t", r#"{"value":1,"values":[1]}"#, MALFORMED),
        ("/v1/counters/", good, MALFORMED),
        ("/v1/counters/a//b", good, MALFORMED),
        ("/v1/counters//a", good, MALFORMED),
        ("/v1/counters/a/", good, MALFORMED),
        ("/v1/counters/a+b", good, MALFORMED),
        ("/v1/counters/a%2Bb", good, MALFORMED),
        ("/v1/counters/a%23b", good, MALFORMED),
        ("/v1/counters/a%00b", good, MALFORMED),
        ("/v1/counters/a%0Ab", good, MALFORMED),
        ("/v1/counters/a%7Fb", good, MALFORMED),
        ("/v1/counters/a%FFb", good, MALFORMED),
        (&long, good, MALFORMED),
        ("/v1/updowns/a", good, (409, "wrong-kind")),
        ("/v1/samples/a", r#"{"value":1}"#, (409, "wrong-kind")),
        ("/v1/counters/s", good, (409, "wrong-kind")),
        ("/v1/nothing", good, (404, "not-found")),
        ("/v1/series/a", good, (401, "unauthorized")),
        ("/v1/windows/a", good, (405, "method-not-allowed")),
    ];
    let mut client = one.client();
    for (path, body, expected) in table {
        let answer = client.post(path, body).unwrap_or_else(|error| panic!("{path} {body}: {error}"));
        assert_eq!(answer.status, expected.0, "{path} {body}: {}", answer.text());
        assert_eq!(answer.problem(), expected.1, "{path} {body}: {}", answer.text());
    }
    for key in ["", " ", &"k".repeat(65), "\u{e4}"] {
        let answer = client.post_keyed("/v1/counters/a", good, key).unwrap();
        assert_eq!(answer.status, 400, "key {key:?}: {}", answer.text());
        assert_eq!(answer.problem(), "malformed", "key {key:?}");
    }
    assert_eq!(client.get("/v1/series/none").unwrap().problem(), "no-such-series");
    let series = client.get("/v1/series").unwrap().ok();
    assert_eq!(series["count"], 2, "only the two good ones: {series}");
    assert_eq!(one.add("a", 1), 2);
}

#[test]
fn a_wrong_kind_is_told_both_kinds() {
    let site = Site::start(3);
    site.boxes[0].add("a", 1);
    for one in &site.boxes {
        let answer = one.client().post("/v1/updowns/a", r#"{"add":-1}"#).unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (409, "wrong-kind"));
        let problem = answer.json();
        assert_eq!(
            (problem["is"].as_str(), problem["asked"].as_str()),
            (Some("counter"), Some("updown")),
            "{problem}"
        );
    }
    assert_eq!(site.boxes[1].total("a"), 1);
}

#[test]
fn the_largest_add_and_the_longest_name_are_taken() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    let most = (1 << 53) - 1;
    assert_eq!(one.add("a", most), most);
    assert_eq!(one.add("a", most), 2 * most);
    let long = "n".repeat(200);
    assert_eq!(one.add(&long, 1), 1);
    assert_eq!(one.add("caf%C3%A9%2Fau%20lait", 1), 1);
    assert_eq!(one.total("café/au%20lait".replace('é', "%C3%A9").as_str()), 1);
}

/// Memory of a process that is in use, in KiB.
fn resident_kib(one: &TestBox) -> u64 {
    let pid = one.process.as_ref().unwrap().pid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_body_of_a_gigabyte_is_refused_before_it_is_read() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    let before = resident_kib(one);
    for path in ["/v1/counters/a", "/v1/reports", "/v1/sources/s/epochs"] {
        // Announced: answered without a byte of it.
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", one.http)).unwrap());
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (413, "too-large"), "{path}");

        // Streamed: answered long before its end, even to a client that only writes.
        let stream = TcpStream::connect(("127.0.0.1", one.http)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let reader = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || read_answer(&mut BufReader::new(reader)));
        let sent = stream_chunks(stream, path, 1 << 30);
        assert!(sent < 64 << 20, "{sent} bytes were taken of {path}");
        let answer = reading.join().unwrap().unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (413, "too-large"), "{path}");
    }
    let grown = resident_kib(one).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB were taken for bodies that were refused");
    assert_eq!(one.add("a", 1), 1);
}

/// Writes a body in chunks until it is not taken any more; how many bytes went.
fn stream_chunks(mut stream: TcpStream, path: &str, bytes: usize) -> usize {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10000, b' ');
    chunk.extend_from_slice(b"\r\n");
    for sent in (0..bytes).step_by(0x10000) {
        if stream.write_all(&chunk).is_err() {
            return sent;
        }
    }
    bytes
}

#[test]
fn broken_requests_get_an_answer_or_a_closed_connection() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for bytes in [
        "\r\n\r\n\r\nhello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
        &endless,
        &headers,
        "POST /v1/counters/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/counters/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/counters/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", one.http)).unwrap());
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        // The box may have closed it in the middle already.
        let _ = stream.get_mut().write_all(bytes.as_bytes());
        let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
        match read_answer(&mut stream) {
            Ok(answer) => assert!((400..500).contains(&answer.status), "{bytes:.60}: {answer:?}"),
            Err(error) => {
                let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(closed.contains(&error.kind()), "{bytes:.60}: {error}");
            }
        }
    }
    let mut evil = one.client();
    let rebound = evil.request("GET", "/v1/status", &[("origin", "http://evil.example")], b"").unwrap();
    assert_eq!(rebound.status, 200, "reading is not refused by origin");
    let answer = evil
        .request("POST", "/v1/counters/a", &[("origin", "http://evil.example")], br#"{"add":1}"#)
        .unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (403, "cross-origin"));
    assert_eq!(one.add("a", 1), 1);
}

#[test]
fn ten_thousand_idle_connections_leave_room_for_those_who_work() {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }).unwrap();
    let room = limits.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap().saturating_sub(100));
    let count = room.min(10_000);
    if count < 10_000 {
        eprintln!("the limit of open files allows {count} connections only");
    }
    let site = Site::start(1);
    let one = &site.boxes[0];
    one.add("a", 1);
    let mut idle = Vec::with_capacity(count);
    let mut total = 1;
    for number in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", one.http)).unwrap();
        // Some say nothing, some stop in the middle of a head.
        if number % 3 == 0 {
            let _ = stream.write_all(b"POST /v1/counters/a HTTP/1.1\r\nhost: ");
        }
        idle.push(stream);
        if number % 500 == 499 {
            total += 1;
            let began = Instant::now();
            assert_eq!(one.add("a", 1), total, "with {number} idle connections");
            assert!(began.elapsed() < Duration::from_secs(5), "with {number} idle connections");
        }
    }
    assert_eq!(idle.len(), count);
    let pid = one.process.as_ref().unwrap().pid();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open() < 1200, "{} descriptors are open", open());
    drop(idle);
    until("the box gives the descriptors back", || (open() < 100).then_some(()));
    assert_eq!(one.add("a", 1), total + 1);
}
