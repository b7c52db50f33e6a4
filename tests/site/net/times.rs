//! Whether time is as it must be: what boxes show as site time never goes back, closed windows stay as they are and
//! follow each other, and together they hold what was counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::clock::now_ms;
use super::site::NetSite;
use crate::boxes::Site;
use crate::harness::until;
use crate::http::Client;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A box that is paused or cut off answers nothing.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Site time may be behind by so much when boxes have just started.
const BEFORE_MS: i64 = 2000;
/// More windows of a series than any of these tests makes; a box keeps more.
const WINDOWS: usize = 1000;

/// A series that clients add to all the time.
pub(crate) const SERIES: &str = "history/0";

/// Closed windows by their starts.
type Windows = BTreeMap<i64, Window>;

/// One that was closed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    increase: u64,
    synced: bool,
}

/// Looks at all boxes all the time.
#[derive(Debug)]
pub(crate) struct Times {
    /// The true time when it began, Unix milliseconds.
    began_ms: i64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Times {
    /// `ahead_ms_max`: how far ahead of the true time site time may be seen at most.
    pub(crate) fn watch(site: &Site, ahead_ms_max: i64) -> Times {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |at: usize| site.boxes[at].client().patient_for(ANSWER_MAX);
        let all: Vec<Client> = (0..site.boxes.len()).map(client).collect();
        let mut threads = Vec::new();
        for (at, one) in site.boxes.iter().enumerate() {
            let (name, client, stop) = (one.name.clone(), client(at), stop.clone());
            threads.push(std::thread::spawn(move || watch_box(&name, client, ahead_ms_max, &stop)));
        }
        let told = stop.clone();
        threads.push(std::thread::spawn(move || watch_windows(all, &told)));
        Times { began_ms: now_ms(), stop, threads }
    }

    /// Ends the watch, which must have seen something everywhere; then clients must not add any more: the closed
    /// windows of each of these series come to its total.
    pub(crate) fn finish(mut self, net: &NetSite, series: &[&str]) {
        self.stop.store(true, Ordering::Relaxed);
        let seen: Vec<u64> = std::mem::take(&mut self.threads)
            .into_iter()
            .map(|thread| thread.join().expect("a watcher of the time failed; its message stands above"))
            .collect();
        assert!(seen.iter().all(|looks| *looks > 0), "somewhere nothing was seen: {seen:?}");
        for name in series {
            let windows = held_by_windows(net, name, self.began_ms);
            eprintln!("{name}: {windows} windows come to its total");
        }
        eprintln!("site time was looked at {seen:?} times, and never went back");
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Site time as one box shows it. A box that has just started and has heard of no leader can only guess.
fn watch_box(name: &str, mut client: Client, ahead_ms_max: i64, stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    let mut last: Option<(Value, i64)> = None;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_EVERY);
        let Ok(answer) = client.get("/v1/status") else { continue };
        let now = now_ms();
        let status = answer.json();
        let (life, site_ms) = (status["pid"].clone(), status["clock"]["site_ms"].as_i64().unwrap());
        let known = last.take().filter(|(before, _)| *before == life).map(|(_, before)| before);
        if known.is_none() && status["ready"] != true {
            continue;
        }
        if let Some(before) = known {
            assert!(site_ms >= before, "{name} showed a site time of {before} and then {site_ms}");
        }
        assert!(site_ms - now <= ahead_ms_max, "{name} shows a site time {} ms ahead", site_ms - now);
        last = Some((life, site_ms));
        looks += 1;
    }
    looks
}

/// What boxes tell of closed windows, at one after the other.
fn watch_windows(mut boxes: Vec<Client>, stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    let mut all = Windows::new();
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        let at = at % boxes.len();
        let Some(told) = windows(&mut boxes[at], SERIES, 60) else { continue };
        let now = in_time(&told);
        // These reads are linearizable: what was closed before the last one is here too, and nothing is before it.
        for (start, window) in &now {
            let known = all.get(start);
            assert!(known.is_none_or(|known| known == window), "{start} was {known:?} and is {window:?}");
            let newest = all.last_key_value();
            assert!(
                known.is_some() || newest.is_none_or(|(newest, _)| newest < start),
                "the window {start} was closed after {newest:?}"
            );
        }
        let newest = |of: &Windows| of.last_key_value().map(|(start, _)| *start);
        assert!(newest(&now) >= newest(&all), "the window {:?} was there and is gone", newest(&all));
        all.extend(now);
        looks += 1;
    }
    looks
}

/// Those of a list that were closed in time, which must be in order.
fn in_time(told: &[Value]) -> Windows {
    let mut windows = Windows::new();
    for one in told.iter().filter(|one| one["late"] == false) {
        let (start, span) = (one["start"].as_i64().unwrap(), one["span"].as_i64().unwrap());
        assert!(start % span == 0, "a window of {span} ms begins at {start}");
        let newest = windows.last_key_value().map(|(newest, _)| *newest);
        assert!(newest.is_none_or(|newest| newest + span <= start), "{start} is told after {newest:?}");
        let window = Window { increase: one["increase"].as_u64().unwrap(), synced: one["clock"] == "synced" };
        windows.insert(start, window);
    }
    windows
}

fn windows(client: &mut Client, series: &str, last: usize) -> Option<Vec<Value>> {
    let answer = client.get(&format!("/v1/windows/{series}?last={last}")).ok()?;
    (answer.status == 200).then(|| answer.ok()["windows"].as_array().cloned())?
}

/// Waits until all that a series counted is in closed windows, late ones included, none of them of before the test;
/// how many there are.
fn held_by_windows(net: &NetSite, series: &str, began_ms: i64) -> usize {
    let one = &net.site.boxes[0];
    let total = one.total(series) as u64;
    until(&format!("the windows of {series} come to its total, {total}"), || {
        let windows = windows(&mut one.client(), series, WINDOWS)?;
        assert!(windows.len() < WINDOWS, "not all windows can be seen");
        let before = windows.iter().find(|window| {
            window["start"].as_i64().unwrap() + window["span"].as_i64().unwrap() + BEFORE_MS < began_ms
        });
        assert_eq!(before, None, "{series} was counted in no window of before {began_ms}");
        let sum: u64 = windows.iter().map(|window| window["increase"].as_u64().unwrap()).sum();
        assert!(sum <= total, "the windows of {series} come to {sum}, its total is {total}");
        (sum == total).then_some(windows.len())
    })
}

/// Waits until a window is closed whose flag says that; when that one began.
pub(crate) fn until_flagged(net: &NetSite, synced: bool) -> i64 {
    until(&format!("a window is closed whose flag is {synced}"), || {
        let told = windows(&mut net.site.boxes[0].client(), SERIES, 60)?;
        let (start, newest) = in_time(&told).pop_last()?;
        (newest.synced == synced).then_some(start)
    })
}

/// Waits until so many more windows are closed, all with the same flag as the one that began then.
pub(crate) fn stays_flagged(net: &NetSite, from: i64, synced: bool, windows_more: usize) {
    until("more windows are closed", || {
        let told = windows(&mut net.site.boxes[0].client(), SERIES, 60)?;
        let since = in_time(&told).split_off(&from);
        let other = since.iter().find(|(_, window)| window.synced != synced);
        assert_eq!(other, None, "of those since {from} all are flagged {synced}");
        (since.len() > windows_more).then_some(())
    });
}
