//! `tallyd export`: totals and windows, from a running site or from the directory of a stopped box.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;
use tally_core::window::Span;

use super::client::{Call, Client, ClientError, Server};
use super::progress::Progress;
use super::reads::parse_answer;
use super::{blocking, print, text};
use crate::api;
use crate::identity::Identity;
use crate::site::{BootstrapSettings, Envelope, Level, Site};
use crate::storage::{Options, Owner, RealFileSystem, Storage};

/// Series asked for at once.
const PAGE: usize = 500;
/// The most windows of a series that a site gives.
const WINDOWS: usize = 10_000;
/// So much is printed at once.
const PRINT_BYTES: usize = 64 << 10;

/// Print totals and windows as CSV or JSON
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd export > plant7.csv
  tallyd export --format json --series line1/ | jq .series
  tallyd export --data-dir /mnt/card/tallyd > rescued.csv    of a box that does not run

Each series has a row \"total\", and a row \"window\" for each of its windows that the site keeps, oldest
first. Of a data directory (--data-dir) whose box does not run all is counted that its log has; a box of
several may have a few entries there that its site never acknowledged.")]
pub(super) struct ExportArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Only series whose names begin so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    series: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Json,
}

/// A series with its windows, each as the API shows it.
struct Exported {
    series: Box<RawValue>,
    windows: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Page {
    series: Vec<Box<RawValue>>,
    next: Option<String>,
    count: u64,
}

#[derive(Deserialize)]
struct Windows {
    windows: Vec<Box<RawValue>>,
}

/// What a row of either kind has; numbers as they are written, to their last place.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    series: String,
    #[serde(default)]
    kind: String,
    total: Option<Box<RawValue>>,
    since: Option<Box<RawValue>>,
    start: Option<Box<RawValue>>,
    span: Option<Box<RawValue>>,
    increase: Option<Box<RawValue>>,
    up: Option<Box<RawValue>>,
    down: Option<Box<RawValue>>,
    count: Option<Box<RawValue>>,
    sum: Option<Box<RawValue>>,
    min: Option<Box<RawValue>>,
    max: Option<Box<RawValue>>,
    last: Option<Box<RawValue>>,
    late: Option<Box<RawValue>>,
    clock: Option<String>,
}

const COLUMNS: &str =
    "record,series,kind,total,since,start,span,increase,up,down,count,sum,min,max,last,late,clock\n";

pub(super) fn run(args: ExportArgs) -> Result<(), ClientError> {
    // Both ways of asking for JSON are understood.
    let format = if args.server.json { Format::Json } else { args.format };
    let mut out = Out { format, text: String::new(), is_first: true };
    out.begin();
    match args.server.silent_data_dir() {
        Some(dir) => of_directory(dir, &args.series, &mut out)?,
        None => blocking(|| of_site(&args, &mut out))?,
    }
    out.end()
}

async fn of_site(args: &ExportArgs, out: &mut Out) -> Result<(), ClientError> {
    let (mut after, mut done, mut progress) = (None::<String>, 0, Progress::begin("export"));
    loop {
        let after_part =
            after.as_deref().map_or(String::new(), |name| format!("&after={}", text::in_query(name)));
        let path = format!("/v1/series?prefix={}&limit={PAGE}{after_part}", text::in_query(&args.series));
        // Each request has its own time: a large site takes many.
        let body = Client::new(&args.server)?.call(&Call::get(path)).await?;
        let page: Page = parse_answer(&args.server, &body)?;
        for series in page.series {
            let row: Row = parse_answer(&args.server, series.get().as_bytes())?;
            let path = format!("/v1/windows/{}?last={WINDOWS}&read=local", text::in_path(&row.series));
            let windows = match Client::new(&args.server)?.call(&Call::get(path)).await {
                Ok(body) => parse_answer::<Windows>(&args.server, &body)?.windows,
                // Removed meanwhile.
                Err(ClientError::Failed(refused)) if refused.name == "no-such-series" => continue,
                Err(error) => return Err(error),
            };
            out.put(&Exported { series, windows })?;
            done += 1;
            progress.show(done, page.count);
        }
        after = page.next;
        if after.is_none() {
            progress.end();
            return Ok(());
        }
    }
}

fn of_directory(dir: &Path, prefix: &str, out: &mut Out) -> Result<(), ClientError> {
    let failed = |why: &dyn std::fmt::Display| ClientError::Local(format!("{}: {why}", dir.display()));
    let site = read_directory(dir).map_err(|why| failed(&why))?;
    let raw = |text: String| RawValue::from_string(text).map_err(|error| failed(&error));
    let mut after: Option<String> = None;
    loop {
        let page = site.page(prefix, after.as_deref(), PAGE);
        for view in &page {
            let windows = site.windows(view.id, usize::MAX);
            let windows = windows.iter().map(|window| raw(api::summary_json(window)));
            let windows = windows.collect::<Result<Vec<_>, ClientError>>()?;
            out.put(&Exported { series: raw(api::series_json(view))?, windows })?;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.name.clone()),
            _ => return Ok(()),
        }
    }
}

