//! `tallyd get`, `series` and `windows`: what was counted.

use std::io::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, ClientArgs};
use super::table::{Lean, list, measured, plain, span, table, time, whole};
use super::{Failure, parsed, print, series_name, tries, url};

/// How many series are asked for at once.
const PAGE: usize = 1000;

/// Print a series' total
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  tallyd get coffee\n  tallyd get line1/press3/parts --json")]
pub struct GetArgs {
    /// Which series
    #[arg(value_parser = series_name)]
    pub series: String,
    /// Read the box's own copy as it is, without asking the site; works without a majority
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// List series and their totals
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  tallyd series\n  tallyd series line1/ --json")]
pub struct SeriesArgs {
    /// Only those whose names begin so
    #[arg(default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Read the box's own copy as it is, without asking the site; works without a majority
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Print what a series did in its latest windows
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  tallyd windows line1/press3/parts --last 10")]
pub struct WindowsArgs {
    /// Which series
    #[arg(value_parser = series_name)]
    pub series: String,
    /// How many windows
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub last: u32,
    /// Read the box's own copy as it is, without asking the site; works without a majority
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A series as the API tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Series {
    pub(super) series: String,
    pub(super) kind: String,
    pub(super) total: i128,
    mean: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    pub(super) last: Option<f64>,
    last_at: Option<u64>,
}

/// A closed window as the API tells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Window {
    pub(super) series: Option<String>,
    pub(super) start: u64,
    pub(super) span: u64,
    seq: Option<u64>,
    increase: Option<u128>,
    up: Option<u128>,
    down: Option<u128>,
    count: Option<u64>,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    last: Option<f64>,
    total: Option<i128>,
    value: Option<i128>,
    late: bool,
    clock: String,
}

#[derive(Deserialize)]
struct Windows {
    kind: String,
    windows: Vec<Window>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    series: Vec<&'a RawValue>,
    next: Option<String>,
    count: u64,
}

/// `tallyd get`
pub async fn get(args: &GetArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let local = if args.local { "?read=local" } else { "" };
    let path = format!("/v1/series/{}{local}", url::in_path(&args.series));
    let body = Client::new(&args.client)?.read(path).await?;
    if args.client.json {
        return print(out, &body);
    }
    let one: Series = parsed(&body)?;
    print(out, &one.told())
}

/// `tallyd series`
pub async fn series(args: &SeriesArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut found: Vec<String> = Vec::new();
    let mut after = String::new();
    let local = if args.local { "&read=local" } else { "" };
    let count = loop {
        let path = format!("/v1/series?prefix={}&limit={PAGE}{after}{local}", url::in_query(&args.prefix));
        let body = client.read(path).await?;
        let page: Page<'_> = parsed(&body)?;
        found.extend(page.series.iter().map(|series| series.get().to_owned()));
        match page.next {
            // A page that does not go on would never end.
            Some(_) if page.series.is_empty() => {
                return Err(Failure::new(tries::FAILED, "a page without series says that there are more"));
            }
            Some(next) => after = format!("&after={}", url::in_query(&next)),
            None => break page.count,
        }
    };
    if args.client.json {
        return print(out, &format!(r#"{{"series":[{}],"count":{count}}}"#, found.join(",")));
    }
    let found: Vec<Series> = found.iter().map(|text| parsed(text)).collect::<Result<_, _>>()?;
    if found.is_empty() {
        let text = match args.prefix.as_str() {
            "" => "no series yet; tallyd add NAME makes one".to_owned(),
            prefix => format!("no series begins with {prefix:?}; the site has {} in all", whole(count)),
        };
        return print(out, &text);
    }
    print(out, &series_table(&found))
}

/// `tallyd windows`
pub async fn windows(args: &WindowsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let local = if args.local { "&read=local" } else { "" };
    let path = format!("/v1/windows/{}?last={}{local}", url::in_path(&args.series), args.last);
    let body = Client::new(&args.client)?.read(path).await?;
    if args.client.json {
        return print(out, &body);
    }
    let answer: Windows = parsed(&body)?;
    if answer.windows.is_empty() {
        return print(out, "no window of it has closed yet; tallyd get has its total");
    }
    print(out, &windows_table(&answer))
}

impl Series {
    fn told(&self) -> String {
        if self.kind != "sample" {
            return list(&[
                ("series", plain(&self.series)),
                ("kind", plain(&self.kind)),
                ("total", whole(self.total)),
            ]);
        }
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), measured);
        let at = self.last_at.map(|at| format!(" at {} UTC", time(at))).unwrap_or_default();
        list(&[
            ("series", plain(&self.series)),
            ("kind", plain(&self.kind)),
            ("count", whole(self.total)),
            ("mean", number(self.mean)),
            ("min", number(self.min)),
            ("max", number(self.max)),
            ("last", number(self.last) + &at),
        ])
    }
}

fn series_table(found: &[Series]) -> String {
    let number = |number: Option<f64>| number.map(measured).unwrap_or_default();
    let mut columns = vec![("SERIES", Lean::Left), ("KIND", Lean::Left), ("TOTAL", Lean::Right)];
    let samples = found.iter().any(|one| one.kind == "sample");
    if samples {
        columns.extend([
            ("MEAN", Lean::Right),
            ("MIN", Lean::Right),
            ("MAX", Lean::Right),
            ("LAST", Lean::Right),
        ]);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| {
            let mut row = vec![plain(&one.series), plain(&one.kind), whole(one.total)];
            if samples {
                row.extend([one.mean, one.min, one.max, one.last].map(number));
            }
            row
        })
        .collect();
    table(&columns, &rows)
}

fn windows_table(answer: &Windows) -> String {
    let kinds: &[&str] = match answer.kind.as_str() {
        "sample" => &["COUNT", "MEAN", "MIN", "MAX", "LAST"],
        "updown" => &["UP", "DOWN", "VALUE"],
        _ => &["INCREASE", "TOTAL"],
    };
    let mut columns = vec![("START (UTC)", Lean::Left), ("SPAN", Lean::Right)];
    columns.extend(kinds.iter().map(|name| (*name, Lean::Right)));
    columns.extend([("SEQ", Lean::Right), ("", Lean::Left)]);
    let rows: Vec<Vec<String>> = answer
        .windows
        .iter()
        .map(|window| {
            let mut row = vec![time(window.start), span(window.span)];
            row.extend(window.amounts(&answer.kind));
            row.push(window.seq.map(|seq| seq.to_string()).unwrap_or_default());
            row.push(window.remarks());
            row
        })
        .collect();
    table(&columns, &rows)
}

impl Window {
    /// In the order of the table's columns for that kind.
    fn amounts(&self, kind: &str) -> Vec<String> {
        let count = |number: Option<u128>| number.map(grouped).unwrap_or_default();
        let total = |number: Option<i128>| number.map(whole).unwrap_or_default();
        let number = |number: Option<f64>| number.map(measured).unwrap_or_default();
        match kind {
            "sample" => {
                let samples = self.count.unwrap_or(0);
                let mean = self.sum.filter(|_| samples > 0).map(|sum| sum / samples as f64);
                vec![whole(samples), number(mean), number(self.min), number(self.max), number(self.last)]
            }
            "updown" => vec![count(self.up), count(self.down), total(self.value)],
            _ => vec![count(self.increase), total(self.total)],
        }
    }

