//! What is written in a day, and what the card says of its life.

use super::super::text;
use super::machine::Machine;
use super::{Line, Subject, look, ok, wrong};

const DAY_S: u64 = 86_400;
/// A shorter run tells nothing of a day.
const UPTIME_LEAST_S: u64 = 300;
/// How often a card's cells can be written, carefully guessed; cards do not say it.
const CYCLES: u64 = 300;
/// What is written inside a card for a small write, as a multiple; carefully guessed likewise.
const AMPLIFICATION: u64 = 10;
/// Fewer years are worth a look.
const YEARS_LEAST: u64 = 5;

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    let dir = std::fs::canonicalize(&subject.found.dir).unwrap_or_else(|_| subject.found.dir.clone());
    let source = subject.machine.mount_of(&dir).map(|mount| mount.source).unwrap_or_default();
    let card = card_of(&subject.machine, &source);
    let mut lines = Vec::new();
    lines.extend(card.as_deref().map(|card| life(&subject.machine, card)));
    lines.extend(wear(subject, card.as_deref()));
    lines
}

/// The card or eMMC that a device such as `/dev/mmcblk0p2` is on.
fn card_of(machine: &Machine, source: &str) -> Option<String> {
    let device = source.strip_prefix("/dev/")?;
    let cards = machine.list("sys/block").into_iter().filter(|name| name.starts_with("mmcblk"));
    cards.filter(|name| device.starts_with(name.as_str())).max_by_key(String::len)
}

/// What the device says: `pre_eol_info` (01 normal, 02 four fifths of the reserve used, 03 urgent) and `life_time` (two
/// types of cells, in steps of a tenth; 0b: exceeded), as JEDEC's eMMC has them. SD cards say neither.
fn life(machine: &Machine, card: &str) -> Line {
    let said = |what: &str| machine.read(&format!("sys/block/{card}/device/{what}"));
    let name = said("name").unwrap_or_else(|| "of unknown name".to_owned());
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let reserve = said("pre_eol_info").as_deref().and_then(hex).filter(|value| *value > 0);
    let used = said("life_time").unwrap_or_default();
    let tenths = used.split_whitespace().filter_map(hex).max().filter(|tenths| *tenths > 0);
    let what = match tenths {
        None if reserve.is_none() => {
            return ok("card", format!("{card} ({name}) says nothing of its life; SD cards do not"));
        }
        None => format!("{card} ({name})"),
        Some(11..) => format!("{card} ({name}) is beyond its rated life"),
        Some(tenths) => {
            format!("{card} ({name}) has used {} to {} % of its life", (tenths - 1) * 10, tenths * 10)
        }
    };
    let advice = "replace it soon: set a new one up as a replacement of this box";
    match (reserve, tenths) {
        (Some(3..), _) | (_, Some(11..)) => wrong("card", what, advice),
        (Some(2), _) => look("card", format!("{what}, and four fifths of its spare blocks"), advice),
        (_, Some(9..)) => look("card", what, advice),
        _ => ok("card", what),
    }
}

/// What this process writes in a day, and how long a card bears that.
fn wear(subject: &Subject, card: Option<&str>) -> Option<Line> {
    let status = &subject.status;
    let up = status["uptime_s"].as_u64().filter(|up| *up >= UPTIME_LEAST_S)?;
    let a_day = status["storage"]["bytes_written"].as_u64()?.saturating_mul(DAY_S) / up;
    let what = format!("{} a day, as of the last {}", text::bytes(a_day), text::seconds(up));
    let blocks = card.and_then(|card| subject.machine.number(&format!("sys/block/{card}/size")));
    let Some(bytes) = blocks.map(|blocks| blocks.saturating_mul(512)).filter(|bytes| *bytes > 0) else {
        return Some(ok("wear", what));
    };
    let days = bytes.saturating_mul(CYCLES) / AMPLIFICATION / a_day.max(1);
    let years = days / 365;
    let what = format!(
        "{what}: a card of {} bears that for about {years} years ({CYCLES} cycles, {AMPLIFICATION} times as much \
         written inside)",
        text::bytes(bytes)
    );
    let advice = "use a larger or industrial card, or a longer commit.interval";
    Some(if years < YEARS_LEAST { look("wear", what, advice) } else { ok("wear", what) })
}
