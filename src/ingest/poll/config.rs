//! `[[ingest.poll]]`: what a polled file's configuration says, checked.

use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use tally_core::id::{SeriesName, SeriesNameError};
use tally_core::meter::{self, MeterRule};

use super::track::{self, PollKind, Reading, ReadingError};
use crate::units::Unit;

/// As written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// Counts go to this series.
    pub series: String,
    /// An absolute path, not of a pipe; at most 1 MiB of it is read.
    pub file: PathBuf,
    /// A regular expression, `^` and `$` at lines; its first group is the number.
    pub pattern: String,
    /// `counter` or `sample`.
    pub kind: PollKind,
    /// How often: a number and a unit, `500ms`, `1s`, `5m`, `1h`.
    pub every: String,
    /// Counters: the value at which the file's counter begins again at 0. A fall of more than half of it is a wrap;
    /// any other, and every fall without it, is a restart at 0.
    pub ceiling: Option<u64>,
    /// Counters: a step back of up to this counts nothing. Default: 0.1 % of the number and at most 1,000.
    pub noise: Option<u64>,
    /// Counters: a fall to 0 that is back within this time is none. Default `10s`; `0s`: every fall is one.
    pub glitch_window: Option<String>,
    /// Counters: a step of more than this is held and shown until a reading confirms it a `glitch_window` later.
    pub step_max: Option<u64>,
    /// Counters: a file whose content names the incarnation of the counter; with another content it began again at 0.
    /// Default: the system's boot id for files in `/proc` and `/sys`, none for others; the empty text: none.
    pub boot_id: Option<PathBuf>,
}

/// A checked [`PollConfig`].
#[derive(Clone, Debug)]
pub struct Poll {
    pub(super) series: String,
    pub(super) file: PathBuf,
    pub(super) pattern: Regex,
    pub(super) kind: PollKind,
    pub(super) every: Duration,
    pub(super) rule: MeterRule,
    pub(super) incarnation: Option<IncarnationFile>,
    /// The pattern as configured: part of the meter's name.
    pub(super) text: String,
}

/// The file that names the incarnation of a counter.
#[derive(Clone, Debug)]
pub(super) struct IncarnationFile {
    pub(super) path: PathBuf,
    /// Named in the configuration, so that it is an error if it cannot be read.
    pub(super) is_configured: bool,
}

impl Poll {
    /// What the text of its file says; `is_whole`: it is all that the file has.
    ///
    /// # Errors
    /// Why the text gives no reading.
    pub fn read(&self, text: &[u8], is_whole: bool) -> Result<Reading, ReadingError> {
        track::read(text, is_whole, &self.pattern, self.kind)
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
    #[error("has no group: put parentheses around the number, as in '^ctxt (\\d+)'")]
    NoGroup,
    /// Not a span of time.
    #[error("{0:?} is not a duration such as \"500ms\", \"1s\", \"5m\" or \"1h\"")]
    Every(String),
    /// Too often or too seldom.
    #[error("{0:?} is not between 10ms and 24h")]
    EveryBounds(String),
    /// Samples have none.
    #[error("only a counter wraps; remove this key, or set kind = \"counter\"")]
    CeilingOfSample,
    /// Samples have none.
    #[error("only for counters; remove this key, or set kind = \"counter\"")]
    OfSample,
    /// Too long.
    #[error("{0:?} is not between 0s and 24h")]
    GlitchBounds(String),
    /// Everything would be above it.
    #[error("a counter cannot wrap at 0; the ceiling of 32 bits is 4294967296")]
    CeilingZero,
}

/// The most memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Where the kernel names the incarnation of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const EVERY_MIN: Duration = Duration::from_millis(10);
const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// All entries, checked.
///
/// # Errors
/// What is wrong with the first that is.
pub fn checked(section: &[PollConfig]) -> Result<Vec<Poll>, PollConfigError> {
    section.iter().enumerate().map(|(place, poll)| poll.check(place)).collect()
}

impl PollConfig {
    /// Checks all of it. `place` is its place in the list, from 0, for the error's key.
    ///
    /// # Errors
    /// Which key is wrong, and how.
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
        let of_counters = [
            ("noise", self.noise.is_some()),
            ("glitch_window", self.glitch_window.is_some()),
            ("step_max", self.step_max.is_some()),
            ("boot_id", self.boot_id.is_some()),
        ];
        if self.kind == PollKind::Sample
            && let Some((field, _)) = of_counters.iter().find(|(_, is_set)| *is_set)
        {
            return Err(wrong(field)(PollProblem::OfSample));
        }
        let glitch_window_ms = self.glitch_window_ms().map_err(wrong("glitch_window"))?;
        Ok(Poll {
            series: self.series.clone(),
            file: self.file.clone(),
            pattern,
            kind: self.kind,
            every,
            rule: MeterRule {
                ceiling: self.ceiling,
                noise: self.noise,
                glitch_window_ms,
                step_max: self.step_max,
            },
            incarnation: self.incarnation_file().map_err(wrong("boot_id"))?,
            text: self.pattern.clone(),
        })
    }

    fn glitch_window_ms(&self) -> Result<u64, PollProblem> {
        let Some(text) = &self.glitch_window else { return Ok(meter::GLITCH_WINDOW_MS) };
        let span = parse_span(text)?.as_millis();
        u64::try_from(span)
            .ok()
            .filter(|span| *span <= meter::GLITCH_WINDOW_MS_MAX)
            .ok_or_else(|| PollProblem::GlitchBounds(text.clone()))
    }

