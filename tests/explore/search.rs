//! Depth first through all states, each once; the way to a violation is made short before it is told.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::explored::Explored;
use crate::hash::Seen;
use crate::state::{Choice, Met, State, Stop, Story};

/// So many states are kept at most: about 2 GB.
const STATES_MAX: usize = 60_000_000;

/// What came of a search.
pub(crate) struct Found {
    pub(crate) states: usize,
    transitions: u64,
    deepest: usize,
    /// Every state within the bounds was visited.
    pub(crate) complete: bool,
    /// A violated invariant, and the story that leads there.
    pub(crate) violation: Option<(String, Vec<String>)>,
    pub(crate) took: Duration,
    pub(crate) met: Rc<Met>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { states, transitions, deepest, complete, violation, took, .. } = self;
        let seconds = took.as_secs_f64();
        let what = match (complete, violation) {
            (true, _) => "complete within its bounds",
            (false, None) => "NOT complete in its time",
            (false, Some(_)) => "stopped at a violation",
        };
        write!(
            f,
            "{states} states, {transitions} transitions, up to {deepest} steps deep, in {seconds:.1} s: {what}"
        )
    }
}

struct Frame<C: Explored> {
    state: State<C>,
    choices: Vec<Choice>,
}

/// Visits what can be visited in this time.
pub(crate) fn search<C: Explored>(start: &State<C>, time: Duration) -> Found {
    let began = Instant::now();
    let mut found = Found {
        states: 1,
        transitions: 0,
        deepest: 0,
        complete: true,
        violation: None,
        took: Duration::ZERO,
        met: Rc::clone(&start.met),
    };
    let mut seen = Seen::default();
    seen.insert(start.hash());
    let mut stack = vec![Frame { choices: start.choices(), state: start.clone() }];
    let mut path = Vec::new();
    while let Some(frame) = stack.last_mut() {
        let Some(choice) = frame.choices.pop() else {
            stack.pop();
            path.pop();
            continue;
        };
        found.transitions += 1;
        match step(&frame.state, choice, &mut None) {
            Ok(state) => {
                if seen.insert(state.hash()) {
                    path.push(choice);
                    found.deepest = found.deepest.max(path.len());
                    stack.push(Frame { choices: state.choices(), state });
                }
            }
            Err(Stop::Impossible) => {}
            Err(Stop::Violation(_)) => {
                path.push(choice);
                found.violation = Some(story_of(start, shortened(start, path)));
                found.complete = false;
                break;
            }
        }
        if found.transitions.is_multiple_of(256) && (began.elapsed() > time || seen.len() > STATES_MAX) {
            found.complete = false;
            break;
        }
    }
    found.states = seen.len();
    found.took = began.elapsed();
    found
}

/// A panic of the core or of its driver is a violation too.
fn step<C: Explored>(state: &State<C>, choice: Choice, story: &mut Story<'_>) -> Result<State<C>, Stop> {
    catch_unwind(AssertUnwindSafe(|| state.after(choice, story))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Stop::Violation(format!("panic: {}", text.unwrap_or_default())))
    })
}

/// Leaves out whatever is not needed for a violation.
fn shortened<C: Explored>(start: &State<C>, path: Vec<Choice>) -> Vec<Choice> {
    let mut path = path;
    let mut length = usize::MAX;
    while path.len() < length {
        length = path.len();
        for left_out in (0..path.len()).rev() {
            let mut shorter = path.clone();
            if left_out < shorter.len() {
                shorter.remove(left_out);
            }
            if let Some(enough) = violating(start, &shorter) {
                path = enough;
            }
        }
    }
    path
}

/// The choices of these that could be made, up to a violation; `None` if there is none.
fn violating<C: Explored>(start: &State<C>, path: &[Choice]) -> Option<Vec<Choice>> {
    let mut state = start.clone();
    let mut made = Vec::new();
    for choice in path {
        match step(&state, *choice, &mut None) {
            Ok(next) => {
                made.push(*choice);
                state = next;
            }
            Err(Stop::Impossible) => {}
            Err(Stop::Violation(_)) => {
                made.push(*choice);
                return Some(made);
            }
        }
    }
    None
}

fn story_of<C: Explored>(start: &State<C>, path: Vec<Choice>) -> (String, Vec<String>) {
    let mut state = start.clone();
    let mut lines = Vec::new();
    for choice in path {
        match step(&state, choice, &mut Some(&mut lines)) {
            Ok(next) => state = next,
            Err(Stop::Violation(what)) => return (what, lines),
            Err(Stop::Impossible) => {}
        }
    }
    ("the violation does not come again".to_owned(), lines)
}
