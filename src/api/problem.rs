//! Errors as `application/problem+json` (RFC 9457), with stable types for scripts.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use tally_core::report::Kind;

use crate::request::RequestError;
use crate::site::Refusal;

/// The prefix of the stable name in a problem's `type`.
pub(super) const TYPE_PREFIX: &str = "urn:tallyd:error:";

/// Why a request was not done: the stable name decides the status and the title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The request cannot be understood.
    Malformed,
    /// The token is missing or wrong.
    Unauthorized,
    /// The `Host` header names neither this listener nor a loopback name.
    ForbiddenHost,
    /// A browser sent it for a page of another origin.
    CrossOrigin,
    /// No series of that name.
    NoSuchSeries,
    /// No setting of that name.
    NoSuchSetting,
    /// No member of that name.
    NoSuchMember,
    /// The change of members is refused.
    MemberRefused,
    /// No join token of that id.
    NoSuchToken,
    /// This box is not taken in, or does not ask; nothing was changed.
    JoinRefused,
    /// The box that was to take it in does not answer; nothing was changed.
    JoinUnreached,
    /// This box has no site yet.
    NoSite,
    /// No resource at that path.
    NotFound,
    /// The resource has no such method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The series is of another kind.
    WrongKind,
    /// The total would overflow.
    Overflow,
    /// The idempotency key is known with another body.
    KeyReused,
    /// The epoch is not open.
    UnknownEpoch,
    /// Neither the next report nor the last.
    OutOfOrder,
    /// The last report's number with other content.
    ReportChanged,
    /// The body, or the list in it, is too large.
    TooLarge,
    /// As many series as the site may have.
    TooManySeries,
    /// As many sources as the site may have.
    TooManySources,
    /// As many watchers as this box serves.
    TooManyWatchers,
    /// The table of idempotency keys is full.
    KeyTableFull,
    /// Too many requests wait at this box.
    TooBusy,
    /// This try was not counted, or not done.
    NotCommitted,
    /// This try may have been counted or done.
    OutcomeUnknown,
    /// The site cannot commit now.
    NotReady,
}

impl Name {
    /// The name, the status and the title.
    pub const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Name::Malformed => ("malformed", S::BAD_REQUEST, "Malformed request"),
            Name::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "Token required"),
            Name::ForbiddenHost => ("forbidden-host", S::FORBIDDEN, "Not served under this host name"),
            Name::CrossOrigin => ("cross-origin", S::FORBIDDEN, "Cross-origin request refused"),
            Name::NoSuchSeries => ("no-such-series", S::NOT_FOUND, "No such series"),
            Name::NoSuchSetting => ("no-such-setting", S::NOT_FOUND, "No such setting"),
            Name::NoSuchMember => ("no-such-member", S::NOT_FOUND, "No such member"),
            Name::MemberRefused => ("member-refused", S::CONFLICT, "This change of members is refused"),
            Name::NoSuchToken => ("no-such-token", S::NOT_FOUND, "No such join token"),
            Name::JoinRefused => ("join-refused", S::CONFLICT, "This box does not join"),
            Name::JoinUnreached => ("join-unreached", S::CONFLICT, "No box answers there"),
            Name::NoSite => ("no-site", S::SERVICE_UNAVAILABLE, "This box has no site yet"),
            Name::NotFound => ("not-found", S::NOT_FOUND, "Not found"),
            Name::MethodNotAllowed => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "Method not allowed"),
            Name::RequestTimeout => {
                ("request-timeout", S::REQUEST_TIMEOUT, "The body did not arrive in time")
            }
            Name::WrongKind => ("wrong-kind", S::CONFLICT, "The series is of another kind"),
            Name::Overflow => ("overflow", S::CONFLICT, "The total would overflow"),
            Name::KeyReused => ("key-reused", S::CONFLICT, "The idempotency key was used for another add"),
            Name::UnknownEpoch => ("unknown-epoch", S::CONFLICT, "The epoch is not open"),
            Name::OutOfOrder => ("out-of-order", S::CONFLICT, "Report out of order"),
            Name::ReportChanged => {
                ("report-changed", S::CONFLICT, "The report was applied with different content")
            }
            Name::TooLarge => ("too-large", S::PAYLOAD_TOO_LARGE, "Too large"),
            Name::TooManySeries => ("too-many-series", S::TOO_MANY_REQUESTS, "Too many series"),
            Name::TooManySources => ("too-many-sources", S::TOO_MANY_REQUESTS, "Too many sources"),
            Name::TooManyWatchers => ("too-many-watchers", S::TOO_MANY_REQUESTS, "Too many watchers"),
            Name::KeyTableFull => ("key-table-full", S::TOO_MANY_REQUESTS, "Too many idempotency keys"),
            Name::TooBusy => ("too-busy", S::TOO_MANY_REQUESTS, "Too many waiting requests"),
            Name::NotCommitted => ("not-committed", S::SERVICE_UNAVAILABLE, "Not committed"),
            Name::OutcomeUnknown => ("outcome-unknown", S::SERVICE_UNAVAILABLE, "The outcome is unknown"),
            Name::NotReady => ("not-ready", S::SERVICE_UNAVAILABLE, "The site cannot commit"),
        }
    }
}

