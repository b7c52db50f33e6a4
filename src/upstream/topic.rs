//! Series names in topics: as they are, or escaped where MQTT would not take them.
//!
//! A name that MQTT allows is its own topic, percent signs included. Of any other, each character that MQTT
//! does not allow, and each `%`, is written as the `%XX` of its UTF-8 bytes, and a slash stands at the end: an
//! empty last level, which no series name has. So no two names share a topic, and a subscriber that finds the
//! slash takes it away and decodes what is left.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::mqtt::is_allowed;

/// The levels of a topic that stand for a series.
pub(super) fn of_series(name: &str) -> Cow<'_, str> {
    if name.chars().all(is_allowed) {
        return Cow::Borrowed(name);
    }
    let mut topic = String::with_capacity(name.len() + 16);
    for c in name.chars() {
        if is_allowed(c) && c != '%' {
            topic.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a text cannot fail.
            let _ = write!(topic, "%{byte:02X}");
        }
    }
    topic.push('/');
    Cow::Owned(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    fn decoded(topic: &str) -> String {
        match topic.strip_suffix('/') {
            Some(escaped) => percent_decode_str(escaped).decode_utf8().unwrap().into_owned(),
            None => topic.to_owned(),
        }
    }

    #[test]
    fn ordinary_names_are_their_own_topics() {
        for name in ["line1/press3/parts", "línea \"1\"/ç\\", "100%", "a%EF%BF%BF", "$sys/$x", "\u{fffd}"] {
            assert_eq!(of_series(name), name);
        }
    }

    #[test]
    fn what_mqtt_does_not_allow_is_escaped_and_no_two_names_share_a_topic() {
        for (name, topic) in [
            ("temp\u{ffff}", "temp%EF%BF%BF/"),
            ("a/\u{fdd0}b", "a/%EF%B7%90b/"),
            ("\u{1ffff}", "%F0%9F%BF%BF/"),
            ("50%\u{fffe}", "50%25%EF%BF%BE/"),
            ("a+b/#", "a%2Bb/%23/"),
            ("tab\there", "tab%09here/"),
        ] {
            assert_eq!(of_series(name), topic);
            assert_eq!(decoded(topic), name);
        }
        assert_ne!(of_series("a%EF%BF%BF"), of_series("a\u{ffff}"));
    }

    proptest! {
        #[test]
        fn every_name_comes_back_and_every_topic_is_one_that_mqtt_allows(
            name in "([a-z%+#\u{1}\u{fffe}\u{fdd5}/]|\\PC){1,30}"
        ) {
            // As for every series: no segment is empty.
            let name: Vec<&str> = name.split('/').filter(|segment| !segment.is_empty()).collect();
            let name = name.join("/");
            let topic = of_series(&name);
            prop_assert!(topic.chars().all(is_allowed));
            prop_assert_eq!(decoded(&topic), name);
        }
    }
}
