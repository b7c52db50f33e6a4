//! What `packaging/` has for service managers: how far the units may reach, what they promise, and that the scripts are
//! read by a shell.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// The highest exposure that `systemd-analyze security` may see.
const EXPOSURE_MAX: f64 = 1.5;
const UNITS: [&str; 2] = ["tallyd.service", "tallyd-witness.service"];

fn packaging(part: &str) -> PathBuf {
    run::root().join("packaging").join(part)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The exposure of a unit's file, by the files alone.
fn exposure(unit: &Path) -> f64 {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--no-pager"]).arg(unit);
    let said =
        run::output(&mut command).unwrap_or_else(|error| panic!("{error:#} (apt-get install systemd)"));
    let figure =
        said.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "));
    let word = figure.and_then(|(_, rest)| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no figure in:\n{said}"))
}

#[test]
fn the_units_reach_no_further_than_they_must() {
    for unit in UNITS {
        let path = packaging("systemd").join(unit);
        let exposure_now = exposure(&path);
        assert!(exposure_now <= EXPOSURE_MAX, "{unit}: {exposure_now}");
        // The figure follows the lines: without one of them it is higher.
        let folder = std::env::temp_dir().join(format!("tallyd-unit-{}-{unit}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let open = folder.join(unit);
        std::fs::write(
            &open,
            read(&path).replace("PrivateUsers=yes\n", "").replace("PrivateDevices=yes\n", ""),
        )
        .unwrap();
        assert!(exposure(&open) > EXPOSURE_MAX, "{unit}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// What both units have to say, with why.
const PROMISES: [(&str, &str); 9] = [
    ("SystemCallFilter=adjtimex clock_adjtime clock_adjtime64", "the clock's state is read"),
    ("SystemCallErrorNumber=EPERM", "an unknown call must not kill the daemon"),
    ("User=tallyd", "a data disk can be mounted on the state directory"),
    ("StartLimitIntervalSec=0", "a disk that is mounted late is waited for"),
    ("RestartPreventExitStatus=2", "a wrong configuration does not fill the journal"),
    ("ExecReload=/bin/sh -c \"kill -HUP $MAINPID\"", "a small system has no /bin/kill"),
    ("WatchdogSec=30", "a daemon that hangs is started again"),
    ("Type=notify", "it is started once it serves"),
    ("MemoryMax=64M", "what docs/operate.md says"),
];

#[test]
fn both_units_keep_what_was_found_on_real_systemd() {
    for unit in UNITS {
        let text = read(&packaging("systemd").join(unit));
        for (line, why) in PROMISES {
            assert!(text.lines().any(|found| found == line), "{unit} lacks {line}: {why}");
        }
        // It would forbid adjtimex; the others make the state directory unusable as a mount point, or hide what is polled.
        for line in ["ProtectClock=yes", "DynamicUser=yes", "ProcSubset=pid"] {
            assert!(!text.lines().any(|found| found == line), "{unit} has {line}");
        }
    }
    let user = read(&packaging("systemd/tallyd.sysusers"));
    assert!(user.lines().any(|line| line.starts_with("u tallyd ")), "{user}");
}

#[test]
fn systemd_understands_every_line_of_units_and_drop_ins() {
    // Older releases do not know these two, and say so.
    let newer = ["RestartSteps", "RestartMaxDelaySec"];
    let folder = std::env::temp_dir().join(format!("tallyd-units-{}", std::process::id()));
    let drop_ins = folder.join("tallyd.service.d");
    std::fs::create_dir_all(&drop_ins).unwrap();
    for unit in UNITS {
        // There is no such program here; what is asked is whether the lines are understood.
        let text = read(&packaging("systemd").join(unit)).replace("/usr/bin/tallyd", "/bin/true");
        std::fs::write(folder.join(unit), text.replace("man:tallyd(1)", "man:true(1)")).unwrap();
    }
    for drop_in in std::fs::read_dir(packaging("systemd/examples")).unwrap() {
        let drop_in = drop_in.unwrap();
        std::fs::copy(drop_in.path(), drop_ins.join(drop_in.file_name())).unwrap();
    }
    for unit in UNITS {
        let mut command = Command::new("systemd-analyze");
        command
            .args(["verify", "--man=no"])
            .arg(folder.join(unit))
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()));
        let said = run::collect(&mut command).unwrap().text;
        let own = |line: &&str| line.contains("tallyd") && !newer.iter().any(|key| line.contains(key));
        let wrong: Vec<&str> = said.lines().filter(own).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_shell_reads_the_scripts_of_openrc_and_procd() {
    for script in ["openrc/tallyd.initd", "openrc/tallyd.confd", "procd/tallyd.init"] {
        let outcome = run::collect(Command::new("sh").arg("-n").arg(packaging(script))).unwrap();
        assert!(outcome.ok, "{script}: {}", outcome.text);
    }
}
