//! The deliberate bugs of `tallyd::deliberate`: the simulation must find each of them within few histories.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use tallyd::deliberate::{BUGS, Bug};

use crate::forms::FORMS;
use crate::plan::{Plan, SECOND};
use crate::run;
use crate::sim::Setting;
use crate::world;

/// So many histories at most for each bug; for most a few are enough.
const SEEDS: u64 = 5_000;
/// So many with the same trouble and without a bug.
const SEEDS_WITHOUT: u64 = 25;

thread_local! {
    /// A panic here is the finding, not a failure to be told.
    static HUNTS: Cell<bool> = const { Cell::new(false) };
}

/// How a bug was found.
struct Found {
    bug: Bug,
    seed: u64,
    what: String,
}

/// `TALLYD_SIM_BUG=NAME` hunts for that one alone.
#[test]
fn each_bug_is_found() {
    be_quiet_while_hunting();
    let wanted = std::env::var("TALLYD_SIM_BUG").ok();
    let is_wanted = |bug: &&Bug| wanted.as_ref().is_none_or(|wanted| *wanted == format!("{bug:?}"));
    let bugs: Vec<Bug> = BUGS.iter().filter(is_wanted).copied().collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                HUNTS.set(true);
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let how = hunt(*bug);
                    found.lock().expect("nobody fails while adding").extend(how);
                }
            });
        }
    });
    let mut found = found.into_inner().expect("nobody failed");
    found.sort_by_key(|found| bugs.iter().position(|bug| *bug == found.bug));
    for Found { bug, seed, what } in &found {
        println!("    {bug:?}: found in seed {seed}: {what}");
    }
    let missed: Vec<&Bug> = bugs.iter().filter(|bug| !found.iter().any(|found| found.bug == **bug)).collect();
    assert!(missed.is_empty(), "not found within {SEEDS} histories: {missed:?}");
    // `cargo xtask verify` reads this.
    println!("proof: deliberate bugs of boxes: {} bugs, {} found", bugs.len(), found.len());
}

/// The bug that the environment names.
pub(crate) fn asked_for() -> Option<Setting> {
    let named = |variable| {
        let name = std::env::var(variable).ok()?;
        let bug = BUGS.iter().copied().find(|bug| format!("{bug:?}") == name);
        Some(bug.unwrap_or_else(|| panic!("{variable} is a bug of src/deliberate.rs, not {name:?}")))
    };
    let bug = named("TALLYD_SIM_BUG");
    let bend = bend_for(bug.or_else(|| named("TALLYD_SIM_BEND"))?);
    Some(Setting { bug, bend, calm: None })
}

fn hunt(bug: Bug) -> Option<Found> {
    let setting = Setting { bug: Some(bug), bend: bend_for(bug), calm: None };
    (1..=SEEDS).find_map(|seed| {
        let played = panic::catch_unwind(AssertUnwindSafe(|| world::play(seed, setting, false)));
        let what = played.err()?;
        let what = what
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| what.downcast_ref().map(|&text: &&str| text.into()));
        let what = what.unwrap_or_default();
        // An invariant is named, or the product's own assertion.
        Some(Found { bug, seed, what: what.lines().next().unwrap_or_default().chars().take(160).collect() })
    })
}

/// A finding must be the bug's, not the trouble's.
#[test]
fn the_boxes_without_a_bug_survive_the_same_trouble() {
    for bug in BUGS.iter().filter(|bug| is_bent(**bug)) {
        let setting = Setting { bend: bend_for(*bug), ..Setting::PLAIN };
        for seed in 1..=SEEDS_WITHOUT {
            let _ = run::named(seed, setting, false);
        }
    }
}

