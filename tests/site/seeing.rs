//! What operators see of a site: `status`, `doctor` and `top`, as the real program tells it of real boxes.

use std::process::Output;

use serde_json::Value;

use crate::boxes::{Site, TestBox};
use crate::broker::Broker;
use crate::harness::{tallyd, until};

impl TestBox {
    /// What a command says that asks this box.
    fn ask(&self, command: &str) -> Output {
        let url = format!("http://127.0.0.1:{}", self.http);
        tallyd().args(command.split_whitespace()).args(["--url", &url]).output().unwrap()
    }

    fn first_line_of_status(&self) -> String {
        let said = self.ask("status");
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().lines().next().unwrap_or_default().to_owned()
    }

    /// The doctor's lines on this box, and its exit status.
    fn doctor(&self) -> (Vec<Value>, Option<i32>) {
        let mut command = tallyd();
        command.args(["doctor", "--json", "--data-dir"]).arg(&self.directory);
        let said = command.output().unwrap();
        let answer: Value = serde_json::from_slice(&said.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&said.stderr)));
        let lines = answer["lines"].as_array().unwrap().clone();
        let wrongs = lines.iter().filter(|line| line["state"] == "wrong").count();
        assert_eq!(answer["wrong"], wrongs);
        assert_eq!(said.status.code(), Some(i32::from(wrongs > 0)), "{lines:#?}");
        (lines, said.status.code())
    }
}

/// The doctor's lines of a check.
fn of<'a>(lines: &'a [Value], check: &str) -> Vec<(&'a str, &'a str)> {
    let of = lines.iter().filter(|line| line["check"] == check);
    of.map(|line| (line["state"].as_str().unwrap(), line["what"].as_str().unwrap())).collect()
}

#[test]
fn the_first_line_of_the_status_says_who_is_away_and_when_nothing_is_counted() {
    let mut site = Site::start(3);
    let says = |at: &TestBox, line: &str| {
        until(&format!("{} says {line:?}", at.name), || (at.first_line_of_status() == line).then_some(()));
    };
    says(&site.boxes[0], "works; tolerates 1 failing");
    site.boxes[2].kill();
    says(&site.boxes[0], "works; tolerates none: box3 is away");
    site.boxes[1].kill();
    says(
        &site.boxes[0],
        "does NOT count: 1 box of 3 connected: nothing is committed until 1 more box returns; do: start box2 or box3 or \
         mend the network to them",
    );
    assert_eq!(site.boxes[0].client().get("/readyz").unwrap().status, 503);
    site.start_all();
    says(&site.boxes[0], "works; tolerates 1 failing");
}

