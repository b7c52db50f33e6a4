//! The runner itself: scripts that are wrong are errors that name file and line.

use libtest_mimic::{Failed, Trial};

use crate::script::{difference, play};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("runner::a_wrong_script_is_an_error_with_file_and_line", wrong_scripts),
        Trial::test("runner::a_trace_that_changed_is_shown_as_a_difference", changed_trace),
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
        ("# x\nnodes 3 witness\n", "a.txt:2: \"nodes 3 witness\": a witness helps beside 2, 4, 6 or 8"),
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
