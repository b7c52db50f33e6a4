//! Deliberate bugs of the core (`tally_core::raft::Mutation`): the simulation finds these, and together with those that
//! the exploration finds they are all there are.

use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use tally_core::id::NodeId;
use tally_core::raft::{MUTATIONS, Member, MemberRole};

use crate::cores::Cores;
use crate::plan::{Plan, WITNESSES};
use crate::sim::Setting;
use crate::world;

/// So many histories at most for each bug; for most a few are enough.
const SEEDS: u64 = 1_000;

/// The tests of the exploration, which is another program: the bugs that it finds are named there.
const EXPLORATION: &str = include_str!("../explore/mutations.rs");

struct Bug {
    name: &'static str,
    cores: Cores,
    bend: fn(&mut Plan),
    invariant: &'static str,
}

/// How a bug was found.
struct Found {
    bug: &'static str,
    seed: u64,
    what: String,
}

/// Whatever plan the seed makes.
const ANY: fn(&mut Plan) = |_| ();

/// A witness beside the same voters for the whole history; much goes wrong, and messages come late and twice.
const WITNESSED: fn(&mut Plan) = |plan| {
    plan.boxes = if plan.boxes < 4 { 2 } else { 4 };
    let voter = |id| Member { id: NodeId(id), role: MemberRole::Voter };
    plan.members = (1..=plan.boxes).map(voter).collect();
    plan.members.push(Member { id: WITNESSES[0], role: MemberRole::Witness });
    plan.changes_every = None;
    plan.calm = 30_000;
    plan.duplicate_permille = 300;
    plan.delay_max = 20_000;
};

/// The same with fewer elections, so that one leader swaps more than once; everything is said twice, much of it late.
const LATE: fn(&mut Plan) = |plan| {
    WITNESSED(plan);
    plan.calm = 100_000;
    plan.short_reigns_permille = 0;
    plan.duplicate_permille = 1_000;
    plan.delay_max = 50_000;
    plan.loss_permille = 0;
};

/// Somebody wishes for other members all the time.
const CHANGING: fn(&mut Plan) = |plan| {
    plan.changes_every = Some(30_000);
    plan.boxes = 7;
};

macro_rules! bugs {
    ($($bug:ident in $bend:ident breaks $invariant:literal,)*) => {
        mod bug {
            $(
                #[allow(non_camel_case_types, reason = "named as the constant is")]
                #[derive(Clone, Copy, Debug)]
                pub(super) enum $bug {}
                impl tally_core::raft::Mutation for $bug {
                    const $bug: bool = true;
                }
            )*
        }
        const BUGS: &[Bug] = &[$(
            Bug {
                name: stringify!($bug),
                cores: Cores::of::<bug::$bug>(),
                bend: $bend,
                invariant: $invariant,
            },
        )*];
    };
}

bugs! {
    SAY_BEFORE_DURABLE in ANY breaks "persist before send",
    ACKNOWLEDGE_BEFORE_DURABLE in ANY breaks "persist before send",
    COUNT_OWN_BEFORE_DURABLE in ANY breaks "durability",
    VOUCH_FOR_REPLACED in ANY breaks "persist before send",
    COMMIT_OLD_TERM in ANY breaks "leader completeness",
    GRANT_TWICE in ANY breaks "election safety",
    GRANT_TO_ANY_LOG in ANY breaks "leader completeness",
    FORGET_SUBTERM in WITNESSED breaks "leader completeness",
    CONFIGURATION_WITHIN_SUBTERM in CHANGING breaks "no honest message refused",
    COUNT_OBSERVERS in CHANGING breaks "durability",
    COUNT_REMOVED_LEADER in CHANGING breaks "durability",
    REMOVED_LEADER_STAYS in CHANGING breaks "progress after healing",
    NON_VOTER_CAMPAIGNS in CHANGING breaks "only voters campaign",
    ONE_HALF_IS_ENOUGH in CHANGING breaks "durability",
    LEAVE_JOINT_EARLY in CHANGING breaks "membership",
    CHANGE_TOO_EARLY in CHANGING breaks "membership",
    CHANGE_WHILE_CHANGING in CHANGING breaks "membership",
    PROMOTE_LAGGING in CHANGING breaks "progress after healing",
    KEEP_DROPPED_CONFIGURATION in CHANGING breaks "membership",
    TRANSFER_TO_LAGGING in ANY breaks "transfer",
    PROPOSE_WHILE_TRANSFERRING in ANY breaks "transfer",
    IGNORE_LEASE in ANY breaks "lease",
    NO_PRE_VOTE in ANY breaks "pre-vote",
    NO_CHECK_QUORUM in ANY breaks "check quorum",
    EMPTY_APPEND_TRUNCATES in ANY breaks "no honest message refused",
    OLD_APPEND_TRUNCATES in ANY breaks "no honest message refused",
    APPEND_WITHOUT_COMPARING in ANY breaks "log matching",
    COMMIT_BEYOND_MATCHED in ANY breaks "state machine safety",
    FULL_WINDOW_HIDES_COMMIT in ANY breaks "commit index told",
    UNBOUNDED_TAIL in ANY breaks "bounded memory",
    COUNT_SILENT_WITNESS in WITNESSED breaks "durability",
    WITNESS_ACROSS_SUBTERMS in WITNESSED breaks "durability",
    WITNESS_BESIDE_ANYBODY in WITNESSED breaks "leader completeness",
    WITNESS_BEFORE_SUB_QUORUM in WITNESSED breaks "replication set",
    SWAP_WITHIN_SUBTERM in WITNESSED breaks "durability",
    RETURN_LAGGING in WITNESSED breaks "replication set",
    WITNESS_ASKED_FIRST in WITNESSED breaks "leader completeness",
    WITNESS_VOTES_TWICE in WITNESSED breaks "witness record",
    WITNESS_IGNORES_SET in WITNESSED breaks "leader completeness",
    WITNESS_TAKES_OLD_RECORD in LATE breaks "witness record",
    WITNESS_SAYS_BEFORE_STORED in WITNESSED breaks "witness record",
}

