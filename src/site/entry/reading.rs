//! Readings of meters, as cells of a report.

use tally_core::meter::{GLITCH_WINDOW_MS, MeterRule};
use tally_core::report::Kind;
use tally_core::time::SiteTime;

use super::{CELL_READING, ReportWriter, SeriesRef, kind_code, put_bytes, put_varint};

// What a reading says besides its value.
pub(in crate::site) const READING_INCARNATION: u8 = 0b0000_0001;
pub(in crate::site) const READING_CEILING: u8 = 0b0000_0010;
pub(in crate::site) const READING_NOISE: u8 = 0b0000_0100;
pub(in crate::site) const READING_GLITCH_WINDOW: u8 = 0b0000_1000;
pub(in crate::site) const READING_STEP_MAX: u8 = 0b0001_0000;
pub(in crate::site) const READING_KNOWN: u8 = 0b0001_1111;

/// A reading of a meter. Only for a site at [`crate::site::Level::TWO`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingCell<'a> {
    /// The counter that its increases go to.
    pub series: SeriesRef<'a>,
    /// The meter's name: see [`crate::site::is_meter_name`].
    pub meter: &'a str,
    /// What it showed.
    pub value: u64,
    /// When.
    pub heard: SiteTime,
    /// Names the incarnation of the meter; 0: not known.
    pub incarnation: u64,
    /// How its readings are to be understood.
    pub rule: MeterRule,
}

impl ReportWriter {
    /// Adds a reading. Its place is one among those of the other cells. `window_start`: at `heard` or before it.
    pub fn reading(&mut self, reading: &ReadingCell<'_>, window_start: SiteTime) {
        let ReadingCell { series, meter, value, heard, incarnation, rule } = *reading;
        self.put_head(CELL_READING | kind_code(Kind::Counter), series, window_start);
        put_bytes(&mut self.out, meter.as_bytes());
        put_varint(&mut self.out, heard.0.saturating_sub(window_start.0));
        put_varint(&mut self.out, value);
        let glitch_window = Some(rule.glitch_window_ms).filter(|window| *window != GLITCH_WINDOW_MS);
        let more = [
            (READING_CEILING, rule.ceiling),
            (READING_NOISE, rule.noise),
            (READING_GLITCH_WINDOW, glitch_window),
            (READING_STEP_MAX, rule.step_max),
        ];
        let said = more.iter().filter(|(_, number)| number.is_some()).fold(0, |said, (flag, _)| said | flag);
        self.out.push(if incarnation == 0 { said } else { said | READING_INCARNATION });
        if incarnation != 0 {
            self.out.extend_from_slice(&incarnation.to_le_bytes());
        }
        more.iter().filter_map(|(_, number)| *number).for_each(|number| put_varint(&mut self.out, number));
        self.cells += 1;
    }
}
