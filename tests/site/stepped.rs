//! Site time that an operator set back: what is counted from then on is summarised like anything else. The clocks are
//! injected, which only builds with debug assertions can.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

const MONTH_MS: i64 = 30 * 86_400_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The closed windows of a series, as that box has them.
fn windows(site: &Site, at: usize, series: &str) -> Vec<Value> {
    let answer = site.boxes[at].client().get(&format!("/v1/windows/{series}?last=600"));
    let answer = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
    answer.and_then(|answer| answer["windows"].as_array().cloned()).unwrap_or_default()
}

#[test]
fn after_a_step_back_windows_are_closed_as_they_end_and_none_of_them_is_late() {
    for boxes in [1, 3] {
        let mut site = Site::provision(boxes, "1s", "");
        let set = |site: &Site, ahead_ms: i64| {
            for one in &site.boxes {
                std::fs::write(one.directory.with_extension("clock"), format!("{ahead_ms} unsynced\n"))
                    .unwrap();
            }
        };
        set(&site, MONTH_MS);
        for one in &mut site.boxes {
            let file = one.directory.with_extension("clock");
            one.start_with(&[("TALLYD_TEST_CLOCK", &file)]);
        }
        site.until_ready();
        site.set("window.grace", "100ms");
        let mut total = site.boxes[0].add("a", 1);
        until("a window of the wrong time is closed", || {
            let ahead = |window: &Value| {
                window["start"].as_i64().is_some_and(|start| start > now_ms() + MONTH_MS / 2)
            };
            windows(&site, 0, "a").iter().any(ahead).then_some(())
        });
        set(&site, 0);
        until("site time is set back", || {
            let answer = site.boxes[0].admin().post("/v1/clock/step", "").ok()?;
            let time = (answer.status == 200).then(|| answer.json()["time"].as_i64())??;
            ((time - now_ms()).abs() < 5_000).then_some(())
        });
        until("windows of the true time are closed, whoever leads", || {
            total += 1;
            assert_eq!(site.boxes[0].add("a", 1), total);
            let windows = windows(&site, boxes - 1, "a");
            let of_now = windows
                .iter()
                .filter(|window| window["start"].as_i64().is_some_and(|at| at < now_ms() + 5_000));
            let of_now: Vec<&Value> = of_now.collect();
            assert!(of_now.iter().all(|window| window["late"] == false), "{of_now:?}");
            (of_now.len() > 1).then_some(())
        });
        site.assert_same_digests();
    }
}