#[test]
fn each_bug_is_found() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let how = find(bug);
                    found.lock().expect("nobody fails while pushing").push((bug, how));
                }
            });
        }
    });
    let found = found.into_inner().expect("nobody failed");
    let missed: Vec<&str> = found.iter().filter(|(_, how)| how.is_none()).map(|(bug, _)| bug.name).collect();
    found.iter().flat_map(|(_, how)| how).for_each(|how| println!("    {how}"));
    assert_eq!(missed, [""; 0], "the simulation does not find these");
    account();
    // `cargo xtask verify` holds what is named here and by the exploration against how many there are.
    BUGS.iter().for_each(|bug| println!("proof: mutations: {} caught by the simulation", bug.name));
    println!("proof: mutations: {} bugs", MUTATIONS.len());
}

#[test]
fn the_core_without_a_bug_survives_the_same_plans() {
    for bend in [WITNESSED, CHANGING] {
        for seed in 1..=50 {
            world::play(seed, Setting { bend, ..Setting::PLAIN }, false);
        }
    }
}

/// Says how many bugs are found by what, and fails if there is one that nothing finds.
fn account() {
    let simulated: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
    let explored = explored();
    let unknown: Vec<&&str> = explored.iter().filter(|bug| !MUTATIONS.contains(bug)).collect();
    assert!(unknown.is_empty(), "the exploration finds what is no mutation: {unknown:?}");
    let is_found = |bug: &&&str| explored.contains(*bug) || simulated.contains(*bug);
    let unfound: Vec<&&str> = MUTATIONS.iter().filter(|bug| !is_found(bug)).collect();
    assert!(unfound.is_empty(), "nothing finds {unfound:?}");
    let by_both = simulated.iter().filter(|bug| explored.contains(bug)).count();
    println!(
        "mutations: {all} of {all} caught: {} by exploration, {} by simulation, {by_both} of them by both",
        explored.len(),
        simulated.len(),
        all = MUTATIONS.len(),
    );
}

/// Those of lines like `test: BUG in SITE breaks "invariant"`.
fn explored() -> Vec<&'static str> {
    let bug = |line: &'static str| {
        let (before, _) = line.split_once(" breaks \"")?;
        let (before, _) = before.rsplit_once(" in ")?;
        before.rsplit(' ').next()
    };
    EXPLORATION.lines().filter_map(bug).collect()
}

/// Plays seeds until the invariant breaks. Others may break before.
fn find(bug: &Bug) -> Option<Found> {
    let setting = Setting { cores: bug.cores, bend: bug.bend, voters: None };
    (1..=SEEDS).find_map(|seed| {
        let what = quietly(|| world::play(seed, setting, false))?;
        what.starts_with(bug.invariant).then_some(Found { bug: bug.name, seed, what })
    })
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What a history fails with, if it does.
fn quietly<T>(play: impl FnOnce() -> T) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                others(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let played = panic::catch_unwind(AssertUnwindSafe(play));
    IS_QUIET.set(false);
    let why = played.err()?;
    let literal = || why.downcast_ref::<&str>().map(ToString::to_string);
    let text = why.downcast_ref::<String>().cloned().or_else(literal).unwrap_or_default();
    // An assertion of equality says so first.
    let told = text.split_once(" failed: ").filter(|(before, _)| before.starts_with("assertion"));
    Some(told.map_or(text.clone(), |(_, told)| told.to_string()))
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.what.lines().next().unwrap_or_default();
        write!(f, "{}: found in seed {}: {first}", self.bug, self.seed)
    }
}
