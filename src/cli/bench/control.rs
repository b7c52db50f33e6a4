//! What the bench asks the boxes beside the load: status, totals, epochs.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::{Answer, BenchTarget, Wire, WireError};

/// A connection for single questions.
#[derive(Debug)]
pub struct Control {
    target: BenchTarget,
    wire: Wire,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The box is not reached.
    #[error("{url}: {error}")]
    Wire {
        /// Which box.
        url: String,
        /// What happened.
        error: WireError,
    },
    /// The box answered something else.
    #[error("{url}: {what} was answered with status {status}: {body}")]
    Status {
        /// Which box.
        url: String,
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The answer has not the form that is documented.
    #[error("{url}: the answer to {what} is not as documented: {why}")]
    Form {
        /// Which box.
        url: String,
        /// What was asked.
        what: String,
        /// What is wrong.
        why: String,
    },
}

/// What status says of who leads.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Leadership {
    /// The leader's name, if one is known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
}

#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    series: Vec<PageSeries<'a>>,
    next: Option<String>,
}

#[derive(serde::Deserialize)]
struct PageSeries<'a> {
    series: String,
    #[serde(borrow)]
    total: Option<&'a RawValue>,
}

impl Control {
    /// Connects to a box.
    ///
    /// # Errors
    /// The box cannot be asked, or answers otherwise than it should.
    pub async fn connect(target: &BenchTarget) -> Result<Control, ControlError> {
        match Wire::connect(target).await {
            Ok(wire) => Ok(Control { target: target.clone(), wire }),
            Err(error) => Err(ControlError::Wire { url: target.url.clone(), error: error.into() }),
        }
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// The box cannot be asked, or answers otherwise than it should.
    pub async fn status(&mut self) -> Result<Value, ControlError> {
        let body = self.get("/v1/status").await?;
        self.parsed("/v1/status", &body)
    }

    /// Who leads.
    ///
    /// # Errors
    /// The box cannot be asked, or answers otherwise than it should.
    pub async fn leadership(&mut self) -> Result<Leadership, ControlError> {
        let status = self.status().await?;
        let leader = status.get("leader").and_then(Value::as_str).map(str::to_owned);
        match status.get("term").and_then(Value::as_u64) {
            Some(term) => Ok(Leadership { leader, term }),
            None => Err(self.form("/v1/status", "it has no term".to_owned())),
        }
    }

    /// The totals of all series whose names begin so, as of everything acknowledged before: a
    /// linearizable read of `first` brings the box up to date, then its list is read.
    ///
    /// # Errors
    /// The box cannot be asked, or answers otherwise than it should.
    pub async fn totals(&mut self, first: &str, prefix: &str) -> Result<HashMap<String, i128>, ControlError> {
        let path = format!("/v1/series/{first}");
        let (status, body) = self.ask("GET", &path, b"").await?;
        // A series that is not there yet was looked for all the same.
        if status != 200 && status != 404 {
            return Err(self.refused(&path, status, &body));
        }
        let mut totals = HashMap::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/series?prefix={prefix}&limit=1000{after}");
            let body = self.get(&path).await?;
            let page: Page<'_> =
                serde_json::from_slice(&body).map_err(|error| self.form(&path, error.to_string()))?;
            for entry in page.series {
                let Some(total) = entry.total else { continue };
                let total = total.get().trim_matches('"').parse();
                let total = total.map_err(|_| self.form(&path, "a total is no number".to_owned()))?;
                totals.insert(entry.series, total);
            }
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(totals),
            }
        }
    }

    /// Opens an epoch of a named source.
    ///
    /// # Errors
    /// The box cannot be asked, or answers otherwise than it should.
    pub async fn open_epoch(&mut self, source: &str) -> Result<String, ControlError> {
        let path = format!("/v1/sources/{source}/epochs");
        let (status, body) = self.ask("POST", &path, b"").await?;
        if !matches!(status, 200 | 201) {
            return Err(self.refused(&path, status, &body));
        }
        let answer: Value = self.parsed(&path, &body)?;
        let epoch = answer.get("epoch").and_then(Value::as_str).map(str::to_owned);
        epoch.ok_or_else(|| self.form(&path, "it has no epoch".to_owned()))
    }

    async fn get(&mut self, path: &str) -> Result<Vec<u8>, ControlError> {
        match self.ask("GET", path, b"").await? {
            (200, body) => Ok(body),
            (status, body) => Err(self.refused(path, status, &body)),
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ControlError> {
        let length = body.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n",
            self.target.authority
        )
        .into_bytes();
        request.extend_from_slice(body);
        match self.wire.exchange(&request).await {
            Ok(Answer { status, body }) => Ok((status, body.to_vec())),
            Err(error) => Err(ControlError::Wire { url: self.target.url.clone(), error }),
        }
    }

    fn parsed(&self, what: &str, body: &[u8]) -> Result<Value, ControlError> {
        serde_json::from_slice(body).map_err(|error| self.form(what, error.to_string()))
    }

    fn refused(&self, what: &str, status: u16, body: &[u8]) -> ControlError {
        let body = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        ControlError::Status { url: self.target.url.clone(), what: what.to_owned(), status, body }
    }

    fn form(&self, what: &str, why: String) -> ControlError {
        ControlError::Form { url: self.target.url.clone(), what: what.to_owned(), why }
    }
}
