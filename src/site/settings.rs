//! The replicated settings: every limit of the state machine, typed and bounded.

use tally_core::id::SeriesName;
use tally_core::window::{SPAN_MS_MAX, Span};

use super::outbox::{NUMBERED_BYTES, SUMMARY_BYTES_MAX};
use crate::units::Unit;

/// The most rules that `window.spans` can have.
const SPAN_RULES_MAX: usize = 64;

/// The longest value of a setting, in bytes.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// How many base spans the grace may be at most: as many windows as a box keeps apart.
const GRACE_SPANS_MAX: u64 = 64;

/// The settings, as far as the log has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    founding_base: Span,
    values: [u64; NUMBERS_LEN],
    spans: Vec<SpanRule>,
}

/// Series of these names have windows of this span.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SpanRule {
    /// Up to and including the slash before the star; else the whole name.
    name: String,
    prefix: bool,
    span: Span,
}

/// A setting that is a number.
struct Number {
    key: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    default: u64,
    help: &'static str,
}

const SPANS_KEY: &str = "window.spans";
const SPANS_HELP: &str = "longer spans for some series: a comma-separated list of PATTERN=SPAN, of which the \
    first match applies; PATTERN is a name or a prefix that ends in /*; SPAN is a multiple of window.base";

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn number(
    key: &'static str,
    unit: Unit,
    bounds: (u64, u64),
    default: u64,
    help: &'static str,
) -> Number {
    Number { key, unit, min: bounds.0, max: bounds.1, default, help }
}

// The order is the snapshot's: append only.
const BASE: usize = 0;
const GRACE: usize = 1;
const SERIES_MAX: usize = 2;
const SOURCES_MAX: usize = 3;
const SILENT_AGE: usize = 4;
const FOLDED_AGE: usize = 5;
const OUTBOX_SUMMARIES: usize = 6;
const OUTBOX_BYTES: usize = 7;
const OUTBOX_NUMBERED: usize = 8;
const HISTORY_WINDOWS: usize = 9;
const HISTORY_BYTES: usize = 10;
const KEYS_MAX: usize = 11;
const KEYS_AGE: usize = 12;

/// A number of its own: by `NUMBERS.len()` the type would depend on evaluating the table, which makes the optimised
/// build a cycle for the compiler.
const NUMBERS_LEN: usize = 13;

const NUMBERS: [Number; NUMBERS_LEN] = [
    number("window.base", Unit::Duration, (100, SPAN_MS_MAX), 60_000, "span of a window"),
    number("window.grace", Unit::Duration, (0, MINUTE), 2000, "time after its end at which a window closes"),
    number("series.max", Unit::Count, (1, 1_000_000), 20_000, "maximum number of series in the site"),
    number(
        "sources.max",
        Unit::Count,
        (1, 1_000_000),
        10_000,
        "maximum number of sources that the site remembers",
    ),
    number(
        "sources.silent_age",
        Unit::Duration,
        (HOUR, 3650 * DAY),
        30 * DAY,
        "a source that is silent for this long must open a new epoch; of its old epochs the site keeps only \
         the last numbers",
    ),
    number(
        "sources.folded_age",
        Unit::Duration,
        (HOUR, 3650 * DAY),
        400 * DAY,
        "how long the site keeps the last numbers of a silent source",
    ),
    number(
        "outbox.summaries_max",
        Unit::Count,
        (1004, 10_000_000),
        100_000,
        "number of waiting summaries above which neighbouring windows are merged",
    ),
    number(
        "outbox.bytes_max",
        Unit::Bytes,
        (MIB, 4 * GIB),
        64 * MIB,
        "bytes of waiting summaries above which neighbouring windows are merged",
    ),
    number(
        "outbox.numbered_max",
        Unit::Count,
        (1, 100_000),
        1000,
        "maximum number of summaries that are numbered and not delivered",
    ),
    number(
        "history.windows_max",
        Unit::Count,
        (1, 1_000_000),
        1440,
        "closed windows of a series kept as history",
    ),
    number(
        "history.bytes_max",
        Unit::Bytes,
        (64 * KIB, 4 * GIB),
        32 * MIB,
        "bytes of closed windows kept as history",
    ),
    number("keys.max", Unit::Count, (1, 16_000_000), 1_000_000, "maximum number of live idempotency keys"),
    number("keys.age", Unit::Duration, (3000, 7 * DAY), 15 * MINUTE, "lifetime of an idempotency key"),
];

impl Settings {
    pub(super) fn new(founding_base: Span) -> Settings {
        let mut values = NUMBERS.map(|number| number.default);
        values[BASE] = founding_base.as_millis();
        Settings { founding_base, values, spans: Vec::new() }
    }

    /// The span of windows, unless a rule says otherwise.
    #[must_use]
    pub fn window_base(&self) -> Span {
        Span::from_millis(self.values[BASE]).unwrap_or(self.founding_base)
    }

