//! Who does not get in, and what they are told: each line, with its exit status.

use std::net::{SocketAddr, UdpSocket};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::boxes::{Site, TestBox};
use crate::harness::{free_port, until};
use crate::joining::{address, found, join, joined, start_waiting, token, told, tried};
use crate::joining_wire::endpoint;

fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
}

#[test]
fn every_refusal_is_one_line_with_its_exit_status() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    start_waiting(&mut site.boxes[1]);
    let (one, two) = (&site.boxes[0], &site.boxes[1]);
    let good = token(one, &[]);
    let by = address(one);
    let with = |token: &str, more: &[&str]| tried(two, &[&["join", &by, "--token", token], more].concat());

    let last = good.chars().last().unwrap();
    let typed = format!("{}{}", &good[..good.len() - 1], if last == '7' { '8' } else { '7' });
    assert_refused(&with(&typed, &[]), 2, &["mistyped", "nothing was sent"]);
    assert_refused(&with("K10abc", &[]), 2, &["not a token"]);

    let nobody = format!("127.0.0.1:{}", free_port());
    let output = tried(two, &["join", &nobody, "--token", &good]);
    assert_refused(&output, 3, &["cannot reach", &nobody, "is that box running"]);

    let unknown = with("tally1-00041-06105-0r3gg-28a1c-60t3g-fzsrn", &[]);
    assert_refused(&unknown, 1, &["does not know this token", &by, "tallyd token create"]);
    one.until_log("which this site does not know");

    let revoked = token(one, &[]);
    let listed = told(one, &["token", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let id = listed["tokens"][1]["id"].as_str().unwrap();
    assert!(told(one, &["token", "revoke", id]).contains("not good any more"));
    assert_refused(&tried(one, &["token", "revoke", id]), 1, &["no-such-token"]);
    assert_refused(&with(&revoked, &[]), 1, &["does not know this token"]);

    let ended = token(one, &["--ttl", "1ms"]);
    assert_refused(&with(&ended, &[]), 1, &["does not know this token"]);

    let elsewhere = format!("127.0.0.1:{}", free_port());
    let output = with(&good, &["--advertise", &elsewhere]);
    assert_refused(&output, 1, &["box1 cannot reach this box at", &elsewhere, "--advertise"]);

    assert_refused(&with(&good, &["--name", "box9"]), 1, &["node.name", "box2"]);
    assert_refused(&tried(one, &["join", &by, "--token", &good]), 1, &["box1 (number 1) of the site plant7"]);
    let place = tried(one, &["token", "create", "--replace", "box7"]);
    assert_refused(&place, 1, &["no member of this name"]);

    // After all of that the token is as good as new.
    assert!(joined(two, one, &good).contains("number 2"));
    assert_refused(&join(two, one, &good), 1, &["box2 (number 2) of the site plant7"]);
    let renamed = tried(one, &["init", "--site", "other"]);
    assert_refused(&renamed, 1, &["of the site plant7", "2 boxes", "only a site of one box can be renamed"]);
}

#[test]
fn a_name_that_is_taken_is_told_with_whose_it_is() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    let config = site.boxes[1].directory.join("tallyd.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"box2\"", "\"box1\"");
    std::fs::write(&config, text).unwrap();
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let output = join(&site.boxes[1], &site.boxes[0], &good);
    assert_refused(
        &output,
        1,
        &["plant7 has a box \"box1\" (number 1, reached)", "--name", "--replace box1"],
    );
}

#[test]
fn a_data_directory_with_half_a_box_in_it_is_used_for_nothing() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    std::fs::create_dir(site.boxes[1].directory.join("log")).unwrap();
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    assert_refused(&join(&site.boxes[1], &site.boxes[0], &good), 1, &["is not empty", "move it away"]);
    assert_refused(&tried(&site.boxes[1], &["init", "--site", "other"]), 1, &["is not empty"]);
}

#[test]
fn a_site_without_a_leader_takes_nobody_in_and_says_so_when_the_time_is_up() {
    let mut site = Site::start(2);
    site.add_waiting();
    start_waiting(&mut site.boxes[2]);
    let good = token(&site.boxes[0], &[]);
    site.boxes[1].kill();
    until("box1 knows that it has no majority", || {
        site.boxes[0].try_status()?["leader"].is_null().then_some(())
    });
    let by = address(&site.boxes[0]);
    let output = tried(&site.boxes[2], &["join", &by, "--token", &good, "--timeout", "4s"]);
    assert_refused(&output, 3, &["plant7 has no leader: nothing changed"]);
    // The same command again, once there is one.
    site.boxes[1].start();
    site.boxes[0].until_ready();
    assert!(joined(&site.boxes[2], &site.boxes[0], &good).contains("box3 is number 3 of plant7"));
}

