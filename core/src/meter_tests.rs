use std::vec;
use std::vec::Vec;

use super::*;
use proptest::prelude::*;

const GRACE: u64 = 2_000;
const BOX1: SourceId = SourceId(1);
const BOX2: SourceId = SourceId(2);

/// A meter, and what it came to.
struct Metered {
    rule: MeterRule,
    meter: Option<Meter>,
    total: u128,
    now: u64,
}

impl Metered {
    fn new(rule: MeterRule) -> Metered {
        Metered { rule, meter: None, total: 0, now: 1_000_000 }
    }

    fn take(&mut self, reading: Reading) -> Outcome {
        let moment = Moment { now: SiteTime(self.now), grace_ms: GRACE };
        let step = step(self.meter.as_ref(), &reading, &self.rule, moment);
        self.meter = Some(step.meter);
        self.total += step.increase;
        step.outcome
    }

    /// Read a second after the one before.
    fn read(&mut self, value: u64) -> Outcome {
        self.read_of(value, 0)
    }

    fn read_of(&mut self, value: u64, incarnation: u64) -> Outcome {
        self.now += 1_000;
        self.take(Reading { value, heard: SiteTime(self.now), source: BOX1, incarnation })
    }
}

/// The increases of readings, a second apart.
fn increases(rule: MeterRule, readings: &[u64]) -> Vec<u128> {
    let mut metered = Metered::new(rule);
    let step = |&value: &u64| {
        let before = metered.total;
        metered.read(value);
        metered.total - before
    };
    readings.iter().map(step).collect()
}

const fn ceiling(ceiling: u64) -> MeterRule {
    MeterRule { ceiling: Some(ceiling), ..MeterRule::DEFAULT }
}

#[test]
fn increases_are_counted_from_the_first_reading_on() {
    let plain = MeterRule::DEFAULT;
    for (rule, readings, expected) in [
        (plain, &[1_000][..], &[0][..]),
        (plain, &[1_000, 1_000, 1_010], &[0, 0, 10]),
        // A restart: the value is the growth since zero.
        (plain, &[1_000, 7, 9], &[0, 7, 2]),
        (plain, &[1_000, 7, 1_009], &[0, 7, 1_002]),
        // A restart that is seen at zero: the value between tells it from a glitch.
        (plain, &[1_000, 0, 9, 2_000], &[0, 0, 9, 1_991]),
        (plain, &[5, 0, 3], &[0, 0, 3]),
        // Zero for a moment, once, twice, several times, or nearly zero.
        (plain, &[1_000, 0, 1_009], &[0, 0, 9]),
        (plain, &[1_000, 0, 1_000, 0, 0, 1_001], &[0, 0, 0, 0, 0, 1]),
        (plain, &[1_000_000, 400, 0, 600, 1_000_001], &[0, 0, 0, 0, 1]),
        // A step back of 0.1 % and 1,000 at most, and up again.
        (plain, &[109_446_502, 109_446_501, 109_446_503], &[0, 0, 1]),
        (plain, &[2_000_000, 1_999_000, 2_000_001], &[0, 0, 1]),
        (plain, &[2_000_000, 1_998_999, 2_000_001], &[0, 1_998_999, 1_002]),
        (plain, &[999, 998, 999], &[0, 998, 1]),
        (plain, &[0, u64::MAX], &[0, u64::MAX as u128]),
        // A wrap of 8 bits, and a restart.
        (ceiling(256), &[250, 255, 4], &[0, 5, 5]),
        (ceiling(256), &[250, 256, 1, 2], &[0, 6, 1, 1]),
        (ceiling(256), &[200, 100], &[0, 100]),
        (ceiling(1 << 32), &[1_000, 5], &[0, 5]),
        // That the value is about zero is no reason to take a wrap for more or less than it is.
        (ceiling(1 << 32), &[(1 << 32) - 3, 0, (1 << 32) - 2], &[0, 0, 1]),
        (ceiling(1 << 32), &[(1 << 32) - 3, 2, 5_000_000], &[0, 0, 5_000_003]),
        (ceiling(u64::MAX), &[u64::MAX, 0, 1_000_000_000], &[0, 0, 1_000_000_000]),
    ] {
        assert_eq!(increases(rule, readings), expected, "{rule:?} {readings:?}");
    }
}

#[test]
fn a_wrap_and_a_reset_of_32_bits_count_what_is_left_and_what_is_there() {
    for (readings, expected) in [([1_000, 5], 5), ([(1 << 32) - 3, 2], 5)] {
        let mut metered = Metered::new(ceiling(1 << 32));
        let _ = readings.map(|value| metered.read(value));
        // About zero: certain when it has not come back.
        metered.now += GLITCH_WINDOW_MS;
        metered.read(readings[1]);
        assert_eq!(metered.total, expected, "{readings:?}");
    }
}

