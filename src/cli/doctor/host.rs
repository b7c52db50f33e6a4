//! The rest of the machine: its journal and its power supply.

use super::machine::Machine;
use super::{Line, Subject, look, ok, wrong};

/// The firmware of a Raspberry Pi tells its throttling here, in hexadecimal.
const THROTTLED: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";
const UNDER_VOLTAGE: u64 = 1;
const THROTTLED_NOW: u64 = 0b1110;
const UNDER_VOLTAGE_SINCE_START: u64 = 1 << 16;

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    [journal(&subject.machine), power(&subject.machine)].into_iter().flatten().collect()
}

fn journal(machine: &Machine) -> Option<Line> {
    if !machine.list("var/log/journal").is_empty() {
        return Some(ok("journal", "kept on disk"));
    }
    machine.exists("run/log/journal").then(|| {
        look(
            "journal",
            "kept in memory: what tallyd logged before a power cut is lost",
            "mkdir /var/log/journal && systemctl restart systemd-journald, if the card may bear it",
        )
    })
}

fn power(machine: &Machine) -> Option<Line> {
    let text = machine.read(THROTTLED)?;
    let bits = u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
    let advice = "use a power supply and a cable that give enough current; low voltage damages cards' data";
    Some(if bits & UNDER_VOLTAGE != 0 {
        wrong("power", "under-voltage now", advice)
    } else if bits & UNDER_VOLTAGE_SINCE_START != 0 {
        look("power", "there was under-voltage since the machine started", advice)
    } else if bits & THROTTLED_NOW != 0 {
        look("power", "the processor is slowed down now (heat)", "cool the board")
    } else {
        ok("power", "no under-voltage since the machine started")
    })
}
