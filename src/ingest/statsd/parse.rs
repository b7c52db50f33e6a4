//! One line of StatsD taken apart, without copying, state or clock:
//! `name:value[:value...]|type[|@rate][|#tags][|Ttime]`, DogStatsD 1.1 packing included.

use tally_core::id::SeriesName;

use super::name;
use super::number::Decimal;

/// What a line says, its parts still as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Before the first colon; not checked yet.
    pub name: &'a [u8],
    /// Between the first colon and the first bar: one value, or several divided by colons.
    pub values: &'a [u8],
    /// What to do with the values.
    pub what: What,
    /// The sampling rate; 1 if none was given.
    pub rate: Decimal,
    /// What follows `|#`, without it; empty if there are no tags.
    pub tags: &'a [u8],
    /// What follows `|T`: when it happened, in seconds since 1970.
    pub time_s: Option<u64>,
}

/// The types that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `c`: adds to a counter.
    Count,
    /// `g`: sets or moves the box's value of a gauge and observes it.
    Gauge,
    /// `ms`, `h`, `d`: observes a value.
    Observe,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// Why a line, or one of its values, was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, each at the place of its number.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// In words, as status prints it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// In short, for programs: the label of the metric.
            pub const fn label(self) -> &'static str {
                match self { $(Reason::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// An event (`_e{`) or a service check (`_sc|`).
    NotAMetric = "not-a-metric", "events and service checks are not metrics";
    /// No colon, or nothing before the bar.
    NoValue = "no-value", "no value: a line is NAME:VALUE|TYPE";
    /// No bar after the value.
    NoType = "no-type", "no type: a line is NAME:VALUE|TYPE";
    /// `s`.
    Set = "set", "sets (type s) are not supported";
    /// Any other type.
    UnknownType = "unknown-type", "unknown type: there are c, g, ms, h and d";
    /// The rate is no number, or not more than 0 and at most 1.
    BadRate = "bad-rate", "the rate must be greater than 0 and at most 1";
    /// Name and tags together are no name of a series.
    EmptyName = "empty-name", "the name is empty";
    /// Likewise.
    LongName = "long-name", "the name, with its tags, has more than 200 bytes";
    /// Likewise, for now.
    LongNameYet = "long-name-yet",
        "the name, with its tags, has more than 96 bytes: update all boxes of the site to allow 200";
    /// Likewise.
    NotUtf8 = "not-utf8", "the name or a tag is not UTF-8";
    /// Not a decimal number.
    BadValue = "bad-value", "the value is not a number";
    /// A counter never falls.
    Negative = "negative", "a counter does not accept a negative amount";
    /// Over 2^53 - 1 after scaling, or a sample over 10^18.
    TooLarge = "too-large", "the value is too large";
    /// The name is a series of another kind.
    WrongKind = "wrong-kind", "the series is of another kind";
    /// The site has as many series as it may, or this box holds as many new names as it may.
    TooManySeries = "too-many-series", "the series is new, and the site already has series.max series";
    /// The box's sum would overflow.
    Overflow = "overflow", "the sum would overflow";
}

impl<'a> Line<'a> {
    /// Takes a line apart; it has no newline and is not empty. Values, name and tags are looked at
    /// by whoever uses them: most lines have been seen before.
    ///
    /// # Errors
    /// Why the line is refused.
    pub fn parse(line: &'a [u8]) -> Result<Line<'a>, Reason> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or_else(|| without_colon(line))?;
        let (name, rest) = (&line[..colon], &line[colon + 1..]);
        let bar = rest.iter().position(|&byte| byte == b'|').ok_or(Reason::NoType)?;
        let (values, rest) = (&rest[..bar], &rest[bar + 1..]);
        if values.is_empty() {
            return Err(if name.starts_with(b"_e{") { Reason::NotAMetric } else { Reason::NoValue });
        }
        let mut parsed =
            Line { name, values, what: What::Count, rate: Decimal::ONE, tags: &[], time_s: None };
        if rest == b"c" {
            return Ok(parsed);
        }
        let mut fields = rest.split(|&byte| byte == b'|');
        parsed.what = match fields.next().unwrap_or_default() {
            b"c" => What::Count,
            b"g" => What::Gauge,
            b"ms" | b"h" | b"d" => What::Observe,
            b"s" => return Err(Reason::Set),
            b"" => return Err(Reason::NoType),
            _ if is_no_metric(line) => return Err(Reason::NotAMetric),
            _ => return Err(Reason::UnknownType),
        };
        for field in fields {
            match field {
                [b'@', rate @ ..] => {
                    parsed.rate =
                        Decimal::parse(rate).filter(|rate| rate.is_rate()).ok_or(Reason::BadRate)?;
                }
                [b'#', tags @ ..] => parsed.tags = tags,
                [b'T', time @ ..] => parsed.time_s = plain_count(time),
                // Whatever else there is (the container, an external id, a cardinality) says nothing about what was
                // counted.
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The values one by one.
    pub fn each_value(&self) -> impl Iterator<Item = &'a [u8]> {
        self.values.split(|&byte| byte == b':')
    }

    /// The series that the line belongs to: see `name`. `text` is where the name is written.
    ///
    /// # Errors
    /// The name is empty, too long or not UTF-8.
    pub fn series<'t>(&self, text: &'t mut Vec<u8>) -> Result<SeriesName<'t>, Reason> {
        name::write(self.name, self.tags, text)
    }

    /// A line with a value that is no number is refused whole: `app.Foo::Bar:1|c` has none of the name `app.Foo`.
    ///
    /// # Errors
    /// [`Reason::BadValue`].
    pub fn has_numbers(&self) -> Result<(), Reason> {
        let is_number = |value: &[u8]| plain_count(value).is_some() || sample(value) != Err(Reason::BadValue);
        if self.each_value().all(is_number) { Ok(()) } else { Err(Reason::BadValue) }
    }

    /// Whether there are several values.
    pub fn is_packed(&self) -> bool {
        self.values.contains(&b':')
    }
}

fn is_no_metric(line: &[u8]) -> bool {
    line.starts_with(b"_e{") || line.starts_with(b"_sc|")
}

fn without_colon(line: &[u8]) -> Reason {
    if is_no_metric(line) { Reason::NotAMetric } else { Reason::NoValue }
}

/// A counter's value: digits alone, without more than 15 of them (so that nothing overflows).
/// `None`: look at it as a [`Decimal`].
pub fn plain_count(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 15 {
        return None;
    }
    let mut number = 0u64;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    Some(number)
}

/// A counter's value of any form, with its sign looked at.
///
/// # Errors
/// Why the value is refused.
pub fn count(value: &[u8]) -> Result<Decimal, Reason> {
    let unsigned = match value {
        [b'-', rest @ ..] => {
            return Err(if Decimal::parse(rest).is_some() { Reason::Negative } else { Reason::BadValue });
        }
        [b'+', rest @ ..] => rest,
        rest => rest,
    };
    Decimal::parse(unsigned).ok_or(Reason::BadValue)
}

/// A sampled value. The second part tells whether it has a sign: then it moves a gauge.
///
/// # Errors
/// Why the value is refused.
pub fn sample(value: &[u8]) -> Result<(f64, bool), Reason> {
    let numeric = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-' | b'e' | b'E');
    // The shape is checked first: Rust's parser reads "inf" and "nan" too.
    if !value.iter().all(numeric) {
        return Err(Reason::BadValue);
    }
    let text = std::str::from_utf8(value).map_err(|_| Reason::BadValue)?;
    let number: f64 = text.parse().map_err(|_| Reason::BadValue)?;
    if !number.is_finite() {
        return Err(Reason::TooLarge);
    }
    Ok((number, matches!(value[0], b'+' | b'-')))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
