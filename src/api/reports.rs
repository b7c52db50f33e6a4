//! Numbered reports of named sources, and the epochs they are numbered in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{Request, Response, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tally_core::id::ReportNumber;

use super::problem::{self, Asked, Name, Problem};
use super::report_body::{self, Format};
use super::{ApiState, BODY_BYTES_MAX, REPORT_BYTES_MAX, body, json_response, parse};
use crate::identity::is_name;
use crate::request::{NamedReport, ReportError};
use crate::site::{LastApplied, Refusal, Verdict};

/// `POST /v1/reports`
pub(super) async fn report(
    State(shared): State<Arc<ApiState>>,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let format = Format::of(request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes()));
    let body = body::read(request.into_body(), REPORT_BYTES_MAX).await?;
    let report = report_body::parse(&body, format)?;
    // The names of refused cells are known only from the report.
    let receipt = Receipt::before(&report);
    let names: Vec<String> = report.cells.iter().map(|cell| cell.series.clone()).collect();
    let source = report.source.clone();
    let verdict = shared.node.report(report).await.map_err(|error| report_problem(error, &source))?;
    report_answer(verdict, receipt, &names)
}

#[derive(Serialize)]
struct Receipt {
    source: String,
    epoch: String,
    number: u64,
    /// Whether it had been applied before and changed nothing now.
    repeated: bool,
    refused: Vec<RefusedCell>,
}

