//! Stops while something hangs. Whatever it is, each signal means what it always means: HUP reloads, USR1 and USR2 mean
//! nothing, and TERM, INT and QUIT end the box in time.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::FileType;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;

use super::STOP_MAX;
use crate::boxes::{Place, Site, TestBox};
use crate::broker::Broker;
use crate::harness::{Process, free_port, until};
use crate::logs::full_pipe;
use crate::net::lab::{in_lab, run};
use crate::net::small_disk::SmallDisk;
use crate::witness::until_tolerates;

/// What ends a box.
const ENDS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];
/// What means nothing to it.
const IGNORED: [Signal; 2] = [Signal::USR1, Signal::USR2];
/// With this nothing is committed for its age, so that a reload shows.
const LAZY: &str = "[commit]\ninterval = \"1h\"\n";

/// Incarnations of a box, each begun by `begin` with the same thing hanging and ended by another signal. It counts by StatsD
/// throughout, and nothing of that is lost.
fn each_signal_keeps_its_meaning(one: &mut TestBox, mut begin: impl FnMut(&mut TestBox)) {
    let mut counted = 0;
    for end in ENDS {
        set_interval(one, "1h");
        begin(one);
        one.count("a", 10);
        counted += 10;
        one.until_pending(1);
        set_interval(one, "10ms");
        one.signal(Signal::HUP);
        one.until_total("a", counted);
        for signal in IGNORED {
            one.signal(signal);
            one.count("a", 10);
            counted += 10;
            one.until_total("a", counted);
            assert!(one.process.as_mut().unwrap().ended().is_none(), "{signal:?} ended it");
        }
        one.count("a", 10);
        counted += 10;
        one.end_by(end);
    }
    begin(one);
    one.until_total("a", counted);
    one.end_by(Signal::TERM);
}

/// Writes `commit.interval` into the configuration, which has one.
fn set_interval(one: &TestBox, interval: &str) {
    let file = one.directory.join("tallyd.toml");
    let mut config: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    config["commit"]["interval"] = interval.into();
    std::fs::write(&file, config.to_string()).unwrap();
}

#[test]
fn each_signal_keeps_its_meaning_while_a_polled_file_hangs() {
    in_lab("stops::hangs::each_signal_keeps_its_meaning_while_a_polled_file_hangs", || {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("hung");
        std::fs::create_dir(&place).unwrap();
        let Some(hung) = HungDirectory::mount(&place) else { return };
        let pipe = scratch.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        // Somebody has it open for writing, and never writes.
        let _writer = File::options().read(true).write(true).open(&pipe).unwrap();
        let poll = |series: &str, file: &Path| {
            let file = file.display();
            format!(
                "[[ingest.poll]]\nseries = \"{series}\"\nfile = \"{file}\"\npattern = \"(.+)\"\nkind = \"sample\"\n\
                 every = \"50ms\"\n"
            )
        };
        let polls = poll("hung", &hung.path.join("reading")) + &poll("pipe", &pipe);
        let mut site = Site::provision(1, "1s", &(LAZY.to_owned() + &polls));
        each_signal_keeps_its_meaning(&mut site.boxes[0], |one| {
            one.start();
            one.until_ready();
            until("the status shows what is wrong with each file", || {
                let polls = one.try_status()?["ingest"]["poll"].clone();
                let says =
                    |at: usize, why: &str| polls[at]["error"].as_str().is_some_and(|is| is.contains(why));
                let hangs = says(0, "has not answered for") && polls[0]["reading_since"].is_u64();
                (hangs && says(1, "cannot read")).then_some(())
            });
        });
    });
}

