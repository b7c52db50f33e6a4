//! The commands of scripts. To add one: a line in [`perform`] and a line in the README beside this file.

use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Change, Leave, MemberRole, PeerState, Position};
use tally_core::time::Duration;

use crate::describe;
use crate::node::Packet;
use crate::plain_log::{ENTRY_BYTES, PlainLog};
use crate::site::{Outcome, Site};

/// Carries out one line of a script.
pub(crate) fn perform(site: &mut Site, line: &str) -> Outcome {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.first() == Some(&"quietly") {
        words.remove(0);
        site.quiet = true;
        let outcome = command(site, &words);
        site.quiet = false;
        return outcome;
    }
    command(site, &words)
}

fn command(site: &mut Site, words: &[&str]) -> Outcome {
    match words {
        ["set", name, value] => set(site, name, value),
        ["nodes", voters] => site.found(number(voters)?, 0),
        ["nodes", voters, "observers", observers] => site.found(number(voters)?, number(observers)?),
        ["disk", id, rest @ ..] => prepare_disk(site, node(site, id)?, rest),
        _ if site.nodes.is_empty() => Err("a site is needed first: `nodes 3`".to_owned()),

        ["campaign", id] => site.campaign(node(site, id)?),
        ["elect", id] => elect(site, node(site, id)?),
        ["timeout", id] => site.expire(node(site, id)?),
        ["advance", span, ids @ ..] => site.advance(duration(span)?, &nodes(site, ids)?, false),
        ["sleep", span, ids @ ..] => sleep(site, duration(span)?, &nodes(site, ids)?),
        ["run", span, ids @ ..] => site.advance(duration(span)?, &nodes(site, ids)?, true),

        ["deliver"] => site.deliver_all(),
        ["deliver", selector @ ..] => {
            take(site, selector)?.into_iter().try_for_each(|packet| site.arrive(packet))
        }
        ["drop", selector @ ..] => take(site, selector).map(|_| ()),
        ["stash", selector @ ..] => stash(site, selector, false),
        ["copy", selector @ ..] => stash(site, selector, true),
        ["unstash"] => unstash(site),
        ["wire"] => show_wire(site),
        ["cut", links @ ..] => change_links(site, links, |site, link| _ = site.cut.insert(link)),
        ["delay", links @ ..] => change_links(site, links, |site, link| _ = site.delayed.insert(link)),
        ["heal", links @ ..] => heal(site, links),

        ["propose", id, count] => propose(site, node(site, id)?, number(count)?),
        ["read", id] => site.take_read(node(site, id)?),
        ["tell-commit", id, to] => {
            let to = node(site, to)?;
            on(site, id, |node| node.request_heartbeat(to))
        }
        ["join"] => site.join(),
        ["change", id, wishes @ ..] => change(site, node(site, id)?, wishes),
        ["transfer", id, to] => transfer(site, node(site, id)?, to),
        ["resign", id] => on(site, id, |node| node.resign()),
        _ => disk_command(site, words),
    }
}

