//! Sites of three machines: what README tells people to type, word for word, and what they do later to a site that counts.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::container::{Container, Network, Wire};
use super::load::{self, Add, Load};
use super::{main_pid, picture, says};
use crate::{dist, run};

const BOXES: [&str; 3] = ["box1", "box2", "box3"];
/// As README says it: the same line on each machine.
const INSTALL: &str = "each$";
/// No add may take longer while boxes are upgraded, one after the other.
const UPGRADE_MAX: Duration = Duration::from_millis(300);
/// Nor any whose client asks a box that stays, while another is restarted on purpose.
const RESTART_MAX: Duration = Duration::from_millis(50);
/// With nothing going on: a machine on which adds take longer than this is too busy to be judged by.
const QUIET_MAX: Duration = Duration::from_millis(25);

type Test = fn(&Machines) -> Result<String>;

/// Each on machines of its own. They say what was seen.
pub(super) const TESTS: [(&str, Test); 5] = [
    ("what README says to type makes a site of three, and a board takes a broken one's place", transcript),
    ("a site of one that was tried first grows with all it has counted", growth),
    ("boxes are upgraded one after the other under load, and no add fails", rolling_upgrade),
    ("boxes are restarted on purpose under load, and no add fails", planned_restarts),
    ("boxes crash under load, all of them at once at last, and each add is there once", crashes),
];

/// Where machines come from.
pub(super) struct Machines<'a> {
    root: &'a Path,
    files: &'a Path,
    network: Network,
}

/// A machine with its name in README.
struct Board {
    name: String,
    machine: Container,
}

impl<'a> Machines<'a> {
    pub(super) fn new(root: &'a Path, files: &'a Path) -> Result<Machines<'a>> {
        Ok(Machines { root, files, network: Network::make()? })
    }

    /// Switches a machine on, at the last number's address of README's network.
    fn board(&self, name: &str, number: usize) -> Result<Board> {
        let address = format!("10.0.0.1{number}/24");
        let wire = Wire { network: &self.network, name, address: &address };
        let machine = Container::boot_wired(self.root, self.files, &wire)?;
        // What somebody who has just downloaded it has.
        machine.sh("cp /files/tallyd.deb /tallyd_0.0.0-1_amd64.deb")?;
        Ok(Board { name: name.to_owned(), machine })
    }

    fn boards(&self) -> Result<Vec<Board>> {
        let board = |(place, name): (usize, &&str)| self.board(name, place + 1);
        BOXES.iter().enumerate().map(board).collect()
    }
}

/// Commands with the name of the machine that they are typed on.
struct Transcript {
    install: String,
    founding: Vec<(String, String)>,
    replacing: Vec<(String, String)>,
    /// The latest token that was printed.
    token: Option<String>,
}

impl Transcript {
    fn read() -> Result<Transcript> {
        let file = run::root().join("README.md");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Transcript::parse(&text)
    }

    fn parse(text: &str) -> Result<Transcript> {
        let section = text.split("\n## ").find(|section| section.starts_with("Three boxes\n"));
        let section = section.context("README has no section \"Three boxes\"")?;
        let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut blocks = blocks.map(commands).filter(|commands| !commands.is_empty());
        let mut next = || blocks.next().context("README has no such commands any more");
        let (mut founding, replacing) = (next()?, next()?);
        ensure!(format!("{}$", founding[0].0) == INSTALL, "README does not begin with the installation");
        let (_, install) = founding.remove(0);
        Ok(Transcript { install, founding, replacing, token: None })
    }

    fn install(&self, board: &Board) -> Result<()> {
        board.machine.sh(&format!("cd / && {}", self.install))?;
        board.machine.until("tallyd status 2>&1 | grep 'no site yet: tallyd init or tallyd join'")?;
        Ok(())
    }

