//! What a box does before it serves: it starts without being told anything, or says why it does not start.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::boxes::Site;
use crate::harness::{Process, free_port, tallyd, until};
use crate::http::Client;

/// Runs a command that must end by itself with exit status 1, and gives what it said.
fn refusal(command: &mut Command) -> String {
    refusal_with(1, command)
}

/// The same for a wrong configuration: the status is the one after which systemd does not try again.
fn wrong_configuration(command: &mut Command) -> String {
    refusal_with(2, command)
}

fn refusal_with(expected: i32, command: &mut Command) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(command, &directory.path().join("log"));
    let status = process.wait();
    let said = process.output();
    assert_eq!(status.code(), Some(expected), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Each of these must stand in what was said.
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn copy_directory(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.file_type().unwrap().is_file(), "{entry:?}");
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Puts one box's data under another box's identity.
fn exchange_data(from: &Path, to: &Path) {
    copy_directory(&from.join("log"), &to.join("log"));
    copy_directory(&from.join("snapshots"), &to.join("snapshots"));
    std::fs::copy(from.join("format"), to.join("format")).unwrap();
}

#[test]
fn a_box_of_one_counts_without_any_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (http, statsd) = (free_port(), free_port());
    let mut command = tallyd();
    command.arg("run").arg("--data-dir").arg(&data).current_dir(directory.path());
    // Only so that tests can run side by side: the defaults are ports of their own.
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{http}"));
    command.env("TALLYD_INGEST_STATSD_LISTEN", format!("127.0.0.1:{statsd}"));
    let log = directory.path().join("log");
    let mut client = Client::new(http);
    for life in 1..=2 {
        let mut process = Process::start(&mut command, &log);
        let mut count = || {
            let answer = client.post("/v1/counters/coffee", r#"{"add":1}"#).ok()?;
            (answer.status == 200).then(|| answer.ok()["total"].clone())
        };
        let total = until("it counts", || {
            assert!(process.ended().is_none(), "{}", process.output());
            count()
        });
        assert_eq!(total, life);
        let status = client.get("/v1/status").unwrap().ok();
        assert_eq!((&status["role"], &status["members"].as_array().unwrap().len()), (&"leader".into(), &1));
        assert_eq!(status["pid"], process.pid());
        process.kill();
    }
    let page = until("the page is served by the next life", || {
        let _process = Process::start(&mut command, &log);
        until("it listens", || client.get("/").ok()).into()
    });
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<html"), "{}", page.text());
}

#[test]
fn a_box_is_founded_under_the_name_that_it_is_given_and_comes_up_whatever_a_service_manager_sets() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let http = free_port();
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(&data);
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{http}")).env("TALLYD_INGEST_STATSD_LISTEN", "off");
    command.env("TALLYD_NODE_NAME", "Not a name");
    assert_says(&wrong_configuration(&mut command), &["TALLYD_NODE_NAME", "Not a name", "a-z"]);
    assert!(!data.exists(), "nothing is founded under a name that is none");
    command.env("TALLYD_NODE_NAME", "given");
    for (name, value) in [
        // Of Kubernetes, for a service that is called tallyd-api.
        ("TALLYD_API_SERVICE_HOST", "10.0.0.1"),
        ("TALLYD_API_PORT", "tcp://10.0.0.1:7480"),
        ("TALLYD_API_PORT_7480_TCP_ADDR", "10.0.0.1"),
        // Of a compose file in which nobody filled them in.
        ("TALLYD_UPSTREAM_URL", ""),
        ("TALLYD_CLUSTER_LISTEN", ""),
        ("TALLYD_API_CONNECTIONS_MAX", ""),
        ("TALLYD_LOG", ""),
        ("TALLYD_NODE_DATA_DIR", ""),
    ] {
        command.env(name, value);
    }
    let log = directory.path().join("log");
    for _ in 0..2 {
        let mut process = Process::start(&mut command, &log);
        let status = until("it serves", || {
            assert!(process.ended().is_none(), "{}", process.output());
            Some(Client::new(http).get("/v1/status").ok()?.ok())
        });
        assert_eq!((&status["node"], &status["site"]), (&"given".into(), &"given".into()));
        assert_says(&process.output(), &["override no key", "TALLYD_API_SERVICE_HOST", "is TALLYD_"]);
        let mut client = tallyd();
        client.args(["status", "--url", &format!("http://127.0.0.1:{http}")]).env("TALLYD_TOKEN_FILE", "");
        let said = client.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        process.kill();
    }
    // Nobody is there, at the address that is the default.
    let said = tallyd().args(["get", "a", "--timeout", "1s"]).env("TALLYD_URL", "").output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() != Some(2) && text.contains("127.0.0.1:7480"), "{text}");
}

