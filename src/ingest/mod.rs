//! The ways in: each file takes counts from one kind of sender and ends in the accumulator.

pub mod poll;
pub mod statsd;

use crate::site::Refusal;

/// Why a count was not taken, for logs and status.
fn in_words(refusal: Refusal) -> String {
    match refusal {
        Refusal::WrongKind { is, asked } => format!("the series is of kind {is}, this would need {asked}"),
        Refusal::Overflow => "the sum would overflow".to_owned(),
        Refusal::TooManySeries => "the site has as many series as it may (setting series_max)".to_owned(),
        Refusal::WindowInFuture => "its window lies in the future".to_owned(),
        Refusal::Malformed => "its parts do not belong together".to_owned(),
    }
}
