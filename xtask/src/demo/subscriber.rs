//! A dashboard's side of the demo: what an MQTT subscriber receives, deduped and summed up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tools;

/// How many windows a row of the table shows.
const RECENT: usize = 24;

pub(super) struct Subscriber {
    child: Child,
    books: Arc<Mutex<Books>>,
}

/// What was received.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// By series.
    pub(super) rows: BTreeMap<String, Row>,
    /// Summaries received, repeats included.
    pub(super) received: u64,
    /// Those that had been received before.
    pub(super) repeated: u64,
    /// Numbers received.
    seqs: BTreeSet<u64>,
    /// The site that they are of, and other things that must not happen.
    site_id: Option<String>,
    pub(super) wrongs: Vec<String>,
    /// The latest `state` on the status topic.
    pub(super) state: String,
}

/// What was received of one series.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) kind: String,
    /// Sum of the increases (samples: of the counts).
    pub(super) sum: i128,
    /// The total that the latest summary names (counters).
    pub(super) total: Option<i128>,
    /// What happened in the latest windows: increases, or means.
    pub(super) recent: VecDeque<f64>,
    /// The latest total on the retained topic.
    retained: Option<i128>,
}

impl Subscriber {
    pub(super) fn start(port: u16, site: &str) -> Result<Subscriber> {
        let program = tools::find("mosquitto_sub").context("mosquitto_sub is not installed")?;
        let mut child = Command::new(program)
            .args(["-V", "5", "-h", "127.0.0.1", "-q", "1", "-F", "%j", "-p", &port.to_string()])
            .args(["-t", &format!("tally/{site}/#")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mosquitto_sub")?;
        let stdout = child.stdout.take().context("mosquitto_sub has no output")?;
        let books = Arc::new(Mutex::new(Books::default()));
        let shared = Arc::clone(&books);
        std::thread::spawn(move || read(stdout, &shared));
        Ok(Subscriber { child, books })
    }

    pub(super) fn books(&self) -> Books {
        lock(&self.books).clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(stdout: ChildStdout, books: &Mutex<Books>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let topic = message["topic"].as_str().unwrap_or_default();
        let payload: Value =
            serde_json::from_str(message["payload"].as_str().unwrap_or_default()).unwrap_or_default();
        lock(books).take(topic, &payload);
    }
}

impl Books {
    fn take(&mut self, topic: &str, payload: &Value) {
        let mut parts = topic.splitn(4, '/').skip(2);
        match (parts.next(), parts.next()) {
            (Some("summary"), Some(series)) => self.take_summary(series, payload),
            (Some("total"), Some(series)) => self.take_total(series, payload),
            (Some("status"), None) => {
                payload["state"].as_str().unwrap_or_default().clone_into(&mut self.state)
            }
            // How far the numbers go: for the boxes.
            (Some("status"), Some("numbered")) => {}
            _ => self.wrongs.push(format!("a message on the topic {topic}")),
        }
    }

    fn take_summary(&mut self, series: &str, summary: &Value) {
        self.received += 1;
        let (Some(seq), Some(site_id)) = (summary["seq"].as_u64(), summary["site_id"].as_str()) else {
            self.wrongs.push(format!("a summary of {series} without seq or site_id: {summary}"));
            return;
        };
        if self.site_id.get_or_insert_with(|| site_id.to_owned()) != site_id {
            self.wrongs.push(format!("summary {seq} is of another site, {site_id}"));
        }
        if !self.seqs.insert(seq) {
            self.repeated += 1;
            return;
        }
        let row = self.rows.entry(series.to_owned()).or_default();
        summary["kind"].as_str().unwrap_or_default().clone_into(&mut row.kind);
        let increase = integer(&summary["increase"]);
        let count = integer(&summary["count"]);
        let mean = summary["sum"].as_f64().zip(count).map(|(sum, count)| sum / count as f64);
        row.sum += increase.or(count).unwrap_or_default();
        if let Some(total) = integer(&summary["total"]) {
            if row.total.is_some_and(|before| total < before) {
                self.wrongs.push(format!("the total of {series} went back to {total} in summary {seq}"));
            }
            row.total = Some(total);
        }
        row.recent.extend(increase.map(|increase| increase as f64).or(mean));
        while row.recent.len() > RECENT {
            row.recent.pop_front();
        }
    }

    fn take_total(&mut self, series: &str, payload: &Value) {
        let Some(total) = integer(&payload["total"]) else { return };
        let row = self.rows.entry(series.to_owned()).or_default();
        if row.retained.is_some_and(|before| total < before) {
            self.wrongs.push(format!("the retained total of {series} went back to {total}"));
        }
        row.retained = Some(total);
    }

    /// The highest number received, and which below it were not.
    pub(super) fn gaps(&self) -> (u64, Vec<u64>) {
        let last = self.seqs.last().copied().unwrap_or_default();
        (last, (1..=last).filter(|seq| !self.seqs.contains(seq)).take(10).collect())
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(seq: u64, increase: u64, total: u64) -> Value {
        json!({"seq": seq, "site_id": "aa", "kind": "counter", "increase": increase, "total": total})
    }

    #[test]
    fn repeats_count_once_and_gaps_show() {
        let mut books = Books::default();
        for (seq, total) in [(1, 5), (2, 10), (1, 5), (4, 15)] {
            books.take("tally/demo/summary/a/b", &summary(seq, 5, total));
        }
        assert_eq!((books.rows["a/b"].sum, books.rows["a/b"].total), (15, Some(15)));
        assert_eq!((books.received, books.repeated), (4, 1));
        assert_eq!(books.gaps(), (4, vec![3]));
        assert!(books.wrongs.is_empty());
    }

    #[test]
    fn what_goes_back_is_noticed() {
        let mut books = Books::default();
        books.take("tally/demo/summary/a", &summary(1, 5, 5));
        books.take("tally/demo/summary/a", &summary(2, 1, 4));
        books.take("tally/demo/total/a", &json!({"total": 9}));
        books.take("tally/demo/total/a", &json!({"total": 8}));
        assert_eq!(books.wrongs.len(), 2, "{:?}", books.wrongs);
        let mut other = summary(3, 1, 10);
        other["site_id"] = json!("bb");
        books.take("tally/demo/summary/a", &other);
        assert_eq!(books.wrongs.len(), 3);
    }

    #[test]
    fn samples_show_their_means() {
        let mut books = Books::default();
        let sample = json!({"seq": 1, "site_id": "aa", "kind": "sample", "count": 4, "sum": 10.0});
        books.take("tally/demo/summary/t", &sample);
        assert_eq!((books.rows["t"].sum, books.rows["t"].recent[0]), (4, 2.5));
    }
}
