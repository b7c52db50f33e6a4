//! `cargo xtask bench --wear`: what sites write to their disks while nothing is counted, while one box counts once a
//! second, and while each box does. The three sites run side by side; the figures are the kernel's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::site::{Plan, Site};
use crate::{http, run};

const SERIES: &str = "wear";
/// A quarter of the usual bound: a segment of 2 MiB is full after 9 minutes, and a snapshot comes after 34.
const STORAGE: &str = "\n[storage]\nbytes_max = \"64MiB\"\n";
/// The windows of the counts.
const WINDOW: Duration = Duration::from_secs(60);
const LOADS_MAX: u32 = 12;
/// What the load leaves to be done.
const SETTLE: Duration = Duration::from_secs(5);
/// Counts come at another time of the second at each box.
const APART: Duration = Duration::from_millis(310);
const SECOND: Duration = Duration::from_secs(1);
const DAY_S: f64 = 86_400.0;

/// A case: its name, how many boxes count, and what a box may write, bytes a second.
const CASES: [(&str, usize, f64); 3] =
    [("idle", 0, 150.0), ("one box counts", 1, 4_500.0), ("three boxes count", 3, 4_500.0)];

/// What a box has written.
#[derive(Clone, Debug)]
struct Written {
    bytes: u64,
    syncs: u64,
    /// The files of its log, by number and birth.
    files: BTreeSet<(u64, SystemTime)>,
    /// The last of their names, which are numbers: it is that of the segment that is written to.
    newest: OsString,
}

/// A site, and what its boxes had written when the measurement began.
struct Measured {
    site: Site,
    socket: UdpSocket,
    counting: usize,
    sent: i64,
    before: Vec<Written>,
}

/// Runs the cases for so long, and prints the table.
pub(super) fn measure(program: &Path, folder: &Path, minutes: u32) -> Result<Value> {
    let mut sites = Vec::new();
    for (case, counting, _) in CASES {
        println!("{case}: load until the log's files are used again");
        sites.push(Measured::start(program, &folder.join(case.replace(' ', "-")), counting)?);
    }
    std::thread::sleep(SETTLE);
    for measured in &mut sites {
        measured.before = written(&mut measured.site)?;
    }
    let (began, mut told) = (Instant::now(), 0);
    for second in 0..minutes * 60 {
        let at = began + SECOND * second;
        for place in 0..3 {
            wait_until(at + APART * place);
            for measured in &mut sites {
                measured.count(place as usize)?;
            }
        }
        let minute = (second + 1) / 60;
        if minute > told {
            told = minute;
            println!("minute {minute} of {minutes}: {}", progress(&mut sites, began.elapsed())?);
        }
    }
    wait_until(began + SECOND * (minutes * 60));
    let results = CASES.iter().zip(&mut sites);
    let took = began.elapsed();
    let results: Result<Vec<Value>> = results.map(|(case, site)| site.result(case.0, took)).collect();
    for measured in sites {
        measured.finish()?;
    }
    let results = results?;
    print(&results, took);
    Ok(json!(results))
}

impl Measured {
    fn start(program: &Path, folder: &Path, counting: usize) -> Result<Measured> {
        let plan = Plan { name: "wear", window: WINDOW, broker_port: None, more: |_| STORAGE.to_owned() };
        let mut site = Site::start(program, folder, &plan)?;
        site.wait_ready()?;
        use_again(program, &mut site)?;
        let socket = UdpSocket::bind("127.0.0.1:0").context("no loopback port is free")?;
        Ok(Measured { site, socket, counting, sent: 0, before: Vec::new() })
    }

    /// One count, if the box at this place counts.
    fn count(&mut self, place: usize) -> Result<()> {
        if place < self.counting {
            let name = self.site.names()[place];
            let to = self.site.statsd_address(name)?;
            let sent = self.socket.send_to(format!("{SERIES}:1|c").as_bytes(), to);
            sent.with_context(|| format!("cannot send to {to}"))?;
            self.sent += 1;
        }
        Ok(())
    }

    /// What each box wrote meanwhile.
    fn rates(&mut self, took: Duration) -> Result<Vec<(f64, f64)>> {
        let after = written(&mut self.site)?;
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / took.as_secs_f64();
        let pairs = self.before.iter().zip(&after);
        Ok(pairs.map(|(from, to)| (rate(from.bytes, to.bytes), rate(from.syncs, to.syncs))).collect())
    }