    fn incarnation_file(&self) -> Result<Option<IncarnationFile>, PollProblem> {
        let is_kernels = self.file.starts_with("/proc") || self.file.starts_with("/sys");
        match &self.boot_id {
            Some(path) if path.as_os_str().is_empty() => Ok(None),
            Some(path) if !path.is_absolute() => Err(PollProblem::RelativePath(path.clone())),
            Some(path) => Ok(Some(IncarnationFile { path: path.clone(), is_configured: true })),
            None if is_kernels && self.kind == PollKind::Counter => {
                Ok(Some(IncarnationFile { path: BOOT_ID.into(), is_configured: false }))
            }
            None => Ok(None),
        }
    }
}

fn compiled(pattern: &str) -> Result<Regex, PollProblem> {
    let pattern = RegexBuilder::new(pattern)
        .multi_line(true)
        // `$` also stands before the \r of a line that ends as on Windows.
        .crlf(true)
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
    let every = parse_span(text)?;
    if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
        return Err(PollProblem::EveryBounds(text.to_owned()));
    }
    Ok(every)
}

fn parse_span(text: &str) -> Result<Duration, PollProblem> {
    let millis = Unit::Duration.parse(text).map_err(|_| PollProblem::Every(text.to_owned()))?;
    Ok(Duration::from_millis(millis))
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
        assert_eq!(poll.rule, MeterRule::DEFAULT);
        assert_eq!(poll.incarnation.unwrap().path, PathBuf::from(BOOT_ID));
    }

    #[test]
    fn the_rule_of_a_counter_is_configured() {
        let more =
            "ceiling = 4294967296\nnoise = 5\nglitch_window = \"500ms\"\nstep_max = 1000\nboot_id = \"\"";
        let poll = config(&format!("{GOOD}\n{more}")).check(0).unwrap();
        let rule =
            MeterRule { ceiling: Some(1 << 32), noise: Some(5), glitch_window_ms: 500, step_max: Some(1000) };
        assert_eq!(poll.rule, rule);
        assert!(poll.incarnation.is_none());
        let poll = config(&format!("{GOOD}\nboot_id = \"/run/incarnation\"")).check(0).unwrap();
        assert!(poll.incarnation.unwrap().is_configured);
        let poll = config(&GOOD.replace("/proc/stat", "/var/lib/meter")).check(0).unwrap();
        assert!(poll.incarnation.is_none(), "what is kept in a file outlives a boot");
    }

    #[test]
    fn the_end_of_a_line_is_before_both_of_its_characters() {
        let poll = config(&GOOD.replace("(\\d+)'", "(\\d+)$'")).check(0).unwrap();
        for text in ["cpu 1\r\nctxt 17\r\nbtime 1\r\n", "ctxt 17\n", "ctxt 17", "ctxt 17\r\n"] {
            assert_eq!(poll.read(text.as_bytes(), true), Ok(Reading::Count(17)), "{text:?}");
        }
        assert!(poll.read(b"ctxt 17x\r\n", true).is_err());
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
            (
                "host/context-switches",
                "host//x",
                "ingest.poll[3].series: a series name must not have an empty segment",
            ),
            ("/proc/stat", "stat", "ingest.poll[3].file: \"stat\" is not an absolute path"),
            (r"(\d+)", r"(\d+", "ingest.poll[3].pattern: not a usable regular expression"),
            (r"(\d+)", r"(\d{1000}){1000}", "ingest.poll[3].pattern: not a usable regular expression"),
            (r"(\d+)", r"\d+", "ingest.poll[3].pattern: has no group"),
            ("\"1s\"", "\"1\"", "ingest.poll[3].every: \"1\" is not a duration"),
            ("\"1s\"", "\"s\"", "ingest.poll[3].every: \"s\" is not a duration"),
            ("\"1s\"", "\"-1s\"", "ingest.poll[3].every: \"-1s\" is not a duration"),
            ("\"1s\"", "\"1ms\"", "ingest.poll[3].every: \"1ms\" is not between"),
            ("\"1s\"", "\"25h\"", "ingest.poll[3].every: \"25h\" is not between"),
            ("\"1s\"", "\"18446744073709551615h\"", "ingest.poll[3].every"),
            ("\"1s\"", "\"1s\"\nceiling = 0", "ingest.poll[3].ceiling: a counter cannot wrap at 0"),
            (
                "\"1s\"",
                "\"1s\"\nglitch_window = \"25h\"",
                "ingest.poll[3].glitch_window: \"25h\" is not between",
            ),
            (
                "\"1s\"",
                "\"1s\"\nglitch_window = \"1\"",
                "ingest.poll[3].glitch_window: \"1\" is not a duration",
            ),
            ("\"1s\"", "\"1s\"\nboot_id = \"x\"", "ingest.poll[3].boot_id: \"x\" is not an absolute path"),
            ("\"counter\"", "\"sample\"\nnoise = 5", "ingest.poll[3].noise: only for counters"),
            ("\"counter\"", "\"sample\"\nstep_max = 5", "ingest.poll[3].step_max: only for counters"),
            ("\"counter\"", "\"sample\"\nceiling = 5", "ingest.poll[3].ceiling: only a counter wraps"),
        ] {
            let error = config(&GOOD.replace(from, to)).check(3).unwrap_err().to_string();
            assert!(error.starts_with(message), "{to:?} gave {error:?}");
        }
    }
}
