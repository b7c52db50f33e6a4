//! Clients of all boxes, which count all the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::boxes::Place;
use crate::harness::until;
use crate::http::Client;

/// How long a try may take: a box that stands still answers nothing.
const TRY_MAX: Duration = Duration::from_secs(5);

/// Between one add of a client and the next.
const BETWEEN: Duration = Duration::from_millis(8);

/// Acknowledged adds by client, and when to end.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    acknowledged: [AtomicU64; 3],
    ends: AtomicBool,
}

impl Clients {
    /// Adds at one box, with a key each; without an answer again with the same key, at the next box.
    pub(crate) fn run(&self, number: usize, places: &[Place]) {
        let client = |at: usize| {
            let Place { http, namespace, .. } = places[at].clone();
            Client::new(http).inside(namespace).patient_for(TRY_MAX)
        };
        let mut at = number;
        let mut one = client(at);
        for add in 0.. {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("load-{number}-{add}");
            until("an add is acknowledged", || {
                match one.post_keyed("/v1/counters/load", r#"{"add":1}"#, &key) {
                    Ok(answer) if answer.status == 200 => return Some(()),
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                    Err(_) => {}
                }
                at = (at + 1) % places.len();
                one = client(at);
                None
            });
            self.acknowledged[number].fetch_add(1, Ordering::Relaxed);
            // The site remembers each key: so many that a small partition still holds them on a slow machine.
            std::thread::sleep(BETWEEN);
        }
    }

    /// Waits until each of them has gone on.
    pub(crate) fn until_all_go_on(&self, after: &str) {
        for (number, count) in self.acknowledged.iter().enumerate() {
            let before = count.load(Ordering::Relaxed);
            until(&format!("client {number} goes on after {after}"), || {
                (count.load(Ordering::Relaxed) >= before + 5).then_some(())
            });
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Has them end at the latest when that is dropped: also where a failed assertion ends the test.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends(self)
    }
}

#[derive(Debug)]
pub(crate) struct Ends<'a>(&'a Clients);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