#[derive(Serialize)]
struct RefusedCell {
    /// Its place among the cells, from 0.
    cell: u32,
    series: String,
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

impl Receipt {
    fn before(report: &NamedReport) -> Receipt {
        Receipt {
            source: report.source.clone(),
            epoch: report.epoch.to_string(),
            number: report.number.get(),
            repeated: false,
            refused: Vec::new(),
        }
    }
}

fn report_answer(verdict: Verdict, receipt: Receipt, names: &[String]) -> Result<Response<Body>, Problem> {
    let number = receipt.number;
    match verdict {
        Verdict::Receipt { repeated, refused, keyed: _ } => {
            let refused = refused.into_iter().map(|(place, why)| refused_cell(place, why, names)).collect();
            json_text(&Receipt { repeated, refused, ..receipt })
        }
        Verdict::Changed { last } => Err(with_last(
            Name::ReportChanged,
            format!(
                "report {number} was applied with different content; send a report again unchanged, and put \
                 later counts into report {}",
                last.next()
            ),
            Some(last),
        )),
        Verdict::OutOfOrder { last } => Err(with_last(
            Name::OutOfOrder,
            format!(
                "report {number} is neither the last one applied nor the next one; the next is {}",
                last.map_or(ReportNumber::FIRST, ReportNumber::next)
            ),
            last,
        )),
        Verdict::UnknownEpoch { last } => Err(unknown_epoch(&receipt.source, last)),
    }
}

fn refused_cell(place: u32, why: Refusal, names: &[String]) -> RefusedCell {
    let problem = problem::refusal(why);
    let series = usize::try_from(place).ok().and_then(|place| names.get(place)).cloned().unwrap_or_default();
    RefusedCell {
        cell: place,
        series,
        kind: format!("{}{}", problem::TYPE_PREFIX, problem.name.parts().0),
        detail: problem.detail,
    }
}

fn report_problem(error: ReportError, source: &str) -> Problem {
    match error {
        ReportError::UnknownSource => unknown_epoch(source, LastApplied::Unknown),
        ReportError::BadCell(place, why) => Problem::malformed(format!("cells[{place}]: {why}")),
        ReportError::Request(error) => Asked::Report.problem(error),
    }
}

fn unknown_epoch(source: &str, last: LastApplied) -> Problem {
    let (known, number) = match last {
        LastApplied::Unknown => (", and the site has forgotten its reports".to_owned(), None),
        LastApplied::None => (", and none of its reports was applied".to_owned(), Some(0)),
        LastApplied::Number(last) => (format!("; its last applied report was {last}"), Some(last.get())),
    };
    let detail = format!(
        "the epoch is not open{known}; open a new one with POST /v1/sources/{source}/epochs and send there \
         what is not yet applied"
    );
    Problem::new(Name::UnknownEpoch, detail).with("last", json!(number))
}

fn with_last(name: Name, detail: String, last: Option<ReportNumber>) -> Problem {
    Problem::new(name, detail).with("last", json!(last.map(ReportNumber::get)))
}

/// `POST /v1/sources/NAME/epochs`
pub(super) async fn open_epoch(
    State(shared): State<Arc<ApiState>>,
    params: RawPathParams,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let name = params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
    if !is_name(&name) {
        return Err(Problem::malformed("the source in the path: must be 1 to 32 of a-z 0-9 -"));
    }
    let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
    let nonce = nonce(&body)?;
    let opened = shared.node.open_epoch(&name, nonce).await;
    let (_, epoch) = opened.map_err(|error| Asked::Epoch.problem(error))?;
    json_text(&json!({"source": name, "epoch": epoch.to_string()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenBody {
    nonce: Option<String>,
}

/// What makes opening repeatable: the same nonce gets the same epoch.
fn nonce(body: &[u8]) -> Result<Option<u128>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let Some(text) = parse::json::<OpenBody>(body, r#"{"nonce": "5f0c8a"}, or none"#)?.nonce else {
        return Ok(None);
    };
    let is_hex = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(&text, 16) {
        Ok(nonce) if is_hex => Ok(Some(nonce)),
        _ => Err(Problem::malformed("nonce: must be 1 to 32 hexadecimal digits, chosen at random")),
    }
}

fn json_text(form: &impl Serialize) -> Result<Response<Body>, Problem> {
    super::reads::to_json(form).map(json_response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_core::report::Kind;

    fn receipt() -> Receipt {
        Receipt { source: "p".into(), epoch: "9".into(), number: 7, repeated: false, refused: Vec::new() }
    }

    fn problem(verdict: Verdict) -> Problem {
        report_answer(verdict, receipt(), &[]).unwrap_err()
    }

    #[tokio::test]
    async fn a_receipt_names_the_refused_cells() {
        let why = Refusal::WrongKind { is: Kind::Sample, asked: Kind::Counter };
        let verdict = Verdict::Receipt { repeated: false, refused: vec![(1, why)], keyed: Vec::new() };
        let names = ["a".to_owned(), "b".to_owned()];
        let answer = report_answer(verdict, receipt(), &names).unwrap();
        assert_eq!(answer.status(), 200);
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["epoch"], "9");
        assert_eq!(value["number"], 7);
        assert_eq!(value["refused"][0]["cell"], 1);
        assert_eq!(value["refused"][0]["series"], "b");
        assert_eq!(value["refused"][0]["type"], "urn:tallyd:error:wrong-kind");
    }

    #[test]
    fn a_report_that_does_not_fit_is_told_the_last_number() {
        let seven = ReportNumber::new(7).unwrap();
        let changed = problem(Verdict::Changed { last: seven });
        assert_eq!((changed.name, &changed.members["last"]), (Name::ReportChanged, &json!(7)));
        let order = problem(Verdict::OutOfOrder { last: None });
        assert_eq!((order.name, &order.members["last"]), (Name::OutOfOrder, &json!(null)));
        assert!(order.detail.ends_with("the next is 1"));
        let unknown = problem(Verdict::UnknownEpoch { last: LastApplied::Number(seven) });
        assert_eq!(unknown.name, Name::UnknownEpoch);
        assert!(unknown.detail.contains("/v1/sources/p/epochs"));
        assert_eq!(unknown.members["last"], json!(7));
        assert_eq!(unknown.into_response().status().as_u16(), 409);
        let none = problem(Verdict::UnknownEpoch { last: LastApplied::None });
        assert_eq!(none.members["last"], json!(0), "known, and nothing was applied");
        let forgotten = problem(Verdict::UnknownEpoch { last: LastApplied::Unknown });
        assert_eq!(forgotten.members["last"], json!(null), "not known");
    }

    #[test]
    fn a_nonce_is_hexadecimal_or_absent() {
        assert_eq!(nonce(b""), Ok(None));
        assert_eq!(nonce(b"{}"), Ok(None));
        assert_eq!(nonce(br#"{"nonce":"fF"}"#), Ok(Some(255)));
        for wrong in [&br#"{"nonce":""}"#[..], br#"{"nonce":"+1"}"#, br#"{"nonce":5}"#, br#"{"x":1}"#, b"x"] {
            assert_eq!(nonce(wrong).unwrap_err().name, Name::Malformed);
        }
        let long = format!(r#"{{"nonce":"{}"}}"#, "f".repeat(33));
        assert!(nonce(long.as_bytes()).is_err());
    }
}
