//! The names of series: by id, by text, and in order, each name stored once.

use std::hash::{DefaultHasher, Hasher};

use hashbrown::HashTable;
use tally_core::id::SeriesName;

use crate::codec::{Malformed, Reader};

/// A chunk of the order is split when it has so many ids: an insertion moves few bytes.
const CHUNK_MAX: usize = 512;

/// So many unused bytes are kept before the text is written anew.
const UNUSED_MAX: usize = 4096;

/// All names by id, and those that are in use by text and in order.
#[derive(Debug)]
pub(super) struct Names {
    text: String,
    /// Where each name begins and ends in `text`; a vacant id has an empty one.
    places: Vec<(u32, u32)>,
    /// Bytes of `text` that no name has any more.
    unused: usize,
    index: HashTable<u32>,
    /// Ids by name, in chunks; no chunk is empty.
    order: Vec<Vec<u32>>,
    seed: u64,
}

impl Names {
    /// `seed` makes collisions of hashes differ between sites.
    pub(super) const fn new(seed: u64) -> Names {
        Names {
            text: String::new(),
            places: Vec::new(),
            unused: 0,
            index: HashTable::new(),
            order: Vec::new(),
            seed,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.places.len()
    }

    /// The name of an id that was given.
    pub(super) fn get(&self, id: u32) -> &str {
        name_of(&self.text, &self.places, id)
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.index.find(hash(self.seed, name), |id| self.get(*id) == name).copied()
    }

    /// Adds a new name; the caller limits their number.
    pub(super) fn push(&mut self, name: &str) -> u32 {
        debug_assert!(self.find(name).is_none());
        let id = self.places.len() as u32;
        self.places.push((0, 0));
        self.write(id, name);
        self.link(id);
        id
    }

    /// Gives a vacant id a new name.
    pub(super) fn reuse(&mut self, id: u32, name: &str) {
        self.write(id, name);
        self.link(id);
    }

    /// Gives an id that is in use another name.
    pub(super) fn rename(&mut self, id: u32, name: &str) {
        self.unlink(id);
        self.reuse(id, name);
    }

    /// The id has no name any more; it was unlinked before.
    pub(super) fn vacate(&mut self, id: u32) {
        self.write(id, "");
    }

    fn write(&mut self, id: u32, name: &str) {
        let (from, until) = self.places[id as usize];
        self.unused += (until - from) as usize;
        let from = self.text.len() as u32;
        self.text.push_str(name);
        self.places[id as usize] = (from, self.text.len() as u32);
        if self.unused > UNUSED_MAX.max(self.text.len() / 2) {
            let (text, places) = self.packed();
            (self.text, self.places, self.unused) = (text, places, 0);
        }
    }

    /// The names one after the other, by id.
    fn packed(&self) -> (String, Vec<(u32, u32)>) {
        let mut text = String::with_capacity(self.text.len() - self.unused);
        let mut places = Vec::with_capacity(self.places.len());
        for id in 0..self.places.len() as u32 {
            let from = text.len() as u32;
            text.push_str(self.get(id));
            places.push((from, text.len() as u32));
        }
        (text, places)
    }

    /// The name is in use no more; it is kept for those who know the id.
    pub(super) fn unlink(&mut self, id: u32) {
        let name = self.get(id);
        let chunk = self.order.partition_point(|ids| self.get(ids[ids.len() - 1]) < name);
        let place = self.order.get(chunk).and_then(|ids| ids.iter().position(|other| *other == id));
        let hash = hash(self.seed, name);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        if let Some(place) = place {
            self.order[chunk].remove(place);
            if self.order[chunk].is_empty() {
                self.order.remove(chunk);
            }
        }
    }

    /// The name of an id is in use.
    fn link(&mut self, id: u32) {
        let name = self.get(id);
        let before = self.order.partition_point(|chunk| self.get(chunk[0]) < name);
        let chunk = before.saturating_sub(1);
        let place = self.order.get(chunk).map_or(0, |ids| ids.partition_point(|id| self.get(*id) < name));
        self.insert_index(id);
        match self.order.get_mut(chunk) {
            None => self.order.push(vec![id]),
            Some(ids) => {
                ids.insert(place, id);
                if ids.len() > CHUNK_MAX {
                    let upper = ids.split_off(CHUNK_MAX / 2);
                    self.order.insert(chunk + 1, upper);
                }
            }
        }
    }

    fn insert_index(&mut self, id: u32) {
        let (text, places, seed) = (&self.text, &self.places, self.seed);
        let rehash = |id: &u32| hash(seed, name_of(text, places, *id));
        self.index.insert_unique(rehash(&id), id, rehash);
    }

    /// Ids in name order: those that begin with `prefix` and come after `after`.
    pub(super) fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = u32> + 'a {
        let before = move |id: u32| {
            let name = self.get(id);
            name < prefix || after.is_some_and(|after| name <= after)
        };
        let chunk = self.order.partition_point(|ids| before(ids[ids.len() - 1]));
        let place = self.order.get(chunk).map_or(0, |ids| ids.partition_point(|id| before(*id)));
        let chunks = self.order.get(chunk..).unwrap_or_default();
        let ids = chunks.iter().flatten().skip(place).copied();
        ids.take_while(move |id| self.get(*id).starts_with(prefix))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (text, places) = self.packed();
        out.extend_from_slice(&(places.len() as u32).to_le_bytes());
        for (_, end) in &places {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(text.as_bytes());
    }

    /// The names by id; which of them are in use says [`Names::link_all`].
    pub(super) fn read(seed: u64, reader: &mut Reader<'_>) -> Result<Names, Malformed> {
        let count = reader.u32()? as usize;
        let ends = reader.take(count.checked_mul(4).ok_or(Malformed)?)?;
        let ends: Vec<u32> = ends.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
        let length = ends.last().copied().unwrap_or(0) as usize;
        let text = core::str::from_utf8(reader.take(length)?).map_err(|_| Malformed)?;
        let mut start = 0;
        let mut places = Vec::with_capacity(count);
        for end in &ends {
            text.get(start as usize..*end as usize).ok_or(Malformed)?;
            places.push((start, *end));
            start = *end;
        }
        let index = HashTable::with_capacity(count);
        Ok(Names { text: text.to_string(), places, unused: 0, index, order: Vec::new(), seed })
    }

    /// Takes these names into use, which were read.
    pub(super) fn link_all(&mut self, mut ids: Vec<u32>) -> Result<(), Malformed> {
        for id in &ids {
            let name = self.get(*id);
            SeriesName::stored(name).map_err(|_| Malformed)?;
            if self.find(name).is_some() {
                return Err(Malformed);
            }
            self.insert_index(*id);
        }
        ids.sort_unstable_by(|a, b| self.get(*a).cmp(self.get(*b)));
        self.order = ids.chunks(CHUNK_MAX / 2).map(<[u32]>::to_vec).collect();
        Ok(())
    }
}

fn name_of<'a>(text: &'a str, places: &[(u32, u32)], id: u32) -> &'a str {
    let (from, until) = places[id as usize];
    &text[from as usize..until as usize]
}