#[test]
fn a_zero_that_stays_is_a_restart_with_or_without_a_further_reading() {
    for by_reading in [true, false] {
        let mut metered = Metered::new(MeterRule::DEFAULT);
        metered.read(5_000_000);
        assert_eq!(metered.read(800), Outcome::Fell);
        assert_eq!(metered.total, 0);
        if by_reading {
            metered.now += GLITCH_WINDOW_MS;
            assert_eq!(metered.read(900), Outcome::Restarted);
        } else {
            let meter = metered.meter.as_mut().unwrap();
            assert_eq!(meter.due(), Some(SiteTime(metered.now + GLITCH_WINDOW_MS + GRACE)));
            metered.total += meter.settle();
            assert_eq!((metered.total, meter.due()), (800, None));
            metered.read(900);
        }
        assert_eq!(metered.total, 900);
        // Now it is no glitch any more.
        metered.read(5_000_001);
        assert_eq!(metered.total, 5_000_001);
    }
}

#[test]
fn without_a_glitch_window_a_fall_to_zero_is_a_restart_at_once() {
    let rule = MeterRule { glitch_window_ms: 0, ..MeterRule::DEFAULT };
    assert_eq!(increases(rule, &[1_000_000, 500, 600]), [0, 500, 100]);
}

#[test]
fn another_incarnation_began_at_zero_however_much_it_shows() {
    let mut metered = Metered::new(MeterRule::DEFAULT);
    for (value, incarnation, total) in [
        (1_000, 0, 0),
        // Told for the first time: no other one.
        (1_010, 7, 10),
        (2_000, 8, 2_010),
        (2_001, 0, 2_011),
        (1_999, 9, 4_010),
        // Of the incarnation before, and the present one again.
        (0, 9, 4_010),
        (3, 10, 4_013),
        (5, 10, 4_015),
    ] {
        metered.read_of(value, incarnation);
        assert_eq!(metered.total, total, "{value} of {incarnation}");
    }
    assert_eq!(metered.read_of(6, 11), Outcome::Restarted);
}

#[test]
fn a_late_reading_changes_nothing() {
    let mut metered = Metered::new(MeterRule::DEFAULT);
    metered.read(1_000);
    metered.now += 10_000;
    metered.read(1_500);
    let known = metered.meter;
    let heard = |back: u64| SiteTime(metered.now - back);
    for (reading, why) in [
        (Reading { value: 9_000, heard: heard(GRACE + 1), source: BOX2, incarnation: 0 }, "long ago"),
        (Reading { value: 9_000, heard: heard(GRACE + 1), source: BOX1, incarnation: 3 }, "long ago"),
        (Reading { value: 200, heard: heard(1), source: BOX1, incarnation: 0 }, "overtaken"),
        (Reading { value: 200, heard: heard(0), source: BOX2, incarnation: 0 }, "who knows which was first"),
        (
            Reading { value: 200, heard: SiteTime(u64::MAX), source: BOX2, incarnation: 0 },
            "a clock that is ahead",
        ),
    ] {
        let moment = Moment { now: SiteTime(metered.now), grace_ms: GRACE };
        let step = step(known.as_ref(), &reading, &MeterRule::DEFAULT, moment);
        assert_eq!((step.outcome, step.increase, Some(step.meter)), (Outcome::Late, 0, known), "{why}");
    }
    // What is more is growth, whoever heard it first.
    metered.take(Reading { value: 1_600, heard: SiteTime(metered.now - 5), source: BOX2, incarnation: 0 });
    assert_eq!(metered.total, 600);
    // A restart that two boxes hear counts once.
    for (source, later) in [(BOX2, 5_000), (BOX1, 5_001), (BOX2, 5_002)] {
        let heard = SiteTime(metered.now + later);
        metered.now += 10_000;
        metered.take(Reading { value: 30, heard, source, incarnation: 0 });
        metered.now -= 10_000;
    }
    assert_eq!(metered.total, 630);
}

