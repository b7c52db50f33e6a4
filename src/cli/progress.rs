//! Progress bars on standard error: on terminals only, of what takes over two seconds.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const AFTER: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// How far something has come.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    began: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn begin(what: &'static str) -> Progress {
        Progress { what, began: Instant::now(), shown: None, is_terminal: io::stderr().is_terminal() }
    }

    /// So much is done of all.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        let now = Instant::now();
        let is_due = self.shown.is_none_or(|at| now - at >= EVERY) && now - self.began >= AFTER;
        if self.is_terminal && is_due {
            self.shown = Some(now);
            // Nobody minds a bar that does not show.
            let _ = write!(io::stderr(), "\r{}", bar(self.what, done, all));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = self.what.len() + WIDTH + 10);
        }
    }
}

fn bar(what: &str, done: u64, all: u64) -> String {
    let done = done.min(all);
    let part =
        |of: u64| usize::try_from(u128::from(done) * u128::from(of) / u128::from(all.max(1))).unwrap_or(0);
    let (full, percent) = (part(WIDTH as u64), part(100));
    format!("{what} [{}{}] {percent:3} %", "#".repeat(full), " ".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_is_done() {
        assert_eq!(bar("x", 0, 10), format!("x [{}]   0 %", " ".repeat(30)));
        assert_eq!(bar("x", 5, 10), format!("x [{}{}]  50 %", "#".repeat(15), " ".repeat(15)));
        assert_eq!(bar("x", 11, 10), format!("x [{}] 100 %", "#".repeat(30)));
        assert!(bar("x", u64::MAX, 0).contains("  0 %"));
    }
}
