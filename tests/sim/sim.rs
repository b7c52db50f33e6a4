//! What determines a history besides its seed.

use tallyd::deliberate::Bug;

use crate::plan::{Micros, Plan};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The deliberate bug of the boxes.
    pub(crate) bug: Option<Bug>,
    /// Makes some kind of trouble more frequent than chance would.
    pub(crate) bend: fn(&mut Plan),
    /// Between one trouble and the next, on average, in microseconds; if not by chance.
    pub(crate) calm: Option<Micros>,
}

impl Setting {
    /// The boxes without a bug, and the plan of the seed.
    pub(crate) const PLAIN: Setting = Setting { bug: None, bend: |_| (), calm: None };

    /// The variables that give the same history.
    pub(crate) fn variables(self) -> String {
        self.calm.map_or_else(String::new, |calm| format!("TALLYD_SIM_CALM={calm} "))
    }
}
