//! The log: a separate thread writes lines from a bounded queue to standard error, so that counting never waits for
//! the reader of the log. Lines that do not fit or cannot be written are lost, counted, and reported once writing
//! works again.
//!
//! Standard error can be a pipe whose reader is gone or blocks, a terminal that hung up, a file on a full disk. None
//! of it may end or delay the daemon, so nothing here panics and nothing but the writing thread ever touches it.

mod journal;
mod level;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

pub use level::directives;

use crate::figures::Counter;

/// The size of the queue in bytes.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// The size of the queue in lines; each takes a little more than its bytes.
const QUEUE_LINES_MAX: usize = 2 << 10;
/// The longest line in bytes; a longer one is cut.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long an ending process waits for its last lines to be read.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// Starts the log with the value of `TALLYD_LOG`. Call this once, before anything is logged.
///
/// # Errors
/// The system gives no thread.
pub fn start(text: Option<&str>) -> io::Result<()> {
    let to_journal = journal::is_stream(io::stderr(), crate::environment::text("JOURNAL_STREAM").as_deref());
    let queue = Arc::new(Queue { to_journal, ..Queue::default() });
    let writing = Arc::clone(&queue);
    std::thread::Builder::new()
        .name("log".to_owned())
        .stack_size(128 << 10)
        .spawn(move || writing.write_all_to(io::stderr().as_fd()))?;
    if LOG.set(Arc::clone(&queue)).is_err() {
        return Ok(());
    }
    tell_panics();
    let colours = crate::environment::value("NO_COLOR").is_none() && io::stderr().is_terminal();
    let (directives, wrong) = directives(text);
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new(level::DEFAULT));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Sink(queue))
        .with_ansi(colours)
        // It would be told on standard error, in a way that panics.
        .log_internal_errors(false);
    // A subscriber that is there already (of a test) stays.
    let _ = match to_journal {
        true => tracing::subscriber::set_global_default(subscriber.without_time().finish()),
        false => tracing::subscriber::set_global_default(subscriber.finish()),
    };
    if let Some(wrong) = wrong {
        tracing::warn!("{wrong}");
    }
    Ok(())
}

/// Writes a line that is not an event, after all earlier lines; this also works before the log is started.
pub fn last_words(text: &str) {
    match LOG.get() {
        Some(queue) => queue.push_with(journal::FATAL, format!("{text}\n").into_bytes()),
        // Nobody may listen any more.
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until the log is written, for half a second at most.
pub fn flush() {
    if let Some(queue) = LOG.get() {
        queue.flush(FLUSH_WAIT);
    }
}

/// The number of lines lost since the start, because they did not fit or could not be written.
pub fn lines_lost() -> u64 {
    LOG.get().map_or(0, |queue| queue.lost.get())
}

/// Sends panics to the log: the default hook writes to standard error directly, and could wait for its reader for ever.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        last_words(&format!("tallyd: thread {name:?} panicked: {panic}{trace}"));
        flush();
    }));
}

/// The queue of lines for the writing thread.
#[derive(Debug, Default)]
struct Queue {
    inner: Mutex<Inner>,
    /// Signals a new line.
    came: Condvar,
    /// Signals that all lines are written or lost.
    written: Condvar,
    lost: Counter,
    /// The lines go to systemd's journal.
    to_journal: bool,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The writing thread is writing a line that it has taken from the queue.
    writing: bool,
    /// Lines that did not fit and that the writing thread does not know of yet. They came after those in the queue.
    untold: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics while holding the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line (or several); the journal gets it with this priority.
    fn push_with(&self, priority: &str, line: Vec<u8>) {
        match self.to_journal {
            true => self.push(journal::with_priority(priority, &line)),
            false => self.push(line),
        }
    }

    fn push(&self, mut line: Vec<u8>) {
        if line.len() > LINE_BYTES_MAX {
            // Not in the middle of a character.
            let is_inside = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xC0 == 0x80);
            let end = (0..=LINE_BYTES_MAX).rev().find(|end| !is_inside(line.get(*end))).unwrap_or_default();
            line.truncate(end);
            line.extend_from_slice(b" (cut)\n");
        }
        let mut inner = self.lock();
        let is_full = inner.bytes + line.len() > QUEUE_BYTES_MAX || inner.lines.len() >= QUEUE_LINES_MAX;
        // Once a line is lost, those after it are too until that is told: what is there is without a gap.
        if inner.untold > 0 || is_full {
            inner.untold += 1;
            drop(inner);
            return self.lost.raise();
        }
        inner.bytes += line.len();
        inner.lines.push_back(line);
        drop(inner);
        self.came.notify_one();
    }

    fn flush(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        while inner.writing || !inner.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self.written.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs the writing thread. Never returns, and waits only for the reader of the log.
    fn write_all_to(&self, fd: BorrowedFd<'_>) {
        let mut output = Output { fd, in_line: false };
        // Lines lost and not told yet.
        let mut untold = 0;
        loop {
            let next = self.next();
            if let Next::Lost(lines) = next {
                untold += lines;
            }
            if untold > 0 && output.write(loss(untold, self.to_journal).as_bytes()).is_ok() {
                untold = 0;
            }
            if let Next::Line(line) = next
                && output.write(&line).is_err()
            {
                untold += 1;
                self.lost.raise();
            }
        }
    }

    /// Returns the next line to write.
    fn next(&self) -> Next {
        let mut inner = self.lock();
        inner.writing = false;
        if inner.is_empty() {
            self.written.notify_all();
        }
        while inner.is_empty() {
            inner = self.came.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.writing = true;
        match inner.lines.pop_front() {
            Some(line) => {
                inner.bytes -= line.len();
                Next::Line(line)
            }
            None => Next::Lost(std::mem::take(&mut inner.untold)),
        }
    }
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.untold == 0
    }
}

