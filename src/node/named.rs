//! Encodes the reports of named sources as bodies, and hashes what clients sent. The same content has the same hash at
//! every box and in every encoding, so that a repetition can be told from a change.

use std::collections::BTreeSet;

use ring::digest::{self, Context, SHA256};
use tally_core::id::{SeriesName, SourceId};
use tally_core::meter::MeterRule;
use tally_core::report::{Amount, Kind, Sample};
use tally_core::time::SiteTime;

use super::handle::first_bytes;
use crate::deliberate::{self, Bug};
use crate::request::{NamedReport, ReportAmount, ReportError, ReportReading, RequestError, UNTIMED};
use crate::site::entry::{ReportWriter, SeriesRef};
use crate::site::{Body, Level, Settings, Site};

/// A named source's report as a body. `open`: site time, for cells that name no window.
///
/// # Errors
/// A cell names what is no series, or a time that is to come, or is a reading and the site does not take any yet.
pub fn encode_report(
    site: &Site,
    source: SourceId,
    report: &NamedReport,
    open: SiteTime,
) -> Result<Body, ReportError> {
    let base = site.settings().window_base();
    // At level 2 the kind is decided where the cell is applied: this box may not know the series yet. So is the window,
    // if the source names none: this box may be ahead of site time.
    let is_decided_later = site.level() >= Level::TWO && !deliberate::is(Bug::KindByReceiver);
    let falling = if is_decided_later { report.falling() } else { BTreeSet::new() };
    if report.has_readings() && site.level() < Level::TWO {
        let why = "the site accepts readings of meters once all its boxes run this release; until then add \
            the growth"
            .to_owned();
        return Err(RequestError::NotCommitted { why }.into());
    }
    let hash = content_hash(report);
    let mut writer = ReportWriter::as_of(source, report.epoch, report.number, hash, site.name_changes());
    for (place, cell) in report.cells.iter().enumerate() {
        let name =
            SeriesName::new(&cell.series).map_err(|error| ReportError::BadCell(place, error.to_string()))?;
        let window = base.start_of(cell.window.unwrap_or(open));
        writer.window_is_open(is_decided_later && cell.window.is_none());
        let known = site.find(&cell.series);
        if known.is_none() && cell.series.len() > site.name_bytes_max() {
            let why = RequestError::LongName { bytes: cell.series.len() };
            return Err(ReportError::BadCell(place, why.to_string()));
        }
        let of = |kind| known.map_or(SeriesRef::Name(name, kind), SeriesRef::Id);
        match cell.amount {
            ReportAmount::Reading(ref reading) => {
                let heard = reading.heard.unwrap_or(open);
                writer.reading(&reading.as_cell(of(Kind::Counter), heard), base.start_of(heard));
            }
            ReportAmount::Amount(amount) => {
                let amount = with_time(amount, &cell.series, window, open, site.settings())
                    .map_err(|why| ReportError::BadCell(place, why))?;
                writer.cell(of(amount.kind()), window, &amount);
            }
            ReportAmount::Add(add) if is_decided_later => {
                let new = if falling.contains(&*cell.series) { Kind::Updown } else { Kind::Counter };
                writer.signed(of(new), window, add);
            }
            ReportAmount::Add(add) => {
                let is_updown = known.is_some_and(|id| site.kind(id) == Kind::Updown);
                let amount = match u128::try_from(add) {
                    Ok(add) if add > 0 && !is_updown => Amount::Counter(add),
                    // To a counter: refused where it is applied, without holding up the others.
                    _ => Amount::updown(add),
                };
                writer.cell(of(amount.kind()), window, &amount);
            }
        }
    }
    Ok(writer.finish())
}

/// A cell's amount with the time of its last value. One without a time counts as observed as late as it can have been:
/// see [`UNTIMED`]. One from later than a window may begin is refused: it would stay the last for as long.
pub(super) fn with_time(
    amount: Amount,
    series: &str,
    window: SiteTime,
    now: SiteTime,
    settings: &Settings,
) -> Result<Amount, String> {
    let Amount::Sample(sample) = amount else { return Ok(amount) };
    let mut last = sample.last;
    if last.at == UNTIMED {
        let span = settings.span_for(series);
        let end = span.end_of(span.start_of(window));
        last.at = now.min(SiteTime(end.0.saturating_sub(1)));
    }
    let latest = now.0.saturating_add(2 * settings.window_base().as_millis());
    if last.at.0 > latest {
        return Err(format!(
            "sample: last_at: {} is in the future (site time is {}); compare the sender's clock with site \
             time (GET /v1/status)",
            last.at, now
        ));
    }
    Ok(Amount::Sample(Sample { last, ..sample }))
}