#[test]
fn a_jump_is_held_until_it_has_stood_and_dropped_when_it_has_not() {
    let rule = MeterRule { step_max: Some(100), ..MeterRule::DEFAULT };
    let mut metered = Metered::new(rule);
    metered.read(1_000);
    assert_eq!(metered.read(1_100), Outcome::Grew);
    assert_eq!(metered.read(9_000), Outcome::Held);
    assert_eq!(metered.read(9_010), Outcome::Unchanged);
    assert_eq!(metered.total, 100);
    // It was false.
    assert_eq!(metered.read(1_150), Outcome::Grew);
    assert_eq!(metered.total, 150);
    assert_eq!(metered.read(9_000), Outcome::Held);
    metered.now += GLITCH_WINDOW_MS;
    assert_eq!(metered.read(9_020), Outcome::Confirmed);
    assert_eq!(metered.total, 8_020);
    // A restart from zero by more than that, too.
    assert_eq!(metered.read(500), Outcome::Held);
    assert_eq!(metered.total, 8_020);
    metered.now += GLITCH_WINDOW_MS;
    metered.read(510);
    assert_eq!(metered.total, 8_530);
    assert_eq!(metered.read(300), Outcome::Held);
    assert_eq!(metered.read(520), Outcome::Grew);
    assert_eq!(metered.total, 8_540);
}

#[test]
fn a_meter_that_only_jumps_is_counted_all_the_same() {
    let rule = MeterRule { step_max: Some(10), ..MeterRule::DEFAULT };
    let mut metered = Metered::new(rule);
    for second in 0..100 {
        metered.read(1_000 + second * 50);
    }
    assert!(metered.total >= 75 * 50, "{}", metered.total);
    for _ in 0..2 {
        metered.now += GLITCH_WINDOW_MS;
        metered.read(1_000 + 99 * 50);
    }
    assert_eq!(metered.total, 99 * 50);
}

#[test]
fn a_jump_is_released_when_the_bound_is() {
    let mut metered = Metered::new(MeterRule { step_max: Some(10), ..MeterRule::DEFAULT });
    metered.read(1_000);
    assert_eq!(metered.read(5_000), Outcome::Held);
    metered.rule.step_max = None;
    assert_eq!(metered.read(5_001), Outcome::Grew);
    assert_eq!(metered.total, 4_001);
}

#[test]
fn the_noise_can_be_set_and_never_hides_a_restart() {
    let rule = MeterRule { noise: Some(50), ..MeterRule::DEFAULT };
    assert_eq!(increases(rule, &[1_000, 950, 1_001]), [0, 0, 1]);
    assert_eq!(increases(rule, &[1_000, 949]), [0, 949]);
    // More than half back is none.
    assert_eq!(increases(rule, &[40, 19]), [0, 0], "about zero: it waits");
    assert_eq!(increases(rule, &[60, 25, 31, 32]), [0, 0, 0, 0], "waits, and is back within the noise");
    let none = MeterRule { noise: Some(0), ..MeterRule::DEFAULT };
    assert_eq!(increases(none, &[1_000_000, 999_999]), [0, 999_999]);
}

#[test]
fn after_site_time_was_set_back_readings_are_not_late() {
    let mut metered = Metered::new(MeterRule::DEFAULT);
    metered.read(1_000);
    metered.read(0);
    metered.now -= 500_000;
    metered.meter.as_mut().unwrap().step_clock(SiteTime(metered.now));
    let due = metered.meter.unwrap().due().unwrap();
    assert!(due.0 <= metered.now + GLITCH_WINDOW_MS + GRACE);
    metered.read(1_003);
    assert_eq!(metered.total, 3);
}

/// A incarnation of a meter as it grows.
fn incarnation() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..5_000_000, 1..12).prop_map(|mut values| {
        values.sort_unstable();
        values
    })
}

fn any_rule() -> impl Strategy<Value = MeterRule> {
    (
        prop::option::of(1_000u64..100_000),
        prop::option::of(0u64..2_000),
        prop_oneof![Just(0), Just(3_000), Just(GLITCH_WINDOW_MS)],
        prop::option::of(1u64..100_000),
    )
        .prop_map(|(ceiling, noise, glitch_window_ms, step_max)| MeterRule {
            ceiling,
            noise,
            glitch_window_ms,
            step_max,
        })
}