#[test]
fn each_listener_takes_an_ipv6_address() {
    let directory = tempfile::tempdir().unwrap();
    let (http, statsd) = (free_port(), free_port());
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(directory.path().join("data"));
    command.env("TALLYD_API_LISTEN", format!("[::1]:{http}"));
    command.env("TALLYD_INGEST_STATSD_LISTEN", format!("[::1]:{statsd}"));
    command.env("TALLYD_CLUSTER_LISTEN", "[::1]:7400");
    let process = Process::start(&mut command, &directory.path().join("log"));
    let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
    until("a count that came by StatsD is read by HTTP", || {
        socket.send_to(b"a:1|c", ("::1", statsd)).unwrap();
        let mut get = tallyd();
        get.args(["get", "a", "--json", "--url", &format!("http://[::1]:{http}")]);
        get.output().unwrap().status.success().then_some(())
    });
    process.kill();
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let site = Site::provision(1, "1s", "[commit]\nintervall = \"1s\"");
    let said = wrong_configuration(&mut site.boxes[0].command());
    assert_says(&said, &["tallyd.toml, line ", "\"intervall\"", "\"interval\""]);
    let site = Site::provision(1, "1s", "");
    let said = wrong_configuration(site.boxes[0].command().env("TALLYD_API_LISTEN", "anywhere"));
    assert_says(&said, &["TALLYD_API_LISTEN"]);
}

#[test]
fn a_name_that_contradicts_the_identity_is_refused() {
    let site = Site::provision(3, "1s", "");
    let said = refusal(site.boxes[0].command().env("TALLYD_NODE_NAME", "box2"));
    assert_says(&said, &["\"box2\"", "\"box1\""]);
}

#[test]
fn ports_in_use_are_named() {
    let mut site = Site::provision(3, "1s", "");
    let one = &site.boxes[0];
    let held = std::net::TcpListener::bind(("127.0.0.1", one.http)).unwrap();
    assert_says(&refusal(&mut one.command()), &["api.listen", &one.http.to_string(), "stop it"]);
    drop(held);
    for (port, key) in [(one.statsd, "statsd"), (one.quic, "cluster")] {
        let held = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        assert_says(&refusal(&mut one.command()), &[key, &port.to_string()]);
        drop(held);
    }
    // None of it has harmed the box.
    site.start_all();
}

#[test]
fn a_data_directory_that_is_in_use_is_refused_with_the_process_that_uses_it() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    let pid = one.process.as_ref().unwrap().pid().to_string();
    let mut second = one.command();
    second.env("TALLYD_API_LISTEN", format!("127.0.0.1:{}", free_port()));
    second.env("TALLYD_INGEST_STATSD_LISTEN", "off");
    assert_says(&refusal(&mut second), &["another tallyd", &pid]);
    assert_eq!(one.add("a", 1), 1, "the first one runs on");
}

#[test]
fn the_data_of_another_box_or_another_site_is_refused() {
    let mut site = Site::start(3);
    let mut stranger = Site::start(1);
    site.boxes[0].add("a", 5);
    for one in site.boxes.iter_mut().chain(&mut stranger.boxes) {
        one.terminate();
    }
    let victim = site.boxes[0].directory.clone();
    let own = tempfile::tempdir().unwrap();
    std::fs::create_dir(own.path().join("own")).unwrap();
    exchange_data(&victim, &own.path().join("own"));
    for other in [&site.boxes[1].directory, &stranger.boxes[0].directory] {
        exchange_data(other, &victim);
        assert_says(
            &refusal(&mut site.boxes[0].command()),
            &["belongs to box", "give each box its own data directory"],
        );
    }
    exchange_data(&own.path().join("own"), &victim);
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 5);
}