#[test]
fn a_box_ends_in_time_while_it_reads_its_configuration_in_vain() {
    in_lab("stops::hangs::a_box_ends_in_time_while_it_reads_its_configuration_in_vain", || {
        let scratch = tempfile::tempdir().unwrap();
        let mut site = Site::provision(1, "1s", "");
        let one = &mut site.boxes[0];
        for end in ENDS {
            let place = scratch.path().join(format!("{end:?}"));
            std::fs::create_dir(&place).unwrap();
            std::fs::copy(one.directory.join("tallyd.toml"), place.join("tallyd.toml")).unwrap();
            let mut command = one.command();
            command.arg("--config").arg(place.join("tallyd.toml"));
            one.process = Some(Process::start(&mut command, &scratch.path().join("log")));
            one.until_ready();
            let Some(_hung) = HungDirectory::mount(&place) else { return };
            let process = one.process.as_ref().unwrap();
            let told = || process.output().matches("is still reading the configuration").count();
            let before = told();
            until("it says that it still reads", || {
                process.signal(Signal::HUP);
                (told() > before).then_some(())
            });
            // It counts meanwhile.
            let given_up = || process.output().matches("nothing was changed").count();
            let before = given_up();
            one.add("a", 1);
            assert_eq!(given_up(), before, "the add waited for the file");
            one.end_by(end);
        }
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_nobody_reads_the_log() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let mut pipes = Vec::new();
    let mut site = Site::provision(1, "1s", LAZY);
    each_signal_keeps_its_meaning(&mut site.boxes[0], |one| {
        let (reader, writer) = full_pipe(true);
        pipes.push(reader);
        let mut command = one.command();
        command.env("TALLYD_LOG", "trace");
        one.process = Some(Process::start_with_error(&mut command, &log, writer.into()));
        one.until_ready();
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_the_broker_does_not_answer() {
    let broker = Broker::start();
    let mut site = Site::provision(1, "1s", &(LAZY.to_owned() + &broker.config()));
    each_signal_keeps_its_meaning(&mut site.boxes[0], |one| {
        broker.resume();
        one.start();
        one.until_ready();
        until("it is connected", || (one.try_status()?["upstream"]["state"] == "connected").then_some(()));
        broker.pause();
        one.add("b", 1);
        until("a summary is under way", || {
            let outbox = one.try_status()?["outbox"].clone();
            (outbox["numbered"].as_u64()? > outbox["delivered"].as_u64()?).then_some(())
        });
    });
    broker.resume();
}

#[test]
fn each_signal_keeps_its_meaning_while_the_broker_is_gone() {
    let url = format!("[upstream]\nurl = \"mqtt://127.0.0.1:{}\"\n", free_port());
    let mut site = Site::provision(1, "1s", &(LAZY.to_owned() + &url));
    each_signal_keeps_its_meaning(&mut site.boxes[0], |one| {
        one.start();
        one.until_ready();
        until("it has tried", || one.try_status()?["upstream"]["last_error"].is_object().then_some(()));
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_the_look_up_of_the_broker_hangs() {
    in_lab("stops::hangs::each_signal_keeps_its_meaning_while_the_look_up_of_the_broker_hangs", || {
        let names = SilentNames::put_up();
        let url = "[upstream]\nurl = \"mqtt://broker.example\"\n";
        let mut site = Site::provision(1, "1s", &(LAZY.to_owned() + url));
        each_signal_keeps_its_meaning(&mut site.boxes[0], |one| {
            names.forget();
            one.start();
            one.until_ready();
            names.until_asked(&["broker"]);
        });
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_the_other_boxes_are_looked_up_in_vain() {
    in_lab("stops::hangs::each_signal_keeps_its_meaning_while_the_other_boxes_are_looked_up_in_vain", || {
        let names = SilentNames::put_up();
        let place = |number: u32| Place {
            address: format!("box{number}.example:{}", free_port()),
            http: free_port(),
            statsd: free_port(),
            namespace: None,
        };
        let mut site = Site::provision_in((1..=3).map(place).collect(), "1s", "");
        let mut counted = 0;
        for end in ENDS {
            let one = &mut site.boxes[2];
            names.forget();
            one.start();
            names.until_asked(&["box1", "box2"]);
            reload(one);
            for signal in IGNORED {
                one.signal(signal);
                one.count("a", 10);
                counted += 10;
                one.until_pending(1);
                assert!(one.process.as_mut().unwrap().ended().is_none(), "{signal:?} ended it");
            }
            one.end_by(end);
            assert!(one.unsent().exists());
        }
        names.answer_for(&["box1.example", "box2.example", "box3.example"]);
        site.start_all();
        site.boxes.iter().for_each(|one| one.until_total("a", counted));
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_the_disk_of_one_box_of_three_hangs() {
    in_lab("stops::hangs::each_signal_keeps_its_meaning_while_the_disk_of_one_box_of_three_hangs", || {
        let scratch = tempfile::tempdir().unwrap();
        let mut site = Site::provision(3, "1s", "");
        let disk = small_disk(scratch.path(), &mut site.boxes[2]);
        site.start_all();
        let mut counted = 0;
        for end in ENDS {
            let frozen = disk.freeze();
            reload(&site.boxes[2]);
            for signal in IGNORED {
                let one = &mut site.boxes[2];
                one.signal(signal);
                one.count("a", 10);
                counted += 10;
                site.boxes[0].until_total("a", counted);
                assert!(site.boxes[2].process.as_mut().unwrap().ended().is_none(), "{signal:?} ended it");
            }
            until_disk_is_waited_for(&site.boxes[2]);
            site.boxes[2].count("a", 10);
            counted += 10;
            end_but_for_the_disk(&mut site.boxes[2], end);
            // The others have it.
            site.boxes[0].until_total("a", counted);
            drop(frozen);
            site.boxes[2].process.take().unwrap().wait();
            site.start_all();
            site.boxes[2].until_total("a", counted);
        }
        site.assert_same_digests();
    });
}

#[test]
fn each_signal_keeps_its_meaning_while_the_disk_of_the_only_box_hangs() {
    in_lab("stops::hangs::each_signal_keeps_its_meaning_while_the_disk_of_the_only_box_hangs", || {
        let scratch = tempfile::tempdir().unwrap();
        let mut site = Site::provision(1, "1s", "");
        let disk = small_disk(scratch.path(), &mut site.boxes[0]);
        site.start_all();
        let mut acknowledged = 0;
        for end in [Signal::TERM, Signal::INT] {
            let one = &mut site.boxes[0];
            acknowledged += 1;
            assert_eq!(one.add("acknowledged", 1), acknowledged);
            let frozen = disk.freeze();
            one.count("a", 10);
            until_disk_is_waited_for(one);
            reload(one);
            for signal in IGNORED {
                one.signal(signal);
                one.count("a", 10);
                one.until_pending(1);
                assert!(one.process.as_mut().unwrap().ended().is_none(), "{signal:?} ended it");
            }
            end_but_for_the_disk(one, end);
            drop(frozen);
            one.process.take().unwrap().wait();
            site.start_all();
        }
        // What nobody could write anywhere may be lost.
        assert_eq!(site.boxes[0].total("acknowledged"), acknowledged as i64);
    });
}

#[test]
fn a_witness_whose_disk_hangs_ends_in_time() {
    in_lab("stops::hangs::a_witness_whose_disk_hangs_ends_in_time", || {
        let scratch = tempfile::tempdir().unwrap();
        let (mut site, mut witness) = Site::provision_with_witness();
        let disk = small_disk(scratch.path(), &mut witness);
        witness.start();
        site.start_all();
        until_tolerates(&site.boxes[0], 1);
        let frozen = disk.freeze();
        let leader = site.leader();
        site.boxes[leader].kill();
        // It is asked for its vote, which it has to write down.
        let tasks = PathBuf::from(format!("/proc/{}/task", witness.process.as_ref().unwrap().pid()));
        until("it waits for its disk", || {
            let tasks = std::fs::read_dir(&tasks).ok()?.flatten();
            tasks.filter_map(|task| state(&task.path())).any(|state| state == 'D').then_some(())
        });
        end_but_for_the_disk(&mut witness, Signal::TERM);
        drop(frozen);
        witness.process.take().unwrap().wait();
        witness.start();
        site.until_ready();
    });
}

/// Has it read its configuration, which says what it said.
fn reload(one: &TestBox) {
    let told = || one.log().matches("the configuration has not changed").count();
    let before = told();
    one.signal(Signal::HUP);
    until("it has read its configuration", || (told() > before).then_some(()));
}

fn small_disk(scratch: &Path, one: &mut TestBox) -> SmallDisk {
    let disk = SmallDisk::mount(scratch, "disk", 64);
    assert!(
        disk.can_freeze,
        "such a disk cannot be held up, so nothing can be shown: run this test as root, where loop devices are to be had"
    );
    one.directory = disk.take_in(&one.directory);
    disk
}

fn until_disk_is_waited_for(one: &TestBox) {
    until("the disk is waited for", || {
        (one.try_status()?["storage"]["waiting_ms"].as_u64()? >= 1000).then_some(())
    });
}

/// Ends it by this signal. A thread that the system holds in a write to a disk that hangs is there until the disk
/// answers, whoever kills it, and the process with it; but nothing of it may run any more.
fn end_but_for_the_disk(one: &mut TestBox, signal: Signal) {
    let began = Instant::now();
    one.signal(signal);
    let process = one.process.as_mut().unwrap();
    let tasks = PathBuf::from(format!("/proc/{}/task", process.pid()));
    let is_over = |task: &Path, over: &str| state(task).is_none_or(|state| over.contains(state));
    until("nothing of it runs", || {
        let all: Vec<_> = std::fs::read_dir(&tasks).into_iter().flatten().flatten().collect();
        let first = is_over(&tasks.join(process.pid().to_string()), "ZX");
        (first && all.iter().all(|task| is_over(&task.path(), "ZXD"))).then_some(())
    });
    assert!(began.elapsed() < STOP_MAX, "{signal:?}: it took {:?}", began.elapsed());
}

/// The state of a thread, if it is still there: `Z` and `X` are over, `D` cannot be woken.
fn state(task: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// A name service that hears questions and answers none, for whoever is in the room of this test.
struct SilentNames {
    socket: UdpSocket,
    scratch: tempfile::TempDir,
}

impl SilentNames {
    fn put_up() -> SilentNames {
        let socket = UdpSocket::bind(("127.0.0.1", 53)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let names = SilentNames { socket, scratch: tempfile::tempdir().unwrap() };
        // Longer than any test waits.
        let resolver = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";
        names.cover_etc("silent", &[("resolv.conf", resolver), ("hosts", "127.0.0.1 localhost\n")]);
        names
    }

    /// From now on these names are known to be here.
    fn answer_for(&self, known: &[&str]) {
        let hosts = format!("127.0.0.1 localhost {}\n", known.join(" "));
        self.cover_etc("known", &[("hosts", &hosts)]);
    }

    /// Lays files over those in /etc.
    fn cover_etc(&self, name: &str, files: &[(&str, &str)]) {
        let layer = self.scratch.path().join(name);
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        for (file, text) in files {
            std::fs::write(layer.join(file), text).unwrap();
        }
        let layers = format!("lowerdir={}:/etc", layer.display());
        run("mount", ["-t", "overlay", "-o", &layers, "overlay", "/etc"]);
    }

    /// What was asked until now is over.
    fn forget(&self) {
        while self.socket.recv(&mut [0; 512]).is_ok() {}
    }

    /// Waits until names with each of these in them were asked for.
    fn until_asked(&self, labels: &[&str]) {
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        until(&format!("{labels:?} are looked up"), || {
            let mut question = [0; 512];
            while let Ok(bytes) = self.socket.recv(&mut question) {
                let text = String::from_utf8_lossy(&question[..bytes]).into_owned();
                asked.extend(labels.iter().filter(|label| text.contains(**label)));
            }
            (asked.len() == labels.len()).then_some(())
        });
    }
}

/// A file system that never answers.
#[derive(Debug)]
pub(crate) struct HungDirectory {
    pub(crate) path: PathBuf,
    /// What would have to answer. The kernel asks by it, and nobody listens.
    _device: File,
}

impl HungDirectory {
    /// In place of a directory; `None`, and it is said, where there is no FUSE.
    pub(crate) fn mount(path: &Path) -> Option<HungDirectory> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let mounted = device.and_then(|device| {
            let number = device.as_raw_fd();
            let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
            let options = CString::new(options).unwrap();
            rustix::mount::mount(c"fuse", path, c"fuse", MountFlags::empty(), Some(options.as_c_str()))?;
            Ok(device)
        });
        match mounted {
            Ok(device) => Some(HungDirectory { path: path.to_owned(), _device: device }),
            Err(error) => {
                eprintln!("not tested: no file system can be made to hang here ({error})");
                None
            }
        }
    }
}

impl Drop for HungDirectory {
    fn drop(&mut self) {
        // Without it the directory cannot be removed.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}
