//! All boxes show the same in every read. The digest alone does not prove this: a snapshot carries it along unchecked.

use tallyd::site::Site;

use crate::boxes::Incarnation;

/// Holds a box of a site that has come to rest against another.
pub(crate) fn show_the_same(one: &Incarnation, other: &Incarnation) {
    let of = |incarnation: &Incarnation, what: fn(&Site) -> String| incarnation.handle.site(what);
    for (name, what) in SHOWN {
        let (this, that) = (of(one, what), of(other, what));
        assert_eq!(this, that, "replicas: boxes {:?} show other {name}", [one.number, other.number]);
    }
}

type Shown = (&'static str, fn(&Site) -> String);

const SHOWN: [Shown; 4] = [
    ("series", |site| format!("{:?}", site.page("", None, usize::MAX))),
    ("windows", |site| site.series_ids().map(|id| format!("{:?}", site.windows(id, usize::MAX))).collect()),
    ("settings", |site| format!("{:?} {:?}", site.settings(), site.level())),
    ("members and numbers", |site| {
        format!(
            "{:?} {:?} {} sources, {} meters, {:?}, {} keys, numbers {} to {}, {} names, {} left, {:?}",
            site.members(),
            site.members_leaving(),
            site.sources_len(),
            site.meters_len(),
            site.held_jumps(usize::MAX),
            site.keys_len(),
            site.delivered(),
            site.numbered_last(),
            site.name_changes(),
            site.departures_len(),
            site.number_gap(),
        )
    }),
];
