//! How `tallyd top` looks: the verdict, a line of figures, the boxes, the series, the keys.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow, Table, Widget};
use serde_json::Value;

use super::super::status::{clock, micros, notes, of, said};
use super::super::text;
use super::model::{Model, Row};
use crate::clock::wall_ms;
use crate::node::NodeRole;

/// How wide a frame is that is printed as text.
const TEXT_WIDTH: u16 = 110;
/// The most series of such a frame.
const TEXT_ROWS_MAX: usize = 40;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const SOFT: Style = Style::new().fg(Color::DarkGray);

/// Draws everything into an area.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let boxes = members(model.status()).count() as u16;
    let [head, figures, boxes_area, series, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(boxes + 2),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(area);
    head_line(model).render(head, buffer);
    for (line, row) in figure_lines(model).into_iter().zip(figures.rows()) {
        line.render(row, buffer);
    }
    box_table(model).render(boxes_area, buffer);
    series_table(model).render(series, buffer);
    foot_line(model).render(foot, buffer);
}

/// One frame as lines of text, as high as it needs.
pub(super) fn frame_as_text(model: &Model) -> String {
    let rows = model.rows().len().clamp(1, TEXT_ROWS_MAX) as u16;
    let height = 1 + 2 + members(model.status()).count() as u16 + 2 + 1 + rows + 1;
    let area = Rect::new(0, 0, TEXT_WIDTH, height);
    let mut buffer = Buffer::empty(area);
    draw(model, area, &mut buffer);
    let mut words = String::new();
    // The last line tells the keys, which are of no use in a text.
    for y in 0..height - 1 {
        let line: String = (0..TEXT_WIDTH).map(|x| buffer[(x, y)].symbol()).collect();
        words.push_str(line.trim_end());
        words.push('\n');
    }
    words.truncate(words.trim_end().len());
    words.push('\n');
    words
}

fn members(status: &Value) -> impl Iterator<Item = &Value> {
    status["members"].as_array().into_iter().flatten()
}

fn head_line(model: &Model) -> Line<'static> {
    let status = model.status();
    if let Some(why) = model.silence() {
        let words = format!("no answer: {}", text::printable(why));
        return Line::styled(words, BOLD.fg(Color::Red));
    }
    if status.is_null() {
        return Line::styled("asking ...", SOFT);
    }
    let verdict = &status["verdict"];
    let color = match (verdict["counts"] == true, status["tolerates"]["failures"].as_u64()) {
        (false, _) => Color::Red,
        (true, Some(0)) => Color::Yellow,
        (true, _) => Color::Green,
    };
    Line::from(vec![
        Span::styled(format!("{}  ", of(status, "site")), BOLD),
        Span::styled(of(verdict, "text"), BOLD.fg(color)),
    ])
}

fn figure_lines(model: &Model) -> Vec<Line<'static>> {
    let status = model.status();
    if status.is_null() {
        return Vec::new();
    }
    let leader = match (status["leader"].as_str(), status["leader_since"].as_u64()) {
        (None, _) => "no leader".to_owned(),
        (Some(name), None) => format!("leader {}", text::printable(name)),
        (Some(name), Some(since)) => {
            let span = text::seconds(wall_ms().saturating_sub(since) / 1000);
            format!("leader {} for {span}", text::printable(name))
        }
    };
    let rate = model.rate().map_or("?".to_owned(), text::number);
    let first = format!(
        "{leader}, term {}; {} series, {rate}/s; seen from {}",
        of(status, "term"),
        of(status, "series"),
        of(status, "node")
    );
    let (outbox, upstream) = (&status["outbox"], &status["upstream"]);
    let held = match outbox["held"].as_u64() {
        None | Some(0) => String::new(),
        Some(held) => format!(", {held} HELD"),
    };
    let second = format!(
        "outbox {} waiting{held}, delivered up to {} of {}; broker {}",
        of(outbox, "waiting"),
        of(outbox, "delivered"),
        of(outbox, "numbered"),
        of(upstream, "state")
    );
    vec![Line::from(first), Line::from(second)]
}

fn box_table(model: &Model) -> Table<'static> {
    let status = model.status();
    let rows = members(status).map(|member| {
        let here = member["id"] == status["node_id"];
        let connected = here || member["connected"] == true;
        let reach = match (here, connected) {
            (true, _) => "this box",
            (false, true) => "yes",
            (false, false) => "NO",
        };
        let leads = said(&member["role"]) == Some(NodeRole::Leader);
        let style = match (connected, leads) {
            (false, _) => Style::new().fg(Color::Red),
            (true, true) => BOLD,
            (true, false) => Style::new(),
        };
        let rtt = if connected && !here { millis(&member["rtt_us"]) } else { String::new() };
        let high = &status["adaptive_timeout"]["sync_p99_us"];
        let p99 = if here { millis(high) } else { String::new() };
        let cells = [
            of(member, "name"),
            of(member, "role"),
            reach.to_owned(),
            rtt,
            millis(&member["sync_us"]),
            p99,
            clock(member),
            notes(member),
        ];
        TableRow::new(cells.map(Cell::from)).style(style)
    });
    let widths = [
        Constraint::Max(16),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(11),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(18),
        Constraint::Min(10),
    ];
    let head = ["BOX", "ROLE", "CONNECTED", "ROUND TRIP", "SYNC p50", "SYNC p99", "CLOCK", ""];
    Table::new(rows.collect::<Vec<_>>(), widths).header(heading(head, &[]))
}

/// Microseconds as milliseconds; zero and null are not measured.
fn millis(value: &Value) -> String {
    if value.as_u64().unwrap_or(0) == 0 { String::new() } else { micros(value) }
}

fn series_table(model: &Model) -> Table<'static> {
    let row = |row: &Row| {
        let rate = row.rate.map_or(String::new(), text::number);
        let cells = [
            Cell::from(text::printable(&row.name)),
            Cell::from(text::printable(&row.kind)),
            Cell::from(Line::from(row.total.to_string()).right_aligned()),
            Cell::from(Line::from(rate).right_aligned()),
        ];
        let moves = row.rate.is_some_and(|rate| rate != 0.0);
        TableRow::new(cells).style(if moves { Style::new() } else { SOFT })
    };
    let rows: Vec<_> = model.rows().iter().map(row).collect();
    let widths = [Constraint::Min(20), Constraint::Length(8), Constraint::Length(24), Constraint::Length(14)];
    Table::new(rows, widths).header(heading(["SERIES", "KIND", "TOTAL", "A SECOND"], &[2, 3]))
}

/// The names of columns; those of numbers stand on the right.
fn heading<const N: usize>(names: [&'static str; N], right: &[usize]) -> TableRow<'static> {
    let cells = names.into_iter().enumerate().map(|(column, name)| {
        let line = Line::from(name);
        Cell::from(if right.contains(&column) { line.right_aligned() } else { line })
    });
    TableRow::new(cells.collect::<Vec<_>>()).style(SOFT)
}

fn foot_line(model: &Model) -> Line<'static> {
    let prefix = text::printable(model.prefix());
    if model.is_typing() {
        return Line::from(format!("names that begin with: {prefix}_   (Enter)"));
    }
    let mut words = format!(
        "q quit   / names: {}   s sorted by {}",
        if prefix.is_empty() { "all" } else { &prefix },
        model.order().as_str()
    );
    if model.has_more() {
        words.push_str("   (not all series are shown: type a prefix)");
    }
    Line::styled(words, SOFT)
}
