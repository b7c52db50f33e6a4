//! Signal handling: some signals stop the daemon, one makes it read its configuration again, and those that
//! would otherwise kill it without need are ignored.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Make an orderly stop.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
}

/// A listener; see [`Signals::ignore_others`].
#[derive(Debug)]
pub struct Signals {
    all: Vec<(Means, &'static str, Signal)>,
}

#[derive(Clone, Copy, Debug)]
enum Means {
    Stop,
    Reload,
    Nothing { logged: bool },
}

/// Signals that would kill a process without a handler and have no meaning here: of timers, of asynchronous I/O, of a power
/// supply, of a file that reached its limit (the write beyond it fails anyway). SIGPIPE is ignored by the
/// runtime of the language.
const IGNORED: [Number; 7] =
    [Number::ALARM, Number::VTALARM, Number::PROF, Number::IO, Number::POWER, Number::XCPU, Number::XFSZ];
/// A coprocessor fault that no present machine raises (SIGSTKFLT), on x86 and ARM; some systems have no name for it.
const STACK_FAULT: i32 = 16;
/// The real-time signals, which also kill.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

impl Signals {
    /// Ignores all signals without a meaning. Call this before anything else; signals that stop the process
    /// still do so at once, because nothing was counted yet.
    pub fn ignore_others() -> Signals {
        let named = IGNORED.iter().map(|number| number.as_raw());
        for number in named.chain([STACK_FAULT]).chain(REAL_TIME) {
            // The handler stays when its listener is gone. Where the system has no such signal nobody can send it.
            let _ = signal(SignalKind::from_raw(number));
        }
        let mut signals = Signals { all: Vec::new() };
        signals.listen(Means::Reload, "SIGHUP", SignalKind::hangup());
        signals.listen(Means::Nothing { logged: false }, "SIGUSR1", SignalKind::user_defined1());
        signals.listen(Means::Nothing { logged: false }, "SIGUSR2", SignalKind::user_defined2());
        signals
    }

    /// Makes stop signals start an orderly stop from now on.
    pub fn listen_to_stops(&mut self) {
        // A box that waited listens already.
        if self.all.iter().any(|(means, ..)| matches!(means, Means::Stop)) {
            return;
        }
        self.listen(Means::Stop, "SIGTERM", SignalKind::terminate());
        self.listen(Means::Stop, "SIGINT", SignalKind::interrupt());
        self.listen(Means::Stop, "SIGQUIT", SignalKind::quit());
    }

    fn listen(&mut self, means: Means, name: &'static str, kind: SignalKind) {
        match signal(kind) {
            Ok(listener) => self.all.push((means, name, listener)),
            Err(error) => warn!(
                "cannot handle {name}, which therefore ends this process without an orderly stop: {error}"
            ),
        }
    }

    /// Waits for a signal with a meaning.
    pub async fn next(&mut self) -> Heard {
        poll_fn(|context| {
            for (means, name, listener) in &mut self.all {
                while let Poll::Ready(Some(())) = listener.poll_recv(context) {
                    match means {
                        Means::Stop => return Poll::Ready(Heard::Stop(name)),
                        Means::Reload => return Poll::Ready(Heard::Reload),
                        Means::Nothing { logged } => {
                            if !std::mem::replace(logged, true) {
                                info!("{name} has no meaning for tallyd and is ignored (logged once)");
                            }
                        }
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for a signal that stops the daemon.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Heard::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Exits this process after a time limit, even if something hangs: a disk, a file, a terminal.
pub fn end_within(limit: Duration) {
    let spawned = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        std::thread::sleep(limit);
        // A log that hangs must not hold up the end.
        let _ = std::thread::Builder::new().spawn(|| {
            tracing::error!("the stop did not finish in time (does a disk hang?): exiting without it")
        });
        std::thread::sleep(Duration::from_millis(100));
        std::process::exit(1);
    });
    if let Err(error) = spawned {
        warn!("cannot start the stop watchdog; only SIGKILL stops this process if something hangs: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of signals in `/proc/self/status`, as a set of bits.
    fn mask(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[tokio::test]
    async fn only_what_is_meant_to_end_the_process_and_faults_of_its_own_do() {
        let mut signals = Signals::ignore_others();
        signals.listen_to_stops();
        let handled = mask("SigCgt:") | mask("SigIgn:");
        // Kill, stop, continue, child, window size, urgent data, terminal in and out and stop: never an end, or always.
        let no_end = [9, 17, 18, 19, 20, 21, 22, 23, 28];
        let faults = [4, 5, 6, 7, 8, 11, 31];
        let of_libc = [32, 33];
        for number in (1..=64).filter(|number| ![&no_end[..], &faults, &of_libc].concat().contains(number)) {
            assert!(handled & 1 << (number - 1) != 0, "signal {number} would end the process");
        }
    }
}