#[test]
fn a_site_of_nine_members_takes_no_tenth() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    for id in 2..10 {
        let (member, key) = (format!("guest{id}=127.0.0.1:{}", free_port()), format!("{id:064x}"));
        let id = id.to_string();
        let add = ["member", "add", &member, "--id", &id, "--key", &key, "--role", "observer", "--no-wait"];
        told(&site.boxes[0], &add);
    }
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let output = join(&site.boxes[1], &site.boxes[0], &good);
    assert_refused(&output, 1, &["plant7: a site has at most 9 members", "remove one first"]);
    until("the guests are in force", || {
        let status = site.boxes[0].try_status()?;
        let mut guests = status["members"].as_array()?.iter().skip(1);
        guests.all(|guest| guest["membership"] == "observer").then_some(())
    });
    told(&site.boxes[0], &["member", "remove", "guest9"]);
    assert!(joined(&site.boxes[1], &site.boxes[0], &good).contains("box2 is number 10 of plant7"));
}

/// Passes datagrams to a box and back, those back only as long as nothing is `cut`. Tells in `came` that one came.
fn datagrams_to(to: SocketAddr, cut: Arc<AtomicBool>, came: Arc<AtomicBool>) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = near.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut ways: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = near.recv_from(&mut datagram) {
            came.store(true, Ordering::SeqCst);
            let known = ways.iter().find(|(address, _)| *address == from).map(|(_, far)| Arc::clone(far));
            let far = known.unwrap_or_else(|| {
                let far = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                let (back, near, cut) = (Arc::clone(&far), near.try_clone().unwrap(), Arc::clone(&cut));
                std::thread::spawn(move || {
                    let mut datagram = vec![0; 65_536];
                    while let Ok(length) = back.recv(&mut datagram) {
                        if !cut.load(Ordering::SeqCst) {
                            let _ = near.send_to(&datagram[..length], from);
                        }
                    }
                });
                far.connect(to).unwrap();
                ways.push((from, Arc::clone(&far)));
                far
            });
            let _ = far.send(&datagram[..length]);
        }
    });
    address
}

#[test]
fn a_box_that_hears_no_answer_is_told_that_it_may_be_a_member_and_is_one_when_it_asks_again() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let at = |one: &TestBox| address(one).parse::<SocketAddr>().unwrap();
    // From the dial back on, which follows the question, nothing comes back.
    let is_asked = Arc::<AtomicBool>::default();
    let reached = datagrams_to(at(&site.boxes[1]), Arc::default(), Arc::clone(&is_asked)).to_string();
    let by = datagrams_to(at(&site.boxes[0]), is_asked, Arc::default()).to_string();
    let with = ["join", &by, "--token", &good, "--advertise", &reached, "--timeout", "8s"];
    let output = tried(&site.boxes[1], &with);
    assert_refused(&output, 4, &["may be a member already: run the same command again"]);
    until("the site has taken it in", || {
        (site.boxes[0].try_status()?["members"].as_array()?.len() == 2).then_some(())
    });
    let again = ["join", &address(&site.boxes[0]), "--token", &good, "--advertise", &reached];
    assert!(told(&site.boxes[1], &again).contains("box2 is number 2 of plant7"));
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), 2);
}

/// Somebody in the middle, with a key of its own, who passes on each byte both ways. Gives its address.
fn relay_before(one: &TestBox) -> SocketAddr {
    let to = address(one).parse().unwrap();
    let (started, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let endpoint = relay_endpoint();
            started.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(pass(endpoint.clone(), incoming, to));
            }
        });
    });
    address.recv().unwrap()
}

fn relay_endpoint() -> quinn::Endpoint {
    let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    endpoint(made.cert.der().clone(), key, "127.0.0.1:0".parse().unwrap())
}

/// Passes on what the two ends say to each other.
async fn pass(endpoint: quinn::Endpoint, incoming: quinn::Incoming, to: SocketAddr) {
    let near = incoming.await.unwrap();
    let far = endpoint.connect(to, "join.tally").unwrap().await.unwrap();
    let copy = |from: quinn::Connection, to: quinn::Connection| async move {
        let mut read = from.accept_uni().await.ok()?;
        let mut write = to.open_uni().await.ok()?;
        while let Some(chunk) = read.read_chunk(1 << 16, true).await.ok()? {
            write.write_all(&chunk.bytes).await.ok()?;
        }
        Some(())
    };
    tokio::join!(copy(near.clone(), far.clone()), copy(far, near));
}

#[test]
fn somebody_between_two_honest_ends_is_found_out_and_told_nothing() {
    let mut site = Site::waiting(2);
    found(&mut site.boxes[0]);
    start_waiting(&mut site.boxes[1]);
    let good = token(&site.boxes[0], &[]);
    let by = relay_before(&site.boxes[0]).to_string();
    let output = tried(&site.boxes[1], &["join", &by, "--token", &good]);
    assert_refused(&output, 1, &["does not hold this token", "somebody in between", "nothing was told"]);
    assert_eq!(site.boxes[0].status()["members"].as_array().unwrap().len(), 1);
    assert!(joined(&site.boxes[1], &site.boxes[0], &good).contains("number 2"));
}
