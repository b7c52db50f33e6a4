//! Polled files: what another program counts in a file is counted on.

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

struct Polled {
    site: Site,
    file: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Polled {
    fn start() -> Polled {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("stat");
        let entry = |series: &str, key: &str, kind: &str| {
            format!(
                "[[ingest.poll]]\nseries = \"{series}\"\nfile = \"{}\"\npattern = '^{key} (\\S+)'\n\
                 kind = \"{kind}\"\nevery = \"20ms\"\n",
                file.display()
            )
        };
        let polls = entry("host/switches", "ctxt", "counter") + &entry("host/load", "load", "sample");
        let extra = format!("[commit]\ninterval = \"50ms\"\n{polls}");
        std::fs::write(&file, "cpu 1 2 3\nctxt 1000\nload 0.5\n").unwrap();
        Polled { site: Site::start_with(1, "1s", &extra), file, _directory: directory }
    }

    /// Writes the file at once, as /proc shows it, and waits until it has been read.
    fn write(&self, ctxt: &str) {
        let text = format!("cpu 1 2 3\nctxt {ctxt}\nload 0.5\n");
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    fn poll(&self, series: &str) -> Option<Value> {
        let status = self.site.boxes[0].try_status()?;
        let polls = status["ingest"]["poll"].as_array()?.clone();
        polls.into_iter().find(|poll| poll["series"] == series)
    }

    fn until_read(&self, last: f64) {
        until(&format!("{last} is read"), || {
            (self.poll("host/switches")?["last"].as_f64() == Some(last)).then_some(())
        });
    }
}

#[test]
fn a_polled_counter_counts_on_through_resets_and_nonsense() {
    let polled = Polled::start();
    polled.until_read(1000.0);
    let one = &polled.site.boxes[0];
    polled.write("1050");
    one.until_total("host/switches", 50);
    // Began again at 0, as after a reboot.
    polled.write("7");
    one.until_total("host/switches", 57);
    polled.write("many");
    let broken = until("the reading fails", || {
        polled.poll("host/switches").filter(|poll| poll["errors"].as_u64() > Some(0))
    });
    assert!(broken["error"].as_str().unwrap().contains("\"many\""), "{broken}");
    polled.write("10");
    one.until_total("host/switches", 60);
    until("the error is gone", || polled.poll("host/switches")?["error"].is_null().then_some(()));
    std::fs::remove_file(&polled.file).unwrap();
    until("the missing file shows", || polled.poll("host/switches")?["error"].as_str().map(|_| ()));
    polled.write("11");
    one.until_total("host/switches", 61);
}

#[test]
fn a_polled_value_is_observed_again_and_again() {
    let polled = Polled::start();
    let mut client = polled.site.boxes[0].client();
    let read = until("ten values are observed", || {
        let answer = client.get("/v1/series/host/load").ok().filter(|answer| answer.status == 200)?;
        Some(answer.json()).filter(|read| read["count"].as_u64() >= Some(10))
    });
    for member in ["min", "max", "last", "mean"] {
        assert_eq!(read[member], 0.5, "{read}");
    }
    assert_eq!(read["kind"], "sample");
}

#[test]
fn a_restarted_box_does_not_count_a_polled_counter_twice() {
    let mut polled = Polled::start();
    polled.until_read(1000.0);
    polled.write("1010");
    polled.site.boxes[0].until_total("host/switches", 10);
    polled.site.boxes[0].terminate();
    polled.site.start_all();
    polled.until_read(1010.0);
    polled.write("1015");
    polled.site.boxes[0].until_total("host/switches", 15);
}
