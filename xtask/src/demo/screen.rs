//! What the demo shows while it runs: boxes, the subscriber's table, what happened. Redrawn in place
//! on a terminal, printed from time to time elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::Acknowledged;
use super::subscriber::{Books, Subscriber};
use crate::site::{BoxView, Site};

/// Off a terminal the table is printed this often.
const PRINT_EVERY: Duration = Duration::from_secs(10);

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) struct Screen {
    folder: PathBuf,
    began: Instant,
    terminal: bool,
    /// Lines drawn last, to be drawn over.
    lines: usize,
    printed: Option<Instant>,
    notes: Vec<String>,
    revived: bool,
}

impl Screen {
    pub(super) fn new(folder: &Path) -> Screen {
        Screen {
            folder: folder.to_owned(),
            began: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            lines: 0,
            printed: None,
            notes: Vec::new(),
            revived: false,
        }
    }

    /// Tells something that happened.
    pub(super) fn note(&mut self, text: &str) {
        let line = format!("{:5.1} s  {text}", self.began.elapsed().as_secs_f64());
        if !self.terminal {
            println!("{line}");
        }
        self.notes.push(line);
    }

    /// Says once that there is no more to come but the end.
    pub(super) fn mark_revived(&mut self, name: &str) {
        if !self.revived {
            self.revived = true;
            if self.terminal {
                self.note(&format!(
                    "all three boxes run again, including {name}; press Ctrl-C to end the demo with its proof"
                ));
            }
        }
    }

    /// Shows how everything is now.
    pub(super) fn draw(&mut self, site: &Site, subscriber: &Subscriber, acknowledged: &Acknowledged) {
        if !self.terminal && self.printed.is_some_and(|at| at.elapsed() < PRINT_EVERY) {
            return;
        }
        let mut text = String::new();
        if self.terminal || self.printed.is_none() {
            let address = site.api_addresses().first().map(ToString::to_string).unwrap_or_default();
            let folder = self.folder.display();
            let _ =
                writeln!(text, "Tallyd demo: the page is at http://{address}/, data and logs in {folder}\n");
        }
        self.printed = Some(Instant::now());
        draw_boxes(&mut text, &site.views());
        draw_table(&mut text, &subscriber.books(), acknowledged);
        if self.terminal {
            for note in &self.notes {
                let _ = writeln!(text, "{note}");
            }
        }
        self.show(&text);
    }

    /// Leaves what was drawn last where it is.
    pub(super) fn finish(&mut self) {
        self.lines = 0;
    }

    fn show(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever closed our output is not interested any more.
        if self.terminal {
            if self.lines > 0 {
                let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
            }
            self.lines = text.lines().count();
        }
        let _ = if self.terminal {
            // Without wrapping, or a narrow terminal would have more lines than we count.
            write!(out, "\x1b[?7l{text}\x1b[?7h")
        } else {
            out.write_all(text.as_bytes())
        };
        let _ = out.flush();
    }
}

fn draw_boxes(text: &mut String, views: &[BoxView]) {
    for view in views {
        let line = match &view.status {
            None => "down".to_owned(),
            Some(status) => format!(
                "{:10} applied {:<8} outbox {:<5} upstream {}",
                status["role"].as_str().unwrap_or("?"),
                status["applied"],
                status["outbox"]["waiting"],
                status["upstream"]["state"].as_str().unwrap_or("?"),
            ),
        };
        let _ = writeln!(text, "  {:6} {line}", view.name);
    }
    text.push('\n');
}

fn draw_table(text: &mut String, books: &Books, acknowledged: &Acknowledged) {
    let _ = writeln!(
        text,
        "  {:24} {:>13} {:>17} {:>14}  latest windows",
        "summaries received of", "last window", "their sum", "acknowledged"
    );
    for (series, row) in &books.rows {
        let known = acknowledged.get(series.as_str()).map(ToString::to_string).unwrap_or_default();
        let last = row.recent.back().copied().unwrap_or_default();
        let (last, sum) = if row.kind == "sample" {
            (format!("mean {last:.2}"), format!("{} values", row.sum))
        } else {
            (format!("+{last:.0}"), row.sum.to_string())
        };
        let _ = writeln!(text, "  {series:24} {last:>13} {sum:>17} {known:>14}  {}", plot(row.recent.iter()));
    }
    let (last, _) = books.gaps();
    let _ = writeln!(
        text,
        "\n  {} summaries up to number {last}, {} of them repeats; the site is {}\n",
        books.received,
        books.repeated,
        if books.state.is_empty() { "no status yet" } else { &books.state }
    );
}

/// A bar for each value, from zero (or the least, if all are far from it) to the greatest.
fn plot<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> String {
    let most = values.clone().fold(f64::MIN, |most, value| most.max(*value));
    let least = values.clone().fold(f64::MAX, |least, value| least.min(*value)).min(most);
    let floor = if least > most * 0.8 { least } else { 0.0_f64.min(least) };
    let height = (most - floor).max(f64::MIN_POSITIVE);
    let bar = |value: &f64| BARS[(((value - floor) / height) * 7.0).round().clamp(0.0, 7.0) as usize];
    values.map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_go_from_the_least_to_the_greatest() {
        assert_eq!(plot([0.0, 50.0, 100.0].iter()), "▁▅█");
        assert_eq!(plot([1000.0, 1001.0].iter()), "▁█");
        assert_eq!(plot([5.0].iter()).chars().count(), 1);
        assert_eq!(plot([].iter()), "");
    }
}
