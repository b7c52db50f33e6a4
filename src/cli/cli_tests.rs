//! The command line as a whole, and its client commands against a scripted box.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for_and_has_an_example() {
    let mut cli = Cli::command();
    cli.build();
    for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
        let name = command.get_name();
        if name == "help" {
            continue;
        }
        let help = command.clone().render_long_help().to_string();
        assert!(
            help.contains("Example") && help.contains(&format!("  tallyd {}", command_word(name))),
            "{help}"
        );
        assert!(command.get_about().is_some(), "{name}");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{name}: {arg}");
        }
    }
    assert!(cli.render_long_version().contains(env!("CARGO_PKG_VERSION")));
}

fn command_word(name: &str) -> &str {
    if name == "tallyd" { "run" } else { name }
}

#[test]
fn wrong_usage_is_told_before_anything_is_sent() {
    for line in [
        &["nothing"][..],
        &["add"],
        &["add", "a//b"],
        &["add", "a", "--kind", "meter"],
        &["add", "a", "--key", "x y"],
        &["get", "a+b"],
        &["windows", "a", "--last", "0"],
        &["get", "a", "--url", "https://x"],
        &["get", "a", "--url", "http://x,"],
        &["get", "a", "--timeout", "soon"],
        &["completions", "tcsh"],
    ] {
        let error = Cli::try_parse_from([&["tallyd"], line].concat()).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(tries::USAGE), "{line:?}");
    }
    assert_eq!(run_line(&["add", "a", "0"]).0, tries::USAGE);
    assert_eq!(run_line(&["man", "nothing"]).0, tries::USAGE);
    for line in [&["add", "a", "-2"][..], &["add", "a", "-1.5", "--kind", "sample"], &["add", "a"]] {
        assert!(Cli::try_parse_from([&["tallyd"], line].concat()).is_ok(), "{line:?}");
    }
}

#[test]
fn completions_and_man_pages_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, printed) = run_line(&["completions", shell]);
        assert!(status == 0 && printed.contains("provision"), "{shell}");
    }
    let (status, page) = run_line(&["man"]);
    assert!(status == 0 && page.contains(".TH tallyd 1") && page.contains("not\\-committed"), "{page}");
    let (status, page) = run_line(&["man", "add"]);
    assert!(status == 0 && page.contains("idempotency"), "{page}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cli = Cli::try_parse_from(["tallyd", "man"]).unwrap();
    let failure = cli.command.run(&mut Closed).unwrap_err();
    assert_eq!((failure.status, failure.text.as_str()), (tries::DONE, ""));
}

/// Runs a command line; gives its exit status and what it printed, an error's text included.
fn run_line(line: &[&str]) -> (u8, String) {
    let cli = Cli::try_parse_from([&["tallyd"], line].concat()).unwrap();
    let mut out = Vec::new();
    let result = cli.command.run(&mut out);
    let mut text = String::from_utf8(out).unwrap();
    let status = result.err().map_or(tries::DONE, |failure| {
        text.push_str(&failure.text);
        failure.status
    });
    (status, text)
}

/// What a scripted box does with one connection.
#[derive(Clone, Debug)]
enum Act {
    /// Answers with that status and body.
    Answer(u16, String),
    /// Reads the request and breaks the connection.
    Cut,
    /// Answers with the beginning of a body only.
    CutWithin,
    /// Sends these events and ends.
    Events(&'static str),
}

/// A box that does one act after the other, the last one again and again; keeps what it was asked.
struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(acts: Vec<Act>) -> Scripted {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut acts = acts.into_iter().peekable();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let act = acts.next().unwrap();
                    if acts.peek().is_none() {
                        acts = vec![act.clone()].into_iter().peekable();
                    }
                    play(stream, act, &keep).await;
                }
            });
        });
        Scripted { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn play(mut stream: TcpStream, act: Act, asked: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_ascii_lowercase();
        let length = text.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
        let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
        text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length)
    };
    while !whole(&request) {
        if stream.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
    }
    asked.lock().unwrap().push(String::from_utf8(request).unwrap());
    let head =
        |status: u16, length: usize| format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
    let answer = match act {
        Act::Answer(status, body) => head(status, body.len()) + &body,
        Act::Cut => String::new(),
        Act::CutWithin => head(200, 100) + "{",
        Act::Events(text) => format!("HTTP/1.1 200 x\r\nconnection: close\r\n\r\n{text}"),
    };
    // The client may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn problem(status: u16, name: &str) -> Act {
    Act::Answer(
        status,
        format!(
            r#"{{"type":"urn:tallyd:error:{name}","title":"t","status":{status},"detail":"the words","is":"updown",
                 "asked":"counter"}}"#
        ),
    )
}

