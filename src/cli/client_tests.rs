use super::*;

fn target() -> ServerUrl {
    url::targets("box1").unwrap().remove(0)
}

fn problem(status: u16, name: &str) -> Tried {
    let body = format!(r#"{{"type":"urn:tallyd:error:{name}","detail":"why"}}"#);
    Tried::Answered(status, Bytes::from(body))
}

/// The exit status after these tries; the time is up after the last.
fn exit_status(policy: Policy, tries: Vec<Tried>) -> u8 {
    let mut history = History::default();
    for tried in tries {
        if let Some(end) = history.take(&target(), policy, tried) {
            return end.map_or_else(|error| error.exit_status(), |_| 0);
        }
    }
    history.end().exit_status()
}

fn unreached() -> Tried {
    Tried::Unreached("refused".to_owned())
}

fn broken() -> Tried {
    Tried::Broken("no answer".to_owned())
}

fn done() -> Tried {
    Tried::Answered(200, Bytes::from_static(b"{}"))
}

#[test]
fn an_add_that_was_certainly_not_counted_is_3() {
    let status = |tries| exit_status(Policy::Repeatable, tries);
    assert_eq!(status(vec![unreached()]), 3);
    assert_eq!(status(vec![problem(503, "not-committed"), unreached()]), 3);
    assert_eq!(status(vec![]), 3);
}

#[test]
fn an_unknown_outcome_stays_unknown_until_something_settles_it() {
    let status = |tries| exit_status(Policy::Repeatable, tries);
    assert_eq!(status(vec![broken()]), 4);
    assert_eq!(status(vec![problem(503, "outcome-unknown"), problem(503, "not-committed")]), 4);
    assert_eq!(status(vec![broken(), unreached(), problem(429, "key-table-full")]), 4);
    assert_eq!(
        status(vec![broken(), problem(401, "unauthorized")]),
        4,
        "another box's token settles nothing"
    );
    assert_eq!(status(vec![broken(), done()]), 0);
    assert_eq!(status(vec![broken(), problem(409, "wrong-kind")]), 1);
}

#[test]
fn a_refusal_is_1_and_ends_it() {
    let status = |tries| exit_status(Policy::Repeatable, tries);
    assert_eq!(status(vec![problem(400, "malformed"), done()]), 1);
    assert_eq!(status(vec![problem(429, "key-table-full")]), 1);
    assert_eq!(status(vec![problem(429, "key-table-full"), done()]), 0);
}

#[test]
fn what_must_not_be_sent_twice_ends_with_the_first_unknown_outcome() {
    assert_eq!(exit_status(Policy::Once, vec![broken(), done()]), 4);
    assert_eq!(exit_status(Policy::Once, vec![unreached(), problem(503, "not-committed"), done()]), 0);
}

#[test]
fn a_read_has_no_unknown_outcome() {
    assert_eq!(exit_status(Policy::Read, vec![broken(), problem(503, "outcome-unknown")]), 3);
    assert_eq!(exit_status(Policy::Read, vec![problem(404, "no-such-series")]), 1);
}

fn server(url: String, time: Duration) -> Server {
    Server { url: Some(url), data_dir: None, token_file: None, timeout: time, json: false }
}

/// A box that answers each connection with one of these texts in turn, then closes; gives its address.
async fn box_that_answers(answers: Vec<&'static str>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let text = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n\r\n", &answer[..3], answer.len() - 3);
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.write_all(&answer.as_bytes()[3..]).await;
        }
    });
    address.to_string()
}

fn add() -> Call {
    Call {
        method: Method::POST,
        path: "/v1/counters/a".to_owned(),
        body: Bytes::from_static(br#"{"add":1}"#),
        key: Some("k".to_owned()),
        policy: Policy::Repeatable,
    }
}

#[tokio::test]
async fn the_next_box_is_tried_when_one_is_not_there() {
    let there = box_that_answers(vec!["200{}"]).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&server(format!("{gone},{there}"), Duration::from_secs(10))).unwrap();
    assert_eq!(client.call(&add()).await.unwrap(), "{}");
}

#[tokio::test]
async fn an_add_is_tried_again_and_a_read_gives_up_when_nobody_is_there() {
    let not_yet = r#"503{"type":"urn:tallyd:error:not-committed","detail":"no leader"}"#;
    let there = box_that_answers(vec![not_yet, not_yet, "200{}"]).await;
    let client = Client::new(&server(there, Duration::from_secs(10))).unwrap();
    assert_eq!(client.call(&add()).await.unwrap(), "{}");

    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&server(gone.to_string(), Duration::from_secs(600))).unwrap();
    assert_eq!(client.call(&Call::get("/v1/status".to_owned())).await.unwrap_err().exit_status(), 3);
    let client = Client::new(&server(gone.to_string(), Duration::from_millis(30))).unwrap();
    assert_eq!(client.call(&add()).await.unwrap_err().exit_status(), 3);
}
