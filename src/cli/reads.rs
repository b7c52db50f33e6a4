//! `tallyd get`, `series` and `windows`: what the site holds.

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::client::{Call, Client, ClientError, Server};
use super::series::SeriesChange;
use super::text::{Side, Table};
use super::{print, series_name, text};
use crate::units::Unit;

/// The most series asked for at once.
const PAGE: usize = 1000;

/// Show the total of a series
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd get line1/press3/parts

The answer includes every add that any box acknowledged before. With --local the box answers from its own
copy, without a round through the site; this works without a quorum.")]
pub(super) struct GetArgs {
    /// Series, such as line1/press3/parts
    #[arg(value_parser = series_name)]
    series: String,
    /// Read the box's own copy, without a round through the site
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    server: Server,
}

/// List series and their totals
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd series line1/                           all series of a line
  tallyd series remove line1/press3/prats        take a wrong name away
  tallyd series rename line1/prats line1/parts   give a series its right name
  tallyd series -- remove                        list those that begin with \"remove\"")]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SeriesArgs {
    #[command(subcommand)]
    pub(super) change: Option<SeriesChange>,
    /// Prefix of the names; default: all series
    #[arg(default_value = "")]
    prefix: String,
    /// Maximum number of series to list
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Read the box's own copy, without a round through the site
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    server: Server,
}

/// Show the latest windows of a series
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example: the last hour, with windows of a minute
  tallyd windows line1/press3/parts --last 60")]
pub(super) struct WindowsArgs {
    /// Series, such as line1/press3/parts
    #[arg(value_parser = series_name)]
    series: String,
    /// Number of windows
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: u32,
    /// Read the box's own copy, without a round through the site
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    server: Server,
}

/// A series as the API shows it.
#[derive(Deserialize)]
struct Series {
    series: String,
    kind: String,
    total: i128,
    mean: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    last: Option<f64>,
}