fn hash(seed: u64, name: &str) -> u64 {
    // Names come from outside: SipHash, seeded by the site, is not flooded by chance.
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Names in an order that is neither creation's nor the alphabet's.
    fn filled(count: u32) -> (Names, BTreeMap<String, u32>) {
        let mut names = Names::new(7);
        let mut model = BTreeMap::new();
        for n in 0..count {
            let name =
                format!("{}/{}", ["a", "b", "b-", "c"][(n % 4) as usize], n.wrapping_mul(7919) % 100_003);
            model.insert(name.clone(), names.push(&name));
        }
        (names, model)
    }

    #[test]
    fn names_are_found_and_listed_in_order_over_many_chunks() {
        let (names, model) = filled(5000);
        assert!(names.order.len() > 5);
        for (name, id) in &model {
            assert_eq!(names.find(name), Some(*id));
            assert_eq!(names.get(*id), name);
        }
        assert_eq!(names.find("d"), None);
        let cases = [
            ("", None),
            ("b", None),
            ("b/", Some("b/5")),
            ("b/", Some("a")),
            ("c", Some("d")),
            ("x", None),
            ("a/1", Some("a/1")),
        ];
        for (prefix, after) in cases {
            let expected: Vec<u32> = model
                .iter()
                .filter(|(name, _)| {
                    name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after)
                })
                .map(|(_, id)| *id)
                .collect();
            assert_eq!(names.range(prefix, after).collect::<Vec<_>>(), expected, "{prefix:?} {after:?}");
        }
        assert_eq!(Names::new(0).range("", None).count(), 0);
    }

    #[test]
    fn a_snapshot_of_names_comes_back_and_refuses_doubles() {
        let (names, _) = filled(1200);
        let mut out = Vec::new();
        names.put(&mut out);
        let mut read = Names::read(7, &mut Reader::new(&out)).unwrap();
        read.link_all((0..1200).collect()).unwrap();
        assert!(read.range("", None).eq(names.range("", None)));
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(again, out);

        let mut double = Names::new(7);
        double.push("aa");
        double.push("ab");
        let mut out = Vec::new();
        double.put(&mut out);
        *out.last_mut().unwrap() = b'a';
        let mut read = Names::read(7, &mut Reader::new(&out)).unwrap();
        assert_eq!(read.link_all(vec![0, 1]), Err(Malformed));
    }

    #[test]
    fn names_are_taken_away_given_again_and_changed_and_the_order_follows() {
        let (mut names, mut model) = filled(3000);
        for round in 0..3 {
            let gone: Vec<String> = model.keys().step_by(2).cloned().collect();
            for name in gone {
                let id = model.remove(&name).unwrap();
                names.unlink(id);
                assert_eq!((names.find(&name), names.get(id)), (None, name.as_str()));
                let again = format!("{name}-{round}");
                if id.is_multiple_of(3) {
                    names.vacate(id);
                    assert_eq!(names.get(id), "");
                }
                names.reuse(id, &again);
                names.rename(id, &format!("{again}/x"));
                model.insert(format!("{again}/x"), id);
            }
            assert!(names.range("", None).eq(model.values().copied()));
            assert!(model.iter().all(|(name, id)| names.find(name) == Some(*id)));
            assert!(names.unused <= UNUSED_MAX.max(names.text.len() / 2), "{}", names.unused);
        }
        let (text, places) = names.packed();
        assert_eq!((text.len(), places.len()), (names.text.len() - names.unused, 3000));
    }
}
