//! Series that are removed and renamed, over a real broker and by the real command line; backup, restore and export.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::boxes::{SITE, Site, TestBox};
use crate::broker::{Broker, Subscriber};
use crate::harness::{free_port, tallyd, until};

impl TestBox {
    fn client_command(&self, args: &[&str]) -> Output {
        let url = format!("http://127.0.0.1:{}", self.http);
        tallyd().args(args).args(["--url", &url]).output().unwrap()
    }

    fn told(&self, args: &[&str]) -> String {
        let output = self.client_command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit status, and what is said on standard error.
    fn refuses(&self, args: &[&str]) -> (i32, String) {
        let output = self.client_command(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// What the broker retains under the total of a series, as one who comes now sees it.
fn retained(broker: &Broker, series: &str) -> Option<Value> {
    static COMERS: AtomicU64 = AtomicU64::new(0);
    // Under a name of its own: it must not take over the session of another subscriber.
    let subscriber = broker.subscribe_as(&format!("comer-{}", COMERS.fetch_add(1, Ordering::Relaxed)));
    let status = format!("tally/{SITE}/status");
    // All that is retained comes at once.
    until("the retained messages come", || subscriber.on(&status).first().map(drop));
    let total = subscriber.on(&format!("tally/{SITE}/total/{series}"));
    total.iter().find(|message| !message.payload.is_empty()).map(|message| message.json())
}

/// What was counted, by summaries: after a failover one may come twice.
fn increases(subscriber: &Subscriber, series: &str) -> i64 {
    let of_series = subscriber.on(&format!("tally/{SITE}/summary/{series}"));
    let all = of_series.iter().map(|message| message.json());
    let by_number = all.map(|summary| (summary["seq"].as_u64(), summary["increase"].as_i64().unwrap()));
    by_number.collect::<BTreeMap<_, _>>().values().sum()
}

#[test]
fn a_removed_series_leaves_no_total_at_the_broker_and_comes_back_as_another() {
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let mut site = Site::start_with(3, "1s", &broker.config());
    site.set("window.grace", "200ms");
    let follower = site.follower();
    site.boxes[follower].add("a/prats", 5);
    site.boxes[0].add("a/parts", 2);
    until("the total is retained", || retained(&broker, "a/prats"));
    let since = retained(&broker, "a/prats").unwrap()["since"].as_u64().unwrap();
    site.boxes[0].add("a/prats", 3);
    assert_eq!(
        site.boxes[follower].told(&["series", "remove", "a/prats"]),
        "removed a/prats: counter, last total 8\n"
    );
    // Whoever leads then clears it.
    let leader = site.leader();
    site.boxes[leader].kill();
    until("all that was counted was published", || (increases(&subscriber, "a/prats") == 8).then_some(()));
    until("nothing is retained", || retained(&broker, "a/prats").is_none().then_some(()));
    site.start_all();
    let one = &site.boxes[leader];
    assert_eq!(one.refuses(&["get", "a/prats"]).0, 1);
    assert_eq!(one.refuses(&["series", "remove", "a/prats"]).0, 1, "there is none");
    one.add("a/prats", 1);
    let new = until("the new one's total is retained", || retained(&broker, "a/prats"));
    assert_eq!(new["total"], 1);
    assert!(new["since"].as_u64().unwrap() > since, "{new}");
    assert_eq!(retained(&broker, "a/parts").unwrap()["total"], 2);
    site.assert_same_digests();
}

#[test]
fn the_command_line_removes_renames_and_lists_and_takes_no_prefix_for_granted() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    for name in ["ids/1", "ids/2", "ids/sub/3", "idsx", "remove", "rename/x"] {
        one.add(name, 1);
    }
    let (status, said) = one.refuses(&["series", "remove", "ids/*"]);
    assert!(status == 2 && said.contains("--yes"), "{status} {said}");
    assert_eq!(
        one.refuses(&["series", "remove", "ids/*", "--exact", "--yes"]).0,
        1,
        "no series is called that"
    );
    assert_eq!(one.refuses(&["series", "remove", "/*", "--yes"]).0, 2);
    let removed = one.told(&["series", "remove", "ids/*", "--yes", "--json"]);
    let removed: Value = serde_json::from_str(&removed).unwrap();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 3);
    assert_eq!(one.told(&["series", "rename", "idsx", "ids"]), "idsx is ids now\n");
    assert_eq!(one.refuses(&["series", "rename", "ids", "remove"]).0, 1, "it is another's");
    assert_eq!(one.refuses(&["series", "rename", "ids", "a+b"]).0, 2);
    let listed = |args: &[&str]| {
        let list: Value = serde_json::from_str(&one.told(args)).unwrap();
        let names = list["series"].as_array().unwrap().iter();
        names.map(|series| series["series"].as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(listed(&["series", "--json"]), ["ids", "remove", "rename/x"]);
    assert_eq!(listed(&["series", "rename/", "--json"]), ["rename/x"]);
    let url = format!("http://127.0.0.1:{}", one.http);
    let output = tallyd().args(["series", "--json", "--url", &url, "--", "remove"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"remove\""));
    let mut client = one.client();
    let answer = client.request("DELETE", "/v1/series", &[], b"").unwrap();
    assert_eq!(answer.status, 400, "a forgotten prefix removes nothing");
}

#[test]
fn a_backup_founds_a_site_with_the_same_totals_and_another_id() {
    let site = Site::start(3);
    for one in &site.boxes {
        one.add("line1/parts", 7);
    }
    site.boxes[0].add("line1,\"odd\"", 1);
    let scratch = tempfile::tempdir().unwrap();
    let (file, data) = (scratch.path().join("plant7.tallyd"), scratch.path().join("data"));
    let follower = site.follower();
    let told = site.boxes[follower].told(&["backup", file.to_str().unwrap(), "--json"]);
    let head: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((head["site"].as_str(), head["series"].as_u64()), (Some(SITE), Some(2)));
    assert!(!file.with_extension("tallyd.tmp").exists());
    let restore = |file: &std::path::Path| {
        let output = tallyd().arg("restore").arg(file).arg("--data-dir").arg(&data).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // What is none, and what is half.
    let whole = std::fs::read(&file).unwrap();
    let wrong = scratch.path().join("wrong");
    for (bytes, said) in
        [(&b"# Not one"[..], "no backup"), (&whole[..whole.len() - 9], "cut"), (&[][..], "no backup")]
    {
        std::fs::write(&wrong, bytes).unwrap();
        let (status, why) = restore(&wrong);
        assert!(status == 1 && why.contains(said) && why.lines().count() == 1, "{status}: {why}");
        assert!(!data.exists(), "nothing is made");
    }
    assert_eq!(restore(&file), (0, String::new()));
    let (status, why) = restore(&file);
    assert!(status == 2 && why.contains("not empty"), "{status}: {why}");
    let http = free_port();
    std::fs::write(
        data.join("tallyd.toml"),
        format!(
            "[api]\nlisten = \"127.0.0.1:{http}\"\n[ingest.statsd]\nlisten = \"127.0.0.1:{}\"\n",
            free_port()
        ),
    )
    .unwrap();
    let mut command = tallyd();
    command.arg("run").arg("--data-dir").arg(&data);
    let process = crate::harness::Process::start(&mut command, &scratch.path().join("log"));
    let url = format!("http://127.0.0.1:{http}");
    let ask = |args: &[&str]| {
        let output = tallyd().args(args).args(["--url", &url]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    until("the restored site counts", || ask(&["add", "line1/parts", "1"]));
    let series: Value = serde_json::from_str(&ask(&["get", "line1/parts", "--json"]).unwrap()).unwrap();
    assert_eq!(series["total"], 22);
    assert!(series["since"].as_u64().unwrap() >= head["time"].as_u64().unwrap());
    let status: Value = serde_json::from_str(&ask(&["status", "--json"]).unwrap()).unwrap();
    assert_ne!(status["site_id"], head["site_id"]);
    let exported = ask(&["export", "--series", "line1"]).unwrap();
    assert!(exported.contains("total,line1/parts,counter,22,"), "{exported}");
    assert!(exported.contains("total,\"line1,\"\"odd\"\"\",counter,1,"), "{exported}");
    let of_directory = |format: &str| {
        let output = tallyd().args(["export", "--format", format, "--data-dir"]).arg(&data).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(of_directory("csv").0, 1, "it runs");
    process.kill();
    let (status, text) = of_directory("json");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &value["series"][1]["total"]), (0, &Value::from(22)), "{text}");
}