fn counted(total: u64) -> Act {
    Act::Answer(200, format!(r#"{{"series":"a/b","total":{total},"time":1}}"#))
}

fn free_url() -> String {
    // Bound and let go: nothing listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn add(url: &str) -> (u8, String) {
    run_line(&["add", "a/b", "5", "--timeout", "400ms", "--url", url])
}

#[test]
fn an_add_that_is_done_prints_the_total() {
    let site = Scripted::start(vec![counted(1234)]);
    assert_eq!(add(&site.url()), (0, "a/b  1,234\n".to_owned()));
    let asked = &site.asked()[0];
    assert!(asked.starts_with("POST /v1/counters/a/b HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("idempotency-key: ") && asked.ends_with(r#"{"add": 5}"#), "{asked}");
    let (status, json) = run_line(&["add", "a/b", "-5", "--json", "--url", &site.url()]);
    assert_eq!((status, json.as_str()), (0, "{\"series\":\"a/b\",\"total\":1234,\"time\":1}\n"));
    assert!(site.asked()[1].starts_with("POST /v1/updowns/a/b "));
}

#[test]
fn the_exit_status_of_an_add_says_what_is_certain() {
    for (acts, status, words) in [
        (vec![problem(503, "not-committed")], 3, "nothing was counted"),
        (vec![problem(429, "too-busy")], 3, "nothing was counted"),
        (vec![problem(503, "outcome-unknown")], 4, "--key"),
        (vec![Act::Cut], 4, "--key"),
        (vec![Act::CutWithin], 4, "--key"),
        (vec![Act::Answer(502, "<html>".to_owned())], 4, "not as tallyd does"),
        (vec![Act::Answer(200, "<html>".to_owned())], 4, "not as tallyd does"),
        (vec![Act::Answer(404, "<html>".to_owned())], 1, "not as tallyd does"),
        (vec![problem(400, "malformed")], 1, "the words (malformed); nothing was counted"),
        (vec![problem(401, "unauthorized")], 1, "--token-file"),
        (vec![Act::Cut, problem(503, "not-committed")], 4, "--key"),
        (vec![Act::Cut, problem(401, "unauthorized")], 4, "--key"),
        (vec![Act::Cut, problem(409, "wrong-kind")], 1, "nothing was counted"),
        (vec![Act::Cut, counted(1)], 0, "a/b  1"),
        (vec![problem(503, "not-committed"), counted(1)], 0, "a/b  1"),
    ] {
        let site = Scripted::start(acts.clone());
        let (ended, text) = add(&site.url());
        assert_eq!(ended, status, "{acts:?}: {text}");
        assert!(text.contains(words), "{acts:?}: {text}");
    }
}

#[test]
fn where_nothing_listens_nothing_was_tried_and_the_error_says_what_to_do() {
    let (status, text) = add(&free_url());
    assert_eq!(status, 3);
    assert!(text.contains("nothing listens at http://127.0.0.1:") && text.contains("tallyd run"), "{text}");
    let (status, text) = run_line(&["get", "a", "--url", &free_url()]);
    assert!(status == 3 && text.contains("nothing listens"), "{text}");
}

#[test]
fn the_error_of_a_wrong_kind_names_both() {
    let site = Scripted::start(vec![problem(409, "wrong-kind")]);
    let (status, text) = add(&site.url());
    assert_eq!(status, 1);
    assert!(text.contains("of kind updown") && text.contains("for kind counter"), "{text}");
    assert!(text.contains("--kind updown"), "{text}");
}

#[test]
fn all_tries_of_an_add_have_the_same_key_at_whichever_box() {
    let one = Scripted::start(vec![Act::Cut]);
    let two = Scripted::start(vec![problem(503, "not-committed"), counted(7)]);
    let urls = format!("{},{},{}", free_url(), one.url(), two.url());
    let (status, text) = run_line(&["add", "a/b", "--url", &urls]);
    assert_eq!(status, 0, "{text}");
    let asked = [one.asked(), two.asked()].concat();
    let keys: Vec<&str> = asked
        .iter()
        .map(|text| text.split("idempotency-key: ").nth(1).unwrap().lines().next().unwrap())
        .collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| key.len() == 32 && *key == keys[0]), "{keys:?}");
}

#[test]
fn a_setting_is_never_set_twice_in_doubt() {
    let site = Scripted::start(vec![Act::Cut]);
    let (status, text) = run_line(&["settings", "keys.max", "5", "--url", &site.url()]);
    assert_eq!((status, site.asked().len()), (4, 1), "{text}");
    assert!(site.asked()[0].starts_with("PUT /v1/settings/keys.max "));
    let site = Scripted::start(vec![
        problem(503, "not-committed"),
        Act::Answer(200, r#"{"key":"keys.max","value":"5"}"#.to_owned()),
    ]);
    let (status, text) = run_line(&["settings", "keys.max", "5", "--url", &site.url()]);
    assert_eq!((status, text.as_str()), (0, "keys.max  5\n"));
}

#[test]
fn a_read_goes_on_at_the_next_box_and_ends_with_what_a_box_decides() {
    let broken = Scripted::start(vec![Act::Cut]);
    let answer = r#"{"series":"a","kind":"counter","total":7}"#;
    let good = Scripted::start(vec![Act::Answer(200, answer.to_owned())]);
    let urls = format!("{},{}", broken.url(), good.url());
    let (status, text) = run_line(&["get", "a", "--json", "--local", "--url", &urls]);
    assert_eq!((status, text), (0, format!("{answer}\n")));
    assert!(good.asked()[0].starts_with("GET /v1/series/a?read=local "));
    let missing = Scripted::start(vec![problem(404, "no-such-series")]);
    let (status, text) = run_line(&["get", "a", "--url", &missing.url()]);
    assert!(status == 1 && text.contains("the words"), "{text}");
    let (status, _) = run_line(&["get", "a", "--timeout", "200ms", "--url", &broken.url()]);
    assert_eq!(status, 3, "a read leaves nothing unknown");
}

#[test]
fn a_list_is_read_page_after_page() {
    let page = |body: &str| Act::Answer(200, body.to_owned());
    let first = r#"{"series":[{"series":"a b","kind":"counter","total":1}],"next":"a b","count":2}"#;
    let second = r#"{"series":[{"series":"c","kind":"updown","total":-2}],"count":2}"#;
    let site = Scripted::start(vec![page(first), page(second), page(first), page(second)]);
    let (status, text) = run_line(&["series", "--url", &site.url()]);
    assert_eq!(
        (status, text.as_str()),
        (0, "SERIES  KIND     TOTAL\na b     counter      1\nc       updown      -2\n")
    );
    assert!(site.asked()[1].contains("&after=a%20b "), "{:?}", site.asked());
    let (_, json) = run_line(&["series", "--json", "--url", &site.url()]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["series"].as_array().unwrap().len(), &json["count"]), (2, &2.into()));
}

#[test]
fn the_token_of_the_file_is_presented() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let site = Scripted::start(vec![Act::Answer(200, "{}".to_owned())]);
    let (status, _) = run_line(&[
        "status",
        "--token-file",
        file.to_str().unwrap(),
        "--url",
        &format!("{}/base/", site.url()),
    ]);
    assert_eq!(status, 0);
    let asked = &site.asked()[0];
    assert!(
        asked.starts_with("GET /base/v1/status ") && asked.contains("authorization: Bearer s3cret\r\n"),
        "{asked}"
    );
}

#[test]
fn a_watch_goes_on_at_the_next_box_and_ends_when_none_answers() {
    const EVENT: &str = "event: total\ndata: {\"series\":\"a\",\"kind\":\"counter\",\"total\":1}\n\n";
    let one = Scripted::start(vec![Act::Events(EVENT), Act::Cut]);
    let two = Scripted::start(vec![Act::Events(EVENT), Act::Cut]);
    let urls = format!("{},{}", one.url(), two.url());
    let (status, text) = run_line(&["watch", "a", "--timeout", "300ms", "--url", &urls]);
    assert_eq!(status, 3);
    assert!(text.starts_with("total   a  1\ntotal   a  1\n"), "{text}");
    assert!(one.asked()[0].starts_with("GET /v1/watch?prefix=a "));
    let (status, text) = run_line(&["watch", "--url", &free_url()]);
    assert!(status == 3 && text.contains("nothing listens"), "{text}");
    let refusing = Scripted::start(vec![problem(401, "unauthorized")]);
    assert_eq!(run_line(&["watch", "--url", &refusing.url()]).0, 1);
}
