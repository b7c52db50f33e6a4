use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

/// The exit status of a client's command.
fn status(line: &str) -> u8 {
    run_client(parse(line).unwrap().command).map_or_else(|error| error.exit_status(), |()| 0)
}

#[test]
fn the_arguments_contradict_each_other_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Example"), "{}:\n{help}", command.get_name());
        assert!(
            command.get_about().is_some_and(|about| !about.to_string().is_empty()),
            "{}",
            command.get_name()
        );
    }
}

#[test]
fn negative_amounts_are_amounts() {
    assert!(matches!(parse("tallyd add stock -3").unwrap().command, Command::Add(_)));
    assert!(parse("tallyd add stock -x").is_err());
}

#[test]
fn wrong_usage_is_2() {
    for line in [
        "tallyd",
        "tallyd count",
        "tallyd add",
        "tallyd add a//b",
        "tallyd add a+b",
        "tallyd get",
        "tallyd get a --timeout 0s",
        "tallyd windows a --last 0",
        "tallyd add a 1 --kind gauge",
        "tallyd add a 1 --unknown",
        "tallyd completions tcsh",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    for line in
        ["tallyd get a --url https://box1", "tallyd get a --url ftp://x", "tallyd add a x --url 127.0.0.1:1"]
    {
        assert_eq!(status(line), 2, "{line}");
    }
}

#[test]
fn a_box_that_is_not_there_is_3() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in ["get a", "series", "windows a", "status", "settings", "watch"] {
        let line = format!("tallyd {line} --url http://{free} --timeout 1s");
        assert_eq!(status(&line), 3, "{line}");
    }
    let line = format!("tallyd add a --url http://{free} --timeout 20ms");
    assert_eq!(status(&line), 3, "{line}");
}

#[test]
fn where_nothing_listens_the_error_says_at_which_boxes_and_what_to_do() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (one, two) = (free(), free());
    let line = format!("tallyd get a --url http://{one},http://{two}");
    let text = run_client(parse(&line).unwrap().command).unwrap_err().to_string();
    for part in [one.to_string(), two.to_string(), "is tallyd running? Start it with `tallyd run`".to_owned()]
    {
        assert!(text.contains(&part), "{text}");
    }
}

/// What a box of [`scripted`] does instead of an answer: nothing, while the connection stays open.
const HANGS: &str = "hangs";

/// A box that answers each connection with one of these texts in turn, the last one for ever, and closes
/// (an empty one: without an answer); gives its address and what it was asked.
fn scripted(answers: &[String]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answers, asked) = (answers.to_vec(), Arc::new(Mutex::new(Vec::new())));
    let keep = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for turn in 0.. {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(request) = request(&mut stream) else { continue };
            keep.lock().unwrap().push(request);
            let answer = &answers[turn.min(answers.len() - 1)];
            if answer == HANGS {
                open.push(stream);
                continue;
            }
            // The client may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}"), asked)
}

