//! Hashes of what clients said: the same for the same words, at whichever box and in whatever
//! encoding they arrive, so that a repetition can be told from a change.

use ring::digest::{self, Context, SHA256};
use tally_core::meter::MeterRule;
use tally_core::report::Amount;

use super::handle::first_bytes;
use super::requests::{NamedReport, ReportAmount, ReportReading};

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

/// A name of a meter's incarnation, as readings say it: a hash, never 0.
pub(crate) fn incarnation_hash(name: &[u8]) -> u64 {
    u64::from_le_bytes(first_bytes(&digest::digest(&SHA256, name))).max(1)
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
