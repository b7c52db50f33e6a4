//! A box whose disk is full says so and steps down, the site goes on, and when there is space again the box
//! comes back by itself.

use serde_json::{Value, json};

use super::clients::Clients;
use super::lab::in_lab;
use super::plan::seed;
use super::site::{BOXES, NetSite};
use super::small_disk::SmallDisk;
use crate::boxes::Site;
use crate::harness::{tallyd, until};

/// Room for the log's segments (8 MiB each), snapshots, and the file system itself.
const MEBIBYTES: u64 = 64;

#[test]
fn a_backup_to_a_full_disk_and_a_restore_there_fail_in_one_line_and_leave_nothing() {
    let name =
        "net::full_disk::a_backup_to_a_full_disk_and_a_restore_there_fail_in_one_line_and_leave_nothing";
    in_lab(name, || {
        let scratch = tempfile::tempdir().unwrap();
        let site = Site::start(1);
        site.boxes[0].add("parts", 7);
        let whole = scratch.path().join("plant7.tallyd");
        site.boxes[0].told(&["backup", whole.to_str().unwrap()]);
        let disk = SmallDisk::mount(scratch.path(), "small", 4);
        let (file, data) = (disk.root.join("backup"), disk.root.join("data"));
        std::fs::create_dir(&data).unwrap();
        disk.fill();
        let (status, why) = site.boxes[0].refuses(&["backup", file.to_str().unwrap()]);
        assert!(status == 1 && why.contains("No space left") && why.lines().count() == 1, "{status}: {why}");
        assert!(!file.exists() && !disk.root.join("backup.tmp").exists());
        let output = tallyd().arg("restore").arg(&whole).arg("--data-dir").arg(&data).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), why.lines().count()), (Some(1), 1), "{why}");
        assert!(why.contains("No space left"), "{why}");
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "the next try finds it empty");
    });
}

#[test]
fn a_box_with_a_full_disk_steps_down_and_comes_back() {
    in_lab("net::full_disk::a_box_with_a_full_disk_steps_down_and_comes_back", || {
        let seed = seed();
        let scratch = tempfile::tempdir().unwrap();
        let (mut net, disks) = NetSite::provision_on_small_disks(scratch.path(), MEBIBYTES);
        eprintln!("TALLYD_TEST_SEED={seed}; disks: {}", disks[0].kind);
        net.site.start_all();
        let clients = Clients::start(&net.site, 4, seed);
        let mut filler = Filler::default();
        for full in [net.site.follower(), net.site.leader()] {
            clients.until_more(20, "before the disk is full");
            let led = net.site.leader() == full;
            disks[full].fill();
            filler.write_until(&net, || {
                // The box lives on what it can let go of, until others have taken that.
                disks[full].fill();
                storage(&net, full).is_some_and(|storage| storage["state"] != "ok")
            });
            let said = storage(&net, full).expect("it answers");
            assert_eq!(said["state"], "full", "{said}");
            assert!(
                said["what"].is_string() && said["advice"].is_string(),
                "it says what and what to do: {said}"
            );
            net.site.boxes[full].until_log("rejects writes");
            let others: Vec<usize> = (0..BOXES).filter(|at| *at != full).collect();
            let leads = until("another box leads", || net.leader_among(&others));
            assert_ne!(net.site.boxes[full].status()["role"], "leader");
            clients.until_more(50, "one disk is full");
            let read = net.site.boxes[full].client().get("/v1/series/history/0?read=local").unwrap();
            assert_eq!(read.status, 200, "it goes on serving reads: {}", read.text());
            disks[full].free();
            until("the box comes back by itself", || {
                (storage(&net, full)?["state"] == "ok" && caught_up(&net, full)?).then_some(())
            });
            eprintln!(
                "box{} ({}): {}, {}; box{} led meanwhile; it came back",
                full + 1,
                if led { "the leader" } else { "a follower" },
                said["what"],
                said["advice"],
                leads + 1
            );
        }
        let notes = clients.finish();
        net.site.until_ready();
        notes.assert_linearizable(&net.site);
        net.site.assert_same_digests();
    });
}

fn storage(net: &NetSite, at: usize) -> Option<Value> {
    Some(net.site.boxes[at].try_status()?["storage"].clone())
}

/// Whether what the box has on disk reaches as far as what the site had committed a moment ago.
fn caught_up(net: &NetSite, at: usize) -> Option<bool> {
    let leader = net.leader_among(&(0..BOXES).collect::<Vec<usize>>())?;
    let members = net.site.boxes[leader].try_status()?["members"].clone();
    let matched =
        members.as_array()?.iter().find(|member| member["name"] == net.site.boxes[at].name)?["matched"]
            .as_u64()?;
    Some(matched >= net.site.boxes[leader].try_status()?["commit"].as_u64()?.saturating_sub(50))
}

/// A source whose reports fill the log quickly, by some 45 KiB each.
#[derive(Debug, Default)]
struct Filler {
    epoch: Option<String>,
    number: u64,
}

impl Filler {
    fn write_until(&mut self, net: &NetSite, mut enough: impl FnMut() -> bool) {
        let epoch = self.epoch.get_or_insert_with(|| {
            let opened = net.site.boxes[0].client().post("/v1/sources/filler/epochs", "").unwrap().ok();
            opened["epoch"].as_str().unwrap().to_owned()
        });
        let cells: Vec<Value> = (0..1000)
            .map(|series| {
                let sample = json!({"count": 2, "sum": 1234.567891011, "min": 567.891011, "max": 666.67688,
                                    "last": 666.67688});
                json!({"series": format!("fill/{series}"), "sample": sample})
            })
            .collect();
        let cells = Value::Array(cells).to_string();
        for _ in 0..2000 {
            self.number += 1;
            let number = self.number;
            let body =
                format!(r#"{{"source":"filler","epoch":"{epoch}","number":{number},"cells":{cells}}}"#);
            // Whoever answers: the same report is applied once.
            let mut boxes = net.site.boxes.iter().cycle();
            until("a report is taken", || {
                let mut client = boxes.next()?.client().patient_for(std::time::Duration::from_secs(2));
                (client.post("/v1/reports", &body).ok()?.status == 200).then_some(())
            });
            if number.is_multiple_of(8) && enough() {
                return;
            }
        }
        panic!("2,000 reports did not fill a segment");
    }
}
