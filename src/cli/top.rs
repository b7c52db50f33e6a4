//! `tallyd top`: a live view of a site. It asks a box every second; what it shows is in `model`, how in `draw`.

mod draw;
mod model;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::sync::mpsc;

use self::model::{Counted, Model, Sample};
use super::client::{Call, Client, ClientError, Server};
use super::reads::parse_answer;
use super::{print, text};

/// The most series that are asked for.
const SERIES_MAX: usize = 1000;
/// How often the thread that waits for keys looks whether it is still needed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Show a live view of the site
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd top
  tallyd top --once
  tallyd top line1/ --once --json

Keys: q ends; / takes a prefix of the series' names (Enter or Esc ends that); s sorts by rate,
total or name; the arrows move through the series.")]
pub(super) struct TopArgs {
    /// Only series whose names begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// Print one frame as text (with --json: its figures) and end
    #[arg(long)]
    once: bool,
    /// How often the box is asked: 500ms, 1s, 10s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = text::duration)]
    every: Duration,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(args: TopArgs) -> Result<(), ClientError> {
    let mut model = Model::new(&args.prefix);
    if args.once {
        return once(&args, &mut model).await;
    }
    if args.server.json {
        return Err(ClientError::Usage("--json requires --once".to_owned()));
    }
    if !std::io::stdout().is_terminal() {
        let why = "standard output is not a terminal; `tallyd top --once` prints one frame as text";
        return Err(ClientError::Usage(why.to_owned()));
    }
    let mut terminal = ratatui::try_init().map_err(ClientError::Output)?;
    let result = live(&args, &mut model, &mut terminal).await;
    ratatui::restore();
    result
}

/// Two looks, so that there are rates; then one frame.
async fn once(args: &TopArgs, model: &mut Model) -> Result<(), ClientError> {
    model.take(sample(&args.server, model.prefix().to_owned()).await?);
    tokio::time::sleep(args.every).await;
    model.take(sample(&args.server, model.prefix().to_owned()).await?);
    match args.server.json {
        true => print(&format!("{}\n", model.figures())),
        false => print(&draw::frame_as_text(model)),
    }
}

async fn live(
    args: &TopArgs,
    model: &mut Model,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), ClientError> {
    let mut events = events()?;
    let mut looking = Box::pin(sample(&args.server, model.prefix().to_owned()));
    let mut waiting = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut is_looking = true;
    loop {
        terminal
            .draw(|frame| draw::draw(model, frame.area(), frame.buffer_mut()))
            .map_err(ClientError::Output)?;
        tokio::select! {
            event = events.recv() => match event.map(|event| on_event(model, &event)) {
                // The thread that reads the keys has ended: so has the terminal.
                None | Some(After::End) => return Ok(()),
                Some(After::Go) => {}
                Some(After::Look) => {
                    looking = Box::pin(sample(&args.server, model.prefix().to_owned()));
                    is_looking = true;
                }
            },
            sample = &mut looking, if is_looking => {
                match sample {
                    Ok(sample) => model.take(sample),
                    Err(error) => model.on_silence(error.to_string()),
                }
                is_looking = false;
                waiting = Box::pin(tokio::time::sleep(args.every));
            }
            () = &mut waiting, if !is_looking => {
                looking = Box::pin(sample(&args.server, model.prefix().to_owned()));
                is_looking = true;
            }
        }
    }
}

/// What follows from an event of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Go,
    /// The box is asked at once.
    Look,
    End,
}

fn on_event(model: &mut Model, event: &Event) -> After {
    let Event::Key(key) = event else { return After::Go };
    if key.kind == KeyEventKind::Release {
        return After::Go;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return After::End;
    }
    if model.is_typing() {
        return match key.code {
            KeyCode::Enter | KeyCode::Esc => {
                model.end_typing();
                After::Look
            }
            KeyCode::Backspace => {
                model.rub_out();
                After::Look
            }
            KeyCode::Char(typed) => {
                model.type_in(typed);
                After::Look
            }
            _ => After::Go,
        };
    }
    match key.code {
        KeyCode::Char('q') => return After::End,
        KeyCode::Char('s') => model.sort_otherwise(),
        KeyCode::Char('/') => model.begin_typing(),
        KeyCode::Up => model.scroll(-1),
        KeyCode::Down => model.scroll(1),
        KeyCode::PageUp => model.scroll(-10),
        KeyCode::PageDown => model.scroll(10),
        _ => {}
    }
    After::Go
}

/// Reads the terminal's events on a thread of its own, which ends with the receiver.
fn events() -> Result<mpsc::Receiver<Event>, ClientError> {
    let (sender, receiver) = mpsc::channel(64);
    let read = move || {
        while !sender.is_closed() {
            match event::poll(LOOK_EVERY) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read).map_err(ClientError::Output)?;
    Ok(receiver)
}

/// Asks a box for its status and its series.
async fn sample(server: &Server, prefix: String) -> Result<Sample, ClientError> {
    let client = Client::new(server)?;
    let status: Value = parse_answer(server, &client.call(&Call::get("/v1/status".to_owned())).await?)?;
    let path = format!("/v1/series?read=local&limit={SERIES_MAX}&prefix={}", text::in_query(&prefix));
    let series: Counted = parse_answer(server, &client.call(&Call::get(path)).await?)?;
    Ok(Sample { at: std::time::Instant::now(), status, series: series.series, more: series.next.is_some() })
}

#[cfg(test)]
#[path = "top/top_tests.rs"]
mod tests;
