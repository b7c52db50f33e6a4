//! Signals and stops: nothing that was read is lost, whatever a box is told, and it ends in time whatever hangs.

pub(crate) mod hangs;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::boxes::{Site, TestBox};
use crate::harness::until;
use crate::http::Client;

/// What an orderly stop may take, whatever hangs.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);

impl TestBox {
    fn unsent(&self) -> PathBuf {
        self.directory.join("unsent.batches")
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Counts, of which nobody waits for any.
    fn count(&self, series: &str, times: usize) {
        for _ in 0..times {
            self.statsd(&format!("{series}:1|c"));
        }
    }

    /// Ends it by two signals: the second has it save at once what it cannot commit.
    fn terminate_at_once(&mut self) {
        let before = self.log().matches("stopping").count();
        self.signal(Signal::TERM);
        let process = self.process.as_ref().unwrap();
        until("it stops", || (process.output().matches("stopping").count() > before).then_some(()));
        self.terminate();
    }

    /// Ends it by this signal; it must have ended well, in time.
    pub(crate) fn end_by(&mut self, signal: Signal) {
        let began = Instant::now();
        let mut process = self.process.take().unwrap();
        process.signal(signal);
        let status = process.wait();
        assert!(began.elapsed() < STOP_MAX, "{signal:?}: it took {:?}", began.elapsed());
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
    }

    fn until_pending(&self, cells: u64) {
        until("counts wait here", || {
            (self.try_status()?["accumulator"]["pending"].as_u64()? >= cells).then_some(())
        });
    }
}

/// Three boxes of which only the last one runs, and has heard no leader for long.
fn one_of_three() -> Site {
    let mut site = Site::start_with(3, "1s", "");
    site.boxes[2].add("before", 1);
    site.boxes[0].kill();
    site.boxes[1].kill();
    until_alone(&site);
    site
}

fn until_alone(site: &Site) {
    let mut client = site.boxes[2].client();
    until("it knows that it is alone", || {
        let answer = client.post("/v1/counters/probe", r#"{"add":1}"#).ok()?;
        (answer.status == 503 && answer.problem().contains("not-committed")).then_some(())
    });
}

#[test]
fn no_signal_loses_what_was_counted() {
    let mut site = Site::start(1);
    let one = &mut site.boxes[0];
    let mut counted = 0;
    let ignored = [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::PIPE,
        Signal::XFSZ,
    ];
    for signal in ignored {
        one.count("a", 100);
        counted += 100;
        one.signal(signal);
        one.until_total("a", counted);
        assert!(one.process.as_mut().unwrap().ended().is_none(), "{signal:?} ended it");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        one.count("a", 100);
        counted += 100;
        one.end_by(signal);
        one.start();
        one.until_ready();
        assert_eq!(one.total("a"), counted, "{signal:?}");
    }
    assert!(!one.unsent().exists(), "there was nothing to save");
    assert_eq!(one.log().matches("SIGUSR1 has no meaning").count(), 1);
}

#[test]
fn a_witness_ends_by_what_is_meant_to_end_it_only() {
    let (mut site, mut witness) = Site::provision_with_witness();
    witness.start();
    site.start_all();
    witness.until_log("serves its status");
    witness.signal(Signal::USR1);
    witness.until_log("SIGUSR1 has no meaning");
    witness.signal(Signal::HUP);
    witness.until_log("the configuration has not changed");
    witness.end_by(Signal::QUIT);
}

#[test]
fn a_reload_says_what_it_takes_over_and_what_it_cannot() {
    let mut site = Site::start_with(1, "1s", "[commit]\ninterval = \"1h\"\n");
    let one = &mut site.boxes[0];
    one.count("a", 3);
    one.until_pending(1);
    let file = one.directory.join("tallyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[upstream]\nurll = 1\n")).unwrap();
    one.signal(Signal::HUP);
    one.until_log("unknown key \"urll\"");
    one.until_log("nothing was changed");
    let new = text.replace("\"1h\"", "\"10ms\"").replace("[api]\n", "[api]\nconnections_max = 77\n");
    std::fs::write(&file, new).unwrap();
    one.signal(Signal::HUP);
    one.until_log("commit.interval is now 10ms");
    one.until_log("changes of api.connections_max take effect only after a restart");
    one.until_total("a", 3);
    assert!(one.process.as_mut().unwrap().ended().is_none());
}

#[test]
fn what_one_box_of_three_gathered_outlives_orderly_stops() {
    let mut site = one_of_three();
    site.boxes[2].count("a", 100);
    site.boxes[2].until_pending(1);
    site.boxes[2].end_by(Signal::TERM);
    assert!(site.boxes[2].unsent().exists());
    let saved = std::fs::read(site.boxes[2].unsent()).unwrap();
    // Once more, still alone, with more; and once without anything new.
    site.boxes[2].start();
    until("it is up", || site.boxes[2].try_status());
    site.boxes[2].count("a", 50);
    site.boxes[2].count("b", 7);
    site.boxes[2].until_pending(2);
    assert!(site.boxes[2].status()["accumulator"]["unsettled"].as_u64().unwrap() >= 1);
    site.boxes[2].terminate_at_once();
    let more = std::fs::read(site.boxes[2].unsent()).unwrap();
    assert!(more.len() > saved.len());
    site.boxes[2].start();
    until("it is up", || site.boxes[2].try_status());
    site.boxes[2].end_by(Signal::INT);
    assert_eq!(std::fs::read(site.boxes[2].unsent()).unwrap(), more);
    site.start_all();
    for one in &site.boxes {
        one.until_total("a", 150);
        one.until_total("b", 7);
    }
    until("the file is gone", || (!site.boxes[2].unsent().exists()).then_some(()));
    until("the status says so", || (site.boxes[2].status()["accumulator"]["unsettled"] == 0).then_some(()));
    assert_eq!(site.boxes[2].add("a", 1), 151);
    site.assert_same_digests();
}

#[test]
fn a_box_that_is_killed_while_it_sends_what_was_saved_counts_nothing_twice() {
    let mut site = one_of_three();
    let mut counted = 0;
    // A batch a life.
    for life in 0..6 {
        if life > 0 {
            site.boxes[2].start();
            until("it is up", || site.boxes[2].try_status());
        }
        site.boxes[2].count("a", 10);
        counted += 10;
        site.boxes[2].until_pending(1);
        site.boxes[2].terminate_at_once();
    }
    let saved = std::fs::read(site.boxes[2].unsent()).unwrap();
    site.boxes[0].start();
    site.boxes[1].start();
    site.boxes[0].until_ready();
    // What it sends is seen from outside: it is killed after the first, the second and so on. A kill may come as late as
    // after the file's removal, where the machine is slow.
    for batches in 1..=6 {
        site.boxes[2].start();
        let target = counted / 6 * batches;
        until("it has sent some", || (site.boxes[0].total("a") >= target).then_some(()));
        site.boxes[2].kill();
    }
    site.boxes[0].until_total("a", counted);
    // As a crash leaves it between the last receipt and the removal of the file; all of it is sent again.
    std::fs::write(site.boxes[2].unsent(), saved).unwrap();
    site.boxes[2].start();
    site.boxes[2].until_ready();
    until("the file is gone again", || (!site.boxes[2].unsent().exists()).then_some(()));
    assert_eq!(site.boxes[2].total("a"), counted);
    // And what comes after it counts.
    site.boxes[2].count("a", 5);
    site.boxes[2].until_total("a", counted + 5);
    site.assert_same_digests();
}

#[test]
fn a_file_from_long_ago_neither_counts_twice_nor_holds_up_what_is_new() {
    let mut site = one_of_three();
    site.boxes[2].count("a", 10);
    site.boxes[2].until_pending(1);
    site.boxes[2].terminate_at_once();
    let old = std::fs::read(site.boxes[2].unsent()).unwrap();
    site.start_all();
    site.boxes[2].until_total("a", 10);
    // Numbers after the file's are used, and the file comes back, from a backup.
    for total in 11..15 {
        assert_eq!(site.boxes[2].add("a", 1), total);
    }
    site.boxes[2].terminate();
    std::fs::write(site.boxes[2].unsent(), old).unwrap();
    site.boxes[2].start();
    site.boxes[2].until_ready();
    until("the file is gone", || (!site.boxes[2].unsent().exists()).then_some(()));
    assert_eq!(site.boxes[2].add("a", 1), 15);
    site.assert_same_digests();
}

#[test]
fn a_box_that_never_had_an_epoch_keeps_what_it_gathered() {
    let mut site = Site::provision(3, "1s", "");
    site.boxes[2].start();
    until("it is up", || site.boxes[2].try_status());
    site.boxes[2].count("a", 20);
    site.boxes[2].until_pending(1);
    site.boxes[2].terminate_at_once();
    assert!(site.boxes[2].unsent().exists());
    site.boxes[2].start();
    until("it is up", || site.boxes[2].try_status());
    site.boxes[2].count("a", 3);
    site.boxes[2].until_pending(1);
    site.boxes[2].terminate_at_once();
    site.start_all();
    site.boxes[0].until_total("a", 23);
    until("the file is gone", || (!site.boxes[2].unsent().exists()).then_some(()));
    site.boxes[2].count("a", 2);
    site.boxes[0].until_total("a", 25);
    site.assert_same_digests();
}

#[test]
fn a_damaged_file_is_told_and_set_aside_and_so_is_another_boxs() {
    let mut site = one_of_three();
    site.boxes[2].count("a", 10);
    site.boxes[2].until_pending(1);
    site.boxes[2].terminate_at_once();
    let good = std::fs::read(site.boxes[2].unsent()).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(site.boxes[2].unsent(), &bad).unwrap();
    std::fs::write(site.boxes[0].unsent(), &good).unwrap();
    site.start_all();
    site.boxes[2].until_log("the file is damaged");
    site.boxes[0].until_log("the file belongs to another box or site");
    for at in [0, 2] {
        let aside = site.boxes[at].directory.join("unsent.batches.aside-1");
        assert_eq!(std::fs::read(aside).unwrap(), if at == 0 { good.clone() } else { bad.clone() });
        assert!(!site.boxes[at].unsent().exists());
        assert_eq!(site.boxes[at].add("b", 1), at as u64 / 2 + 1);
    }
    assert_eq!(site.boxes[2].total("a"), 0);
}

#[test]
fn who_waits_is_told_and_a_stop_ends_in_time_though_clients_and_the_broker_hang() {
    // A broker that takes connections and never says a word.
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://127.0.0.1:{}", broker.local_addr().unwrap().port());
    let mut site =
        Site::start_with(3, "1s", &format!("[commit]\ninterval = \"1h\"\n[upstream]\nurl = \"{url}\"\n"));
    let leader = site.leader();
    // A request that never ends, and one that waits.
    let mut hangs = TcpStream::connect(("127.0.0.1", site.boxes[leader].http)).unwrap();
    std::io::Write::write_all(&mut hangs, b"POST /v1/counters/a HTTP/1.1\r\ncontent-length: 9\r\n\r\n")
        .unwrap();
    for at in (0..3).filter(|at| *at != leader) {
        site.boxes[at].kill();
    }
    site.boxes[leader].count("a", 5);
    let port = site.boxes[leader].http;
    site.boxes[leader].until_pending(1);
    let before = site.boxes[leader].status()["accumulator"].clone();
    let waiting = std::thread::spawn(move || {
        Client::new(port).patient_for(STOP_MAX).post("/v1/counters/a", r#"{"add":100}"#).unwrap()
    });
    until("the request waits", || {
        let now = site.boxes[leader].try_status()?["accumulator"].clone();
        (now["waiting"] == 1 || now["batches"] != before["batches"]).then_some(())
    });
    site.boxes[leader].end_by(Signal::TERM);
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let withdrawn = answer.problem().contains("not-committed");
    assert!(withdrawn || answer.problem().contains("outcome-unknown"), "{}", answer.text());
    for one in &mut site.boxes {
        one.start();
    }
    site.until_ready();
    // What was taken back is not counted; of what was frozen nobody was told that it is not.
    let expected: &[i64] = if withdrawn { &[5] } else { &[5, 105] };
    let total =
        until("the StatsD counts are there", || Some(site.boxes[leader].total("a")).filter(|t| *t >= 5));
    assert!(expected.contains(&total), "{total}, expected {expected:?}");
    drop((hangs, broker));
}
