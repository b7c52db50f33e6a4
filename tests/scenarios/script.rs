//! A script: comments, commands, and indented under each command the trace that must come out.

use similar::TextDiff;

use crate::commands;
use crate::site::Site;

const INDENT: &str = "  ";

/// Plays a script and gives it back with the traces that came out.
///
/// The error names file and line: a trace before any command, a command that does not exist or cannot
/// be carried out, an invariant that broke.
pub(crate) fn play(name: &str, script: &str) -> Result<String, String> {
    let mut site = Site::new();
    let mut played = String::new();
    let mut commands = 0;
    for (line, number) in script.lines().zip(1..) {
        let at = |what: &str| format!("{name}:{number}: {line:?}: {what}");
        let bare = line.trim_end();
        if bare.is_empty() || bare.starts_with('#') {
            played.push_str(bare);
            played.push('\n');
            continue;
        }
        if bare.starts_with([' ', '\t']) {
            // What came out last time.
            if commands == 0 {
                return Err(at("a trace stands under a command"));
            }
            continue;
        }
        commands += 1;
        played.push_str(bare);
        played.push('\n');
        let outcome = commands::perform(&mut site, bare);
        for traced in site.take_trace() {
            played.push_str(INDENT);
            played.push_str(&traced);
            played.push('\n');
        }
        outcome.map_err(|why| format!("{}\nuntil then:\n{played}", at(&why)))?;
    }
    if !script.starts_with("# ") {
        return Err(format!("{name}:1: a script begins with a comment that says what it shows"));
    }
    if commands == 0 {
        return Err(format!("{name}: no commands"));
    }
    Ok(played)
}

/// The difference between what is expected and what came out, for people; `None` if there is none.
pub(crate) fn difference(expected: &str, played: &str) -> Option<String> {
    if expected == played {
        return None;
    }
    let diff = TextDiff::from_lines(expected, played);
    let unified = diff.unified_diff().context_radius(4).header("expected", "came out").to_string();
    Some(unified)
}
