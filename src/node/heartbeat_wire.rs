//! The encoding of the fields that accompany heartbeats and their answers.

use tally_core::time::{Duration, Instant, SiteTime};

use crate::clock::{LeaderTime, Wall};
use crate::codec::{Malformed, Reader, put_varint};

/// The latest time, in milliseconds, that a heartbeat can carry: as late as entries can.
pub(super) const TIME_MS_MAX: u64 = (1 << 48) - 1;

/// The fields that accompany a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatExtra {
    /// Site time; zero while the site has none.
    pub told: LeaderTime,
    /// The leader's own wall clock.
    pub wall: Wall,
    /// When the heartbeat was sent, by the leader's monotonic clock: the answer returns it.
    pub sent: Instant,
    /// The election timeout of the site.
    pub timeout: Duration,
    /// Whether the leader looks for a box that reaches the broker, to transfer leadership to it.
    pub asks_for_broker: bool,
}

/// The fields that accompany the answer to a heartbeat; zeros say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatAnswerExtra {
    /// The follower's wall clock.
    pub wall: Wall,
    /// The heartbeat's `sent`, returned.
    pub sent: Instant,
    /// A high quantile of the time that a sync of its disk takes.
    pub sync: Duration,
    /// The election timeout that is in force at the follower.
    pub timeout: Duration,
    /// Its fitness to lead.
    pub condition: Condition,
}

/// What makes a box fit to lead or unfit, as the box reports it; `None` if it reports nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Whether its disk takes writes.
    pub disk_ok: Option<bool>,
    /// Whether it reached the broker when it tried last; only a box that was asked tries.
    pub broker: Option<bool>,
    /// The median time of a sync of its disk; zero: too few were measured.
    pub sync_median: Duration,
}

pub(super) fn put_heartbeat_extra(out: &mut Vec<u8>, heartbeat: &HeartbeatExtra) {
    put_leader_time(out, heartbeat.told);
    put_wall(out, heartbeat.wall);
    put_varint(out, heartbeat.sent.0);
    put_varint(out, heartbeat.timeout.0);
    out.push(u8::from(heartbeat.asks_for_broker));
}

pub(super) fn heartbeat(reader: &mut Reader<'_>) -> Result<HeartbeatExtra, Malformed> {
    let told = read_leader_time(reader)?;
    let (wall, sent) = (wall(reader)?, Instant(reader.varint()?));
    let (timeout, asks_for_broker) = (Duration(reader.varint()?), reader.bool()?);
    Ok(HeartbeatExtra { told, wall, sent, timeout, asks_for_broker })
}

pub(super) fn put_answer(out: &mut Vec<u8>, answer: &HeartbeatAnswerExtra) {
    put_wall(out, answer.wall);
    put_varint(out, answer.sent.0);
    put_varint(out, answer.sync.0);
    put_varint(out, answer.timeout.0);
    put_condition(out, answer.condition);
}

pub(super) fn answer(reader: &mut Reader<'_>) -> Result<HeartbeatAnswerExtra, Malformed> {
    let (wall, sent) = (wall(reader)?, Instant(reader.varint()?));
    let (sync, timeout) = (Duration(reader.varint()?), Duration(reader.varint()?));
    Ok(HeartbeatAnswerExtra { wall, sent, sync, timeout, condition: condition(reader)? })
}

fn put_condition(out: &mut Vec<u8>, condition: Condition) {
    out.push(maybe(condition.disk_ok) * 3 + maybe(condition.broker));
    put_varint(out, condition.sync_median.0);
}

fn condition(reader: &mut Reader<'_>) -> Result<Condition, Malformed> {
    let said = reader.u8()?;
    let sync_median = Duration(reader.varint()?);
    let of = |digit: u8| [None, Some(true), Some(false)].get(usize::from(digit)).copied().ok_or(Malformed);
    Ok(Condition { disk_ok: of(said / 3)?, broker: of(said % 3)?, sync_median })
}

const fn maybe(said: Option<bool>) -> u8 {
    match said {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    }
}

fn put_leader_time(out: &mut Vec<u8>, told: LeaderTime) {
    put_varint(out, told.site.0);
    out.push(u8::from(told.synced));
    // Nothing is held at the year 1970.
    put_varint(out, told.held.map_or(0, |held| held.0));
}

fn read_leader_time(reader: &mut Reader<'_>) -> Result<LeaderTime, Malformed> {
    let (site, synced, held) = (reader.varint()?, reader.bool()?, reader.varint()?);
    if site.max(held) > TIME_MS_MAX {
        return Err(Malformed);
    }
    Ok(LeaderTime { site: SiteTime(site), synced, held: (held > 0).then_some(SiteTime(held)) })
}

fn put_wall(out: &mut Vec<u8>, wall: Wall) {
    put_varint(out, wall.us);
    out.push(u8::from(wall.synced));
}

fn wall(reader: &mut Reader<'_>) -> Result<Wall, Malformed> {
    Ok(Wall { us: reader.varint()?, synced: reader.bool()? })
}
