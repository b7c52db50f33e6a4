//! Whether what clients were told of one counter is linearizable, and counts each acknowledged add once and
//! each unknown one at most once.
//!
//! Amounts are positive, so totals order the adds: an add that was answered total `T` is what took the counter
//! to `T`, and everything that was told of larger totals comes after it. What is left to check is that the adds
//! fit together without a gap or an overlap, that gaps can be filled by adds of unknown outcome, and that no
//! operation ended before one began that the totals put in front of it. It takes one sort: n log n.

use std::ops::Range;

/// One operation as its client saw it. Times are of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) begun: u64,
    pub(crate) told: Told,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// An add was acknowledged with the total that it made.
    Added { amount: u64, total: u64, ended: u64 },
    /// A linearizable read was answered.
    Read { total: u64, ended: u64 },
    /// An add of 1 was never answered: it may have been counted at any time since, or not.
    Unknown,
}

/// What a history comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) adds: usize,
    pub(crate) reads: usize,
    pub(crate) unknown: usize,
    /// How many of the unknown ones were counted.
    pub(crate) counted: usize,
}

/// An event in the order of totals: of equal totals adds come first.
#[derive(Clone, Copy, Debug)]
struct Step {
    total: u64,
    kind: Kind,
    begun: u64,
    ended: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Add,
    /// An add of 1 that nobody was told of.
    Filled,
    Read,
}

/// Checks the history of a counter that began at zero. `Err` says what cannot have been.
pub(crate) fn check(ops: &[Op]) -> Result<Summary, String> {
    let unknown = sorted(ops.iter().filter(|op| op.told == Told::Unknown).map(|op| op.begun).collect());
    let mut steps: Vec<Step> = ops.iter().filter_map(Step::of).collect();
    steps.sort_by_key(|step| (step.total, step.kind));
    let spans = ops.iter().filter_map(span).collect::<Result<_, _>>()?;
    let counted = fill(&mut steps, spans, unknown.len())?;
    assign(&mut steps, &unknown)?;
    check_order(&steps)?;
    let count = |kind| steps.iter().filter(|step| step.kind == kind).count();
    Ok(Summary { adds: count(Kind::Add), reads: count(Kind::Read), unknown: unknown.len(), counted })
}

impl Step {
    fn of(op: &Op) -> Option<Step> {
        let (total, kind, ended) = match op.told {
            Told::Added { total, ended, .. } => (total, Kind::Add, ended),
            Told::Read { total, ended } => (total, Kind::Read, ended),
            Told::Unknown => return None,
        };
        Some(Step { total, kind, begun: op.begun, ended })
    }
}

/// What an acknowledged add took the total from and to.
fn span(op: &Op) -> Option<Result<Range<u64>, String>> {
    let Told::Added { amount, total, .. } = op.told else { return None };
    let before = total.checked_sub(amount).filter(|before| *before < total);
    Some(
        before
            .map(|before| before..total)
            .ok_or_else(|| format!("an add of {amount} made a total of {total}")),
    )
}

/// Puts adds of 1 into the gaps between the acknowledged ones; how many.
fn fill(steps: &mut Vec<Step>, mut spans: Vec<Range<u64>>, unknown: usize) -> Result<usize, String> {
    spans.sort_by_key(|span| (span.end, span.start));
    let highest = steps.last().map_or(0, |step| step.total);
    let mut filled = Vec::new();
    let mut at = 0;
    // At the end what only reads saw.
    spans.push(highest..highest);
    for span in spans {
        if span.start < at {
            return Err(format!(
                "an add is said to have taken the total from {} to {}, and others had taken it to {at} already: \
                 an add was lost, or two count as one",
                span.start, span.end
            ));
        }
        if span.start - at > (unknown - filled.len()) as u64 {
            return Err(format!(
                "the total went from {at} to {} without an add that was acknowledged, and only {} of {unknown} of \
                 unknown outcome are left for that: something was counted twice",
                span.start,
                unknown - filled.len()
            ));
        }
        filled.extend((at + 1..=span.start).map(|total| Step {
            total,
            kind: Kind::Filled,
            begun: 0,
            ended: u64::MAX,
        }));
        check_between(steps, &span)?;
        at = span.end;
    }
    let counted = filled.len();
    steps.extend(filled);
    steps.sort_by_key(|step| (step.total, step.kind));
    Ok(counted)
}

/// Nobody can have read a total inside an add.
fn check_between(steps: &[Step], span: &Range<u64>) -> Result<(), String> {
    let after = steps.partition_point(|step| step.total <= span.start);
    match steps.get(after) {
        Some(inside) if inside.total < span.end => Err(format!(
            "{} was read, and an add took the total from {} to {} at once",
            inside.total, span.start, span.end
        )),
        _ => Ok(()),
    }
}

/// Chooses which unknown adds were counted where. An add of 1 at some total must have begun before anything
/// ended that saw a larger total; those bounds rise with the total, so taking the earliest first is best.
fn assign(steps: &mut [Step], unknown: &[u64]) -> Result<(), String> {
    let mut bounds = Vec::new();
    let mut bound = u64::MAX;
    for step in steps.iter().rev() {
        match step.kind {
            Kind::Filled => bounds.push(bound),
            _ => bound = bound.min(step.ended),
        }
    }
    let filled = steps.iter_mut().filter(|step| step.kind == Kind::Filled);
    for ((step, bound), begun) in filled.zip(bounds.into_iter().rev()).zip(unknown) {
        if *begun > bound {
            return Err(format!(
                "someone saw more than {} at {bound}, before any add began that could have made it so ({begun})",
                step.total
            ));
        }
        step.begun = *begun;
    }
    Ok(())
}

/// Nothing ended before something began that comes before it. Reads of one total may be in any order.
fn check_order(steps: &[Step]) -> Result<(), String> {
    let mut latest: Option<Step> = None;
    for same in steps.chunk_by(|one, other| (one.total, one.kind) == (other.total, other.kind)) {
        for step in same {
            if let Some(before) = latest.filter(|before| step.ended < before.begun) {
                return Err(format!(
                    "{step:?} ended before {before:?} began, and the totals say that it came after: someone was \
                     told an old total"
                ));
            }
        }
        latest = same.iter().copied().chain(latest).max_by_key(|step| step.begun);
    }
    Ok(())
}

fn sorted(mut times: Vec<u64>) -> Vec<u64> {
    times.sort_unstable();
    times
}
