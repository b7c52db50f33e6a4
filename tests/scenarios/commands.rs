//! The commands of scripts. To add one: a line in [`perform`] and a line in the README beside this file.

use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Change, Leave, MemberRole, PeerState, Position};
use tally_core::time::Duration;

use crate::describe;
use crate::disks;
use crate::node::Packet;
use crate::plain_log::ENTRY_BYTES;
use crate::site::{Outcome, Site};
use crate::witness::state_in_words;

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
        ["nodes", voters] => site.found(number(voters)?, 0, 0),
        ["nodes", voters, "observers", observers] => site.found(number(voters)?, number(observers)?, 0),
        ["nodes", voters, "witness"] => site.found(number(voters)?, 0, 1),
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
        ["join", "witness"] => {
            site.join_witness();
            Ok(())
        }
        ["change", id, wishes @ ..] => change(site, node(site, id)?, wishes),
        ["transfer", id, to] => transfer(site, node(site, id)?, to),
        ["forget-leader", id] => on(site, id, |node| node.forget_leader()),
        ["resign", id] => on(site, id, |node| node.resign()),
        ["state"] => show_state(site),
        ["peers", id] => show_peers(site, node(site, id)?),
        _ => disks::command(site, words),
    }
}

pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let millis = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => number(millis)?,
        (None, Some(seconds)) => number(seconds)? * 1000,
        (None, None) => return Err(format!("{text:?} is not a span of time such as 200ms or 1s")),
    };
    Ok(Duration::from_millis(millis))
}

/// A node with a log.
pub(crate) fn node(site: &Site, text: &str) -> Result<NodeId, String> {
    let id = anybody(site, text)?;
    if site.ids().contains(&id) { Ok(id) } else { Err(format!("{id} is a witness")) }
}

/// A node or a witness.
pub(crate) fn anybody(site: &Site, text: &str) -> Result<NodeId, String> {
    let id = NodeId(number(text)?);
    if site.everyone().contains(&id) { Ok(id) } else { Err(format!("there is no node {id}")) }
}

/// The nodes that are named, or all.
pub(crate) fn nodes(site: &Site, words: &[&str]) -> Result<Vec<NodeId>, String> {
    if words.is_empty() { Ok(site.ids()) } else { words.iter().map(|word| node(site, word)).collect() }
}

/// `7/3`, or `7/3.1` in subterm 1.
pub(crate) fn position(text: &str) -> Result<Position, String> {
    let (index, key) =
        text.split_once('/').ok_or_else(|| format!("{text:?} is not a position such as 7/3"))?;
    let (term, subterm) = term_and_subterm(key)?;
    Ok(Position { index: LogIndex(number(index)?), term, subterm })
}

/// `3` or `3.1`.
pub(crate) fn term_and_subterm(text: &str) -> Result<(Term, Subterm), String> {
    let (term, subterm) = text.split_once('.').unwrap_or((text, "0"));
    Ok((Term(number(term)?), Subterm(number(subterm)?)))
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

pub(crate) fn on(
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
    let end = |text: &str| if text == "*" { Ok(None) } else { anybody(site, text).map(Some) };
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
            links.push((anybody(site, from)?, anybody(site, to)?));
        } else if let Some((one, other)) = word.split_once('-') {
            let (one, other) = (anybody(site, one)?, anybody(site, other)?);
            links.extend([(one, other), (other, one)]);
        } else {
            let one = anybody(site, word)?;
            links.extend(site.everyone().into_iter().flat_map(|other| [(one, other), (other, one)]));
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

/// `add 4`, `witness 5`, `promote 4`, `demote 2`, `remove 2`, as many as wished; `when-asked`: the joint configuration stays
/// until `change 1 leave`.
fn change(site: &mut Site, id: NodeId, wishes: &[&str]) -> Outcome {
    let usage = || {
        "wishes are `add 4`, `witness 5`, `promote 4`, `demote 2`, `remove 2`, or `leave` alone".to_owned()
    };
    let (wishes, leave) = match wishes {
        [wishes @ .., "when-asked"] => (wishes, Leave::WhenAsked),
        ["leave"] => (&[][..], Leave::ByItself),
        [] => return Err(usage()),
        _ => (wishes, Leave::ByItself),
    };
    let mut changes = Vec::new();
    for wish in wishes.chunks(2) {
        let [what, whom] = wish else { return Err(usage()) };
        let whom = anybody(site, whom)?;
        changes.push(match *what {
            "witness" => Change::AddWitness(whom),
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
    let to = anybody(site, to)?;
    match site.node(id).transfer(to) {
        Ok(()) => site.tell(format!("{id} transfers leadership to {to}")),
        Err(why) => site.tell(format!("{id} refuses: {why}")),
    }
    site.drive(id)
}

/// The clocks go on, and what is due does not happen: a paused process, or timers that are late.
fn sleep(site: &mut Site, span: Duration, ids: &[NodeId]) -> Outcome {
    ids.iter().for_each(|id| site.node(*id).clock += span);
    Ok(())
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
        let is_refused = node.status().is_some_and(|status| status.refused_by_witness);
        let refused = if is_refused { " that the witness refuses" } else { "" };
        let line = match node.status() {
            None => format!("{}{kind} down; disk: {on_disk}", node.id),
            Some(status) => format!(
                "{}{kind} {}{refused}, term {}, log {}, commit {}; disk: {}",
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
    let witnesses: Vec<String> = site.witnesses.iter().map(state_in_words).collect();
    witnesses.into_iter().for_each(|line| site.tell(line));
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
