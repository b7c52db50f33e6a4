//! The last value of a sample is the value that was observed last, whatever happened to the batches between.

use std::collections::BTreeMap;

use tallyd::site::Site;

use super::{Conservation, OneIncarnation, RefusedCells};

#[derive(Debug, Default)]
pub(crate) struct Lasts(BTreeMap<String, (OneIncarnation, f64, bool)>);

impl Lasts {
    pub(crate) fn observed(
        &mut self,
        incarnation: OneIncarnation,
        series: &str,
        value: f64,
        is_time_known: bool,
    ) {
        let (_, last, is_known) = self.0.entry(series.to_owned()).or_insert((incarnation, value, true));
        *last = value;
        *is_known &= is_time_known;
    }

    /// Holds the last values of a site that has come to rest against what was observed.
    pub(crate) fn hold(&self, site: &Site, conservation: &Conservation, refused: &RefusedCells) {
        let is_told = |incarnation: OneIncarnation| {
            conservation.is_crashed(incarnation) || refused.of(incarnation.0) > 0
        };
        for (series, (incarnation, value, _)) in self.0.iter().filter(|(_, (.., is_known))| *is_known) {
            let Some(id) = site.find(series) else {
                assert!(
                    is_told(*incarnation),
                    "lasts: {series} is not known, and neither crash nor refusal took it"
                );
                continue;
            };
            if is_told(*incarnation) {
                continue;
            }
            let last = site.series(id).sample.expect("a sample").last;
            assert!(
                (last.value - value).abs() < f64::EPSILON,
                "lasts: {series} has {} last, and {value} was observed last",
                last.value
            );
        }
    }
}
