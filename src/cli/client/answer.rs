//! What an answer says about its try: done, not done, refused, or unknown.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

/// A refusal: another try would have the same result.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRefused {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem; empty if the answer was none of the API's.
    pub name: String,
    /// What the box said.
    pub detail: String,
    /// The whole problem.
    pub problem: Value,
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judged {
    /// Done.
    Done,
    /// This try was not done; another may be.
    NotDone(String),
    /// This try may have been done or not.
    Unknown(String),
    /// Not done for lack of room; a later try may succeed.
    OverBound(Box<RequestRefused>),
    /// Not done, and no later try would be.
    RequestRefused(Box<RequestRefused>),
}

impl RequestRefused {
    /// Whether no earlier try of the same request can have been done, either: a series keeps its
    /// kind, a key its body, and what is malformed is so at every box.
    pub(super) fn settles_earlier_tries(&self) -> bool {
        matches!(self.name.as_str(), "wrong-kind" | "key-reused" | "malformed" | "too-large")
    }
}

impl fmt::Display for RequestRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return write!(f, "returned status {}: {}", self.status, self.detail);
        }
        write!(f, "{}: {}", self.name, self.detail)
    }
}

/// Judges an answer by its status and the type of its problem.
pub(super) fn judge(status: u16, body: &[u8]) -> Judged {
    if (200..300).contains(&status) {
        // Another program's 200 is no promise; nor is one that a proxy cut short.
        return match serde_json::from_slice::<&RawValue>(body) {
            Ok(json) if json.get().starts_with('{') => Judged::Done,
            _ => Judged::Unknown(format!(
                "returned status {status}, but not in tallyd's form; does another program listen there?"
            )),
        };
    }
    let refused = refused(status, body);
    match (status, refused.name.as_str()) {
        (_, "not-committed" | "not-ready" | "request-timeout") => Judged::NotDone(refused.to_string()),
        (429, "too-busy" | "key-table-full" | "too-many-watchers") => Judged::OverBound(Box::new(refused)),
        // That is what the words for it begin with.
        (_, "outcome-unknown") => Judged::Unknown(refused.detail),
        // What a proxy says of a box that it did or did not reach tells nothing.
        (500.., _) => Judged::Unknown(refused.to_string()),
        _ => Judged::RequestRefused(Box::new(refused)),
    }
}

fn refused(status: u16, body: &[u8]) -> RequestRefused {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = member("type");
    let name = kind.strip_prefix("urn:tallyd:error:").unwrap_or_default().to_owned();
    let mut detail = member("detail");
    if detail.is_empty() {
        detail = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect();
    }
    RequestRefused { status, name, detail, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, name: &str) -> Judged {
        let body = format!(r#"{{"type":"urn:tallyd:error:{name}","detail":"why"}}"#);
        judge(status, body.as_bytes())
    }

    #[test]
    fn the_type_decides_what_an_answer_means() {
        assert_eq!(judge(200, b"{}"), Judged::Done);
        assert!(matches!(problem(503, "not-committed"), Judged::NotDone(_)));
        assert!(matches!(problem(503, "outcome-unknown"), Judged::Unknown(_)));
        assert!(matches!(problem(429, "key-table-full"), Judged::OverBound(_)));
        assert!(matches!(problem(429, "too-many-series"), Judged::RequestRefused(_)));
        assert!(matches!(problem(409, "wrong-kind"), Judged::RequestRefused(_)));
        assert!(matches!(problem(404, "no-such-series"), Judged::RequestRefused(_)));
    }

    #[test]
    fn a_success_that_is_not_the_apis_is_no_promise() {
        for body in ["", "<html>", "[]", "7", "{\"total\":", "\u{1}"] {
            assert!(matches!(judge(200, body.as_bytes()), Judged::Unknown(_)), "{body:?}");
        }
    }

    #[test]
    fn an_error_of_somebody_else_is_never_taken_for_a_failure() {
        for status in [500, 502, 503, 504] {
            assert!(matches!(judge(status, b"<html>"), Judged::Unknown(_)), "{status}");
        }
        let Judged::RequestRefused(refused) = judge(404, b"<html>\x1b[2J") else { panic!() };
        assert_eq!(refused.to_string(), "returned status 404: <html>[2J");
    }
}