    /// Types a command; a token is read from the keyboard.
    fn type_in(&mut self, boards: &[Board], name: &str, command: &str) -> Result<String> {
        let board = boards.iter().find(|board| board.name == name);
        let board = board.with_context(|| format!("README names {name}, which is no machine"))?;
        let said = match (command.contains("--token-file -"), &self.token) {
            (true, Some(token)) => board.machine.sh(&format!("echo {token} | {command}"))?,
            (true, None) => anyhow::bail!("nothing has printed a token before `{command}`"),
            (false, _) => board.machine.sh(command)?,
        };
        if let Some((_, token)) = said.split_once("--token ") {
            self.token = token.split_whitespace().next().map(str::to_owned);
        }
        Ok(said)
    }

    /// Three machines that count.
    fn found(&mut self, machines: &Machines) -> Result<Vec<Board>> {
        let boards = machines.boards()?;
        boards.iter().try_for_each(|board| self.install(board))?;
        for (name, command) in std::mem::take(&mut self.founding) {
            self.type_in(&boards, &name, &command)?;
        }
        boards[0].machine.until("tallyd status | grep '^works; tolerates 1 failing$'")?;
        Ok(boards)
    }
}

/// The lines of a block that a machine's name and a dollar sign begin, without the remarks behind them.
fn commands(block: &str) -> Vec<(String, String)> {
    let command = |line: &str| {
        let (name, command) = line.split_once("$ ")?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let command = command.split("  #").next().unwrap_or_default().trim();
        // Who types it here is root, and there is no sudo in the machines.
        let command = command.strip_prefix("sudo ").unwrap_or(command);
        is_name.then(|| (name.to_owned(), command.to_owned()))
    };
    block.lines().filter_map(command).collect()
}

fn total(board: &Board, series: &str) -> Result<u64> {
    let said = board.machine.sh(&format!("tallyd get {series} --json"))?;
    let value: serde_json::Value =
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    value["total"].as_u64().with_context(|| format!("no total: {said}"))
}

fn transcript(machines: &Machines) -> Result<String> {
    let began = Instant::now();
    let mut transcript = Transcript::read()?;
    let mut boards = transcript.found(machines)?;
    let founded = began.elapsed();
    let counted = total(&boards[2], "coffee")?;
    ensure!(counted >= 1, "README's add counted nothing");
    // Its plug is pulled.
    drop(boards.pop());
    boards[0].machine.until("tallyd status | grep '^works; tolerates none: box3 is away'")?;
    boards.push(machines.board("new3", 3)?);
    transcript.install(&boards[2])?;
    for (name, command) in std::mem::take(&mut transcript.replacing) {
        transcript.type_in(&boards, &name, &command)?;
    }
    boards[2].machine.until("tallyd status | grep '^works; tolerates 1 failing$'")?;
    ensure!(total(&boards[2], "coffee")? == counted, "the new box has another total");
    let members = boards[0].machine.sh("tallyd members")?;
    says(&members, &BOXES)?;
    Ok(format!("{:.0} s from three machines without tallyd to a count that is on all", founded.as_secs_f64()))
}

