//! Where the summaries go: the `[upstream]` section, checked.

use std::path::PathBuf;

use serde::Deserialize;

use super::formats::Formats;
use crate::mqtt::{Access, BrokerUrl, is_allowed};

/// The name under which systemd hands over the broker's password (`LoadCredential=`).
pub const PASSWORD_CREDENTIAL: &str = "tallyd-upstream-password";

/// The longest base topic, in bytes: with a series name it stays far below MQTT's 65,535.
pub(super) const BASE_BYTES_MAX: usize = 256;

/// The `[upstream]` section of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The broker. Absent: summaries wait in the outbox.
    pub url: Option<BrokerUrl>,
    /// A file whose first line is the password, if the URL has none.
    pub password_file: Option<PathBuf>,
    /// The authorities (PEM) that may vouch for an `mqtts://` broker. Absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The base topic. Absent: `tally/SITE`.
    pub base: Option<BaseTopic>,
    /// What is published.
    pub format: Formats,
}

impl UpstreamConfig {
    /// How to reach the broker, if there is one.
    pub(super) fn access(&self) -> Option<Access<'_>> {
        let url = self.url.as_ref()?;
        Some(Access {
            section: "upstream",
            url,
            password_file: self.password_file.as_deref(),
            credential: PASSWORD_CREDENTIAL,
            ca_file: self.ca_file.as_deref(),
        })
    }
}

/// The topic that all topics of a site begin with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BaseTopic(String);

/// Why a text is no base topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a base topic has 1 to 256 bytes, no '+', '#', control characters or Unicode noncharacters, does not begin with '$' \
     and has no slash at either end"
)]
pub struct BaseTopicError;

impl BaseTopic {
    /// The topic of a site that was told no other.
    pub fn of_site(site: &str) -> BaseTopic {
        BaseTopic(format!("tally/{site}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BaseTopic {
    type Error = BaseTopicError;

    fn try_from(text: String) -> Result<BaseTopic, BaseTopicError> {
        let edges = text.starts_with(['/', '$']) || text.ends_with('/');
        let forbidden = !text.chars().all(is_allowed);
        if text.is_empty() || text.len() > BASE_BYTES_MAX || edges || forbidden {
            return Err(BaseTopicError);
        }
        Ok(BaseTopic(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_shows_the_password() {
        let url: BrokerUrl = "mqtts://me:p%40ss@broker".parse().unwrap();
        let config = UpstreamConfig { url: Some(url), ..UpstreamConfig::default() };
        let shown = format!("{config:?}");
        assert!(!shown.contains("ss@") && !shown.contains("p%40"), "{shown}");
    }

    #[test]
    fn a_base_topic_can_stand_before_a_series() {
        for text in ["", "/a", "a/", "a/+", "#", "$SYS/x", "a\0", "a\u{ffff}", &"x".repeat(257)] {
            assert_eq!(BaseTopic::try_from(text.to_owned()), Err(BaseTopicError), "{text:?}");
        }
        assert_eq!(BaseTopic::try_from("factory/7".to_owned()).unwrap().as_str(), "factory/7");
        assert_eq!(BaseTopic::of_site("plant7").as_str(), "tally/plant7");
    }

    #[test]
    fn the_section_is_read_with_its_defaults() {
        let config: UpstreamConfig = toml::from_str("url = 'mqtt://b'\nformat = ['json']").unwrap();
        assert_eq!(config.url, Some("mqtt://b".parse().unwrap()));
        assert_eq!(config.format, UpstreamConfig::default().format);
        for wrong in ["['xml']", "[]", "['json', 'json']", "'json'"] {
            assert!(toml::from_str::<UpstreamConfig>(&format!("format = {wrong}")).is_err(), "{wrong}");
        }
        assert!(toml::from_str::<UpstreamConfig>("uri = 'mqtt://b'").is_err());
    }
}