/// An item of work for the writing thread.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Line(Vec<u8>),
    /// A notice that so many lines did not fit, after those in the queue.
    Lost(u64),
}

/// The line that reports lost lines.
fn loss(lines: u64, to_journal: bool) -> String {
    let mut time = String::new();
    // A line without its time says what matters.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let start = if to_journal { journal::WARNING } else { &format!("{time}  ") };
    format!(
        "{start}WARN tallyd::logging: {lines} log lines were lost: the log could not be written, or not fast enough\n"
    )
}

/// Standard error, of whatever kind it is.
struct Output<'a> {
    fd: BorrowedFd<'a>,
    /// A line was written in part.
    in_line: bool,
}

impl Output<'_> {
    /// Writes a line, however long its reader takes.
    fn write(&mut self, line: &[u8]) -> Result<(), Errno> {
        if self.in_line {
            self.write_part(b"\n")?;
            self.in_line = false;
        }
        self.write_part(line)
    }

    fn write_part(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd, bytes) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.in_line = !bytes.is_empty();
                }
                Err(Errno::INTR) => {}
                // A pipe or terminal that does not block, and is full.
                Err(Errno::AGAIN) => {
                    let mut wanted = [PollFd::new(&self.fd, PollFlags::OUT)];
                    match rustix::event::poll(&mut wanted, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where events go as lines.
struct Sink(Arc<Queue>);

/// One event on its way into the queue.
struct Line<'a> {
    queue: &'a Queue,
    priority: &'static str,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: &self.0, priority: journal::priority(Level::INFO), bytes: Vec::new() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let mut line = self.make_writer();
        line.priority = journal::priority(*metadata.level());
        line
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push_with(self.priority, std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(next: Next) -> Vec<u8> {
        let Next::Line(line) = next else { panic!("{next:?}") };
        line
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_is_there_has_no_gap() {
        for (length, room) in [(LINE_BYTES_MAX, QUEUE_BYTES_MAX / LINE_BYTES_MAX), (1, QUEUE_LINES_MAX)] {
            let queue = Queue::default();
            for _ in 0..room + 3 {
                queue.push(vec![b'x'; length]);
            }
            assert_eq!(queue.lost.get(), 3);
            assert_eq!(line(queue.next()).len(), length);
            queue.push(b"later".to_vec());
            assert_eq!(queue.lost.get(), 4, "until the loss is told nothing more is taken");
            for _ in 1..room {
                line(queue.next());
            }
            assert_eq!(queue.next(), Next::Lost(4));
            queue.push(b"later".to_vec());
            assert_eq!(line(queue.next()), b"later");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_between_two_characters() {
        let queue = Queue::default();
        queue.push(format!("x{}", "\u{e9}".repeat(LINE_BYTES_MAX)).into_bytes());
        let cut = String::from_utf8(line(queue.next())).unwrap();
        assert!(cut.len() <= LINE_BYTES_MAX + 7 && cut.ends_with("\u{e9} (cut)\n"));
    }

    #[test]
    fn waiting_for_what_nobody_writes_has_an_end() {
        let queue = Queue::default();
        queue.push(b"x".to_vec());
        let begun = Instant::now();
        queue.flush(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn what_was_lost_is_told_once_the_log_flows_again() {
        use std::io::{BufRead, BufReader};
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let queue = Arc::new(Queue::default());
        let writing = Arc::clone(&queue);
        // It ends with the test.
        std::thread::spawn(move || writing.write_all_to(writer.as_fd()));
        let mut sent = 0_u64;
        while queue.lost.get() < 10 {
            queue.push(format!("line {sent} {}\n", "x".repeat(1000)).into_bytes());
            sent += 1;
        }
        let lost = queue.lost.get();
        let mut told = 0;
        for (at, line) in (0..).zip(BufReader::new(reader).lines()) {
            let line = line.unwrap();
            if let Some(number) =
                line.strip_suffix(" log lines were lost: the log could not be written, or not fast enough")
            {
                told = number.rsplit(' ').next().unwrap().parse().unwrap();
                assert_eq!(at, sent - lost, "it stands where they would have stood");
                break;
            }
            assert!(line.starts_with(&format!("line {at} ")), "{line}");
        }
        assert_eq!(told, lost);
        queue.flush(Duration::from_secs(5));
        assert!(queue.lock().is_empty());
    }
}