    /// In words, for a line of its own.
    pub(super) fn summed(&self) -> String {
        let count = |number: Option<u128>| number.map(grouped).unwrap_or_default();
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), measured);
        if self.count.is_some() {
            let amounts = self.amounts("sample");
            format!("{} values, mean {}, last {}", amounts[0], amounts[1], number(self.last))
        } else if self.up.is_some() || self.down.is_some() {
            format!("+{} -{}", count(self.up), count(self.down))
        } else {
            format!("+{}", count(self.increase))
        }
    }

    /// What is out of the ordinary about it.
    pub(super) fn remarks(&self) -> String {
        let late = self.late.then_some("late");
        let clock = (self.clock == "unsynced").then_some("clock unsynced");
        late.into_iter().chain(clock).collect::<Vec<_>>().join(", ")
    }
}

/// Beyond what fits, nothing is counted anyway.
fn grouped(number: u128) -> String {
    i128::try_from(number).map_or_else(|_| number.to_string(), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_told_with_all_digits() {
        let text = r#"{"series":"t","kind":"counter","total":170141183460469231731687303715884105727}"#;
        let told = parsed::<Series>(text).unwrap().told();
        assert_eq!(
            told,
            "series  t\nkind    counter\ntotal   170,141,183,460,469,231,731,687,303,715,884,105,727\n"
        );
        let text = r#"{"series":"t","kind":"sample","total":2,"count":2,"sum":43.000000000,"min":21,"max":22,
                       "mean":21.5,"last":22,"last_at":0}"#;
        let told = parsed::<Series>(text).unwrap().told();
        assert!(told.contains("mean    21.5\n") && told.contains("last    22 at 1970-01-01"), "{told}");
    }

    #[test]
    fn windows_have_the_columns_of_their_kind() {
        let text = r#"{"kind":"counter","windows":[
            {"seq":7,"start":1763858400000,"span":60000,"increase":1037,"total":120934,"late":false,"clock":"synced"},
            {"start":1763858460000,"span":60000,"increase":1,"late":true,"clock":"unsynced"}]}"#;
        assert_eq!(
            windows_table(&parsed(text).unwrap()),
            "START (UTC)          SPAN  INCREASE    TOTAL  SEQ\n\
             2025-11-23 00:40:00    1m     1,037  120,934    7\n\
             2025-11-23 00:41:00    1m         1                late, clock unsynced\n"
        );
        let text = r#"{"kind":"sample","windows":[{"start":0,"span":1000,"count":2,"sum":43,"min":21,"max":22,
            "last":22,"late":false,"clock":"synced"}]}"#;
        let table = windows_table(&parsed(text).unwrap());
        assert!(
            table.contains("COUNT  MEAN  MIN  MAX  LAST") && table.contains("2  21.5   21   22    22"),
            "{table}"
        );
        let text = r#"{"kind":"updown","windows":[{"start":0,"span":1000,"up":3,"down":5,"value":-2,
            "late":false,"clock":"synced"}]}"#;
        let table = windows_table(&parsed(text).unwrap());
        assert!(table.contains("UP  DOWN  VALUE") && table.contains(" 3     5     -2"), "{table}");
    }
}