#[test]
fn the_doctor_asks_a_box_that_runs_and_looks_around_one_that_is_stopped() {
    let broker = Broker::start();
    let mut site = Site::start_with(2, "1s", &broker.config());
    until("both are connected and the broker is reached", || {
        let (lines, _) = site.boxes[0].doctor();
        let members = of(&lines, "member");
        (members.len() == 1 && members[0].0 == "ok").then_some(())
    });
    let connections = |site: &Site| -> u64 {
        site.boxes.iter().map(|one| one.status()["upstream"]["connections"].as_u64().unwrap_or(0)).sum()
    };
    until("the leader publishes", || (connections(&site) == 1).then_some(()));
    let (lines, _) = site.boxes[0].doctor();
    assert!(of(&lines, "member")[0].1.starts_with("box2 at 127.0.0.1:"), "{lines:#?}");
    assert!(of(&lines, "member")[0].1.contains("packets of up to "), "{lines:#?}");
    assert!(of(&lines, "broker")[0].1.ends_with("lets this box in"), "{lines:#?}");
    assert!(of(&lines, "sync")[0].1.starts_with("100 syncs of 4 KiB: p50 "), "{lines:#?}");
    assert_eq!(of(&lines, "site"), [("look", "works; tolerates none: all 2 boxes are needed")]);
    assert_eq!(of(&lines, "copy")[0].0, "ok");
    for check in ["data", "device", "space", "version", "clock", "memory", "swap"] {
        assert!(!of(&lines, check).is_empty(), "{check}: {lines:#?}");
    }
    assert_eq!(connections(&site), 1, "the daemon's session went on");

    site.boxes[1].kill();
    drop(broker);
    until("the doctor sees that the other box and the broker are gone", || {
        let (lines, code) = site.boxes[0].doctor();
        let gone = [of(&lines, "member")[0].0, of(&lines, "broker")[0].0, of(&lines, "site")[0].0];
        (gone == ["wrong"; 3] && code == Some(1)).then_some(())
    });

    site.boxes[0].terminate();
    let (lines, _) = site.boxes[0].doctor();
    assert_eq!(of(&lines, "daemon")[0].0, "look", "{lines:#?}");
    assert_eq!(of(&lines, "ports")[0].0, "ok", "{lines:#?}");
    assert!(of(&lines, "member").is_empty() && !of(&lines, "sync").is_empty(), "{lines:#?}");
    let _taken = std::net::UdpSocket::bind(("127.0.0.1", site.boxes[0].quic)).unwrap();
    let (lines, code) = site.boxes[0].doctor();
    let (state, what) = of(&lines, "ports")[0];
    assert!(state == "wrong" && what.starts_with("cluster.listen = ") && code == Some(1), "{lines:#?}");
}

#[test]
fn top_prints_one_frame_with_rates_for_scripts() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    let counting = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while counting.load(std::sync::atomic::Ordering::Relaxed) {
                one.add("line1/parts", 5);
            }
        });
        let frame = one.ask("top --once --every 300ms");
        let values = one.ask("top --once --every 300ms --json");
        counting.store(false, std::sync::atomic::Ordering::Relaxed);
        let text = String::from_utf8(frame.stdout).unwrap();
        assert!(frame.status.success(), "{text}");
        assert!(
            text.lines().next().unwrap().contains("works; tolerates none: the site has one box"),
            "{text}"
        );
        let row = text.lines().find(|line| line.trim_start().starts_with("line1/parts")).expect("a row");
        let rate: f64 = row.split_whitespace().last().unwrap().parse().unwrap();
        assert!(rate > 0.0, "{text}");
        let values: Value = serde_json::from_slice(&values.stdout).unwrap();
        assert_eq!(values["series"][0]["series"], "line1/parts");
        assert!(values["series"][0]["rate"].as_f64().unwrap() > 0.0, "{values}");
    });
    let wrong = one.ask("top --json");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let piped = one.ask("top");
    assert_eq!(piped.status.code(), Some(2), "a pipe is no terminal: {piped:?}");
}

/// In a terminal that `script` makes.
#[test]
fn top_draws_on_a_terminal_until_q_is_pressed_and_leaves_it_as_it_was() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    one.add("line1/parts", 5);
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("drawn");
    let run = format!(
        "stty cols 110 rows 20; {} top --every 100ms --url http://127.0.0.1:{}; echo ended: $?",
        env!("CARGO_BIN_EXE_tallyd"),
        one.http
    );
    let mut terminal = std::process::Command::new("script")
        .args(["--quiet", "--flush", "--command", &run])
        .arg(&drawn)
        .env("TERM", "xterm-256color")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let shows = |text: &str| {
        until(&format!("the terminal shows {text:?}"), || {
            let drawn = std::fs::read(&drawn).unwrap_or_default();
            String::from_utf8_lossy(&drawn).contains(text).then_some(())
        });
    };
    shows("line1/parts");
    shows("q quit");
    let keys = terminal.stdin.as_mut().unwrap();
    std::io::Write::write_all(keys, b"q").unwrap();
    shows("ended: 0");
    // The other screen is left, and the cursor is back.
    shows("\x1b[?1049l");
    shows("\x1b[?25h");
    terminal.wait().unwrap();
}