    fn result(&mut self, case: &str, took: Duration) -> Result<Value> {
        let rates = self.rates(took)?;
        let after = written(&mut self.site)?;
        let pairs = self.before.iter().zip(&after);
        let new_files: usize = pairs.map(|(from, to)| to.files.difference(&from.files).count()).sum();
        let boxes = rates.iter().map(|(bytes, syncs)| {
            json!({"bytes_per_s": bytes, "syncs_per_s": syncs, "mb_per_day": bytes * DAY_S / 1e6})
        });
        Ok(json!({"case": case, "boxes": boxes.collect::<Vec<_>>(), "new_segment_files": new_files}))
    }

    /// Ends the site, once every count is there.
    fn finish(self) -> Result<()> {
        let began = Instant::now();
        let api = self.site.api_addresses()[0];
        loop {
            let answer = http::get(api, &format!("/v1/series/{SERIES}"))?;
            let total = answer.body["total"].as_i64().unwrap_or(0);
            if total == self.sent {
                break;
            }
            if began.elapsed() > SETTLE {
                bail!("{} were counted, and the site has {total}", self.sent);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.site.stop();
        Ok(())
    }
}

/// Load, until every box has begun another segment and made no file for it. A program that always makes some is measured
/// as it is.
fn use_again(program: &Path, site: &mut Site) -> Result<()> {
    let url = format!("http://{}", site.api_addresses()[0]);
    for _ in 0..LOADS_MAX {
        let before = written(site)?;
        let mut load = Command::new(program);
        load.args(["bench", "--json", "--url", &url, "--seconds", "6", "--clients", "1"]);
        run::output(&mut load)?;
        let after = written(site)?;
        let mut pairs = before.iter().zip(&after);
        if pairs.all(|(from, to)| from.files == to.files && from.newest != to.newest) {
            return Ok(());
        }
    }
    println!("  some of the log's files are always made anew, or the load writes too little");
    Ok(())
}

fn written(site: &mut Site) -> Result<Vec<Written>> {
    let views = site.views();
    let mut all = Vec::new();
    for view in views {
        let status = view.status.with_context(|| format!("{} does not answer", view.name))?;
        let syncs = status.pointer("/storage/syncs").and_then(Value::as_u64).context("no count of syncs")?;
        let process = site.process(&view.name)?;
        let io =
            std::fs::read_to_string(format!("/proc/{process}/io")).context("cannot read what is written")?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        let log = site.data_dir(&view.name)?.join("log");
        let files = std::fs::read_dir(&log).with_context(|| format!("cannot read {}", log.display()))?;
        // One that is renamed meanwhile is none that was just made.
        let known = |file: &DirEntry| {
            let found = file.metadata().ok()?;
            Some((found.ino(), found.created().ok()?))
        };
        let files: Vec<_> = files.collect::<Result<_, _>>()?;
        let newest = files.iter().map(DirEntry::file_name).max().context("there is no log")?;
        let files = files.iter().filter_map(known).collect();
        all.push(Written { bytes: bytes.context("/proc tells no write_bytes")?, syncs, files, newest });
    }
    Ok(all)
}

fn progress(sites: &mut [Measured], took: Duration) -> Result<String> {
    let mut all = Vec::new();
    for ((case, ..), measured) in CASES.iter().zip(sites) {
        measured.site.check()?;
        let rates = measured.rates(took)?;
        let worst = rates.iter().map(|(bytes, _)| *bytes).fold(0.0, f64::max);
        all.push(format!("{case} {worst:.0} B/s"));
    }
    Ok(all.join(", "))
}

fn print(results: &[Value], took: Duration) {
    println!(
        "\nwritten to disk in {:.0} s, by /proc/PID/io; storage.bytes_max was 64 MiB\n",
        took.as_secs_f64()
    );
    println!("{:<28}{:>12}{:>12}{:>12}{:>12}", "", "bytes/s", "syncs/s", "MB a day", "to reach");
    for (result, (case, _, to_reach)) in results.iter().zip(CASES) {
        for (place, of_box) in result["boxes"].as_array().into_iter().flatten().enumerate() {
            let number = |name: &str| of_box[name].as_f64().unwrap_or(f64::NAN);
            let name = format!("{case}, box{}", place + 1);
            let (bytes, syncs, day) = (number("bytes_per_s"), number("syncs_per_s"), number("mb_per_day"));
            println!("{name:<28}{bytes:>12.0}{syncs:>12.3}{day:>12.1}{to_reach:>12}");
        }
        if result["new_segment_files"] != 0 {
            println!("  not all segments were used again: {} files are new", result["new_segment_files"]);
        }
    }
}

fn wait_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