proptest! {
    #[test]
    fn incarnations_that_are_told_count_in_full(incarnations in prop::collection::vec(incarnation(), 1..6), pauses in any::<u64>()) {
        let mut metered = Metered::new(MeterRule::DEFAULT);
        let mut expected = u128::from(incarnations[0][incarnations[0].len() - 1] - incarnations[0][0]);
        expected += incarnations[1..].iter().map(|incarnation| u128::from(incarnation[incarnation.len() - 1])).sum::<u128>();
        for (number, incarnation) in incarnations.iter().enumerate() {
            for (place, value) in incarnation.iter().enumerate() {
                // Read at any intervals, over outages even.
                metered.now += (pauses >> ((number + place) % 48)) % 100_000;
                metered.read_of(*value, number as u64 + 1);
            }
        }
        prop_assert_eq!(metered.total, expected);
    }

    #[test]
    fn a_meter_that_grows_is_counted_once_whoever_hears_it_in_whatever_order(
        steps in prop::collection::vec((0u64..3_000, 0u64..1_000, 0u64..4), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let (mut value, mut heard) = (5_000, 1_000_000);
        let mut readings = Vec::new();
        for (pass, growth, source) in steps {
            heard += pass;
            value += growth;
            // The boxes' views of site time differ by less than the grace.
            let skew = source * 400;
            readings.push(Reading { value, heard: SiteTime(heard + skew), source: SourceId(source), incarnation: 0 });
        }
        let mut delivered = vec![readings.remove(0)];
        for index in order.iter().take(readings.len()) {
            delivered.push(readings.remove(index.index(readings.len())));
        }
        let mut metered = Metered::new(MeterRule::DEFAULT);
        metered.now = heard + 10_000;
        for reading in &delivered {
            metered.take(*reading);
        }
        // The latest by its time is in, or one that is at most the grace older.
        let last = delivered.iter().map(|reading| reading.heard).max().unwrap();
        let sure = delivered.iter().filter(|reading| reading.heard == last).map(|reading| reading.value);
        let (least, most) = (sure.min().unwrap(), value);
        let first = 5_000.max(delivered[0].value);
        prop_assert!(metered.total <= u128::from(most - first), "{} of {}", metered.total, most - first);
        prop_assert!(metered.total >= u128::from(least - first), "{} of {}", metered.total, least - first);
    }

    #[test]
    fn steps_back_within_the_noise_count_nothing(backs in prop::collection::vec((0u64..500, 0u64..1_000), 1..40)) {
        let mut metered = Metered::new(MeterRule::DEFAULT);
        let mut value = 3_000_000;
        metered.read(value);
        let mut most = value;
        for (growth, back) in backs {
            value += growth;
            metered.read(value);
            most = most.max(value);
            metered.read(value - back);
            prop_assert_eq!(metered.total, u128::from(most - 3_000_000));
        }
    }

    #[test]
    fn readings_that_say_nothing_more_can_be_left_out(
        rule in any_rule(),
        values in prop::collection::vec(prop_oneof![3 => 0u64..20_000, 1 => Just(0), 1 => 0u64..20], 2..30),
        passes in prop::collection::vec(0u64..12_000, 30),
        ascending in any::<bool>(),
    ) {
        let mut values = values;
        if ascending {
            values.sort_unstable();
        }
        let rule = MeterRule { ceiling: rule.ceiling.map(|ceiling| ceiling.max(20_000)), step_max: None, ..rule };
        let mut all = Metered::new(rule);
        let mut some = Metered::new(rule);
        let mut waiting: Option<(Reading, u64, bool)> = None;
        for (value, pass) in values.into_iter().zip(passes) {
            all.now += pass;
            let reading = Reading { value, heard: SiteTime(all.now), source: BOX1, incarnation: 0 };
            let moment = Moment { now: SiteTime(all.now), grace_ms: GRACE };
            let was_plain = all.meter.is_some_and(|meter| meter.pending == Pending::None);
            let step = step(all.meter.as_ref(), &reading, &rule, moment);
            all.take(reading);
            let is_plain = was_plain && step.is_plain();
            if is_plain && step.outcome != Outcome::Grew {
                // What shows no more than is counted says nothing to anybody.
                continue;
            }
            let replaced = waiting.replace((reading, all.now, is_plain));
            if let Some((before, now, plain)) = replaced
                && !(plain && is_plain)
            {
                some.now = now;
                some.take(before);
            }
        }
        if let Some((before, now, _)) = waiting {
            some.now = now;
            some.take(before);
        }
        if let (Some(meter), Some(other)) = (all.meter, some.meter) {
            prop_assert_eq!((all.total, meter.base), (some.total, other.base));
        }
    }

    #[test]
    fn nothing_is_counted_twice_or_panics_whatever_is_shown(
        rule in any_rule(),
        readings in prop::collection::vec((any::<u64>(), 0u32..64, 0u64..15_000, 0u64..3, 0u64..3), 1..40),
    ) {
        let mut metered = Metered::new(rule);
        let mut most = 0u128;
        for (value, shift, pass, source, incarnation) in readings {
            metered.now += pass;
            let value = value >> shift;
            metered.take(Reading { value, heard: SiteTime(metered.now), source: SourceId(source), incarnation });
            // A step counts the value at most, and what was left up to the ceiling.
            most += u128::from(value) + u128::from(rule.ceiling.unwrap_or(0));
            prop_assert!(metered.total <= most);
        }
    }
}
