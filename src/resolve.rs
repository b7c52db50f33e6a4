//! Names to addresses. The system's look-up blocks for as long as it likes and cannot be called off, so it never runs
//! on a thread that others need: each name that is looked up has a thread of its own, one at a time, and few names do.
//! Whoever asks again meanwhile waits for the same answer, or goes by the last one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Most names that are looked up at a time.
const PENDING_MAX: usize = 32;
/// Most names of which the last answer is kept.
const KNOWN_MAX: usize = 256;
/// With an earlier answer at hand, a new one is waited for no longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a look-up gave.
type Answer = Result<Vec<SocketAddr>, String>;

static NAMES: Mutex<Names> = Mutex::new(Names { pending: BTreeMap::new(), known: BTreeMap::new() });

/// The look-ups of this process.
#[derive(Debug)]
struct Names {
    pending: BTreeMap<String, watch::Receiver<Option<Answer>>>,
    known: BTreeMap<String, Vec<SocketAddr>>,
}

fn names() -> MutexGuard<'static, Names> {
    // Nothing panics while holding the lock.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of `HOST:PORT`, at least one. May wait for as long as the system's resolver does: bound it. Dropping
/// it leaves nothing but one thread a name behind.
///
/// # Errors
/// What the resolver said, in words; or that too many look-ups hang.
pub async fn addresses(host_port: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host_port.parse() {
        return Ok(vec![address]);
    }
    wait(ask(host_port, look_up)?.0).await
}

/// As [`addresses`]; where an earlier look-up had an answer and this one fails or takes long, that answer. For
/// those who find out by themselves whether it is still right.
///
/// # Errors
/// As [`addresses`].
pub async fn addresses_or_last(host_port: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host_port.parse() {
        return Ok(vec![address]);
    }
    let (answer, known) = ask(host_port, look_up)?;
    let Some(known) = known else { return wait(answer).await };
    match tokio::time::timeout(PATIENCE, wait(answer)).await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(_)) | Err(_) => Ok(known),
    }
}

async fn wait(mut answer: watch::Receiver<Option<Answer>>) -> Answer {
    let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    answer.unwrap_or_else(|| Err("the look-up ended without an answer".to_owned()))
}

/// The system's look-up.
fn look_up(host_port: &str) -> Answer {
    let found = host_port.to_socket_addrs().map_err(|error| format!("cannot look it up: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err("its name has no address".to_owned()) } else { Ok(found) }
}

type Asked = (watch::Receiver<Option<Answer>>, Option<Vec<SocketAddr>>);

/// Begins a look-up, unless one of this name is under way.
fn ask(name: &str, look_up: impl FnOnce(&str) -> Answer + Send + 'static) -> Result<Asked, String> {
    let mut names = names();
    let known = names.known.get(name).cloned();
    if let Some(pending) = names.pending.get(name) {
        return Ok((pending.clone(), known));
    }
    if names.pending.len() >= PENDING_MAX {
        return Err(format!(
            "{PENDING_MAX} look-ups of other names have no answer yet: is the resolver hung?"
        ));
    }
    let (sender, receiver) = watch::channel(None);
    let owned = name.to_owned();
    let thread = std::thread::Builder::new().name("resolve".to_owned()).stack_size(1 << 20);
    let begun = thread.spawn(move || {
        let answer = look_up(&owned);
        done(owned, &answer);
        // Whoever asked may have gone.
        let _ = sender.send(Some(answer));
    });
    begun.map_err(|error| format!("no thread to look it up: {error}"))?;
    names.pending.insert(name.to_owned(), receiver.clone());
    Ok((receiver, known))
}

fn done(name: String, answer: &Answer) {
    let mut names = names();
    names.pending.remove(&name);
    if let Ok(addresses) = answer {
        if names.known.len() >= KNOWN_MAX && !names.known.contains_key(&name) {
            names.known.pop_first();
        }
        names.known.insert(name, addresses.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        assert_eq!(addresses("127.0.0.1:7").await, Ok(vec![SocketAddr::from(([127, 0, 0, 1], 7))]));
        assert!(addresses("[::1]:7").await.unwrap()[0].is_ipv6());
        assert!(addresses("localhost:7").await.unwrap().iter().all(|address| address.ip().is_loopback()));
        assert!(addresses("no port").await.is_err());
    }

    #[tokio::test]
    async fn a_hung_look_up_has_one_thread_and_the_last_answer_serves_meanwhile() {
        let name = "a-name-of-this-test:1";
        let address = SocketAddr::from(([127, 0, 0, 2], 1));
        let (mut answer, known) = ask(name, move |_| Ok(vec![address])).unwrap();
        assert_eq!(known, None);
        assert_eq!(*answer.wait_for(Option::is_some).await.unwrap(), Some(Ok(vec![address])));
        let (go, wait) = mpsc::channel::<()>();
        let hang = move |_: &str| {
            let _ = wait.recv();
            Err("never".to_owned())
        };
        let (first, known) = ask(name, hang).unwrap();
        assert_eq!(known, Some(vec![address]));
        for _ in 0..100 {
            let (again, _) = ask(name, |_| unreachable!("one is under way")).unwrap();
            assert!(again.same_channel(&first));
        }
        assert_eq!(addresses_or_last(name).await, Ok(vec![address]));
        drop(go);
    }
}
