//! Series that are removed and renamed, over a real broker and by the real command line.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::boxes::{SITE, Site, TestBox};
use crate::broker::{Broker, Subscriber};
use crate::harness::{tallyd, until};

impl TestBox {
    pub(crate) fn client_command(&self, args: &[&str]) -> Output {
        tallyd().args(args).args(["--url", &self.admin_url()]).output().unwrap()
    }

    pub(crate) fn told(&self, args: &[&str]) -> String {
        let output = self.client_command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit status, and what is said on standard error.
    pub(crate) fn refuses(&self, args: &[&str]) -> (i32, String) {
        let output = self.client_command(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// What the broker retains under the total of a series, as one who comes now sees it.
pub(crate) fn retained(broker: &Broker, series: &str) -> Option<Value> {
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
    let mut client = one.admin();
    let answer = client.request("DELETE", "/v1/series", &[], b"").unwrap();
    assert_eq!(answer.status, 400, "a forgotten prefix removes nothing");
}