fn growth(machines: &Machines) -> Result<String> {
    let boards = machines.boards()?;
    let first = &boards[0].machine;
    // The program alone, in an empty folder, as README has it.
    first.sh("dpkg -x /files/tallyd.deb /try && mkdir /try/data && ln -s /try/usr/bin/tallyd /usr/bin/
        systemd-run --quiet --unit=try --working-directory=/try/data /usr/bin/tallyd run --data-dir .")?;
    first.until("tallyd add coffee 5 --timeout 10s")?;
    first.sh("tallyd add line1/scrap 2")?;
    let status = first.sh("tallyd status --json")?;
    let mut transcript = Transcript::read()?;
    transcript.type_in(&boards, "box1", "tallyd token create --uses 2 --advertise 10.0.0.11:7400")?;
    for board in &boards[1..] {
        transcript.install(board)?;
        transcript.type_in(&boards, &board.name, "tallyd join 10.0.0.11:7400 --token-file -")?;
    }
    first.until("tallyd status | grep '^works; tolerates 1 failing$'")?;
    for board in &boards {
        ensure!(
            total(board, "coffee")? == 5 && total(board, "line1/scrap")? == 2,
            "{} lost counts",
            board.name
        );
    }
    let site = |text: &str| -> Result<String> {
        let value: serde_json::Value = serde_json::from_str(text).context("the status is no JSON")?;
        Ok(value["site_id"].to_string())
    };
    let now = boards[2].machine.sh("tallyd status --json")?;
    ensure!(site(&status)? == site(&now)? && site(&now)? != "null", "it is another site now");
    // The one that was tried first may go.
    first.sh("systemctl stop try")?;
    boards[1].machine.until("tallyd add coffee 1 --timeout 10s")?;
    ensure!(total(&boards[2], "coffee")? == 6);
    Ok("2 series and the site's id stayed".to_owned())
}

/// Makes the pictures of docs/operate.md: a site that counts, seen from one box while another is away.
pub(super) fn pictures(machines: &Machines) -> Result<()> {
    let boards = Transcript::read()?.found(machines)?;
    let seen = &boards[0].machine;
    seen.sh("cat > /count <<'END'
while :; do
    for part in 1 2 3; do tallyd add line1/press$part/parts $part; tallyd add line2/oven/parts 2; done >/dev/null
    tallyd add gate/people 1 >/dev/null
done
END
        systemd-run --quiet --unit=count sh /count")?;
    boards[2].machine.sh("systemctl stop tallyd")?;
    seen.until("tallyd top --once | grep -q 'tolerates none' && tallyd get gate/people --json | grep -Eq '\"total\": *[1-9][0-9]'")?;
    for (command, name) in [("tallyd top", "top"), ("tallyd doctor", "doctor")] {
        // The live view shows what this prints. A finding of `doctor` is no failure here.
        let once = command.replace("top", "top --once");
        let text = seen.try_sh(&once)?.text;
        let file = run::root().join(format!("docs/{name}.svg"));
        dist::write(&file, &picture::of_terminal(command, text.trim_end()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// From when until when something was done to a box.
struct Span {
    place: usize,
    from: Instant,
    to: Instant,
}

impl Span {
    fn has(&self, add: &Add) -> bool {
        (self.from..self.to).contains(&add.began)
    }
}

/// Puts load on a site, does something to each box in turn, and gives all adds with when it was done to which box.
fn under_load(boards: &[Board], each: impl Fn(&Board) -> Result<()>) -> Result<(Vec<Add>, Vec<Span>)> {
    let networks = boards.iter().map(|board| board.machine.network()).collect::<Result<_>>()?;
    let load = Load::start(networks);
    load.wait_for(500)?;
    let mut spans = Vec::new();
    for (place, board) in boards.iter().enumerate() {
        let from = Instant::now();
        each(board)?;
        board.machine.until("tallyd status | grep '^works; tolerates 1 failing$'")?;
        spans.push(Span { place, from, to: Instant::now() });
        load.wait_for(200)?;
    }
    Ok((load.finish()?, spans))
}

/// Each box has exactly what was acknowledged.
fn all_there(boards: &[Board], adds: &[Add]) -> Result<()> {
    for board in boards {
        let (counted, acknowledged) = (total(board, load::SERIES)?, adds.len() as u64);
        ensure!(counted == acknowledged, "{}: {counted} counted, {acknowledged} acknowledged", board.name);
    }
    Ok(())
}

/// Says how long adds took, and that none took too long; of a machine that is busy with other things only the former.
fn judge(
    adds: &[Add],
    spans: &[Span],
    is_meant: impl Fn(&Add, usize) -> bool,
    most: Duration,
) -> Result<String> {
    let within = |add: &&Add| spans.iter().any(|span| span.has(add) && is_meant(add, span.place));
    let quiet = |add: &&Add| spans.iter().all(|span| !span.has(add));
    let (found, before) =
        (load::longest(adds.iter().filter(within)), load::longest(adds.iter().filter(quiet)));
    let said = format!(
        "{} adds, none failed, median {:.1?}, longest {found:.0?} (with nothing going on {before:.0?})",
        adds.len(),
        load::median(adds)
    );
    if before > QUIET_MAX {
        return Ok(format!("{said}; the machine is too busy to judge by {most:?}"));
    }
    ensure!(found <= most, "{said}: longer than {most:?}");
    Ok(said)
}

fn rolling_upgrade(machines: &Machines) -> Result<String> {
    let boards = Transcript::read()?.found(machines)?;
    let (adds, spans) = under_load(&boards, |board| {
        let before = main_pid(&board.machine)?;
        board.machine.sh("dpkg -i /files/newer.deb")?;
        ensure!(main_pid(&board.machine)? != before, "the daemon was not restarted");
        Ok(())
    })?;
    all_there(&boards, &adds)?;
    judge(&adds, &spans, |_, _| true, UPGRADE_MAX)
}

fn planned_restarts(machines: &Machines) -> Result<String> {
    let boards = Transcript::read()?.found(machines)?;
    let restart = |board: &Board| board.machine.sh("systemctl restart tallyd").map(drop);
    let (adds, spans) = under_load(&boards, restart)?;
    all_there(&boards, &adds)?;
    judge(&adds, &spans, |add, restarted| add.first != restarted, RESTART_MAX)
}

fn crashes(machines: &Machines) -> Result<String> {
    let boards = Transcript::read()?.found(machines)?;
    for board in &boards {
        board.machine.sh("mkdir -p /etc/systemd/system/tallyd.service.d
            printf '[Service]\nRestartSec=1\n' > /etc/systemd/system/tallyd.service.d/test.conf
            systemctl daemon-reload")?;
    }
    const KILL: &str = "systemctl kill --kill-whom=main --signal=KILL tallyd";
    let is_last = |board: &Board| board.name == BOXES[2];
    let (adds, _) = under_load(&boards, |board| {
        let killed = if is_last(board) { &boards[..] } else { std::slice::from_ref(board) };
        let before: Vec<String> =
            killed.iter().map(|board| main_pid(&board.machine)).collect::<Result<_>>()?;
        killed.iter().try_for_each(|board| board.machine.sh(KILL).map(drop))?;
        for (board, before) in killed.iter().zip(before) {
            let other =
                format!("pid=$(systemctl show -P MainPID tallyd) && test $pid != 0 && test $pid != {before}");
            board.machine.until(&other)?;
        }
        Ok(())
    })?;
    all_there(&boards, &adds)?;
    Ok(format!("{} adds over 5 crashes, the longest {:.1?}", adds.len(), load::longest(adds.iter())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_has_the_commands_that_the_test_types() {
        let transcript = Transcript::read().unwrap();
        assert!(transcript.install.starts_with("apt install ./tallyd_"), "{}", transcript.install);
        let typed = |commands: &[(String, String)], words: &str| {
            commands.iter().filter(|(_, command)| command.contains(words)).count()
        };
        assert_eq!(typed(&transcript.founding, "tallyd init "), 1);
        assert_eq!(typed(&transcript.founding, "tallyd join "), 2);
        assert!(typed(&transcript.founding, "tallyd add coffee") > 0);
        assert_eq!(typed(&transcript.replacing, "--replace box3"), 1);
        assert_eq!(typed(&transcript.replacing, "tallyd join "), 1);
    }

    #[test]
    fn a_command_is_what_stands_between_the_machine_and_the_remark() {
        let block = "box1$ sudo tallyd init --site a     # founds\nsaid in answer\n$ no machine\nbox2$ tallyd get 'x # y'\n";
        let expected = [("box1", "tallyd init --site a"), ("box2", "tallyd get 'x # y'")];
        let found = commands(block);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, command)| (&**name, &**command)).collect();
        assert_eq!(found, expected);
    }
}