/// A problem: what, where, what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Its stable name.
    pub name: Name,
    /// What happened, in words.
    pub detail: String,
    /// Further members, for programs.
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(name: Name, detail: impl Into<String>) -> Problem {
        Problem { name, detail: detail.into(), members: Map::new() }
    }

    /// A problem named `malformed`.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(Name::Malformed, detail)
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Problem {
        self.members.insert(key.to_owned(), value);
        self
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let (name, status, title) = self.name.parts();
        let mut members = self.members;
        members.insert("type".into(), json!(format!("{TYPE_PREFIX}{name}")));
        members.insert("title".into(), json!(title));
        members.insert("status".into(), json!(status.as_u16()));
        members.insert("detail".into(), json!(self.detail));
        let mut response = Response::new(Body::from(Value::Object(members).to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What was not read of the body is not read at all: the connection ends with the answer.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// The kind of a request, on which the advice of its problems depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An add, with an idempotency key or without.
    Add { keyed: bool },
    /// A numbered report.
    Report,
    /// A new epoch of a source.
    Epoch,
    /// A read, or a change of the site.
    Other,
}

impl Asked {
    /// Says what a try that was not committed did.
    const fn not_committed(self) -> &'static str {
        match self {
            Asked::Add { .. } | Asked::Report => "this try was not counted",
            Asked::Epoch | Asked::Other => "nothing was done",
        }
    }

    /// Says what may have happened, and what to do then.
    const fn unknown(self) -> &'static str {
        match self {
            Asked::Add { keyed: true } => {
                "this try may have been counted: retry with the same Idempotency-Key"
            }
            Asked::Add { keyed: false } => {
                "this add may have been counted, and a retry could count it twice; an add with an \
                 Idempotency-Key can be retried safely"
            }
            Asked::Report => "this try may have been counted: send the report again, unchanged",
            Asked::Epoch => "the epoch may be open: repeat the request, with the same nonce if it had one",
            Asked::Other => {
                "the change may have been made: check the present state before you repeat the request"
            }
        }
    }

    /// Maps an error to the problem for a request of this kind.
    pub(super) fn problem(self, error: RequestError) -> Problem {
        let detail = error.to_string();
        match error {
            RequestError::Refused(why) => refusal(why),
            RequestError::KeyReused => Problem::new(
                Name::KeyReused,
                "this Idempotency-Key was used for another series or amount; nothing was added; use a new \
                 key for a new add",
            ),
            RequestError::KeyTableFull => Problem::new(Name::KeyTableFull, detail),
            RequestError::TooManySources => Problem::new(Name::TooManySources, detail),
            RequestError::BadKey | RequestError::LongName { .. } => Problem::malformed(detail),
            RequestError::TooManyNew => Problem::new(Name::TooManySeries, detail),
            RequestError::TooBusy => Problem::new(Name::TooBusy, detail),
            RequestError::NotCommitted { why } => Problem::new(
                Name::NotCommitted,
                format!("{why}; {}: retry, here or at another box", self.not_committed()),
            ),
            RequestError::OutcomeUnknown { why } => {
                Problem::new(Name::OutcomeUnknown, format!("{why}; {}", self.unknown()))
            }
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        Asked::Other.problem(error)
    }
}

/// The stable name and the words for a cell that was refused where it was applied.
pub(super) fn refusal(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::WrongKind { is, asked } => wrong_kind(is, asked),
        Refusal::Overflow => {
            Problem::new(Name::Overflow, "the total would exceed 128 bits; nothing was counted")
        }
        Refusal::TooManySeries => Problem::new(
            Name::TooManySeries,
            "the series is new and the site already has series.max series; nothing was counted; raise that \
             setting or use an existing series",
        ),
        Refusal::TooManyMeters => Problem::new(
            Name::TooManySeries,
            "the meter is new and the site already keeps series.max meters; nothing was counted; raise that \
             setting",
        ),
        Refusal::WindowInFuture => Problem::malformed(
            "the window lies in the future; compare the sender's clock with site time (GET /v1/status)",
        ),
        Refusal::Malformed => Problem::malformed(
            "the parts of the amount contradict each other (for example, a sample whose last is not between \
             min and max)",
        ),
    }
}

fn wrong_kind(is: Kind, asked: Kind) -> Problem {
    let detail = format!(
        "the series is of kind {is}, which cannot change; the request is for kind {asked}; use another name, \
         or the request for kind {is}"
    );
    Problem::new(Name::WrongKind, detail).with("is", json!(is.as_str())).with("asked", json!(asked.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_advises_what_its_request_can_do() {
        let why = || "no leader".to_owned();
        let not = |asked: Asked| asked.problem(RequestError::NotCommitted { why: why() }).detail;
        let unknown = |asked: Asked| asked.problem(RequestError::OutcomeUnknown { why: why() }).detail;
        assert!(not(Asked::Add { keyed: false }).contains("this try was not counted"));
        assert!(not(Asked::Report).contains("this try was not counted"));
        let read = Problem::from(RequestError::NotCommitted { why: why() });
        assert_eq!(read.name, Name::NotCommitted);
        assert_eq!(read.detail, "no leader; nothing was done: retry, here or at another box");
        assert!(unknown(Asked::Add { keyed: true }).contains("with the same Idempotency-Key"));
        assert!(unknown(Asked::Add { keyed: false }).contains("could count it twice"));
        assert!(unknown(Asked::Report).contains("unchanged"));
        assert!(unknown(Asked::Epoch).contains("nonce"));
        let change = Problem::from(RequestError::OutcomeUnknown { why: why() });
        assert!(!change.detail.contains("Key") && change.detail.contains("may have been made"));
    }
}