#[test]
fn data_of_a_newer_version_is_refused_and_left_alone() {
    let mut site = Site::start(1);
    site.boxes[0].add("a", 5);
    site.boxes[0].terminate();
    let format = site.boxes[0].directory.join("format");
    let own = std::fs::read(&format).unwrap();
    std::fs::write(&format, "tallyd data 99\n").unwrap();
    assert_says(&refusal(&mut site.boxes[0].command()), &["newer version", "99"]);
    assert_eq!(std::fs::read(&format).unwrap(), b"tallyd data 99\n");
    std::fs::write(&format, own).unwrap();
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 5);
}

#[test]
fn a_box_of_another_site_is_refused_by_its_peers() {
    let mut site = Site::start(3);
    site.boxes[2].kill();
    let quic: Vec<u16> = site.boxes.iter().map(|one| one.quic).collect();
    // The same name and the same addresses, provisioned anew: other keys, another site.
    let mut rival = Site::provision_at(&quic, "1s", "");
    rival.boxes[2].start();
    site.boxes[0].until_log("its key is not that of a member");
    rival.boxes[2].until_log("no connection with");
    assert_eq!(site.boxes[0].add("a", 1), 1);
    for one in &site.boxes[..2] {
        // The killed one is noticed by its silence: the intruder cannot say that it was restarted.
        until("the third box counts as gone", || {
            let members = one.try_status()?["members"].clone();
            let third = members.as_array()?.iter().find(|member| member["name"] == "box3")?.clone();
            (third["connected"] == false).then_some(())
        });
    }
    let intruder = rival.boxes[2].status();
    assert_eq!(
        (&intruder["ready"], &intruder["leader"]),
        (&false.into(), &serde_json::Value::Null),
        "{intruder}"
    );
    rival.boxes[2].kill();
    site.start_all();
    assert_eq!(site.boxes[2].total("a"), 1);
}

#[test]
fn provisioning_never_overwrites_a_site() {
    let site = Site::provision(1, "1s", "");
    let out = site.boxes[0].directory.parent().unwrap();
    let key = std::fs::read(out.join("ca.key")).unwrap();
    let again = tallyd()
        .args(["provision", "--site", "other", "--box", "box1=127.0.0.1:7400", "--out"])
        .arg(out)
        .output()
        .unwrap();
    assert!(!again.status.success());
    assert_says(&String::from_utf8_lossy(&again.stderr), &["not empty"]);
    assert_eq!(std::fs::read(out.join("ca.key")).unwrap(), key);
}

#[test]
fn a_file_that_cannot_be_read_in_time_is_named_and_the_start_ends() {
    for key in ["api.token_file", "upstream.password_file", "upstream.ca_file"] {
        let (section, name) = key.split_once('.').unwrap();
        let site = Site::provision(1, "1s", "");
        let one = &site.boxes[0];
        let pipe = one.directory.join("nobody-writes-here");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let entry = format!("{name} = \"{}\"\n", pipe.display());
        let file = one.directory.join("tallyd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = match section {
            "api" => text.replace("[api]\n", &format!("[api]\n{entry}")),
            _ => format!("{text}\n[upstream]\nurl = \"mqtts://a@127.0.0.1:1\"\n{entry}"),
        };
        std::fs::write(&file, text).unwrap();
        assert_says(&refusal(&mut one.command()), &["nobody-writes-here", "took longer than"]);
    }
}

#[test]
fn files_of_another_user_are_refused_with_the_command_that_gives_them_to_this_one() {
    // Any number that is not root's; on Debian it is nobody's.
    const USER: u32 = 65_534;
    let site = Site::provision(1, "1s", "");
    let one = &site.boxes[0];
    let dir = one.directory.clone();
    for above in dir.ancestors().take(2) {
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(&dir, Some(USER), None).unwrap();
    let mut command = one.command();
    command.uid(USER);
    let (key, lock) = (dir.join("node.key"), dir.join("lock"));
    assert_says(&refusal(&mut command), &["node.key", "Permission denied", "chown -R "]);
    chown(&key, Some(USER), None).unwrap();
    // What the storage has opened meanwhile, as a copy that root made has it.
    chown(&lock, Some(0), Some(0)).unwrap();
    assert_says(
        &refusal(&mut command),
        &["lock", "Permission denied", "chown -R ", &format!("{}`", dir.display())],
    );
}
