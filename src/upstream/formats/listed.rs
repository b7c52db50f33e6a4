//! Which formats are published: as the configuration says, and as the status shows.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ALL, Format, Naming, json};
use crate::deliberate::{self, Bug};
use crate::upstream::status::RefusedTopic;
use crate::upstream::trials::Place;

/// The formats that are published: one or more, each once.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Formats(Vec<&'static dyn Format>);

/// Why a list names no formats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatsError {
    /// One that there is not.
    #[error("there is no format {name:?}; the formats are {all}", all = all())]
    Unknown {
        /// What was written.
        name: String,
    },
    /// One that is named twice.
    #[error("{0:?} is listed twice")]
    Twice(&'static str),
    /// None.
    #[error("the list has no format; the formats are {all}", all = all())]
    Empty,
}

/// The names of all formats.
fn all() -> String {
    ALL.iter().map(|format| format!("{:?}", format.name())).collect::<Vec<String>>().join(", ")
}

impl TryFrom<Vec<String>> for Formats {
    type Error = FormatsError;

    fn try_from(names: Vec<String>) -> Result<Formats, FormatsError> {
        let mut formats: Vec<&'static dyn Format> = Vec::new();
        for name in names {
            let Some(format) = ALL.iter().copied().find(|format| format.name() == name) else {
                return Err(FormatsError::Unknown { name });
            };
            if formats.iter().any(|one| one.name() == format.name()) {
                return Err(FormatsError::Twice(format.name()));
            }
            formats.push(format);
        }
        if formats.is_empty() { Err(FormatsError::Empty) } else { Ok(Formats(formats)) }
    }
}

impl Default for Formats {
    fn default() -> Formats {
        Formats(vec![&json::Json])
    }
}

impl PartialEq for Formats {
    fn eq(&self, other: &Formats) -> bool {
        self.names().eq(other.names())
    }
}

impl Eq for Formats {}

impl fmt::Debug for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Formats {
    /// All of them, in the order of the configuration.
    pub(in crate::upstream) fn iter(&self) -> impl Iterator<Item = &'static dyn Format> {
        self.0.iter().copied()
    }

    /// The one at this place.
    pub(in crate::upstream) fn at(&self, place: Place) -> &'static dyn Format {
        self.0[usize::from(place)]
    }

    /// All of them with their places, in the order of the configuration.
    pub(in crate::upstream) fn with_places(&self) -> impl Iterator<Item = (Place, &'static dyn Format)> {
        let place = |place| if deliberate::is(Bug::MixesFormats) { 0 } else { place };
        (0..).map(place).zip(self.iter())
    }

    /// The first of them.
    pub(in crate::upstream) fn first(&self) -> &'static dyn Format {
        self.0[0]
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.iter().map(Format::name)
    }

    /// What the status shows of them.
    pub(in crate::upstream) fn status(&self, naming: &Naming, refused: &[RefusedTopic]) -> Vec<FormatStatus> {
        self.iter().map(|format| FormatStatus::new(format, naming, refused)).collect()
    }
}

/// A format, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormatStatus {
    /// What the configuration calls it.
    pub name: &'static str,
    /// The MQTT 5 content type of its messages.
    pub content_type: &'static str,
    /// Filters of the topics that it publishes to.
    pub topics: Vec<String>,
    /// What the broker does not take of it, if anything.
    pub error: Option<String>,
}

impl FormatStatus {
    fn new(format: &dyn Format, naming: &Naming, refused: &[RefusedTopic]) -> FormatStatus {
        let topics = format.topics(naming);
        let is_own = |topic: &str| {
            topics.iter().any(|filter| match filter.strip_suffix('#') {
                Some(levels) => topic.starts_with(levels),
                None => topic == filter,
            })
        };
        let own: Vec<&RefusedTopic> = refused.iter().filter(|refused| is_own(&refused.topic)).collect();
        let error = own.first().map(|first| {
            let more = match own.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("the broker refuses {}{more}: {}", first.topic, first.cause)
        });
        FormatStatus { name: format.name(), content_type: format.content_type(), topics, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(names: &[&str]) -> Result<Formats, FormatsError> {
        Formats::try_from(names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>())
    }

    #[test]
    fn every_format_is_found_by_its_name_and_shares_no_topic_with_another() {
        let mut names = Vec::new();
        let mut suffixes = Vec::new();
        for format in ALL {
            assert_eq!(formats(&[format.name()]).unwrap().first().name(), format.name());
            names.push(format.name());
            suffixes.push(format.topic_suffix());
        }
        for mut all in [names, suffixes] {
            let listed = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), listed, "{all:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_formats_is_refused_with_the_names_of_all() {
        let told = |names: &[&str]| formats(names).unwrap_err().to_string();
        for names in [&["xml"][..], &["json", "Json"], &[]] {
            for format in ALL {
                assert!(told(names).contains(&format!("{:?}", format.name())), "{}", told(names));
            }
        }
        assert!(told(&["xml"]).contains("\"xml\""));
        assert_eq!(told(&["json", "json"]), "\"json\" is listed twice");
        assert_eq!(formats(&["json"]).unwrap(), Formats::default());
    }
}
