//! One link is cut: a follower does not hear its leader, and both hear all others.

use std::time::{Duration, Instant};

use super::lab::in_lab;
use super::site::{BOXES, NetSite};
use super::standstill::ATTEMPTS;
use crate::harness::until;
use crate::http::Answer;

/// Far less than the 10 s that a request waits at most, far more than an answer takes.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_box_that_does_not_hear_the_leader_sends_clients_elsewhere_and_loses_nothing() {
    let test = "net::one_link::a_box_that_does_not_hear_the_leader_sends_clients_elsewhere_and_loses_nothing";
    in_lab(test, || {
        let mut net = NetSite::start();
        // The series that adds were sent to in vain, and the two boxes that hear the leader or do not.
        let turned_away = |attempt: usize| {
            let series = format!("a/{attempt}");
            turned_away(&mut net, &series).map(|(deaf, other)| (series, deaf, other))
        };
        let found = (0..ATTEMPTS).find_map(turned_away);
        let (series, deaf, other) = found.expect("leadership moves again and again");
        // What nobody waits for is kept until it hears a leader again.
        net.site.boxes[deaf].statsd("b:5|c");
        net.site.boxes[other].add(&series, 2);
        net.network.mend();
        net.site.until_ready();
        net.site.boxes[deaf].until_total("b", 5);
        assert_eq!(net.site.boxes[deaf].total(&series), 2, "what was said not to be done was not");
        net.site.assert_same_digests();
    });
}

/// Cuts the leader and the next box off each other, and looks at what that one says to clients, which is that it
/// hears no leader; that box and another one. `None` if leadership moved meanwhile: then it hears the leader.
fn turned_away(net: &mut NetSite, series: &str) -> Option<(usize, usize)> {
    net.network.mend();
    let leader = net.site.leader();
    let (deaf, other) = ((leader + 1) % BOXES, (leader + 2) % BOXES);
    net.network.cut_only([(leader, deaf), (deaf, leader)]);
    let all: Vec<usize> = (0..BOXES).collect();
    let moved = || net.leader_among(&all).is_some_and(|leads| leads != leader);
    let mut client = net.site.boxes[deaf].client();
    until("it says that it hears no leader, or leadership moved", || {
        if let Ok(answer) = client.post("/v1/counters/meanwhile", "{\"add\":1}")
            && answer.status == 503
            && answer.text().contains("had no leader")
        {
            return Some(());
        }
        moved().then_some(())
    });
    let not_committed = |answer: &Answer| {
        answer.status == 503
            && answer.problem().ends_with("not-committed")
            && answer.header("retry-after").is_some()
    };
    let add = format!("/v1/counters/{series}");
    let asked: [(&str, &str, &str); 4] = [
        ("POST", &add, "{\"add\":1}"),
        ("POST", "/v1/sources/source/epochs", ""),
        ("GET", &format!("/v1/series/{series}"), ""),
        ("GET", "/readyz", ""),
    ];
    for (method, path, body) in asked {
        let begun = Instant::now();
        let answer = client.request(method, path, &[], body.as_bytes()).unwrap();
        let (took, is_post) = (begun.elapsed(), method == "POST");
        let said_so = if is_post { not_committed(&answer) } else { answer.status == 503 };
        if !said_so || took >= AT_ONCE {
            assert!(moved(), "{method} {path}: {}, after {took:?}: {}", answer.status, answer.text());
            return None;
        }
    }
    Some((deaf, other))
}
