//! Of series that are removed and renamed, all that was ever counted under a name is conserved: the totals at the
//! removals, and the present one, are what was acknowledged, and what the broker has. A name goes on as `gone/N/K`
//! where it is renamed.

use std::collections::BTreeMap;

use tallyd::site::Site;

use super::{Conservation, Publications};

#[derive(Debug, Default)]
pub(crate) struct Departed(BTreeMap<u64, (String, i128)>);

impl Departed {
    /// A box's state: what was removed, as it was.
    pub(crate) fn look(&mut self, site: &Site) {
        if site.departures_len() == 0 {
            return;
        }
        for (id, view) in site.leaving() {
            let told = self.0.entry(id).or_insert((view.name.clone(), view.total));
            assert_eq!(told.1, view.total, "departed: the total of {} changed after its removal", view.name);
        }
    }

    /// For a site at rest: each name's totals over all series that had it.
    pub(crate) fn hold(&self, site: &Site, clients: &Conservation, broker: &Publications) {
        let mut totals: BTreeMap<String, i128> = BTreeMap::new();
        let present = site.series_ids().map(|id| (site.name(id), site.series_total(id)));
        for (name, total) in self.0.values().map(|(name, total)| (&**name, *total)).chain(present) {
            if let Some(family) = family(name) {
                *totals.entry(family.to_owned()).or_default() += total;
            }
        }
        for (name, total) in &totals {
            let (surely, perhaps) = clients.bounds(name);
            assert!(
                (surely..=surely + perhaps).contains(total),
                "departed: {name} has counted {total} in all, {surely} were acknowledged and {perhaps} may be \
                 there besides"
            );
            let published = broker.sum(|series| family(series) == Some(name));
            assert_eq!(published, *total, "departed: what the broker has of {name} is not what was counted");
        }
    }
}

/// The name that a series of this kind began with.
pub(crate) fn family(name: &str) -> Option<&str> {
    let number = name.strip_prefix("gone/")?.split('/').next()?;
    Some(&name[.."gone/".len() + number.len()])
}
