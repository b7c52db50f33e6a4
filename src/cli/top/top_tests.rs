use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyEvent;
use serde_json::json;

use super::model::{CountedSeries, Order};
use super::*;

fn status() -> Value {
    json!({
        "node": "box1", "node_id": 1, "site": "plant7", "leader": "box2", "term": 4, "series": 3,
        "verdict": {"counts": true, "text": "works; tolerates none: box3 is away"}, "tolerates": {"failures": 0},
        "outbox": {"waiting": 3, "numbered": 12, "delivered": 9, "held": 1}, "upstream": {"state": "connected"},
        "adaptive_timeout": {"sync_p99_us": 3100},
        "members": [
            {"id": 1, "name": "box1", "role": "follower", "connected": true, "sync_us": 520, "clock_offset_ms": 2},
            {"id": 2, "name": "box2", "role": "leader", "connected": true, "rtt_us": 310},
            {"id": 3, "name": "box3", "role": "unknown", "connected": false, "rtt_us": 9, "disk_ok": false}],
    })
}

fn taken(at: Instant, totals: &[(&str, &str, i128)]) -> Sample {
    let series = totals.iter().map(|(name, kind, total)| CountedSeries {
        series: (*name).to_owned(),
        kind: (*kind).to_owned(),
        total: *total,
    });
    Sample { at, status: status(), series: series.collect(), more: false }
}

/// A model that has looked twice, two seconds apart.
fn model() -> Model {
    let mut model = Model::new("");
    let now = Instant::now();
    model.take(taken(now, &[("a", "counter", 100), ("b", "counter", 5), ("stock", "updown", 7)]));
    let later = now + Duration::from_secs(2);
    let totals = [("a", "counter", 104), ("b", "counter", 25), ("new", "counter", 1), ("stock", "updown", 1)];
    model.take(taken(later, &totals));
    model
}

fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(model, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn a_frame_shows_the_verdict_the_boxes_and_the_rates() {
    let lines = screen(&model(), 110, 14);
    assert_eq!(lines[0], "plant7  works; tolerates none: box3 is away");
    assert_eq!(lines[1], "leader box2, term 4; 3 series, 12/s; seen from box1");
    assert_eq!(lines[2], "outbox 3 waiting, 1 HELD, delivered up to 9 of 12; broker connected");
    let row = |name: &str| -> Vec<&str> {
        let line = lines.iter().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {lines:#?}")).split_whitespace().collect()
    };
    assert_eq!(row("box1"), ["box1", "follower", "this", "box", "0.52", "ms", "3.1", "ms", "+2", "ms"]);
    assert_eq!(row("box2"), ["box2", "leader", "yes", "0.31", "ms"]);
    assert_eq!(row("box3"), ["box3", "unknown", "NO", "disk", "trouble"]);
    assert_eq!(row("b"), ["b", "counter", "25", "10"]);
    assert_eq!(row("stock"), ["stock", "updown", "1", "-3"]);
    assert_eq!(row("new"), ["new", "counter", "1"], "no rate at first sight");
    assert!(lines[13].starts_with("q quit   / names: all   s sorted by rate"), "{}", lines[13]);
}

#[test]
fn a_screen_that_is_too_small_or_a_box_that_says_nothing_is_drawn_all_the_same() {
    for (width, height) in [(1, 1), (20, 3), (300, 100)] {
        screen(&model(), width, height);
        screen(&Model::new(""), width, height);
    }
    let mut model = model();
    model.on_silence("http://127.0.0.1:1: gone\x1b[2J".to_owned());
    let lines = screen(&model, 110, 14);
    assert_eq!(lines[0], "no answer: http://127.0.0.1:1: gone\u{fffd}[2J");
    assert!(lines.iter().any(|line| line.starts_with("box2")), "what is known stays");
}

#[test]
fn keys_sort_filter_scroll_and_end() {
    let mut model = model();
    let press = |model: &mut Model, code: KeyCode| on_event(model, &Event::Key(KeyEvent::from(code)));
    let names = |model: &Model| -> Vec<String> { model.rows().iter().map(|row| row.name.clone()).collect() };
    assert_eq!(names(&model), ["b", "stock", "a", "new"]);
    assert_eq!(press(&mut model, KeyCode::Char('s')), After::Go);
    assert_eq!((model.order(), names(&model)[0].as_str()), (Order::Total, "a"));
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(names(&model), ["a", "b", "new", "stock"]);
    press(&mut model, KeyCode::Down);
    assert_eq!(names(&model)[0], "b");
    press(&mut model, KeyCode::PageDown);
    assert_eq!(names(&model), ["stock"]);
    press(&mut model, KeyCode::PageUp);
    press(&mut model, KeyCode::Char('/'));
    for typed in ['q', '/', 'x'] {
        assert_eq!(press(&mut model, KeyCode::Char(typed)), After::Look);
    }
    press(&mut model, KeyCode::Backspace);
    assert_eq!(model.prefix(), "q/", "while a prefix is typed, q is a letter");
    assert!(screen(&model, 110, 14)[13].starts_with("names that begin with: q/_"));
    press(&mut model, KeyCode::Esc);
    assert_eq!(press(&mut model, KeyCode::Char('q')), After::End);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(on_event(&mut model, &Event::Key(interrupt)), After::End);
}

#[test]
fn a_frame_as_text_has_no_keys_and_its_figures_are_json() {
    let text = draw::frame_as_text(&model());
    assert!(text.starts_with("plant7  works; tolerates none: box3 is away\n") && !text.contains("q quit"));
    assert!(text.lines().last().unwrap().starts_with("new"), "{text}");
    let figures = model().figures();
    assert_eq!(figures["series"][0], json!({"series": "b", "kind": "counter", "total": 25, "rate": 10.0}));
    assert_eq!((&figures["rate"], &figures["leader"]), (&json!(12.0), &json!("box2")));
}
