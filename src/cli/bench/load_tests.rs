use super::*;
use crate::cli::bench::script::Requests;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicU64;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the stand-in for a box does with a request; `u64`: how many came before it.
type Answers = dyn Fn(u64, &str) -> Option<String> + Send + Sync;

fn answer(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

/// Serves each connection from a thread of its own until the client goes. `None` closes it. Where that is, and how
/// many requests came.
fn serve(answers: Arc<Answers>) -> (BenchTarget, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let came = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answers, count) = (stream.unwrap(), Arc::clone(&answers), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                // Requests are small and come one at a time, so each is one read.
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..bytes]);
                    let Some(answer) = answers(count.fetch_add(1, Ordering::Relaxed), &text) else { return };
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (BenchTarget::parse(&url).unwrap(), came)
}

fn behaviour(targets: Vec<BenchTarget>, failover: bool) -> Behaviour {
    Behaviour {
        targets,
        spread: failover,
        try_timeout: failover.then_some(Duration::from_millis(50)),
        settle: Duration::from_secs(20),
        gap_ms_least: 1e6,
    }
}

/// Clients that add to one series.
async fn started(behaviour: Behaviour, clients: u32, keyed: bool) -> Load {
    let requests = Arc::new(Requests::new("h", "bench", 1, keyed));
    let scripts = (0..clients).map(|client| Script::adds(Arc::clone(&requests), 1, client)).collect();
    Load::start(behaviour, scripts, 1).await
}

/// Waits until so many requests came to each of these servers.
async fn until_came(wanted: &[(&AtomicU64, u64)]) {
    let all_came = async {
        while wanted.iter().any(|(came, wanted)| came.load(Ordering::Relaxed) < *wanted) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_came).await.expect("the requests come");
}

/// Adds of `clients` clients to one series, until so many more requests came to each of these servers.
async fn run(behaviour: Behaviour, clients: u32, keyed: bool, more: &[(&AtomicU64, u64)]) -> Tally {
    let load = started(behaviour, clients, keyed).await;
    let wanted: Vec<(&AtomicU64, u64)> =
        more.iter().map(|(came, more)| (*came, came.load(Ordering::Relaxed) + more)).collect();
    load.measure_until(until_came(&wanted)).await;
    load.finish().await
}

fn proof(tally: &Tally, held: u64) -> crate::cli::bench::ledger::Proof {
    let totals = HashMap::from([("bench/0000".to_owned(), i128::from(held))]);
    tally.ledger.prove(&["bench/0000".to_owned()], &HashMap::new(), &totals)
}

#[tokio::test]
async fn each_answer_is_one_acknowledged_add() {
    let held = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&held);
    let (target, came) = serve(Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer("200 OK", "{}")
    }));
    // Many more than can be under way at once.
    let tally = run(behaviour(vec![target], false), 8, false, &[(&came, 100)]).await;
    let proof = proof(&tally, held.load(Ordering::Relaxed));
    assert!(tally.requests > 0 && tally.requests <= proof.acknowledged);
    assert_eq!((proof.lost, proof.doubled, proof.unknown), (0, 0, 0));
    assert_eq!(tally.latency.len(), tally.requests);
    assert_eq!(tally.errors, BTreeMap::new());
}

#[tokio::test]
async fn without_a_key_an_unknown_outcome_stays_open_and_a_refusal_does_not() {
    let (target, came) = serve(Arc::new(|count, _| match count % 4 {
        0 => answer("503 Service Unavailable", r#"{"type":"urn:tallyd:error:outcome-unknown"}"#),
        1 => answer("503 Service Unavailable", r#"{"type":"urn:tallyd:error:not-committed"}"#),
        2 => answer("409 Conflict", "no json"),
        _ => None,
    }));
    let tally = run(behaviour(vec![target], false), 1, false, &[(&came, 8)]).await;
    let count = |kind: &str| tally.errors.get(kind).copied().unwrap_or(0);
    assert!(count("outcome-unknown") > 0 && count("not-committed") > 0 && count("status 409") > 0);
    let disconnected: u64 =
        tally.errors.iter().filter(|(kind, _)| kind.starts_with("disc")).map(|(_, n)| n).sum();
    let proof = proof(&tally, 0);
    assert_eq!((proof.acknowledged, proof.unknown), (0, count("outcome-unknown") + disconnected));
}

#[tokio::test]
async fn with_a_key_an_add_is_tried_at_the_next_box_until_it_is_known() {
    // Both boxes share what they hold: a set of keys. One is slow, closes or does not know, by turns.
    let keys = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let take = |keys: &Mutex<std::collections::HashSet<String>>, request: &str| {
        let key = request.split("idempotency-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
        keys.lock().unwrap().insert(key.to_owned());
    };
    let (bad_keys, good_keys) = (Arc::clone(&keys), Arc::clone(&keys));
    let (bad, came_to_bad) = serve(Arc::new(move |count, request| {
        take(&bad_keys, request);
        match count % 3 {
            0 => answer("503 Service Unavailable", r#"{"type":"urn:tallyd:error:outcome-unknown"}"#),
            1 => None,
            _ => {
                // Far longer than a try may take.
                std::thread::sleep(PATIENCE);
                None
            }
        }
    }));
    let (good, came_to_good) = serve(Arc::new(move |_, request| {
        take(&good_keys, request);
        answer("200 OK", "{}")
    }));
    // Nobody listens here any more.
    let gone = BenchTarget::parse(&format!(
        "http://{}",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    ));
    let load = started(behaviour(vec![bad, good, gone.unwrap()], true), 6, true).await;
    // The bad box has been slow once by then; clients stay at the good one.
    load.measure_until(until_came(&[(&came_to_bad, 3), (&came_to_good, 30)])).await;
    let tally = load.finish().await;
    let held = keys.lock().unwrap().len() as u64;
    let proof = proof(&tally, held);
    assert!(proof.acknowledged > 0);
    assert_eq!((proof.lost, proof.doubled, proof.unknown), (0, 0, 0), "{:?}", tally.errors);
    assert!(tally.errors.contains_key("no answer within the time limit"), "{:?}", tally.errors);
    assert!(tally.errors.keys().any(|kind| kind.starts_with("not connected")), "{:?}", tally.errors);
}

#[tokio::test]
async fn what_has_no_answer_at_the_end_is_open() {
    let (target, came) = serve(Arc::new(|_, _| {
        std::thread::sleep(Duration::from_secs(3_600));
        None
    }));
    let settle = Duration::from_millis(50);
    let load = started(Behaviour { settle, ..behaviour(vec![target], false) }, 3, false).await;
    until_came(&[(&came, 3)]).await;
    let tally = load.finish().await;
    let proof = proof(&tally, 0);
    assert_eq!((proof.acknowledged, proof.unknown), (0, 3));
}
