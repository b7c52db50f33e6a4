//! What the system lets the daemon have: memory and tasks of its control group, receive buffers, swap.

use super::super::text;
use super::machine::Machine;
use super::{Line, Subject, look, ok, wrong};

/// What a box with 10,000 series needs, with room for the receive buffers.
const MEMORY_LEAST: u64 = 64 << 20;
/// A smaller receive buffer loses datagrams of a burst.
const BUFFER_LEAST: u64 = 1 << 20;
/// What the daemon asks for.
const BUFFER_WANTED: u64 = 8 << 20;
/// Version 1 of control groups says "no limit" by a number like this or larger.
const UNLIMITED: u64 = 1 << 60;

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    let mut lines = vec![memory(subject)];
    lines.extend(buffers(subject));
    lines.push(swap(&subject.machine));
    lines
}

/// The memory of a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    /// The least limit of the group and of those above it.
    limit: Option<u64>,
    used: u64,
    /// How often the kernel killed for lack of memory (version 2), or the limit was hit (version 1).
    kills: u64,
    /// It is the group of the whole machine.
    is_root: bool,
}

/// The group of a process, of whichever version; `None`: it is in none that limits memory.
fn group(machine: &Machine, pid: Option<u64>) -> Option<Group> {
    let who = pid.map_or("self".to_owned(), |pid| pid.to_string());
    let groups = machine.read(&format!("proc/{who}/cgroup"))?;
    let first = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == "memory").then(|| path.to_owned())
    });
    if let Some(path) = first {
        let of = |path: &str, file: &str| machine.number(&format!("sys/fs/cgroup/memory{path}/{file}"));
        let limit = up(&path).into_iter().filter_map(|path| of(&path, "memory.limit_in_bytes"));
        return Some(Group {
            limit: limit.filter(|limit| *limit < UNLIMITED).min(),
            used: of(&path, "memory.usage_in_bytes")?,
            kills: of(&path, "memory.failcnt").unwrap_or(0),
            is_root: path == "/",
        });
    }
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let of = |path: &str, file: &str| machine.read(&format!("sys/fs/cgroup{path}/{file}"));
    // The root group has no limit, and `max` is none.
    let limit = up(path).into_iter().filter_map(|path| of(&path, "memory.max")?.parse().ok()).min();
    let events = of(path, "memory.events").unwrap_or_default();
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    let used = of(path, "memory.current")?.parse().ok()?;
    Some(Group { limit, used, kills: kills.unwrap_or(0), is_root: path == "/" })
}

/// A group's path and those above it.
fn up(path: &str) -> Vec<String> {
    let mut paths = vec![path.trim_end_matches('/').to_owned()];
    while let Some((above, _)) = paths.last().and_then(|path| path.rsplit_once('/')) {
        let above = above.to_owned();
        paths.push(above);
    }
    paths
}

fn memory(subject: &Subject) -> Line {
    let Some(group) = group(&subject.machine, subject.pid()) else {
        return ok("memory", "no control group limits it");
    };
    let used = text::bytes(group.used);
    let Some(limit) = group.limit else {
        return match group.is_root {
            true => ok("memory", "no control group limits it"),
            false => ok("memory", format!("no limit; its control group uses {used}")),
        };
    };
    let what = format!("{used} of at most {}", text::bytes(limit));
    let advice = "raise MemoryMax= (64M is enough for 10,000 series)";
    if group.kills > 0 {
        return look("memory", format!("{what}; the limit was hit {} times", group.kills), advice);
    }
    if limit < MEMORY_LEAST || group.used > limit - limit / 10 {
        return look("memory", what, advice);
    }
    ok("memory", what)
}

/// The receive buffers of StatsD.
fn buffers(subject: &Subject) -> Vec<Line> {
    let statsd = &subject.status["ingest"]["statsd"];
    let most = subject.machine.number("proc/sys/net/core/rmem_max");
    let (has, dropped) = (statsd["receive_buffer_bytes"].as_u64(), statsd["lost"].as_u64().unwrap_or(0));
    let advice =
        format!("sysctl -w net.core.rmem_max={BUFFER_WANTED}, and in /etc/sysctl.d, then restart tallyd");
    let Some(size) = has.or(most) else { return Vec::new() };
    let what = match has {
        Some(has) => format!("StatsD's receive buffer has {}", text::bytes(has)),
        None => format!("net.core.rmem_max allows {}", text::bytes(size)),
    };
    vec![if dropped > 0 {
        look("buffers", format!("{what}; the kernel dropped {dropped} datagrams"), advice)
    } else if size < BUFFER_LEAST {
        look("buffers", format!("{what}: a burst of datagrams may not fit"), advice)
    } else {
        ok("buffers", what)
    }]
}

fn swap(machine: &Machine) -> Line {
    let table = machine.read("proc/swaps").unwrap_or_default();
    let areas: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let on_disk: Vec<&str> = areas.iter().copied().filter(|area| !area.contains("zram")).collect();
    let available = machine.read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    if available.is_some_and(|kib| kib < 16 << 10) {
        let what = format!("the machine has only {} available", text::bytes(available.unwrap_or(0) << 10));
        return wrong("swap", what, "stop programs that take memory, or use a machine with more");
    }
    match on_disk.as_slice() {
        [] if areas.is_empty() => ok("swap", "none"),
        [] => ok("swap", "compressed memory only"),
        [first, ..] => look(
            "swap",
            format!("on {first}: it wears a card and makes the daemon late"),
            "swapoff, or zram instead (on Raspberry Pi OS: dphys-swapfile)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_those_above_it() {
        assert_eq!(up("/system.slice/tallyd.service"), ["/system.slice/tallyd.service", "/system.slice", ""]);
        assert_eq!(up("/"), [""]);
    }
}
