use super::*;
use std::fs;

/// A machine made of files, and a data directory in it.
struct Prepared {
    root: tempfile::TempDir,
    subject: Subject,
}

fn prepared(status: Value) -> Prepared {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o700);
    let found = Found { config: Config::default(), dir: dir.canonicalize().unwrap(), has_file: false };
    let machine = Machine::new(root.path());
    let subject = Subject { machine, found, identity: None, status, silent: None };
    Prepared { root, subject }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Prepared {
    /// Puts files into the machine.
    fn with(self, files: &[(&str, &str)]) -> Prepared {
        for (path, text) in files {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self
    }

    /// The data directory is on this mount.
    fn on(self, point: &str, kind: &str, source: &str, options: &str) -> Prepared {
        let point =
            if point == "data" { self.subject.found.dir.display().to_string() } else { point.to_owned() };
        let table = format!("29 1 179:2 / {point} {options} shared:1 - {kind} {source} rw\n");
        self.with(&[("proc/self/mountinfo", &table)])
    }
}

fn marks(lines: &[Line]) -> Vec<(&'static str, Mark)> {
    lines.iter().map(|line| (line.check, line.state)).collect()
}

fn the<'a>(lines: &'a [Line], check: &str) -> &'a Line {
    let found = lines.iter().find(|line| line.check == check);
    found.unwrap_or_else(|| panic!("no line {check} in {lines:#?}"))
}

#[test]
fn a_directory_of_its_own_on_a_disk_is_ok() {
    let prepared = prepared(Value::Null).on("data", "ext4", "/dev/mmcblk0p2", "rw,noatime");
    let lines = directory::check(&prepared.subject);
    assert_eq!(marks(&lines)[..2], [("data", Mark::Ok), ("device", Mark::Ok)], "{lines:#?}");
    assert!(the(&lines, "device").what.starts_with("/dev/mmcblk0p2 (ext4), mounted at /"));
}

#[test]
fn a_directory_that_others_read_or_that_root_left_files_in_is_told_with_the_command() {
    let prepared = prepared(Value::Null).on("/", "ext4", "/dev/sda1", "rw");
    let dir = &prepared.subject.found.dir;
    set_mode(dir, 0o755);
    let lines = directory::check(&prepared.subject);
    assert_eq!(the(&lines, "data").state, Mark::Look);
    assert!(the(&lines, "data").advice.as_ref().unwrap().starts_with("chmod 0700 /"));
    fs::write(dir.join("node.key"), "secret").unwrap();
    set_mode(&dir.join("node.key"), 0o644);
    let lines = directory::check(&prepared.subject);
    assert_eq!(the(&lines, "keys").state, Mark::Wrong);
    if rustix::process::geteuid().is_root() {
        let prepared =
            prepared.with(&[("etc/passwd", "root:x:0:0::/:/bin/sh\ntallyd:x:990:990::/:/bin/false\n")]);
        let dir = &prepared.subject.found.dir;
        std::os::unix::fs::chown(dir, Some(990), Some(990)).unwrap();
        let lines = directory::check(&prepared.subject);
        let data = the(&lines, "data");
        assert_eq!(data.state, Mark::Wrong);
        assert!(data.what.ends_with("node.key in it belongs to root"), "{}", data.what);
        assert!(data.advice.as_ref().unwrap().starts_with("chown -R tallyd: /"));
    }
}

#[test]
fn a_disk_that_is_not_mounted_or_in_memory_or_read_only_is_wrong() {
    let fstab = |prepared: Prepared| {
        let line = format!("/dev/sdb1 {} ext4 defaults 0 2\n", prepared.subject.found.dir.display());
        prepared.with(&[("etc/fstab", &format!("# a comment\n{line}"))])
    };
    let missed = fstab(prepared(Value::Null).on("/", "ext4", "/dev/sda1", "rw"));
    let lines = directory::check(&missed.subject);
    assert!(the(&lines, "device").what.contains("in /etc/fstab and is not mounted"), "{lines:#?}");
    let there = fstab(prepared(Value::Null).on("data", "ext4", "/dev/sdb1", "rw"));
    assert_eq!(the(&directory::check(&there.subject), "device").state, Mark::Ok);
    for (kind, options, state) in
        [("tmpfs", "rw", Mark::Wrong), ("ext4", "ro,noatime", Mark::Wrong), ("overlay", "rw", Mark::Look)]
    {
        let prepared = prepared(Value::Null).on("/", kind, "none", options);
        assert_eq!(the(&directory::check(&prepared.subject), "device").state, state, "{kind}");
    }
    let mut gone = prepared(Value::Null);
    gone.subject.found.dir.push("none");
    assert_eq!(marks(&directory::check(&gone.subject)), [("data", Mark::Wrong)]);
}

