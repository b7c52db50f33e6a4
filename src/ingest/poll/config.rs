//! `[[ingest.poll]]`: what a polled file's configuration says, checked.

use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use tally_core::id::{SeriesName, SeriesNameError};

use super::track::{self, PollKind, Reading, ReadingError};

/// As written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// Counts go to this series.
    pub series: String,
    /// An absolute path; at most 64 KiB of it are read.
    pub file: PathBuf,
    /// A regular expression, `^` and `$` at lines; its first group is the number.
    pub pattern: String,
    /// `counter` or `sample`.
    pub kind: PollKind,
    /// How often: a number and a unit, `500ms`, `1s`, `5m`, `1h`.
    pub every: String,
    /// Counters: the value at which the file's counter begins again at 0. Without it one that goes
    /// back was restarted at 0.
    pub ceiling: Option<u64>,
}

/// A checked [`PollConfig`].
#[derive(Clone, Debug)]
pub struct Poll {
    pub(super) series: String,
    pub(super) file: PathBuf,
    pub(super) pattern: Regex,
    pub(super) kind: PollKind,
    pub(super) every: Duration,
    pub(super) ceiling: Option<u64>,
}

impl Poll {
    /// What the text of its file says.
    pub fn read(&self, text: &[u8]) -> Result<Reading, ReadingError> {
        track::read(text, &self.pattern, self.kind)
    }
}

/// What is wrong with an entry: `key` is its full key, such as `ingest.poll[2].pattern`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct PollConfigError {
    /// Which key.
    pub key: String,
    /// What is wrong with it.
    pub problem: PollProblem,
}

/// What can be wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PollProblem {
    /// Not the name of a series.
    #[error("{0}")]
    Series(SeriesNameError),
    /// A relative path would mean another file in another working directory.
    #[error("{0:?} is not an absolute path")]
    RelativePath(PathBuf),
    /// Not a regular expression, or one that would take too much memory.
    #[error("not a usable regular expression: {0}")]
    Pattern(String),
    /// Nothing says which part is the number.
    #[error("has no group: put the number's part into parentheses, as in '^ctxt (\\d+)'")]
    NoGroup,
    /// Not a span of time.
    #[error("{0:?} is not a span of time such as \"500ms\", \"1s\", \"5m\" or \"1h\"")]
    Every(String),
    /// Too often or too seldom.
    #[error("{0:?} is not between 10ms and 24h")]
    EveryBounds(String),
    /// Samples have none.
    #[error("only a counter begins again; remove it, or set kind = \"counter\"")]
    CeilingOfSample,
    /// Everything would be above it.
    #[error("a counter cannot begin again at 0; the ceiling of 32 bits is 4294967296")]
    CeilingZero,
}

/// The most memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const EVERY_MIN: Duration = Duration::from_millis(10);
const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

impl PollConfig {
    /// Checks all of it. `place` is its place in the list, from 0, for the error's key.
    pub fn check(&self, place: usize) -> Result<Poll, PollConfigError> {
        let wrong = |field: &str| {
            let key = format!("ingest.poll[{place}].{field}");
            move |problem| PollConfigError { key, problem }
        };
        SeriesName::new(&self.series).map_err(PollProblem::Series).map_err(wrong("series"))?;
        if !self.file.is_absolute() {
            return Err(wrong("file")(PollProblem::RelativePath(self.file.clone())));
        }
        let pattern = compiled(&self.pattern).map_err(wrong("pattern"))?;
        let every = parse_every(&self.every).map_err(wrong("every"))?;
        match (self.ceiling, self.kind) {
            (Some(_), PollKind::Sample) => return Err(wrong("ceiling")(PollProblem::CeilingOfSample)),
            (Some(0), PollKind::Counter) => return Err(wrong("ceiling")(PollProblem::CeilingZero)),
            _ => {}
        }
        Ok(Poll {
            series: self.series.clone(),
            file: self.file.clone(),
            pattern,
            kind: self.kind,
            every,
            ceiling: self.ceiling,
        })
    }
}

fn compiled(pattern: &str) -> Result<Regex, PollProblem> {
    let pattern = RegexBuilder::new(pattern)
        .multi_line(true)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| PollProblem::Pattern(error.to_string()))?;
    if pattern.captures_len() < 2 {
        return Err(PollProblem::NoGroup);
    }
    Ok(pattern)
}

fn parse_every(text: &str) -> Result<Duration, PollProblem> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(PollProblem::Every(text.to_owned())),
    };
    let number: u64 = number.parse().map_err(|_| PollProblem::Every(text.to_owned()))?;
    let every = Duration::from_millis(number.saturating_mul(unit_ms));
    if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
        return Err(PollProblem::EveryBounds(text.to_owned()));
    }
    Ok(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        series  = "host/context-switches"
        file    = "/proc/stat"
        pattern = '^ctxt (\d+)'
        kind    = "counter"
        every   = "1s"
    "#;

    fn config(text: &str) -> PollConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_example_of_the_documentation_is_valid() {
        let poll = config(GOOD).check(0).unwrap();
        assert_eq!(poll.every, Duration::from_secs(1));
        assert_eq!(poll.kind, PollKind::Counter);
        assert_eq!(poll.ceiling, None);
    }

    #[test]
    fn an_unknown_or_missing_key_is_an_error_that_names_it() {
        let error = toml::from_str::<PollConfig>(&format!("{GOOD}\nevry = \"1s\"")).unwrap_err();
        assert!(error.to_string().contains("unknown field `evry`"), "{error}");
        let error = toml::from_str::<PollConfig>("series = \"a\"").unwrap_err();
        assert!(error.to_string().contains("missing field `file`"), "{error}");
        let error = toml::from_str::<PollConfig>(&GOOD.replace("\"counter\"", "\"gauge\"")).unwrap_err();
        assert!(error.to_string().contains("unknown variant `gauge`"), "{error}");
    }

    #[test]
    fn each_wrong_value_is_an_error_that_names_its_key() {
        for (from, to, message) in [
            ("host/context-switches", "host//x", "ingest.poll[3].series: a series name has no empty segment"),
            ("/proc/stat", "stat", "ingest.poll[3].file: \"stat\" is not an absolute path"),
            (r"(\d+)", r"(\d+", "ingest.poll[3].pattern: not a usable regular expression"),
            (r"(\d+)", r"(\d{1000}){1000}", "ingest.poll[3].pattern: not a usable regular expression"),
            (r"(\d+)", r"\d+", "ingest.poll[3].pattern: has no group"),
            ("\"1s\"", "\"1\"", "ingest.poll[3].every: \"1\" is not a span of time"),
            ("\"1s\"", "\"s\"", "ingest.poll[3].every: \"s\" is not a span of time"),
            ("\"1s\"", "\"-1s\"", "ingest.poll[3].every: \"-1s\" is not a span of time"),
            ("\"1s\"", "\"1ms\"", "ingest.poll[3].every: \"1ms\" is not between"),
            ("\"1s\"", "\"25h\"", "ingest.poll[3].every: \"25h\" is not between"),
            ("\"1s\"", "\"18446744073709551615h\"", "ingest.poll[3].every"),
            ("\"1s\"", "\"1s\"\nceiling = 0", "ingest.poll[3].ceiling: a counter cannot begin again at 0"),
            ("\"counter\"", "\"sample\"\nceiling = 5", "ingest.poll[3].ceiling: only a counter begins again"),
        ] {
            let error = config(&GOOD.replace(from, to)).check(3).unwrap_err().to_string();
            assert!(error.starts_with(message), "{to:?} gave {error:?}");
        }
    }
}
