//! Parses `TALLYD_LOG`, with the usual names for levels.

/// The default level.
pub(super) const DEFAULT: &str = "info";

/// What may stand alone, without a level, beside what has `::`.
const TARGETS: [&str; 5] = ["tallyd", "quinn", "quinn_proto", "rustls", "hyper"];

/// Maps the level names of other programs, in any case, to those of the log's filter.
fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "off" | "none" | "no" | "never" | "quiet" | "silent" | "0" => "off",
        "error" | "err" | "errors" | "fatal" | "critical" | "crit" | "alert" | "emerg" | "emergency"
        | "panic" | "1" => "error",
        "warn" | "warning" | "warnings" | "2" => "warn",
        "info" | "information" | "informational" | "notice" | "default" | "3" => "info",
        "debug" | "verbose" | "4" => "debug",
        "trace" | "all" | "everything" | "5" => "trace",
        _ => return None,
    })
}

/// Returns the filter's text and, if the value is wrong, a line that says why; the filter is the default then.
/// `None` or empty: the default.
pub fn directives(text: Option<&str>) -> (String, Option<String>) {
    let text = text.map(str::trim).unwrap_or_default();
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match directive(part) {
            Ok(directive) => all.push(directive),
            Err(why) => return (DEFAULT.to_owned(), Some(wrong(text, &why))),
        }
    }
    if all.is_empty() {
        return (DEFAULT.to_owned(), None);
    }
    let all = all.join(",");
    match all.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) => (all, None),
        Err(error) => (DEFAULT.to_owned(), Some(wrong(text, &error.to_string()))),
    }
}

fn directive(part: &str) -> Result<String, String> {
    if let Some(level) = level(part) {
        return Ok(level.to_owned());
    }
    match part.rsplit_once('=') {
        Some((target, word)) => match level(word.trim()) {
            Some(level) => Ok(format!("{}={level}", target.trim())),
            None => Err(format!("{word:?} is not a level")),
        },
        // A target alone means all of it. A word that is none would silence everything.
        None if TARGETS.contains(&part) || part.contains("::") => Ok(part.to_owned()),
        None => Err(format!("{part:?} is not a level")),
    }
}

fn wrong(text: &str, why: &str) -> String {
    format!(
        "TALLYD_LOG is {text:?}, and {why}: use off, error, warn, info, debug or trace, or TARGET=LEVEL such \
         as tallyd::transport=debug; the log level is {DEFAULT}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_words_for_levels_are_understood_in_any_case() {
        for (said, meant) in [
            ("warning", "warn"),
            ("WARN", "warn"),
            ("Err", "error"),
            ("fatal", "error"),
            ("Critical", "error"),
            ("off", "off"),
            ("trace", "trace"),
            ("notice", "info"),
            (" debug ", "debug"),
            ("", "info"),
            ("warning,tallyd::transport=Verbose", "warn,tallyd::transport=debug"),
            ("tallyd::node", "tallyd::node"),
        ] {
            assert_eq!(directives(Some(said)), (meant.to_owned(), None), "{said}");
        }
        assert_eq!(directives(None), ("info".to_owned(), None));
    }

    #[test]
    fn a_word_that_is_no_level_is_named_and_the_default_stays() {
        for (said, named) in [
            ("loud", "\"loud\""),
            ("tallyd=loud", "\"loud\""),
            ("info,inof", "\"inof\""),
            ("tallyd[{x=1}]", "\"1}]\""),
        ] {
            let (directives, wrong) = directives(Some(said));
            let wrong = wrong.unwrap();
            assert_eq!(directives, "info");
            assert!(
                wrong.contains("TALLYD_LOG") && wrong.contains(named) && wrong.contains("warn"),
                "{wrong}"
            );
            assert!(!wrong.contains('\n'), "{wrong}");
        }
    }
}
