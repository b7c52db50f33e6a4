//! The runner itself: scripts that are wrong are errors that name file and line. And the README's list of what is shown.

use std::collections::BTreeSet;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::script::{difference, play};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("runner::a_wrong_script_is_an_error_with_file_and_line", wrong_scripts),
        Trial::test("runner::a_trace_that_changed_is_shown_as_a_difference", changed_trace),
        Trial::test("readme::it_names_every_scenario_and_nothing_that_is_not_there", listed_scenarios),
    ]
}

fn wrong_scripts() -> Result<(), Failed> {
    for (script, error) in [
        ("# x\nnodes 3\nconquer 1\n", "a.txt:3: \"conquer 1\": no such command"),
        ("# x\nnodes 3\n\ncampaign 4\n", "a.txt:4: \"campaign 4\": there is no node 4"),
        ("# x\nnodes three\n", "a.txt:2: \"nodes three\": \"three\" is not a number"),
        ("# x\nstate\n", "a.txt:2: \"state\": a site is needed first"),
        ("# x\n  1 commits 2\nnodes 3\n", "a.txt:2: \"  1 commits 2\": a trace stands under a command"),
        ("# x\nnodes 3\nadvance 5\n", "a.txt:3: \"advance 5\": \"5\" is not a span of time"),
        ("# x\nnodes 3\ndeliver 1->2\n", "a.txt:3: \"deliver 1->2\": there is no such message"),
        ("# x\nnodes 3\npersist 1\n", "a.txt:3: \"persist 1\": 1 writes nothing"),
        (
            "# x\nnodes 3\ndisk 1 term 1 vote - log 2/1\n",
            "a.txt:3: \"disk 1 term 1 vote - log 2/1\": 2/1 does not",
        ),
        ("# x\nnodes 2 witness\ncampaign 3\n", "a.txt:3: \"campaign 3\": 3 is a witness"),
        ("# x\nnodes 3 witness\n", "a.txt:2: \"nodes 3 witness\": a witness requires 2, 4, 6 or 8"),
        ("# x\nnodes 2 witness\ndisk 3 term 1 vote 1\n", "a.txt:3: \"disk 3 term 1 vote 1\": a record is"),
        ("nodes 3\n", "a.txt:1: a script begins with a comment"),
        ("# nothing\n", "a.txt: no commands"),
    ] {
        let told = play("a.txt", script).err().unwrap_or_default();
        if !told.starts_with(error) {
            return Err(format!("{script:?} is told as {told:?}").into());
        }
    }
    Ok(())
}

fn changed_trace() -> Result<(), Failed> {
    let right = play("a.txt", "# x\nnodes 1\nstate\n")?;
    if difference(&right, &play("a.txt", &right)?).is_some() {
        return Err("a script's own trace does not come out again".into());
    }
    let wrong = right.replace("leader", "follower");
    let told = difference(&wrong, &play("a.txt", &wrong)?).unwrap_or_default();
    let shows = |sign: char, word: &str| told.lines().any(|l| l.starts_with(sign) && l.contains(word));
    if shows('-', "is now follower") && shows('+', "is now leader") { Ok(()) } else { Err(told.into()) }
}

/// In the last section of the README, `name` is a scenario and `path::name` a test.
fn listed_scenarios() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("tests/scenarios/README.md"))?;
    let (_, section) = readme.split_once("## What is shown where").ok_or("the section is gone")?;
    let mut named: BTreeSet<String> = section.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    for path in crate::scripts() {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        if !named.remove(&name) {
            return Err(format!("{name}.txt stands nowhere in the README").into());
        }
    }
    for name in named {
        let Some((path, test)) = name.split_once("::") else {
            return Err(format!("the README names {name}, and there is no {name}.txt").into());
        };
        let source = std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        if !source.contains(&format!("fn {test}(")) {
            return Err(format!("the README names {name}, and there is no such test").into());
        }
    }
    Ok(())
}