/// A whole request, so that closing resets nothing.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_string();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn problem(status: u16, name: &str) -> String {
    answer(status, &format!(r#"{{"type":"urn:tallyd:error:{name}","detail":"why","is":"sample"}}"#))
}

#[test]
fn the_exit_status_of_an_add_says_what_is_certain() {
    let done = || answer(200, r#"{"series":"a","total":1,"time":1}"#);
    let cut = String::new;
    for (answers, expected) in [
        (vec![done()], 0),
        (vec![problem(503, "not-committed")], 3),
        (vec![problem(503, "outcome-unknown")], 4),
        (vec![cut()], 4),
        (vec!["HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{".to_owned()], 4),
        (vec![answer(200, "<html>")], 4),
        (vec![answer(200, "{}")], 4),
        (vec![answer(502, "<html>")], 4),
        (vec![problem(409, "wrong-kind")], 1),
        (vec![problem(400, "malformed")], 1),
        (vec![problem(401, "unauthorized")], 1),
        (vec![answer(404, "<html>")], 1),
        (vec![cut(), problem(503, "not-committed")], 4),
        (vec![cut(), problem(401, "unauthorized")], 4),
        (vec![cut(), problem(409, "wrong-kind")], 1),
        (vec![cut(), done()], 0),
        (vec![problem(503, "not-committed"), done()], 0),
    ] {
        let (url, _) = scripted(&answers);
        // These end by an answer, which may be that to the second try; others by the time.
        let timeout = if matches!(expected, 0 | 1) { "10s" } else { "300ms" };
        let line = format!("tallyd add a 5 --timeout {timeout} --url {url}");
        assert_eq!(status(&line), expected, "{answers:?}");
    }
}

#[test]
fn all_tries_of_an_add_have_the_same_key_at_whichever_box() {
    let (one, asked_one) = scripted(&[String::new()]);
    let not_yet = problem(503, "not-committed");
    let (two, asked_two) = scripted(&[not_yet, answer(200, r#"{"series":"a","total":1,"time":1}"#)]);
    assert_eq!(status(&format!("tallyd add a --url {one},{two}")), 0);
    let asked = [asked_one.lock().unwrap().clone(), asked_two.lock().unwrap().clone()].concat();
    let key =
        |text: &String| text.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    assert_eq!(asked.len(), 4);
    assert!(key(&asked[0]).is_some() && asked.iter().all(|text| key(text) == key(&asked[0])), "{asked:?}");
}

#[test]
fn a_setting_is_never_sent_twice_in_doubt() {
    let (url, asked) = scripted(&[String::new()]);
    assert_eq!(status(&format!("tallyd settings keys.max 5 --url {url}")), 4);
    assert_eq!(asked.lock().unwrap().len(), 1);
    let (url, _) =
        scripted(&[problem(503, "not-committed"), answer(200, r#"{"key":"keys.max","value":"5"}"#)]);
    assert_eq!(status(&format!("tallyd settings keys.max 5 --url {url}")), 0);
}

#[test]
fn a_change_of_the_members_that_is_answered_by_something_else_has_an_unknown_outcome() {
    for line in [
        "member promote box4 --no-wait",
        "member remove box4 --no-wait",
        "member add box4=127.0.0.1:1 --id 4 --key 00 --no-wait",
        "leader transfer",
        "leader transfer --json",
        "clock step",
    ] {
        for body in ["{}", r#"{"name": 5, "leader": "\ud800"}"#, "<html>"] {
            let (url, asked) = scripted(&[answer(200, body)]);
            assert_eq!(status(&format!("tallyd {line} --url {url}")), 4, "{line}: {body}");
            assert_eq!(asked.lock().unwrap().len(), 1);
        }
    }
}

#[test]
fn a_wait_that_is_over_is_over_although_a_box_hangs() {
    let accepted = answer(200, r#"{"name":"b","role":null,"note":null}"#);
    let (url, _) = scripted(&[accepted.clone(), HANGS.to_owned()]);
    let began = std::time::Instant::now();
    assert_eq!(status(&format!("tallyd member remove b --wait 300ms --url {url}")), 0);
    let took = began.elapsed();
    assert!((300..2000).contains(&took.as_millis()), "{took:?}");
    // Who does not wait looks once.
    let voter = answer(
        200,
        r#"{"members":[{"id":2,"name":"b","address":"a:1","role":"voter","membership":"voter","connected":true}]}"#,
    );
    for flag in ["--no-wait", "--wait 0s"] {
        let (url, asked) = scripted(&[accepted.clone(), voter.clone()]);
        assert_eq!(status(&format!("tallyd member remove b {flag} --url {url}")), 0);
        assert_eq!(asked.lock().unwrap().len(), 2);
    }
    // It is looked for until it holds.
    let gone = answer(200, r#"{"members":[]}"#);
    let (url, asked) = scripted(&[accepted, voter.clone(), voter, gone]);
    assert_eq!(status(&format!("tallyd member remove b --wait 20s --url {url}")), 0);
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[test]
fn a_member_is_named_as_a_member_can_be() {
    for line in [
        vec!["member", "promote", "Nö/x"],
        vec!["member", "remove", ""],
        vec!["member", "demote", "box_1"],
        vec!["member", "add", "D_=10.0.0.1:7400", "--id", "4", "--key", "00"],
        vec!["leader", "transfer", "BOX"],
    ] {
        let error = Cli::try_parse_from([&["tallyd"], &line[..]].concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line:?}");
        assert!(error.to_string().contains("1 to 32 of a-z 0-9 -"), "{error}");
    }
}

#[test]
fn each_command_of_a_family_says_what_it_does_itself() {
    let mut all = Cli::command();
    all.build();
    for family in all.get_subcommands() {
        let about: Vec<String> = family
            .get_subcommands()
            .filter(|one| one.get_name() != "help")
            .map(|one| one.get_about().map(ToString::to_string).unwrap_or_default())
            .collect();
        for (place, text) in about.iter().enumerate() {
            assert!(!text.is_empty() && !about[..place].contains(text), "{}: {about:?}", family.get_name());
        }
    }
}

#[test]
fn the_token_of_the_file_is_presented_and_another_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let (url, asked) = scripted(&[answer(200, "{}")]);
    let line = format!("tallyd status --url {url}/base/ --token-file {}", file.display());
    assert_eq!(status(&line), 2, "there is no such file");
    std::fs::write(&file, "a\nb").unwrap();
    assert_eq!(status(&line), 2, "two lines");
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(status(&line), 0);
    let asked = asked.lock().unwrap();
    assert!(
        asked[0].starts_with("GET /base/v1/status ") && asked[0].contains("authorization: Bearer s3cret\r\n")
    );
}

#[test]
fn the_unit_of_a_witness_is_as_guarded_as_that_of_a_box() {
    let units = [
        include_str!("../../packaging/systemd/tallyd.service"),
        include_str!("../../packaging/systemd/tallyd-witness.service"),
    ];
    let differ = ["#", "Description=", "ExecStart=", "StateDirectory=", "RuntimeDirectory"];
    let [one, other] = units.map(|unit| {
        let lines = unit.lines().filter(|line| !differ.iter().any(|start| line.starts_with(start)));
        lines.collect::<Vec<_>>()
    });
    assert_eq!(one, other);
    for (unit, line) in units.iter().zip(["tallyd run", "tallyd run --witness"]) {
        assert!(unit.lines().any(|command| command == format!("ExecStart=/usr/bin/{line}")), "{unit}");
        assert!(parse(line).is_ok());
    }
}