    /// How long after its end a window is closed, in milliseconds.
    #[must_use]
    pub const fn window_grace_ms(&self) -> u64 {
        self.values[GRACE]
    }

    /// The span of a series' windows.
    #[must_use]
    pub fn span_for(&self, series: &str) -> Span {
        let matching = self.spans.iter().find(|rule| rule.matches(series));
        matching.map_or_else(|| self.window_base(), |rule| rule.span)
    }

    /// The bytes of the longest name in the rules for spans.
    pub(super) fn span_name_bytes(&self) -> usize {
        self.spans.iter().map(|rule| rule.name.len() - usize::from(rule.prefix)).max().unwrap_or(0)
    }

    /// How many series the site can have.
    #[must_use]
    pub const fn series_max(&self) -> u64 {
        self.values[SERIES_MAX]
    }

    /// How many sources the site remembers.
    #[must_use]
    pub const fn sources_max(&self) -> u64 {
        self.values[SOURCES_MAX]
    }

    /// After how many silent milliseconds a source is folded.
    #[must_use]
    pub const fn sources_silent_age_ms(&self) -> u64 {
        self.values[SILENT_AGE]
    }

    /// After how many milliseconds a folded source is forgotten.
    #[must_use]
    pub const fn sources_folded_age_ms(&self) -> u64 {
        self.values[FOLDED_AGE]
    }

    /// How many summaries the outbox holds, numbered ones included.
    #[must_use]
    pub const fn outbox_summaries_max(&self) -> u64 {
        self.values[OUTBOX_SUMMARIES]
    }

    /// How many bytes the outbox holds.
    #[must_use]
    pub const fn outbox_bytes_max(&self) -> u64 {
        self.values[OUTBOX_BYTES]
    }

    /// How many summaries may be numbered and undelivered.
    #[must_use]
    pub const fn outbox_numbered_max(&self) -> u64 {
        self.values[OUTBOX_NUMBERED]
    }

    /// How many closed windows of a series are kept.
    #[must_use]
    pub const fn history_windows_max(&self) -> u64 {
        self.values[HISTORY_WINDOWS]
    }

    /// How many bytes of closed windows are kept.
    #[must_use]
    pub const fn history_bytes_max(&self) -> u64 {
        self.values[HISTORY_BYTES]
    }

    /// How many idempotency keys can be live.
    #[must_use]
    pub const fn keys_max(&self) -> u64 {
        self.values[KEYS_MAX]
    }

    /// How long an idempotency key lives, in milliseconds.
    #[must_use]
    pub const fn keys_age_ms(&self) -> u64 {
        self.values[KEYS_AGE]
    }

    /// All of them in order: key, value, default and what it is for, as text.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, String, String, &'static str)> {
        let mut rows = Vec::with_capacity(NUMBERS.len() + 1);
        for (place, number) in NUMBERS.iter().enumerate() {
            let value = number.unit.format(self.values[place]);
            rows.push((number.key, value, number.unit.format(self.default_of(place)), number.help));
            if place == GRACE {
                rows.push((SPANS_KEY, self.spans_text(), String::new(), SPANS_HELP));
            }
        }
        rows
    }

    /// One setting's value as text, `None` if there is no such key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        self.list().into_iter().find(|row| row.0 == key).map(|row| row.1)
    }

    /// What a change would make of a value, in its normal form; or why it is refused.
    #[cfg(test)]
    fn check(&self, key: &str, value: &str) -> Result<String, String> {
        self.clone().set(key, value, 0)
    }

    /// Changes one setting; `value` can be the word `default`. Refused: nothing is changed.
    pub(super) fn set(&mut self, key: &str, value: &str, series: u64) -> Result<String, String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("{key}: a value has at most {VALUE_BYTES_MAX} bytes"));
        }
        let value = value.trim();
        let mut changed = self.clone();
        if key == SPANS_KEY {
            changed.spans = parse_spans(if value == "default" { "" } else { value })?;
        } else {
            let place = NUMBERS.iter().position(|number| number.key == key).ok_or_else(|| unknown(key))?;
            changed.values[place] =
                if value == "default" { self.default_of(place) } else { NUMBERS[place].parse(value)? };
        }
        changed.check_consistent(series)?;
        *self = changed;
        Ok(self.get(key).unwrap_or_default())
    }

    fn default_of(&self, place: usize) -> u64 {
        if place == BASE { self.founding_base.as_millis() } else { NUMBERS[place].default }
    }

    fn check_consistent(&self, series: u64) -> Result<(), String> {
        let base = self.window_base();
        if let Some(rule) = self.spans.iter().find(|rule| !rule.span.is_multiple_of(base)) {
            return Err(format!(
                "{SPANS_KEY}: the span of {} must be a multiple of window.base, which is {}",
                rule.text(),
                Unit::Duration.format(base.as_millis())
            ));
        }
        if self.window_grace_ms() > base.as_millis().saturating_mul(GRACE_SPANS_MAX) {
            return Err(format!("window.grace can be at most {GRACE_SPANS_MAX} times window.base"));
        }
        let series = series.max(self.series_max());
        let numbered = self.outbox_numbered_max().max(1000);
        let summaries = 4 * series + numbered;
        if self.outbox_summaries_max() < summaries {
            return Err(format!(
                "outbox.summaries_max must be at least {summaries} (4 for each of {series} series, and {numbered}), \
                 and would be {}",
                self.outbox_summaries_max()
            ));
        }
        let bytes = 2 * series * SUMMARY_BYTES_MAX + numbered * NUMBERED_BYTES;
        if self.outbox_bytes_max() < bytes {
            return Err(format!(
                "outbox.bytes_max must be at least {} for {series} series, and would be {}",
                Unit::Bytes.format(bytes.next_multiple_of(KIB)),
                Unit::Bytes.format(self.outbox_bytes_max())
            ));
        }
        Ok(())
    }

    fn spans_text(&self) -> String {
        self.spans.iter().map(SpanRule::text).collect::<Vec<_>>().join(",")
    }

    /// What a snapshot holds: the numbers in their order, and the spans as text.
    pub(super) fn parts(&self) -> (&[u64], String) {
        (&self.values, self.spans_text())
    }

    /// From what a snapshot holds; numbers that it lacks have their defaults.
    pub(super) fn from_parts(founding_base: Span, values: &[u64], spans: &str) -> Result<Settings, String> {
        let mut settings = Settings::new(founding_base);
        if values.len() > NUMBERS.len() {
            return Err(format!("{} settings; this version knows {}", values.len(), NUMBERS.len()));
        }
        for (place, value) in values.iter().enumerate() {
            let number = &NUMBERS[place];
            let founded = place == BASE && *value == founding_base.as_millis();
            if !founded && !(number.min..=number.max).contains(value) {
                return Err(format!("{} is out of bounds", number.key));
            }
            settings.values[place] = *value;
        }
        settings.spans = parse_spans(spans)?;
        Ok(settings)
    }
}

