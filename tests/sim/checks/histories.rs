//! The closed windows of a series add up to its total, and each amount is in the window of its time.

use std::collections::BTreeMap;

use tally_core::report::Amount;
use tally_core::time::SiteTime;
use tallyd::site::Site;

use super::{Conservation, OneIncarnation};

#[derive(Debug, Default)]
pub(crate) struct Histories(BTreeMap<String, Counted>);

#[derive(Debug)]
struct Counted {
    incarnation: OneIncarnation,
    windows: BTreeMap<SiteTime, i128>,
    /// Site time was known to its box all the time: else its own clock was the guess, which the site may correct.
    is_time_known: bool,
}

impl Histories {
    /// Counted in the window that begins then; if that is known.
    pub(crate) fn counted(
        &mut self,
        incarnation: OneIncarnation,
        series: &str,
        window: Option<SiteTime>,
        amount: u64,
    ) {
        let new = Counted { incarnation, windows: BTreeMap::new(), is_time_known: true };
        let counted = self.0.entry(series.to_owned()).or_insert(new);
        counted.is_time_known &= window.is_some();
        *counted.windows.entry(window.unwrap_or_default()).or_default() += i128::from(amount);
    }

    /// For a site with all windows closed and none forgotten: the windows add up to the totals.
    pub(crate) fn sum_up(site: &Site) {
        for id in site.series_ids() {
            let sum: i128 = site.windows(id, usize::MAX).iter().map(|window| increase(&window.amount)).sum();
            let total = site.series_total(id);
            assert_eq!(sum, total, "histories: the windows of {} do not sum up to its total", site.name(id));
        }
    }

    /// For a site with right clocks and unchanged spans: each amount is in the window of its time.
    pub(crate) fn hold(&self, site: &Site, conservation: &Conservation) {
        let is_certain = |of: &Counted| of.is_time_known && !conservation.is_crashed(of.incarnation);
        for (series, counted) in self.0.iter().filter(|(_, counted)| is_certain(counted)) {
            let Some(id) = site.find(series) else { continue };
            let mut windows: BTreeMap<SiteTime, i128> = BTreeMap::new();
            for window in site.windows(id, usize::MAX) {
                *windows.entry(window.start).or_default() += increase(&window.amount);
            }
            assert_eq!(windows, counted.windows, "histories: {series} was counted at other times");
        }
    }
}

fn increase(amount: &Amount) -> i128 {
    match amount {
        Amount::Counter(amount) => *amount as i128,
        Amount::Updown { up, down } => *up as i128 - *down as i128,
        Amount::Sample(sample) => i128::from(sample.count),
    }
}
