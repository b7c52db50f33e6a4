//! Clients with bad input: names that must be refused, names of every kind that must be accepted, keys out of bounds,
//! floods of junk names.

use tally_core::id::SeriesName;
use tally_core::report::{Amount, Kind};
use tallyd::request::{Add, RequestError};

use crate::boxes::{Incarnation, SimBox};
use crate::checks::Checks;
use crate::coverage::Coverage;
use crate::rng::Rng;

const REFUSED: [&str; 12] =
    ["", "/", "a//b", "a/", "/a", "a+b", "#", "a\u{0}b", "a\nb", "a\u{85}", "a\u{ffff}", "\u{fdd0}"];

const ODD: [&str; 12] =
    ["é", "日本", "\u{1f600}", " ", "%2B", "$SYS", "*", "~", "\u{200b}", "\\", "\"", "\u{fffd}"];

/// A flood has so many names at most.
const FLOOD_MAX: u64 = 60;

#[derive(Debug, Default)]
pub(crate) struct Visitor {
    number: u64,
}

impl Visitor {
    pub(crate) fn visit(
        &mut self,
        one: &SimBox,
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) {
        let Some(incarnation) = one.incarnation.as_ref().filter(|incarnation| !incarnation.is_stopping)
        else {
            return;
        };
        match rng.below(4) {
            0 => {
                let long = "x".repeat(201);
                let name = if rng.chance(100) { &long } else { rng.pick(&REFUSED) };
                let refused = incarnation.handle.begin_add(&add(name, None));
                assert!(
                    matches!(refused, Err(RequestError::NotCommitted { .. })),
                    "doors: {name:?} is taken for a name: {refused:?}"
                );
                coverage.count("names refused at a door");
            }
            1 => {
                let key = "k".repeat(rng.pick(&[0, 65]));
                let refused = incarnation.handle.begin_add(&add("adds/0", Some(key)));
                let is_refused =
                    matches!(refused, Err(RequestError::BadKey | RequestError::NotCommitted { .. }));
                assert!(is_refused, "doors: a key out of bounds is taken: {refused:?}");
                coverage.count("keys refused at a door");
            }
            2 => {
                let odd = rng.pick(&ODD);
                let name = format!(
                    "odd/{}/{}/{odd}{}",
                    one.id.0,
                    incarnation.number,
                    "x".repeat(rng.pick(&[0, 60]))
                );
                self.count(one, incarnation, &name, (checks, coverage));
                coverage.count("odd names counted");
            }
            _ if checks.is_narrow => self.flood(one, incarnation, rng, (checks, coverage)),
            _ => {}
        }
    }

    fn count(
        &self,
        one: &SimBox,
        incarnation: &Incarnation,
        name: &str,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) {
        let series = SeriesName::new(name).expect("a name");
        let mut bulk = incarnation.handle.accumulator().lock();
        match bulk.slot(series, Kind::Counter) {
            Ok(slot) if bulk.count(slot, 1 + self.number).is_ok() => {
                checks.conservation.counted((one.id, incarnation.number), name, u128::from(1 + self.number));
            }
            Ok(_) | Err(_) => coverage.count("names for which there was no room"),
        }
    }

    /// Junk names, more than there is room for; what the site knows gets in all the same.
    fn flood(
        &mut self,
        one: &SimBox,
        incarnation: &Incarnation,
        rng: &mut Rng,
        (checks, coverage): (&mut Checks, &mut Coverage),
    ) {
        coverage.count("floods of junk names");
        for _ in 0..rng.between(5, FLOOD_MAX) {
            self.number += 1;
            let name = format!("junk/{}", self.number);
            self.count(one, incarnation, &name, (checks, coverage));
        }
        let known = incarnation.handle.site(|site| {
            let counter = |name: &String| site.find(name).is_some_and(|id| site.kind(id) == Kind::Counter);
            let names = (0..3).map(|place| format!("adds/{place}"));
            names.chain((1..=5).map(|of| format!("counts/{of}/1"))).filter(counter).collect::<Vec<_>>()
        });
        let mut bulk = incarnation.handle.accumulator().lock();
        for name in known {
            let series = SeriesName::new(&name).expect("a name");
            if let Err(why) = bulk.slot(series, Kind::Counter) {
                panic!("known names: the site knows {name}, and {} has no room for it: {why}", one.id);
            }
        }
    }
}

fn add(series: &str, key: Option<String>) -> Add {
    Add { series: series.to_owned(), amount: Amount::Counter(1), key }
}