impl Number {
    fn parse(&self, text: &str) -> Result<u64, String> {
        let value = self.unit.parse(text).map_err(|why| format!("{}: {why}", self.key))?;
        if (self.min..=self.max).contains(&value) {
            return Ok(value);
        }
        let [min, max] = [self.min, self.max].map(|bound| self.unit.format(bound));
        Err(format!("{} must be between {min} and {max}, not {}", self.key, self.unit.format(value)))
    }
}

impl SpanRule {
    fn matches(&self, series: &str) -> bool {
        if self.prefix { series.starts_with(&self.name) } else { series == self.name }
    }

    fn text(&self) -> String {
        let star = if self.prefix { "*" } else { "" };
        format!("{}{star}={}", self.name, Unit::Duration.format(self.span.as_millis()))
    }
}

fn parse_spans(text: &str) -> Result<Vec<SpanRule>, String> {
    let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    let rules = rules.map(parse_span_rule).collect::<Result<Vec<_>, _>>()?;
    if rules.len() > SPAN_RULES_MAX {
        return Err(format!("{SPANS_KEY} has at most {SPAN_RULES_MAX} rules, not {}", rules.len()));
    }
    Ok(rules)
}

fn parse_span_rule(rule: &str) -> Result<SpanRule, String> {
    // Names can have an equals sign, spans cannot.
    let (pattern, span) =
        rule.rsplit_once('=').ok_or_else(|| format!("{SPANS_KEY}: {rule:?} is not PATTERN=SPAN"))?;
    let pattern = pattern.trim();
    let prefix = pattern.ends_with("/*");
    let name = if prefix { &pattern[..pattern.len() - 1] } else { pattern };
    let checked = if prefix { &name[..name.len() - 1] } else { name };
    if checked.contains('*') {
        return Err(format!("{SPANS_KEY}: in {pattern:?} a star must be the last segment"));
    }
    SeriesName::stored(checked).map_err(|why| format!("{SPANS_KEY}: {pattern:?}: {why}"))?;
    let millis = Unit::Duration.parse(span).map_err(|why| format!("{SPANS_KEY}: {why}"))?;
    let span = Span::from_millis(millis)
        .ok_or_else(|| format!("{SPANS_KEY}: a span must be from 1ms to 31d, not {}", span.trim()))?;
    Ok(SpanRule { name: name.to_string(), prefix, span })
}

fn unknown(key: &str) -> String {
    let keys = NUMBERS.iter().map(|number| number.key).chain([SPANS_KEY]);
    let shown: String = key.chars().take(64).collect();
    let near = keys
        .map(|known| (strsim::damerau_levenshtein(known, &shown), known))
        .min()
        .map_or("", |(_, known)| known);
    format!("there is no setting {shown:?}; the nearest is {near}")
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
