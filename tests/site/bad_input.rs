//! Everything that comes from outside: a clear error, nothing stops, nothing is lost.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Site, answer};

#[test]
fn bad_requests_get_a_clear_error_and_change_nothing() {
    let site = Site::start(1, &[]);
    let it = &site.boxes[0];
    it.ready();
    assert_eq!(it.post("/v1/counters/good", r#"{"add": 1}"#).0, 200);
    let long = format!("/v1/counters/{}", "x".repeat(97));
    let table: &[(&str, &str, u16)] = &[
        ("/v1/counters/good", "{", 400),
        ("/v1/counters/good", "[]", 400),
        ("/v1/counters/good", r#"{"add": 0}"#, 400),
        ("/v1/counters/good", r#"{"add": -1}"#, 400),
        ("/v1/counters/good", r#"{"add": 1.5}"#, 400),
        ("/v1/counters/good", r#"{"add": 9007199254740992}"#, 400),
        ("/v1/counters/good", r#"{"add": 18446744073709551616}"#, 400),
        ("/v1/counters/good", r#"{"add": "1"}"#, 400),
        ("/v1/counters/good", r#"{"ad": 1}"#, 400),
        ("/v1/updowns/good", r#"{"add": 1}"#, 409),
        ("/v1/samples/good", r#"{"value": 1}"#, 409),
        ("/v1/samples/other", r#"{"value": 1e19}"#, 400),
        ("/v1/counters/a//b", r#"{"add": 1}"#, 400),
        ("/v1/counters/a%2Bb", r#"{"add": 1}"#, 400),
        ("/v1/counters/a%23b", r#"{"add": 1}"#, 400),
        ("/v1/counters/a%00b", r#"{"add": 1}"#, 400),
        ("/v1/counters/a%0Ab", r#"{"add": 1}"#, 400),
        ("/v1/counters/%FF", r#"{"add": 1}"#, 400),
        (&long, r#"{"add": 1}"#, 400),
    ];
    for (path, body, expected) in table {
        let (status, problem) = it.post(path, body);
        assert_eq!(status, *expected, "{path} {body}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 10), "{path} {body}: {problem}");
    }
    assert_eq!(it.get("/v1/series/nobody").unwrap().0, 404);
    assert_eq!(it.total("good"), Some(1));
    assert_eq!(it.status()["series"], 1);
}

#[test]
fn a_body_of_a_gigabyte_is_refused_without_being_read() {
    let site = Site::start(1, &[]);
    let it = &site.boxes[0];
    it.ready();
    let mut stream = TcpStream::connect(&it.api).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /v1/reports HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n",
        it.api
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(answer(stream).unwrap().0, 413);
    assert_eq!(it.post("/v1/counters/a", r#"{"add": 1}"#).0, 200);
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let site = Site::start(1, &[]);
    let it = &site.boxes[0];
    it.ready();
    // As many as the usual limit of descriptors of this test's own process allows.
    let idle: Vec<TcpStream> = (0..900).filter_map(|_| TcpStream::connect(&it.api).ok()).collect();
    assert!(idle.len() > 500, "{} connections", idle.len());
    assert_eq!(it.post("/v1/counters/a", r#"{"add": 1}"#).0, 200);
    assert_eq!(it.total("a"), Some(1));
}
