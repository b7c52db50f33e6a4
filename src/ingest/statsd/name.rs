//! The series that a name and its tags mean.
//!
//! Each tag is a further segment, `key:value` as `key=value`, in sorted order, the same tag once. What a series' name
//! cannot have is escaped as in URLs, by the bytes of its UTF-8: `+`, `#`, control characters, Unicode noncharacters,
//! and a slash where a segment would be empty (`a+b` is `a%2Bb`, `a//b` is `a/%2Fb`). A percent sign is escaped only
//! where two hexadecimal digits follow it. So decoding gives back what was sent, and plain names stay as they are.

use tally_core::id::{SERIES_NAME_BYTES_MAX, SeriesName, SeriesNameError, is_noncharacter};

use super::parse::Reason;

/// Writes the name into `text`.
pub(super) fn write<'t>(name: &[u8], tags: &[u8], text: &'t mut Vec<u8>) -> Result<SeriesName<'t>, Reason> {
    text.clear();
    if name.is_empty() {
        return Err(Reason::EmptyName);
    }
    // An escaped character has more bytes, never fewer.
    if name.len() > SERIES_NAME_BYTES_MAX {
        return Err(Reason::LongName);
    }
    text.extend_from_slice(name);
    if !tags.is_empty() {
        append_tags(tags, text)?;
    }
    if !is_plain(text) {
        let raw = std::str::from_utf8(text).map_err(|_| Reason::NotUtf8)?;
        *text = escaped(raw);
    }
    SeriesName::from_bytes(text).map_err(|error| match error {
        SeriesNameError::TooLong(_) => Reason::LongName,
        SeriesNameError::NotUtf8 => Reason::NotUtf8,
        // The others cannot be: what makes them was escaped.
        SeriesNameError::Empty | SeriesNameError::EmptySegment | SeriesNameError::Forbidden(_) => {
            Reason::EmptyName
        }
    })
}

fn append_tags(tags: &[u8], text: &mut Vec<u8>) -> Result<(), Reason> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut bytes = text.len();
    for tag in tags.split(|&byte| byte == b',').filter(|tag| !tag.is_empty()) {
        let mut segment = tag.to_vec();
        if let Some(colon) = tag.iter().position(|&byte| byte == b':') {
            segment[colon] = b'=';
        }
        if segments.contains(&segment) {
            continue;
        }
        bytes += 1 + tag.len();
        if bytes > SERIES_NAME_BYTES_MAX {
            return Err(Reason::LongName);
        }
        segments.push(segment);
    }
    segments.sort_unstable();
    for segment in segments {
        text.push(b'/');
        text.extend_from_slice(&segment);
    }
    Ok(())
}

/// Nothing in it can need an escape.
fn is_plain(text: &[u8]) -> bool {
    let slashes =
        text.first() == Some(&b'/') || text.ends_with(b"/") || text.windows(2).any(|two| two == b"//");
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'+' | b'#' | b'%');
    !slashes && text.iter().all(is_plain)
}

fn escaped(raw: &str) -> Vec<u8> {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(raw.len() + 16);
    for (at, c) in raw.char_indices() {
        let escapes = match c {
            '+' | '#' => true,
            '/' => at == 0 || bytes[at - 1] == b'/' || at + 1 == bytes.len(),
            '%' => bytes.get(at + 1..at + 3).is_some_and(|next| next.iter().all(u8::is_ascii_hexdigit)),
            c => c.is_control() || is_noncharacter(c),
        };
        let char_bytes = &bytes[at..at + c.len_utf8()];
        if escapes {
            for byte in char_bytes {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.extend_from_slice(&[
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 15)],
                ]);
            }
        } else {
            out.extend_from_slice(char_bytes);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(name: &str, tags: &str) -> Result<String, Reason> {
        let mut text = Vec::new();
        write(name.as_bytes(), tags.as_bytes(), &mut text).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn what_a_series_cannot_have_is_escaped_and_plain_names_stay() {
        for (name, tags, is) in [
            ("a.b-c_d/e f", "", "a.b-c_d/e f"),
            ("línea/ç", "ort:köln", "línea/ç/ort=köln"),
            ("a+b", "lang:c++,x:#1", "a%2Bb/lang=c%2B%2B/x=%231"),
            ("a\u{7}\u{85}", "", "a%07%C2%85"),
            ("temp\u{ffff}\u{fdd0}", "t:\u{1ffff}", "temp%EF%BF%BF%EF%B7%90/t=%F0%9F%BF%BF"),
            ("a//b", "", "a/%2Fb"),
            ("/a/", "", "%2Fa%2F"),
            ("//", "", "%2F%2F"),
            ("a", "url:http://x/", "a/url=http:/%2Fx%2F"),
            ("100%", "cpu:5%x,5%2z", "100%/5%2z/cpu=5%x"),
            ("a%2Bb", "%fF", "a%252Bb/%25fF"),
            ("a%+", "", "a%%2B"),
            ("a%2+", "", "a%2%2B"),
        ] {
            assert_eq!(series(name, tags).as_deref(), Ok(is), "{name:?} {tags:?}");
        }
        assert_eq!(write(b"\xff", b"", &mut Vec::new()), Err(Reason::NotUtf8));
        assert_eq!(series("", "a"), Err(Reason::EmptyName));
    }

    #[test]
    fn name_and_tags_have_at_most_200_bytes_together_as_they_are_written() {
        let tag = |bytes: usize| "y".repeat(bytes);
        assert_eq!(series(&"x".repeat(201), ""), Err(Reason::LongName));
        assert_eq!(series(&"x".repeat(200), "").map(|name| name.len()), Ok(200));
        assert_eq!(series(&"x".repeat(100), &tag(99)).map(|name| name.len()), Ok(200));
        assert_eq!(series(&"x".repeat(100), &tag(100)), Err(Reason::LongName));
        assert_eq!(series(&format!("{}+", "x".repeat(198)), ""), Err(Reason::LongName));
        let again = format!("{0},{0},{0}", tag(90));
        assert_eq!(series("x", &again).map(|name| name.len()), Ok(92), "the same tag counts once");
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_sent(
            name in prop_oneof!["[a+#%/2Bf\u{0}-\u{1f}\u{fdd0}\u{ffff}]{1,20}", "\\PC{1,20}", any::<String>()],
        ) {
            match series(&name, "") {
                Ok(series) => {
                    prop_assert!(SeriesName::new(&series).is_ok());
                    let back = percent_encoding::percent_decode_str(&series).decode_utf8().unwrap();
                    prop_assert_eq!(back.as_ref(), &name);
                }
                Err(reason) => prop_assert!(matches!(reason, Reason::LongName | Reason::EmptyName)),
            }
        }
    }
}