/// What makes a bug show more often than chance would: some need trouble of one kind.
fn bend_for(bug: Bug) -> fn(&mut Plan) {
    match bug {
        // A leader that is cut off, and somebody who reads there.
        Bug::ReadsWithoutRound => |plan| {
            (plan.boxes, plan.calm, plan.adders) = (3, 150_000, 3);
        },
        // A stop while batches of an earlier stop are under way.
        Bug::RemovesFileWhileSaving => |plan| plan.calm = 150_000,
        // A leader that is cut off while it connects again.
        Bug::PublishesUnfenced => |plan| {
            (plan.boxes, plan.calm, plan.broker.calm) = (3, 150_000, 200_000);
        },
        // Trouble with the broker, more than with anything else.
        Bug::ForgetsHeld | Bug::TrustsSession => |plan| {
            (plan.level, plan.broker.calm) = (2, 150_000);
        },
        // Connections that break while a number is set aside, where that takes long.
        Bug::ReadsHeldOnce => |plan| {
            (plan.level, plan.boxes, plan.sync_max) = (2, 1, 30_000);
            (plan.broker.breaks_at_asides, plan.broker.delay_max) = (600, 500);
        },
        // Two formats, of which the broker takes one.
        Bug::MixesFormats => |plan| {
            (plan.broker.forms, plan.broker.refuses_for_good) = (FORMS[2], true);
            plan.broker.calm = 300_000;
        },
        // Two formats, one of them CBOR.
        Bug::SettlesByOneFormat | Bug::NegativesOffByOne => |plan| plan.broker.forms = FORMS[2],
        // Answers that come late, and connections that do not last.
        Bug::CountsOldAnswers => |plan| {
            (plan.broker.calm, plan.broker.late_permille) = (150_000, 500);
        },
        // Everybody has an epoch and has counted nothing when the site has stood still for long.
        Bug::NoneIsUnknown => |plan| plan.sleeps = Some(2 * 3_600 * SECOND),
        // Low limits.
        Bug::BoxesNotExempt => |plan| (plan.is_narrow, plan.is_late) = (true, true),
        Bug::JunkStays => |plan| plan.is_narrow = true,
        // Boards without a clock, whose site loses its power.
        Bug::TimeFromApplied => |plan| (plan.has_clocks, plan.calm) = (false, 300_000),
        // Names come and go.
        Bug::RemovalDropsWindows => |plan| plan.fading = 2,
        Bug::CountsForSuccessor => |plan| {
            (plan.boxes, plan.fading, plan.calm, plan.is_narrow) = (3, 3, 300_000, true);
        },
        Bug::ClearsNothing => |plan| (plan.fading, plan.calm) = (2, 500_000),
        // A disk that is put back.
        Bug::ReusesNumbers => |plan| *plan = plan.clone().of_put_back(),
        Bug::MetersByProcess => |plan| plan.pollers = 2,
        // Two boxes and a witness.
        Bug::WitnessAnswersFirst
        | Bug::WitnessSkipsNameSync
        | Bug::WitnessTrustsFailure
        | Bug::WitnessForgetsVote
        | Bug::WitnessForgetsConfirmed
        | Bug::AdmitsEarlier
        | Bug::ToleratesOneMore
        | Bug::ToleratesTooSoon
        | Bug::ToleratesWhileCatchingUp => |plan| {
            (plan.boxes, plan.has_witness, plan.calm, plan.sleeps) = (2, true, 200_000, None);
        },
        Bug::TellsNoWitness | Bug::LeadersAloneTell => |plan| {
            (plan.boxes, plan.has_witness, plan.changes_every) = (2, true, Some(300_000));
        },
        // Members that change often, some of them for the site's last majority.
        Bug::IgnoresMajority
        | Bug::ForgetsOutgoing
        | Bug::WritesNoMembers
        | Bug::WishesTooEarly
        | Bug::LetsGoAtOnce
        | Bug::KeepsRemoved
        | Bug::GoesByFounders
        | Bug::TellsNobody
        | Bug::NeverRestates
        | Bug::RepeatsChanges => |plan| plan.changes_every = Some(300_000),
        _ => |_| (),
    }
}

fn is_bent(bug: Bug) -> bool {
    !std::ptr::fn_addr_eq(bend_for(bug), bend_for(Bug::SavesNothing))
}

fn be_quiet_while_hunting() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !HUNTS.get() {
                tell(info);
            }
        }));
    });
}
