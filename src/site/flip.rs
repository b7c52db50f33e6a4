//! A wrong bit of state, for tests with real processes. Builds without debug assertions, which is what releases are, do
//! not contain this file.

use super::Site;

impl Site {
    /// Flips one bit of a series' total; `false`: there is no such series.
    pub fn flip_total_bit(&mut self, series: &str, bit: u32) -> bool {
        let Some(id) = self.find(series) else { return false };
        self.table.rows[id.0 as usize].total ^= 1 << (bit % 100);
        true
    }
}
