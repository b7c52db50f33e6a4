//! Resolves names to addresses. The system's lookup can block indefinitely and cannot be cancelled, so it never runs
//! on a thread that others need: each lookup has a thread of its own, at most one per name, and few names at a time.
//! A second caller meanwhile waits for the same answer, or uses the last one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The most names that are looked up at a time.
const PENDING_MAX: usize = 32;
/// The most names whose last answer is kept.
const KNOWN_MAX: usize = 256;
/// How long to wait for a new answer if there is an earlier one.
const PATIENCE: Duration = Duration::from_millis(500);

/// The result of a lookup.
type Answer = Result<Vec<SocketAddr>, String>;

static NAMES: Mutex<Names> = Mutex::new(Names { pending: BTreeMap::new(), known: BTreeMap::new() });

/// The lookups of this process.
#[derive(Debug)]
struct Names {
    pending: BTreeMap<String, watch::Receiver<Option<Answer>>>,
    known: BTreeMap<String, Vec<SocketAddr>>,
}

fn names() -> MutexGuard<'static, Names> {
    // Nothing panics while holding the lock.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resolves `HOST:PORT` to at least one address. May wait as long as the system's resolver: set a time limit. Dropping
/// the future leaves at most one thread per name behind.
///
/// # Errors
/// The resolver's error in words, or too many lookups that hang.
pub async fn addresses(host_port: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host_port.parse() {
        return Ok(vec![address]);
    }
    wait(ask(host_port, look_up)?.0).await
}

/// Resolves like [`addresses`], but returns the earlier answer, if there is one, when this lookup fails or takes long. For
/// callers that find out by themselves whether the answer is still right.
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
    answer.unwrap_or_else(|| Err("the lookup ended without an answer".to_owned()))
}

/// The system's lookup.
fn look_up(host_port: &str) -> Answer {
    let found = host_port.to_socket_addrs().map_err(|error| format!("name lookup failed: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
}

type Asked = (watch::Receiver<Option<Answer>>, Option<Vec<SocketAddr>>);

/// Starts a lookup, unless one of this name is in progress.
fn ask(name: &str, look_up: impl FnOnce(&str) -> Answer + Send + 'static) -> Result<Asked, String> {
    let mut names = names();
    let known = names.known.get(name).cloned();
    if let Some(pending) = names.pending.get(name) {
        return Ok((pending.clone(), known));
    }
    if names.pending.len() >= PENDING_MAX {
        return Err(format!(
            "{PENDING_MAX} lookups of other names have no answer yet: does the resolver hang?"
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
    begun.map_err(|error| format!("cannot start a lookup thread: {error}"))?;
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
