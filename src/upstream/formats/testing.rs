//! For tests: summaries to be written.

use tally_core::id::SourceId;
use tally_core::report::{Amount, Last, Sample, Sum};
use tally_core::time::SiteTime;

use super::{Naming, Numbered};
use crate::identity::SiteId;
use crate::site::{SeriesId, Summary};
use crate::upstream::config::BaseTopic;

pub(super) fn naming() -> Naming {
    Naming {
        site: "plant7".to_owned(),
        site_id: SiteId(0x9f3c_51d2_a07b_e644),
        base: BaseTopic::of_site("plant7"),
    }
}

pub(super) fn numbered(name: &str, amount: Amount, total: i128) -> Numbered {
    let summary = Summary {
        seq: Some(1042),
        series: SeriesId(3),
        start: SiteTime(1_763_858_400_000),
        span_ms: 60_000,
        amount,
        total: Some(total),
        late: false,
        synced: true,
    };
    Numbered { seq: 1042, name: name.to_owned(), since: 0, is_present: true, summary }
}

pub(super) fn sample(sum: i128) -> Sample {
    let last = Last { at: SiteTime(1), source: SourceId(1), value: 21.5 };
    Sample { count: 4, sum: Sum(sum), min: -2.0, max: 30.25, last }
}
