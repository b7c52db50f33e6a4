//! The wall clock: whether it is synchronised, by whom, and how far the boxes' clocks are apart.

use serde_json::Value;

use super::super::status::of;
use super::machine::Machine;
use super::{Line, Subject, look, ok, wrong};

/// Programs that keep the clock, by the name of their process.
const SERVICES: [&str; 7] =
    ["systemd-timesyn", "chronyd", "ntpd", "ntpd-rs", "ntp-daemon", "openntpd", "ptp4l"];
/// Clocks that are further from site time are worth a look.
const OFFSET_MS_MAX: u64 = 1_000;

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    let status = &subject.status;
    let synced = status["clock"]["wall_synced"].as_bool().unwrap_or_else(crate::clock::wall_is_synced);
    let mut lines = vec![source(synced, service(&subject.machine))];
    if let Some(text) = status["clock"]["text"].as_str() {
        lines.push(wrong("site time", text, "synchronise the boxes, or `tallyd clock step`"));
    }
    lines.extend(status["members"].as_array().into_iter().flatten().filter_map(offset));
    lines
}

/// The program that keeps the clock here.
fn service(machine: &Machine) -> Option<&'static str> {
    let processes = machine.list("proc").into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let mut names = processes.filter_map(|pid| machine.read(&format!("proc/{pid}/comm")));
    names.find_map(|name| SERVICES.into_iter().find(|service| *service == name))
}

fn source(synced: bool, service: Option<&str>) -> Line {
    let by = match service {
        Some("systemd-timesyn") => "systemd-timesyncd",
        Some(name) => name,
        None => "no time service that is known",
    };
    match (synced, service) {
        (true, Some(_)) => ok("clock", format!("synchronised, by {by}")),
        (true, None) => ok("clock", "synchronised, by whom is not seen from here"),
        (false, Some(_)) => look(
            "clock",
            format!("not synchronised, though {by} runs"),
            "check that it reaches its servers (`timedatectl`, `chronyc sources`)",
        ),
        (false, None) => look(
            "clock",
            format!("not synchronised: {by} runs"),
            "install chrony or enable systemd-timesyncd; counts are exact without it, their windows follow the site's time",
        ),
    }
}

fn offset(member: &Value) -> Option<Line> {
    let ms = member["clock_offset_ms"].as_i64()?;
    let what = format!("{} is {ms:+} ms from site time", of(member, "name"));
    Some(match ms.unsigned_abs() > OFFSET_MS_MAX {
        true => look("clock", what, "synchronise that box's clock"),
        false => ok("clock", what),
    })
}