/// 64 bits of a cryptographic hash over the cells of a report, as its source named them.
pub(super) fn content_hash(report: &NamedReport) -> u64 {
    let mut context = Context::new(&SHA256);
    for cell in &report.cells {
        context.update(cell.series.as_bytes());
        // No name has a NUL, so the fields cannot run into each other.
        context.update(&[0]);
        match cell.window {
            None => context.update(&[0]),
            Some(start) => {
                context.update(&[1]);
                context.update(&start.0.to_le_bytes());
            }
        }
        match &cell.amount {
            ReportAmount::Add(add) => {
                context.update(&[0]);
                context.update(&add.to_le_bytes());
            }
            ReportAmount::Amount(amount) => hash_amount(&mut context, amount),
            ReportAmount::Reading(reading) => hash_reading(&mut context, reading),
        }
    }
    let digest: digest::Digest = context.finish();
    u64::from_le_bytes(first_bytes(&digest))
}

fn hash_reading(context: &mut Context, reading: &ReportReading) {
    let ReportReading { meter, value, heard, incarnation, rule } = reading;
    let MeterRule { ceiling, noise, glitch_window_ms, step_max } = *rule;
    context.update(&[4]);
    // Of its own length each, like the numbers.
    for text in [Some(meter.as_str()), incarnation.as_deref()] {
        context.update(&(text.map_or(u64::MAX, |text| text.len() as u64)).to_le_bytes());
        context.update(text.unwrap_or_default().as_bytes());
    }
    let numbers =
        [Some(*value), heard.map(|heard| heard.0), ceiling, noise, Some(glitch_window_ms), step_max];
    for number in numbers {
        context.update(&[u8::from(number.is_some())]);
        context.update(&number.unwrap_or_default().to_le_bytes());
    }
}

/// Hashes an amount without the time of a sample's last value, which the box may have put there.
pub(super) fn hash_amount(context: &mut Context, amount: &Amount) {
    match amount {
        Amount::Counter(sum) => {
            context.update(&[1]);
            context.update(&sum.to_le_bytes());
        }
        Amount::Updown { up, down } => {
            context.update(&[2]);
            context.update(&up.to_le_bytes());
            context.update(&down.to_le_bytes());
        }
        Amount::Sample(sample) => {
            context.update(&[3]);
            context.update(&sample.count.to_le_bytes());
            context.update(&sample.sum.0.to_le_bytes());
            for value in [sample.min, sample.max, sample.last.value] {
                context.update(&value.to_bits().to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{BootstrapSettings, Level, Site};
    use tally_core::id::SourceId;
    use tally_core::window::Span;

    fn time_of(at: SiteTime, window: u64, now: u64) -> Result<u64, String> {
        let site = Site::new(&BootstrapSettings {
            site: "s".to_owned(),
            site_id: 7,
            base_span: Span::DEFAULT,
            level: Level::MAX,
        });
        let sample = Amount::Sample(Sample::observed(1.0, at, SourceId(0)).unwrap());
        match with_time(sample, "a", SiteTime(window), SiteTime(now), site.settings())? {
            Amount::Sample(sample) => Ok(sample.last.at.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_last_value_without_a_time_is_as_late_as_it_can_be() {
        assert_eq!(time_of(UNTIMED, 60_000, 61_234), Ok(61_234), "its window is open");
        assert_eq!(time_of(UNTIMED, 60_000, 500_000), Ok(119_999), "its window is over");
        assert_eq!(time_of(UNTIMED, 120_000, 119_000), Ok(119_000), "its window is to come");
        assert_eq!(time_of(SiteTime(7), 60_000, 61_234), Ok(7), "as the source says");
    }

    #[test]
    fn a_last_value_of_the_far_future_is_refused() {
        assert_eq!(time_of(SiteTime(181_000), 60_000, 61_000), Ok(181_000));
        let error = time_of(SiteTime(181_001), 60_000, 61_000).unwrap_err();
        assert!(error.contains("last_at: 181001") && error.contains("site time is 61000"), "{error}");
        assert!(time_of(SiteTime(u64::MAX - 1), 60_000, 61_000).is_err());
    }
}