#[derive(Deserialize)]
struct Page {
    series: Vec<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Windows {
    kind: String,
    windows: Vec<WindowRow>,
}

#[derive(Deserialize)]
struct WindowRow {
    start: u64,
    span: u64,
    increase: Option<u128>,
    up: Option<u128>,
    down: Option<u128>,
    count: Option<u64>,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    last: Option<f64>,
    late: bool,
    clock: String,
}

pub(super) async fn get(args: GetArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    let path = format!("/v1/series/{}{}", text::in_path(&args.series), local("?", args.local));
    let body = client.call(&Call::get(path)).await?;
    if args.server.json {
        return print_json(&body);
    }
    let series: Series = parse_answer(&args.server, &body)?;
    print(&format!("{}  {}\n", text::printable(&series.series), in_words(&series)))
}

pub(super) async fn series(args: SeriesArgs) -> Result<(), ClientError> {
    if let Some(change) = args.change {
        return change.run().await;
    }
    let client = Client::new(&args.server)?;
    let mut all: Vec<Box<RawValue>> = Vec::new();
    let mut after: Option<String> = None;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    while all.len() < limit {
        let count = PAGE.min(limit - all.len());
        let after_part =
            after.as_deref().map_or(String::new(), |name| format!("&after={}", text::in_query(name)));
        let path = format!(
            "/v1/series?prefix={}&limit={count}{after_part}{}",
            text::in_query(&args.prefix),
            local("&", args.local)
        );
        let page: Page = parse_answer(&args.server, &client.call(&Call::get(path)).await?)?;
        all.extend(page.series);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if args.server.json {
        let list: Vec<&str> = all.iter().map(|series| series.get()).collect();
        return print(&format!("{{\"series\":[{}]}}\n", list.join(",")));
    }
    let mut table =
        Table::new(&[("SERIES", Side::Left), ("KIND", Side::Left), ("TOTAL", Side::Right), ("", Side::Left)]);
    for raw in &all {
        let series: Series = parse_answer(&args.server, raw.get().as_bytes())?;
        let note = series.mean.map_or(String::new(), |mean| sample_words(&series, mean));
        table.row([series.series, series.kind, series.total.to_string(), note]);
    }
    if table.is_empty() {
        return print("no series\n");
    }
    let more = if after.is_some() {
        format!("only the first {} are shown: see --limit\n", all.len())
    } else {
        String::new()
    };
    print(&format!("{}{more}", table.text()))
}

pub(super) async fn windows(args: WindowsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    let series = text::in_path(&args.series);
    let path = format!("/v1/windows/{series}?last={}{}", args.last, local("&", args.local));
    let body = client.call(&Call::get(path)).await?;
    if args.server.json {
        return print_json(&body);
    }
    let windows: Windows = parse_answer(&args.server, &body)?;
    if windows.windows.is_empty() {
        return print("no window has closed yet\n");
    }
    print(&window_table(&windows).text())
}

fn window_table(windows: &Windows) -> Table {
    let amounts: &[&str] = match windows.kind.as_str() {
        "sample" => &["COUNT", "MEAN", "MIN", "MAX", "LAST"],
        "updown" => &["UP", "DOWN"],
        _ => &["INCREASE"],
    };
    let mut columns = vec![("START", Side::Left), ("SPAN", Side::Right)];
    columns.extend(amounts.iter().map(|name| (*name, Side::Right)));
    columns.push(("", Side::Left));
    let mut table = Table::new(&columns);
    for window in &windows.windows {
        let mut row = vec![text::time(window.start), Unit::Duration.format(window.span)];
        let whole = |value: Option<u128>| value.map_or(String::new(), |value| value.to_string());
        let float = |value: Option<f64>| value.map_or(String::new(), text::number);
        match windows.kind.as_str() {
            "sample" => {
                let mean = window.sum.zip(window.count).map(|(sum, count)| sum / count.max(1) as f64);
                row.push(whole(window.count.map(u128::from)));
                row.extend([mean, window.min, window.max, window.last].map(float));
            }
            "updown" => row.extend([window.up, window.down].map(whole)),
            _ => row.push(whole(window.increase)),
        }
        let late = if window.late { "late " } else { "" };
        let clock = if window.clock == "synced" { "" } else { "clock not synchronised" };
        row.push(format!("{late}{clock}").trim_end().to_owned());
        table.row(row);
    }
    table
}

fn in_words(series: &Series) -> String {
    match series.mean {
        Some(mean) => format!("{} values, {}", series.total, sample_words(series, mean)),
        None => series.total.to_string(),
    }
}

fn sample_words(series: &Series, mean: f64) -> String {
    let float = |value: Option<f64>| value.map_or("?".to_owned(), text::number);
    format!(
        "mean {}, min {}, max {}, last {}",
        text::number(mean),
        float(series.min),
        float(series.max),
        float(series.last)
    )
}

fn local(joint: &str, local: bool) -> String {
    if local { format!("{joint}read=local") } else { String::new() }
}

/// Parses an answer.
pub(super) fn parse_answer<T: DeserializeOwned>(server: &Server, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(server.shown(), error.to_string()))
}

/// Parses the answer to a change. An answer that cannot be parsed leaves the outcome unknown.
pub(super) fn outcome<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|error| ClientError::Unknown(format!("the answer cannot be parsed ({error})")))
}

/// An answer as the box gave it.
pub(super) fn print_json(body: &Bytes) -> Result<(), ClientError> {
    print(&format!("{}\n", String::from_utf8_lossy(body).trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_show_the_columns_of_their_kind() {
        let windows: Windows = serde_json::from_str(
            r#"{"series":"t","kind":"sample","windows":[
                {"start":1763858400000,"span":60000,"count":2,"sum":43,"min":21,"max":22,"last":22,"late":true,"clock":"synced"}]}"#,
        )
        .unwrap();
        assert_eq!(
            window_table(&windows).text(),
            "START                 SPAN  COUNT  MEAN  MIN  MAX  LAST\n\
             2025-11-23 00:40:00Z    1m      2  21.5   21   22    22  late\n"
        );
        let windows: Windows = serde_json::from_str(
            r#"{"series":"c","kind":"counter","windows":[
                {"start":0,"span":1500,"increase":340282366920938463463374607431768211455,"late":false,"clock":"unsynced"}]}"#,
        )
        .unwrap();
        let text = window_table(&windows).text();
        assert!(text.contains("340282366920938463463374607431768211455  clock not synchronised"), "{text}");
    }

    #[test]
    fn a_total_of_128_bits_is_shown_whole() {
        let text = format!(r#"{{"series":"a","kind":"updown","total":{}}}"#, i128::MIN);
        let series: Series = serde_json::from_str(&text).unwrap();
        assert_eq!(in_words(&series), i128::MIN.to_string());
    }
}
