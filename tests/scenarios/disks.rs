//! The commands of scripts that are about disks, snapshots and lanes.

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{NodeSet, Position, WitnessRecord};

use crate::commands::{anybody, node, number, on, position, term_and_subterm};
use crate::describe;
use crate::plain_log::PlainLog;
use crate::site::{Outcome, Site};
use crate::witness::record_in_words;

/// Carries out what a line says about disks, snapshots and lanes.
pub(crate) fn command(site: &mut Site, words: &[&str]) -> Outcome {
    match words {
        ["disk", id, rest @ ..] => {
            let id = anybody(site, id)?;
            if site.witness(id).is_some() {
                prepare_record(site, id, rest)
            } else {
                prepare_disk(site, id, rest)
            }
        }
        ["damage-disk", id] => damage(site, anybody(site, id)?),
        ["hold-disk", ids @ ..] => {
            let ids = if ids.is_empty() {
                Ok(site.ids())
            } else {
                ids.iter().map(|id| anybody(site, id)).collect()
            };
            site.held_disks.extend(ids?);
            Ok(())
        }
        ["free-disk", id] => {
            let id = anybody(site, id)?;
            site.held_disks.remove(&id);
            if what_is_written(site, id).is_some() { finish_write(site, id) } else { Ok(()) }
        }
        ["persist", id] => finish_write(site, anybody(site, id)?),
        ["fail-disk", id] => fail_write(site, anybody(site, id)?, 0),
        ["fail-disk", id, "after", records] => fail_write(site, anybody(site, id)?, records_of(records)?),
        ["crash", id] => crash(site, anybody(site, id)?, 0),
        ["crash", id, "after", records] => crash(site, anybody(site, id)?, records_of(records)?),
        ["restart", id] => restart(site, anybody(site, id)?),

        ["snapshot", id, index] => {
            let id = node(site, id)?;
            take_snapshot(site, id, LogIndex(number(index)?)).map(|_| ())
        }
        ["compact", id, index] => compact(site, node(site, id)?, LogIndex(number(index)?)),
        ["snapshot-lost", id, to] => {
            let to = node(site, to)?;
            on(site, id, |node| node.snapshot_lost(to))
        }
        ["fill-lane", id] => {
            let id = node(site, id)?;
            site.full_lanes.insert(id);
            Ok(())
        }
        ["empty-lane", id] => {
            let id = node(site, id)?;
            site.full_lanes.remove(&id);
            site.drive(id)
        }
        _ => Err("no such command, or not with these arguments".to_owned()),
    }
}

fn records_of(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number of records"))
}

/// `disk 1 term 3 vote 2 log 1-2/1 3/2`: the node starts (again) from such a disk.
fn prepare_disk(site: &mut Site, id: NodeId, words: &[&str]) -> Outcome {
    let ["term", term, "vote", vote, "log", runs @ ..] = words else {
        return Err("a disk is `disk 1 term 3 vote 2 log 1-2/1 3/2`, with vote `-` for nobody".to_owned());
    };
    let term = Term(number(term)?);
    let vote = if *vote == "-" { None } else { Some(node(site, vote)?) };
    let mut log =
        PlainLog::after(Position::ZERO, site.node(id).log.configuration_at(LogIndex::ZERO).configuration);
    for run in runs {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let last = position(last)?;
        let first = first.split('/').next().map_or(Ok(0), number)?;
        if first != log.last().index.0 + 1 || last.index.0 < first {
            return Err(format!("{run} does not follow {}", describe::position(log.last())));
        }
        (first..=last.index.0).for_each(|index| log.push(Position { index: LogIndex(index), ..last }));
    }
    site.crash(id, 0);
    let disk = &mut site.node(id).disk;
    (disk.term, disk.vote, disk.log) = (term, vote, log);
    site.start(id)
}

/// `disk 3 term 3 vote 2 set 1 2 of 3.1`: the witness starts (again) with this record.
fn prepare_record(site: &mut Site, id: NodeId, words: &[&str]) -> Outcome {
    let ["term", term, "vote", vote, "set", voters @ .., "of", last] = words else {
        return Err("a record is `disk 3 term 3 vote 2 set 1 2 of 3.1`, with vote `-` for nobody".to_owned());
    };
    let vote = if *vote == "-" { None } else { Some(node(site, vote)?) };
    let (last_term, last_subterm) = term_and_subterm(last)?;
    let mut set = NodeSet::default();
    for voter in voters {
        set.insert(node(site, voter)?);
    }
    let record = WitnessRecord { term: Term(number(term)?), vote, last_term, last_subterm, voters: set };
    let Some(witness) = site.witness(id) else { return Ok(()) };
    witness.crash(false);
    witness.put_on_disk(&record);
    witness.start().map(|_| ())
}

fn damage(site: &mut Site, id: NodeId) -> Outcome {
    let witness = site.witness(id).ok_or_else(|| format!("{id} is no witness"))?;
    witness.damage_disk();
    Ok(())
}

/// What a disk is writing, in words and in records.
fn what_is_written(site: &mut Site, id: NodeId) -> Option<(String, usize)> {
    if let Some(witness) = site.witness(id) {
        return witness.write().map(|what| (what, 1));
    }
    site.node(id).write.as_ref().map(|write| (describe::write(write), write.records()))
}

fn finish_write(site: &mut Site, id: NodeId) -> Outcome {
    let Some((what, _)) = what_is_written(site, id) else { return Err(format!("{id} writes nothing")) };
    if site.witness(id).is_some() {
        return site.finish_witness_write(id, "has written");
    }
    site.detail(|| format!("{id} has written {what}"));
    site.node(id).finish_write();
    site.drive(id)
}

fn fail_write(site: &mut Site, id: NodeId, records: usize) -> Outcome {
    let Some((what, of)) = what_is_written(site, id) else { return Err(format!("{id} writes nothing")) };
    site.tell(format!("{id} fails to write {what}: {} of {of} records are there", records.min(of)));
    if let Some(witness) = site.witness(id) {
        witness.fail_write(records > 0);
        return Ok(());
    }
    site.node(id).fail_write(records);
    site.drive(id)
}

fn crash(site: &mut Site, id: NodeId, records: usize) -> Outcome {
    if let Some((what, of)) = what_is_written(site, id) {
        site.tell(format!("{id} was writing {what}: {} of {of} records are there", records.min(of)));
    }
    match site.witness(id) {
        Some(witness) => witness.crash(records > 0),
        None => site.crash(id, records),
    }
    Ok(())
}

fn restart(site: &mut Site, id: NodeId) -> Outcome {
    if let Some(witness) = site.witness(id) {
        let told = match witness.start() {
            Ok(record) => format!("{id} starts with {}", record_in_words(&record)),
            Err(why) => format!("{id} does not start: {why}"),
        };
        site.tell(told);
        return Ok(());
    }
    let disk = site.node(id).disk.clone();
    site.tell(format!("{id} starts with {}", describe::disk(&disk)));
    site.start(id)
}

fn take_snapshot(site: &mut Site, id: NodeId, index: LogIndex) -> Result<Position, String> {
    let at = site.node(id).take_snapshot(index);
    at.ok_or_else(|| format!("entry {index} is not in the log of {id}, not durable or not committed"))
}

fn compact(site: &mut Site, id: NodeId, index: LogIndex) -> Outcome {
    let at = take_snapshot(site, id, index)?;
    if !site.node(id).compact(at) {
        return Err(format!("{id} does not let its log go up to {index}"));
    }
    site.drive(id)
}
