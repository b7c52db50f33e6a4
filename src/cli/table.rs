//! Texts for people: aligned tables, numbers, times, spans.

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lean {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a heading, columns two blanks apart, no blanks at the ends of lines.
pub fn table(columns: &[(&str, Lean)], rows: &[Vec<String>]) -> String {
    let width = |column: usize, heading: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> =
        columns.iter().enumerate().map(|(column, (heading, _))| width(column, heading)).collect();
    let mut text = String::new();
    let heading: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, lean)) in row.iter().zip(&widths).zip(columns) {
            let blanks = " ".repeat(width - cell.chars().count());
            match lean {
                Lean::Left => line.extend([cell.as_str(), &blanks, "  "]),
                Lean::Right => line.extend([&blanks, cell.as_str(), "  "]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and what they are, a line each.
pub fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// A whole number in groups of three digits.
pub fn whole(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    if number < 0 {
        text.push('-');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measured number with at most six digits after the point.
pub fn measured(number: f64) -> String {
    if number != 0.0 && !(1e-4..1e12).contains(&number.abs()) {
        return format!("{number:e}");
    }
    let text = format!("{number:.6}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// A time in Unix milliseconds as `2025-11-23 05:00:00`, UTC; fractions only where there are some.
pub fn time(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days since 0000-03-01 in a calendar whose years begin in March, so that leap days come last.
    let days = days + 719_468;
    let (era, in_era) = (days / 146_097, days % 146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (s, ms) = (in_day / 1000, in_day % 1000);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}{fraction}", s / 3600, s / 60 % 60, s % 60)
}

/// A span in milliseconds in its two largest units: `1m`, `2h 5m`, `3d 4h`.
pub fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let mut left = ms;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if left >= unit {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Bytes in binary units.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = count as f64;
    let mut name = "B";
    for unit in UNITS {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        name = unit;
    }
    if name == "B" { format!("{count} B") } else { format!("{amount:.1} {name}") }
}

/// A text from elsewhere without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_lean_their_way() {
        let rows = vec![vec!["línea".to_owned(), "7".to_owned()], vec!["b".to_owned(), "1,000".to_owned()]];
        let text = table(&[("SERIES", Lean::Left), ("TOTAL", Lean::Right)], &rows);
        assert_eq!(text, "SERIES  TOTAL\nlínea       7\nb       1,000\n");
        let rows = vec![vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&[("X", Lean::Left), ("Y", Lean::Left)], &rows), "X  Y\na\n");
        assert_eq!(list(&[("site", "p".to_owned()), ("id", "1".to_owned())]), "site  p\nid    1\n");
    }

    #[test]
    fn numbers_are_readable_and_exact() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (-1_234_567, "-1,234,567"), (-100, "-100")]
        {
            assert_eq!(whole(number), text);
        }
        assert_eq!(whole(i128::MIN), "-170,141,183,460,469,231,731,687,303,715,884,105,728");
        for (number, text) in [
            (21.5, "21.5"),
            (0.1 + 0.2, "0.3"),
            (-0.0, "0"),
            (100.0, "100"),
            (1e-7, "1e-7"),
            (1.5e15, "1.5e15"),
        ] {
            assert_eq!(measured(number), text);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (951_868_799_999, "2000-02-29 23:59:59.999"),
            (1_709_251_199_000, "2024-02-29 23:59:59"),
            (1_735_689_600_000, "2025-01-01 00:00:00"),
            (1_763_858_400_000, "2025-11-23 00:40:00"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert!(time(u64::MAX).starts_with("584556019-04-03"), "{}", time(u64::MAX));
    }

    #[test]
    fn spans_and_sizes_are_short() {
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (60_000, "1m"),
            (7_500_000, "2h 5m"),
            (90_061_001, "1d 1h"),
            (3_600_500, "1h 500ms"),
        ] {
            assert_eq!(span(ms), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(plain("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