fn disk_command(site: &mut Site, words: &[&str]) -> Outcome {
    match words {
        ["hold-disk", ids @ ..] => {
            let ids = nodes(site, ids)?;
            site.held_disks.extend(ids);
            Ok(())
        }
        ["free-disk", id] => {
            let id = node(site, id)?;
            site.held_disks.remove(&id);
            if site.node(id).write.is_some() { finish_write(site, id) } else { Ok(()) }
        }
        ["persist", id] => finish_write(site, node(site, id)?),
        ["fail-disk", id] => fail_write(site, node(site, id)?, 0),
        ["fail-disk", id, "after", records] => fail_write(site, node(site, id)?, records_of(records)?),
        ["crash", id] => crash(site, node(site, id)?, 0),
        ["crash", id, "after", records] => crash(site, node(site, id)?, records_of(records)?),
        ["restart", id] => restart(site, node(site, id)?),

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

        ["state"] => show_state(site),
        ["peers", id] => show_peers(site, node(site, id)?),
        _ => Err("no such command, or not with these arguments".to_owned()),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn records_of(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number of records"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let millis = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => number(millis)?,
        (None, Some(seconds)) => number(seconds)? * 1000,
        (None, None) => return Err(format!("{text:?} is not a span of time such as 200ms or 1s")),
    };
    Ok(Duration::from_millis(millis))
}

fn node(site: &Site, text: &str) -> Result<NodeId, String> {
    let id = NodeId(number(text)?);
    if site.nodes.iter().any(|node| node.id == id) { Ok(id) } else { Err(format!("there is no node {id}")) }
}

/// The nodes that are named, or all.
fn nodes(site: &Site, words: &[&str]) -> Result<Vec<NodeId>, String> {
    if words.is_empty() { Ok(site.ids()) } else { words.iter().map(|word| node(site, word)).collect() }
}

/// `7/3`.
fn position(text: &str) -> Result<Position, String> {
    let (index, term) =
        text.split_once('/').ok_or_else(|| format!("{text:?} is not a position such as 7/3"))?;
    Ok(Position { index: LogIndex(number(index)?), term: Term(number(term)?), subterm: Subterm(0) })
}

fn set(site: &mut Site, name: &str, value: &str) -> Outcome {
    let bytes = u32::try_from(number(value)?).map_err(|_| format!("{value} is too much"))?;
    match name {
        "append-bytes" => site.settings.append_bytes = bytes,
        "inflight-bytes" => site.settings.inflight_bytes = bytes,
        "uncommitted-bytes" => site.settings.uncommitted_bytes = u64::from(bytes),
        _ => return Err(format!("there is no setting {name:?}")),
    }
    Ok(())
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

fn on(
    site: &mut Site,
    id: &str,
    act: impl FnOnce(&mut crate::node::Node<crate::operations::ScriptedCore>),
) -> Outcome {
    let id = node(site, id)?;
    act(site.node(id));
    site.drive(id)
}

/// A campaign, and everything arrives: told in short.
fn elect(site: &mut Site, id: NodeId) -> Outcome {
    site.quiet = true;
    let outcome = site.campaign(id).and_then(|()| site.deliver_all());
    site.quiet = false;
    outcome
}

/// `1->2`, `1->*`, `*->2`, then perhaps the kind of message, then perhaps which one of them: `#2` or `last`.
fn matching(site: &Site, selector: &[&str]) -> Result<Vec<usize>, String> {
    let usage = || "messages are selected as `1->2`, `1->* Append`, `*->2 Append #2`, `1->2 last`".to_owned();
    let (link, rest) = selector.split_first().ok_or_else(usage)?;
    let (from, to) = link.split_once("->").ok_or_else(usage)?;
    let end = |text: &str| if text == "*" { Ok(None) } else { node(site, text).map(Some) };
    let (from, to) = (end(from)?, end(to)?);
    let is_which = |word: &&str| *word == "last" || word.starts_with('#');
    let (kind, which) = match rest {
        [] => (None, None),
        [which] if is_which(which) => (None, Some(*which)),
        [kind] => (Some(*kind), None),
        [kind, which] if is_which(which) => (Some(*kind), Some(*which)),
        _ => return Err(usage()),
    };
    let fits = |packet: &Packet| {
        from.is_none_or(|from| from == packet.from)
            && to.is_none_or(|to| to == packet.to)
            && kind.is_none_or(|kind| kind == describe::kind(&packet.message.body))
    };
    let all: Vec<usize> = (0..site.wire.len()).filter(|place| fits(&site.wire[*place])).collect();
    let chosen = match which {
        None => all,
        Some("last") => all.last().copied().into_iter().collect(),
        Some(which) => {
            let which = number(&which[1..])?.checked_sub(1).ok_or_else(usage)?;
            all.get(usize::try_from(which).map_err(|_| usage())?).copied().into_iter().collect()
        }
    };
    if chosen.is_empty() { Err("there is no such message on its way".to_owned()) } else { Ok(chosen) }
}

fn take(site: &mut Site, selector: &[&str]) -> Result<Vec<Packet>, String> {
    let chosen = matching(site, selector)?;
    let taken = chosen.iter().map(|place| site.wire[*place].clone()).collect();
    chosen.iter().rev().for_each(|place| _ = site.wire.remove(*place));
    Ok(taken)
}

fn stash(site: &mut Site, selector: &[&str], copy: bool) -> Outcome {
    let chosen = matching(site, selector)?;
    let packets: Vec<Packet> = chosen.iter().map(|place| site.wire[*place].clone()).collect();
    for packet in &packets {
        site.tell(format!("{} -> {} {}", packet.from, packet.to, describe::packet(packet)));
    }
    site.stash.extend(packets);
    if !copy {
        chosen.iter().rev().for_each(|place| _ = site.wire.remove(*place));
    }
    Ok(())
}

fn unstash(site: &mut Site) -> Outcome {
    let stash = std::mem::take(&mut site.stash);
    site.wire.extend(stash);
    show_wire(site)
}

fn show_wire(site: &mut Site) -> Outcome {
    for packet in site.wire.clone() {
        site.tell(format!("{} -> {} {}", packet.from, packet.to, describe::packet(&packet)));
    }
    Ok(())
}

/// `1->2` is one direction, `1-2` both; `1` is everything from and to it.
fn links(site: &Site, words: &[&str]) -> Result<Vec<(NodeId, NodeId)>, String> {
    let mut links = Vec::new();
    for word in words {
        if let Some((from, to)) = word.split_once("->") {
            links.push((node(site, from)?, node(site, to)?));
        } else if let Some((one, other)) = word.split_once('-') {
            let (one, other) = (node(site, one)?, node(site, other)?);
            links.extend([(one, other), (other, one)]);
        } else {
            let one = node(site, word)?;
            links.extend(site.ids().into_iter().flat_map(|other| [(one, other), (other, one)]));
        }
    }
    Ok(links)
}

fn change_links(site: &mut Site, words: &[&str], change: impl Fn(&mut Site, (NodeId, NodeId))) -> Outcome {
    if words.is_empty() {
        return Err("links are `1->2`, `1-2` for both directions, `1` for all of a node's".to_owned());
    }
    links(site, words)?.into_iter().for_each(|link| change(site, link));
    Ok(())
}

fn heal(site: &mut Site, words: &[&str]) -> Outcome {
    let links = links(site, words)?;
    let healed = |link: &(NodeId, NodeId)| words.is_empty() || links.contains(link);
    site.cut.retain(|link| !healed(link));
    site.delayed.retain(|link| !healed(link));
    Ok(())
}

fn propose(site: &mut Site, id: NodeId, count: u64) -> Outcome {
    match site.node(id).propose(count, ENTRY_BYTES) {
        Ok(_) if site.quiet => {}
        Ok(range) => site.tell(format!("{id} takes {}", describe::range(&range))),
        Err(why) => site.tell(format!("{id} refuses: {why}")),
    }
    site.drive(id)
}

/// `add 4`, `promote 4`, `demote 2`, `remove 2`, as many as wished; `when-asked`: the joint configuration stays
/// until `change 1 leave`.
fn change(site: &mut Site, id: NodeId, wishes: &[&str]) -> Outcome {
    let usage = || "wishes are `add 4`, `promote 4`, `demote 2`, `remove 2`, or `leave` alone".to_owned();
    let (wishes, leave) = match wishes {
        [wishes @ .., "when-asked"] => (wishes, Leave::WhenAsked),
        ["leave"] => (&[][..], Leave::ByItself),
        [] => return Err(usage()),
        _ => (wishes, Leave::ByItself),
    };
    let mut changes = Vec::new();
    for wish in wishes.chunks(2) {
        let [what, whom] = wish else { return Err(usage()) };
        let whom = node(site, whom)?;
        changes.push(match *what {
            "add" => Change::AddObserver(whom),
            "promote" => Change::Promote(whom),
            "demote" => Change::Demote(whom),
            "remove" => Change::Remove(whom),
            _ => return Err(usage()),
        });
    }
    match site.node(id).change(&changes, leave) {
        Ok((range, configuration)) => {
            site.tell(format!("{id} takes {} with {configuration:?}", describe::range(&range)));
        }
        Err(why) => site.tell(format!("{id} refuses: {why}")),
    }
    site.drive(id)
}

fn transfer(site: &mut Site, id: NodeId, to: &str) -> Outcome {
    let to = node(site, to)?;
    match site.node(id).transfer(to) {
        Ok(()) => site.tell(format!("{id} hands over to {to}")),
        Err(why) => site.tell(format!("{id} refuses: {why}")),
    }
    site.drive(id)
}

fn finish_write(site: &mut Site, id: NodeId) -> Outcome {
    let Some(write) = &site.node(id).write else { return Err(format!("{id} writes nothing")) };
    let what = describe::write(write);
    if !site.quiet {
        site.tell(format!("{id} has written {what}"));
    }
    site.node(id).finish_write();
    site.drive(id)
}

fn fail_write(site: &mut Site, id: NodeId, records: usize) -> Outcome {
    let Some(write) = &site.node(id).write else { return Err(format!("{id} writes nothing")) };
    let (what, of) = (describe::write(write), write.records());
    site.tell(format!("{id} fails to write {what}: {} of {of} records are there", records.min(of)));
    site.node(id).fail_write(records);
    site.drive(id)
}

fn crash(site: &mut Site, id: NodeId, records: usize) -> Outcome {
    if let Some(write) = &site.node(id).write {
        let (what, of) = (describe::write(write), write.records());
        site.tell(format!("{id} was writing {what}: {} of {of} records are there", records.min(of)));
    }
    site.crash(id, records);
    Ok(())
}

/// The clocks go on, and what is due does not happen: a paused process, or timers that are late.
fn sleep(site: &mut Site, span: Duration, ids: &[NodeId]) -> Outcome {
    ids.iter().for_each(|id| site.node(*id).clock += span);
    Ok(())
}

fn restart(site: &mut Site, id: NodeId) -> Outcome {
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

fn show_state(site: &mut Site) -> Outcome {
    for place in 0..site.nodes.len() {
        let node = &site.nodes[place];
        let configuration = node.status().map(|status| status.configuration.configuration);
        let kind = match configuration.map(|configuration| configuration.role(node.id)) {
            Some(Some(MemberRole::Observer)) => " (observer)",
            Some(None) => " (no member)",
            _ => "",
        };
        let on_disk = describe::disk(&node.disk);
        let line = match node.status() {
            None => format!("{}{kind} down; disk: {on_disk}", node.id),
            Some(status) => format!(
                "{}{kind} {}, term {}, log {}, commit {}; disk: {}",
                node.id,
                describe::role(status.role, status.leader),
                status.term,
                describe::log(&node.log),
                status.commit,
                if node.disk.log == node.log && node.disk.term == status.term {
                    format!("the same, {}", describe::vote(&node.disk))
                } else {
                    on_disk
                }
            ),
        };
        site.tell(line);
    }
    Ok(())
}

fn show_peers(site: &mut Site, id: NodeId) -> Outcome {
    let status = site.node(id).status().ok_or_else(|| format!("{id} is down"))?;
    for peer in status.peers {
        let state = match peer.state {
            PeerState::Probe => "probed".to_owned(),
            PeerState::Replicate => "replicated to".to_owned(),
            PeerState::Snapshot(last) => format!("offered the snapshot up to {last}"),
        };
        let silent = if peer.active { "" } else { ", silent" };
        site.tell(format!("{} {state}, matched {}, next {}{silent}", peer.id, peer.matched, peer.next));
    }
    Ok(())
}
