//! A site's snapshot, as a leader's or a disk's bytes.

use tallyd::site::Site;

use crate::entries::{self, founding};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(site) = Site::restore(&founding(), bytes) else { return };
    let again = site.snapshot();
    let mut back = Site::restore(&founding(), &again).expect("what it writes it reads");
    assert_eq!(back.snapshot(), again, "a site comes back as another one");
    // It goes on: whatever passed as a state must bear entries.
    for body in entries::bodies() {
        let stamp = back.stamp();
        let payload = tallyd::site::StampedEntry::new(stamp, &body);
        let index = back.applied().next();
        if back.apply(index, &payload).is_err() {
            break;
        }
    }
    let _ = back.snapshot();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let made = entries::seeds();
    let mut seeds: Vec<Vec<u8>> = made.iter().map(|entries| entries::apply(entries).snapshot()).collect();
    seeds.dedup();
    seeds.push(Site::new(&founding()).snapshot());
    seeds
}
