//! What the demo's boxes count of this machine.

use std::fmt::Write as _;

/// What a box polls of this machine: each its own series, since two boxes that poll one would count
/// everything twice.
pub(super) fn polls(place: usize) -> String {
    let mut text = String::new();
    let mut poll = |series: &str, file: &str, pattern: &str, kind: &str| {
        let _ = write!(
            text,
            "\n[[ingest.poll]]\nseries = \"host/{series}\"\nfile = \"{file}\"\npattern = '{pattern}'\nkind = \"{kind}\"\nevery = \"1s\"\n"
        );
    };
    match place {
        0 => {
            poll("context-switches", "/proc/stat", r"^ctxt (\d+)", "counter");
            let thermal = "/sys/class/thermal/thermal_zone0/temp";
            if std::fs::read_to_string(thermal).is_ok() {
                poll("cpu-millidegrees", thermal, r"^(-?\d+)", "sample");
            } else {
                poll("load", "/proc/loadavg", r"^(\S+)", "sample");
            }
        }
        1 => poll("interrupts", "/proc/stat", r"^intr (\d+)", "counter"),
        _ => {
            let interface = busiest_interface().unwrap_or_else(|| "lo".to_owned());
            poll("network-bytes", "/proc/net/dev", &format!(r"^\s*{interface}:\s*(\d+)"), "counter");
        }
    }
    text
}

/// The network interface that received most; its name is taken only if a pattern can hold it plainly.
fn busiest_interface() -> Option<String> {
    let text = std::fs::read_to_string("/proc/net/dev").ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let counted = lines.filter_map(|(name, rest)| {
        let received: u64 = rest.split_whitespace().next()?.parse().ok()?;
        Some((received, name.trim().to_owned()))
    });
    let plain = counted.filter(|(_, name)| name.chars().all(|c| c.is_ascii_alphanumeric()));
    plain.max().map(|(_, name)| name)
}
