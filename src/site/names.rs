//! The names of series: by id, by text, and in order, each name stored once.

use std::hash::{DefaultHasher, Hasher};

use hashbrown::HashTable;
use tally_core::id::SeriesName;

use crate::codec::{Malformed, Reader};

/// A chunk of the order is split when it has so many ids: an insertion moves few bytes.
const CHUNK_MAX: usize = 512;

/// All names; ids are dense from 0 in order of creation.
#[derive(Debug)]
pub(super) struct Names {
    text: String,
    /// Where each name ends in `text`; it begins where the one before ends.
    ends: Vec<u32>,
    index: HashTable<u32>,
    /// Ids by name, in chunks; no chunk is empty.
    order: Vec<Vec<u32>>,
    seed: u64,
}

impl Names {
    /// `seed` makes collisions of hashes differ between sites.
    pub(super) const fn new(seed: u64) -> Names {
        Names { text: String::new(), ends: Vec::new(), index: HashTable::new(), order: Vec::new(), seed }
    }

    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// The name of an id that was given.
    pub(super) fn get(&self, id: u32) -> &str {
        name_of(&self.text, &self.ends, id)
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.index.find(hash(self.seed, name), |id| self.get(*id) == name).copied()
    }

    /// Takes a name that is not there; the caller bounds how many there are.
    pub(super) fn push(&mut self, name: &str) -> u32 {
        debug_assert!(self.find(name).is_none());
        let id = self.ends.len() as u32;
        let before = self.order.partition_point(|chunk| self.get(chunk[0]) < name);
        let chunk = before.saturating_sub(1);
        let place = self.order.get(chunk).map_or(0, |ids| ids.partition_point(|id| self.get(*id) < name));
        self.text.push_str(name);
        self.ends.push(self.text.len() as u32);
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
        id
    }

    fn insert_index(&mut self, id: u32) {
        let (text, ends, seed) = (&self.text, &self.ends, self.seed);
        let rehash = |id: &u32| hash(seed, name_of(text, ends, *id));
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
        out.extend_from_slice(&(self.ends.len() as u32).to_le_bytes());
        for end in &self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(self.text.as_bytes());
    }

    pub(super) fn read(seed: u64, reader: &mut Reader<'_>) -> Result<Names, Malformed> {
        let count = reader.u32()? as usize;
        let ends = reader.take(count.checked_mul(4).ok_or(Malformed)?)?;
        let ends: Vec<u32> = ends.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
        let length = ends.last().copied().unwrap_or(0) as usize;
        let text = core::str::from_utf8(reader.take(length)?).map_err(|_| Malformed)?;
        let mut start = 0;
        for end in &ends {
            let end = *end as usize;
            let name = text.get(start..end).ok_or(Malformed)?;
            SeriesName::stored(name).map_err(|_| Malformed)?;
            start = end;
        }
        let index = HashTable::with_capacity(count);
        let mut names = Names { text: text.to_string(), ends, index, order: Vec::new(), seed };
        for id in 0..count as u32 {
            if names.find(names.get(id)).is_some() {
                return Err(Malformed);
            }
            names.insert_index(id);
        }
        let mut ids: Vec<u32> = (0..count as u32).collect();
        ids.sort_unstable_by(|a, b| names.get(*a).cmp(names.get(*b)));
        names.order = ids.chunks(CHUNK_MAX / 2).map(<[u32]>::to_vec).collect();
        Ok(names)
    }
}

fn name_of<'a>(text: &'a str, ends: &[u32], id: u32) -> &'a str {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &text[start..ends[id] as usize]
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
        let read = Names::read(7, &mut Reader::new(&out)).unwrap();
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
        assert_eq!(Names::read(7, &mut Reader::new(&out)).unwrap_err(), Malformed);
    }
}