#[test]
fn a_card_is_asked_for_its_life_and_what_a_day_costs_it() {
    let of = |reserve: &str, life: &str| {
        let files = [
            ("sys/block/mmcblk0/device/name", "DG4016\n"),
            ("sys/block/mmcblk0/device/pre_eol_info", reserve),
            ("sys/block/mmcblk0/device/life_time", life),
            ("sys/block/mmcblk0/size", "31116288\n"),
        ];
        let status = json!({"uptime_s": 86_400, "storage": {"bytes_written": 375_000_000}});
        let prepared = prepared(status).on("/", "ext4", "/dev/mmcblk0p2", "rw").with(&files);
        card::check(&prepared.subject)
    };
    let lines = of("0x01\n", "0x01 0x02\n");
    assert_eq!(marks(&lines), [("card", Mark::Ok), ("wear", Mark::Look)], "{lines:#?}");
    assert_eq!(lines[0].what, "mmcblk0 (DG4016) has used 10 to 20 % of its life");
    assert!(
        lines[1].what.contains("357.6 MiB a day") && lines[1].what.contains("about 3 years"),
        "{}",
        lines[1].what
    );
    assert_eq!(the(&of("0x02", "0x05 0x05"), "card").state, Mark::Look);
    assert_eq!(the(&of("0x03", "0x05 0x05"), "card").state, Mark::Wrong);
    assert_eq!(the(&of("0x01", "0x0b 0x01"), "card").state, Mark::Wrong);
    assert_eq!(the(&of("", ""), "card").state, Mark::Ok, "SD cards say nothing");
    assert_eq!(the(&of("zz", "\u{ffff}"), "card").state, Mark::Ok, "what cannot be read is not known");
    let disk =
        prepared(json!({"uptime_s": 10, "storage": {"bytes_written": 5}})).on("/", "ext4", "/dev/sda1", "rw");
    assert_eq!(card::check(&disk.subject), [], "no card, and too short a time");
}

#[test]
fn the_limits_of_control_groups_of_both_versions_are_held_against_what_is_used() {
    let pid = json!({"pid": 77});
    let memory = |files: &[(&str, &str)]| {
        let prepared = prepared(pid.clone()).with(files);
        the(&limits::check(&prepared.subject), "memory").clone()
    };
    let second = |most: &str, used: &str, events: &str| {
        memory(&[
            ("proc/77/cgroup", "0::/system.slice/tallyd.service\n"),
            ("sys/fs/cgroup/system.slice/tallyd.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", most),
            ("sys/fs/cgroup/system.slice/tallyd.service/memory.current", used),
            ("sys/fs/cgroup/system.slice/tallyd.service/memory.events", events),
        ])
    };
    assert_eq!(
        second("max\n", "20971520\n", "oom_kill 0\n").what,
        "no limit; its control group uses 20.0 MiB"
    );
    let line = second("134217728\n", "20971520\n", "low 0\noom_kill 0\n");
    assert_eq!((line.state, &*line.what), (Mark::Ok, "20.0 MiB of at most 128.0 MiB"));
    assert_eq!(second("134217728\n", "20971520\n", "oom_kill 2\n").state, Mark::Look);
    assert_eq!(
        second("33554432\n", "20971520\n", "oom_kill 0\n").state,
        Mark::Look,
        "less than is documented"
    );
    let first = |most: &str, used: &str| {
        memory(&[
            ("proc/77/cgroup", "11:cpu,cpuacct:/\n4:memory:/system.slice/tallyd.service\n"),
            ("sys/fs/cgroup/memory/system.slice/tallyd.service/memory.limit_in_bytes", most),
            ("sys/fs/cgroup/memory/system.slice/tallyd.service/memory.usage_in_bytes", used),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ])
    };
    assert_eq!(first("67108864\n", "66000000\n").state, Mark::Look);
    assert_eq!(
        first("9223372036854771712\n", "66000000\n").what,
        "no limit; its control group uses 62.9 MiB"
    );
    assert_eq!(memory(&[]).state, Mark::Ok);
}

#[test]
fn buffers_swap_journal_and_power_are_read_from_the_system() {
    let swap = "Filename Type Size Used Priority\n/dev/mmcblk0p3 partition 99 0 -2\n";
    let prepared = prepared(json!({"ingest": {"statsd": {"receive_buffer_bytes": 212_992, "lost": 0}}}))
        .with(&[
            ("proc/swaps", swap),
            ("run/log/journal/x", ""),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n"),
        ]);
    let lines = [limits::check(&prepared.subject), host::check(&prepared.subject)].concat();
    for check in ["buffers", "swap", "journal", "power"] {
        assert_eq!(the(&lines, check).state, Mark::Look, "{check}");
    }
    let prepared = prepared.with(&[
        ("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 99 0 100\n"),
        ("var/log/journal/x", ""),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
    ]);
    let lines = host::check(&prepared.subject);
    assert_eq!(marks(&lines), [("journal", Mark::Ok), ("power", Mark::Wrong)]);
    assert_eq!(the(&limits::check(&prepared.subject), "swap").state, Mark::Ok);
}