/// The site as a stopped box has it: its snapshot, and all that its log has after that.
fn read_directory(dir: &Path) -> Result<Site, String> {
    let identity = Identity::load(dir).map_err(|error| error.to_string())?;
    let identity = identity.ok_or("this is no data directory of a box: it has no identity.json")?;
    let founding = BootstrapSettings {
        site: identity.site.clone(),
        site_id: identity.site_id.0,
        base_span: Span::from_millis(identity.window_ms).unwrap_or(Span::DEFAULT),
        level: Level::new(identity.level).unwrap_or(Level::ONE),
    };
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    let (_storage, recovered) =
        Storage::open(RealFileSystem, dir, owner, Options::default()).map_err(|error| error.to_string())?;
    let mut site = match &recovered.snapshot {
        Some((_, bytes)) => Site::restore(&founding, bytes).map_err(|error| error.to_string())?,
        None => Site::new(&founding),
    };
    for entry in &recovered.entries {
        let Envelope { inside, .. } = Envelope::read(&entry.payload).unwrap_or_default();
        site.apply(entry.position.index, &inside).map_err(|error| error.to_string())?;
    }
    Ok(site)
}

/// What is printed.
struct Out {
    format: Format,
    text: String,
    is_first: bool,
}

impl Out {
    fn begin(&mut self) {
        self.text.push_str(match self.format {
            Format::Csv => COLUMNS,
            Format::Json => "{\"series\":[",
        });
    }

    fn put(&mut self, one: &Exported) -> Result<(), ClientError> {
        match self.format {
            Format::Csv => self.put_csv(one).map_err(|error| ClientError::Local(error.to_string()))?,
            Format::Json => self.put_json(one),
        }
        if self.text.len() >= PRINT_BYTES {
            print(&std::mem::take(&mut self.text))?;
        }
        Ok(())
    }

    fn put_json(&mut self, one: &Exported) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(',');
        }
        let series = one.series.get().trim_end();
        let windows: Vec<&str> = one.windows.iter().map(|window| window.get()).collect();
        // An object, which has fields already.
        let open = series.strip_suffix('}').unwrap_or(series);
        let _ = write!(self.text, "\n{open},\"windows\":[{}]}}", windows.join(","));
    }

    fn put_csv(&mut self, one: &Exported) -> Result<(), serde_json::Error> {
        let total: Row = serde_json::from_str(one.series.get())?;
        self.row("total", &total.series, &total.kind, &total);
        for window in &one.windows {
            let window: Row = serde_json::from_str(window.get())?;
            self.row("window", &total.series, &total.kind, &window);
        }
        Ok(())
    }

    fn row(&mut self, record: &str, series: &str, kind: &str, row: &Row) {
        let _ = write!(self.text, "{record},{},{kind}", quoted(series));
        let numbers = [
            &row.total,
            &row.since,
            &row.start,
            &row.span,
            &row.increase,
            &row.up,
            &row.down,
            &row.count,
            &row.sum,
            &row.min,
            &row.max,
            &row.last,
            &row.late,
        ];
        for number in numbers {
            let _ = write!(self.text, ",{}", number.as_ref().map_or("", |number| number.get()));
        }
        let _ = writeln!(self.text, ",{}", row.clock.as_deref().unwrap_or(""));
    }

    fn end(mut self) -> Result<(), ClientError> {
        if self.format == Format::Json {
            self.text.push_str("\n]}\n");
        }
        print(&self.text)
    }
}

/// A field of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported() -> Exported {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        Exported {
            series: raw(
                r#"{"series":"a,\"b\"","kind":"counter","total":170141183460469231731687303715884105727}"#,
            ),
            windows: vec![raw(r#"{"start":0,"span":60000,"increase":5,"late":false,"clock":"synced"}"#)],
        }
    }

    fn printed(format: Format) -> String {
        let mut out = Out { format, text: String::new(), is_first: true };
        out.begin();
        out.put(&exported()).unwrap();
        out.put(&exported()).unwrap();
        out.text
    }

    #[test]
    fn rows_have_all_columns_and_numbers_to_their_last_place() {
        let text = printed(Format::Csv);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        let total = "total,\"a,\"\"b\"\"\",counter,170141183460469231731687303715884105727,,,,,,,,,,,,,";
        assert_eq!(lines[1], total);
        assert_eq!(lines[2], "window,\"a,\"\"b\"\"\",counter,,,0,60000,5,,,,,,,,false,synced");
        let columns = |line: &str| line.matches(',').count();
        assert_eq!((columns(lines[0]), columns(lines[1])), (16, 16 + 1), "one comma is in the name");
    }

    #[test]
    fn the_json_is_one_document() {
        let text = format!("{}\n]}}", printed(Format::Json));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["series"][1]["windows"][0]["increase"], 5);
    }
}