#[test]
fn the_time_service_is_named_by_its_process() {
    let prepared = prepared(json!({
        "clock": {"wall_synced": true},
        "members": [{"name": "box1", "clock_offset_ms": 3}, {"name": "box2", "clock_offset_ms": -4000}, {"name": "box3"}]
    }))
    .with(&[("proc/12/comm", "chronyd\n"), ("proc/self/comm", "tallyd\n")]);
    let lines = clock::check(&prepared.subject);
    assert_eq!(lines[0], ok("clock", "synchronised, by chronyd"));
    assert_eq!(marks(&lines), [("clock", Mark::Ok), ("clock", Mark::Ok), ("clock", Mark::Look)]);
}

#[tokio::test]
async fn members_that_are_away_refused_or_copied_are_wrong() {
    let status = json!({
        "node_id": 1, "version": env!("CARGO_PKG_VERSION"), "level": {"site": 2, "max": 2},
        "verdict": {"counts": true, "text": "works; tolerates none: box2 is away"}, "tolerates": {"failures": 0},
        "members": [
            {"id": 1, "name": "box1", "votes": true},
            {"id": 2, "name": "box2", "votes": true, "address": "a:1", "connected": false},
            {"id": 3, "name": "box3", "votes": true, "address": "b:1", "connected": true, "rtt_us": 300, "mtu": 1452},
            {"id": 4, "name": "box4", "votes": true, "address": "c:1", "connected": false, "refused": "own-clone",
                "refused_because": "stop one of them"}],
    });
    let prepared = prepared(status);
    let lines = network::check(&prepared.subject).await;
    assert_eq!(marks(&lines), [("member", Mark::Wrong), ("member", Mark::Ok), ("member", Mark::Wrong)]);
    assert!(lines[1].what.contains("round trip 0.30 ms, packets of up to 1452 bytes"), "{}", lines[1].what);
    let lines = site::check(&prepared.subject);
    assert_eq!(
        marks(&lines),
        [("site", Mark::Look), ("version", Mark::Ok), ("copy", Mark::Wrong)],
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_site_that_does_not_count_is_wrong_with_its_own_advice_and_a_stopped_daemon_is_looked_around() {
    let verdict =
        json!({"counts": false, "why": "the disk is full", "advice": "free some space", "text": "x"});
    let prepared = prepared(json!({"verdict": verdict, "version": "0.0.1"}));
    let lines = site::check(&prepared.subject);
    assert_eq!(lines[0], wrong("site", "does NOT count: the disk is full", "free some space"));
    assert_eq!(lines[1].state, Mark::Look, "another release runs");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stopped = self::prepared(Value::Null);
    stopped.subject.silent = Some("connection refused".to_owned());
    stopped.subject.found.config.api.listen = taken.local_addr().unwrap();
    assert_eq!(marks(&site::check(&stopped.subject)), [("daemon", Mark::Look)]);
    let lines = network::check(&stopped.subject).await;
    assert!(the(&lines, "ports").what.contains("api.listen"), "{lines:#?}");
    assert!(the(&lines, "ports").advice.as_ref().unwrap().starts_with("`ss -tlpn`"));
    // A process holds the lock and does not answer.
    use std::os::unix::fs::MetadataExt;
    let lock = stopped.subject.found.dir.join("lock");
    fs::write(&lock, "4711\n").unwrap();
    assert_eq!(marks(&site::check(&stopped.subject)), [("daemon", Mark::Look)], "nobody holds it any more");
    let held = format!("1: FLOCK  ADVISORY  WRITE 4711 fe:00:{} 0 EOF\n", fs::metadata(&lock).unwrap().ino());
    let hangs = stopped.with(&[("proc/locks", &held)]);
    assert_eq!(marks(&site::check(&hangs.subject)), [("daemon", Mark::Wrong)]);
    assert!(site::check(&hangs.subject)[0].what.starts_with("process 4711 runs in "));
}

#[test]
fn each_line_says_its_state_first_and_below_it_what_to_do() {
    let lines = [ok("data", "fine"), wrong("broker", "no\x1b answer", "start it")];
    assert_eq!(
        in_words(&lines),
        "ok     data       fine\nwrong  broker     no\u{fffd} answer\n                  do: start it\n"
    );
}
