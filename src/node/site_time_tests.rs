use proptest::prelude::*;

use super::*;

/// 2026-07-01, Unix microseconds.
const TODAY: i64 = 1_782_864_000_000_000;
const HOUR: i64 = 3_600_000_000;
const WEEK: i64 = 168 * HOUR;
const BEAT: u64 = 50_000;

/// A box's wall clock.
#[derive(Clone, Copy, Debug)]
struct Board {
    /// How far it is off at the start, microseconds.
    off_us: i64,
    /// How fast the clock runs, in millionths above the true rate.
    fast_ppm: i64,
    synced: bool,
    heard: bool,
}

const GOOD: Board = Board { off_us: 0, fast_ppm: 0, synced: true, heard: true };
const UNSYNCED: Board = Board { synced: false, ..GOOD };
const IN_1970: Board = Board { off_us: -TODAY, ..UNSYNCED };
const NEXT_WEEK: Board = Board { off_us: WEEK, ..UNSYNCED };
const FAST: Board = Board { fast_ppm: 500_000, ..UNSYNCED };

impl Board {
    fn wall_us(&self, now: Instant) -> u64 {
        let passed = now.0 as i64;
        (TODAY + passed + self.off_us + passed / 1_000_000 * self.fast_ppm).max(0) as u64
    }
}

/// A leader, the first of the boards, in true time.
struct Site {
    boards: Vec<Board>,
    times: SiteTimes,
    now: Instant,
    round_trip: Duration,
}

impl Site {
    /// Whose site time is `ahead_us` of the true time at the start.
    fn at(ahead_us: i64, boards: &[Board]) -> Site {
        Site::from(Some(SiteTime((TODAY + ahead_us) as u64 / 1000)), boards, Instant(0))
    }

    fn from(from: Option<SiteTime>, boards: &[Board], now: Instant) -> Site {
        let mut times = SiteTimes::new(NodeId(1), from, true, now);
        times.set_voters((1..=boards.len() as u64).map(NodeId));
        Site { boards: boards.to_vec(), times, now, round_trip: Duration(1000) }
    }

    fn heartbeat(&mut self) -> Option<Decided> {
        self.now += Duration(BEAT);
        for (board, id) in self.boards.iter().zip(1..).skip(1) {
            if board.heard {
                let answered = Instant(self.now.0 - self.round_trip.0 / 2);
                let wall_us = board.wall_us(answered);
                let reading = Reading { wall_us, synced: board.synced, round_trip: self.round_trip };
                self.times.on_reading(NodeId(id), reading, self.now);
            }
        }
        let own = self.boards[0];
        self.times.decide(Wall { us: own.wall_us(self.now), synced: own.synced }, self.now)
    }

    /// Lets seconds pass; site time never goes back.
    fn pass(&mut self, seconds: u64) -> Decided {
        let mut last: Option<Decided> = None;
        for _ in 0..seconds * 1_000_000 / BEAT {
            let next = self.heartbeat();
            if let (Some(last), Some(next)) = (last, next) {
                assert!(next.site >= last.site, "{last:?} {next:?}");
            }
            last = next.or(last);
        }
        last.expect("a time was decided")
    }

    /// How far a time is ahead of the true one, milliseconds.
    fn ahead_ms(&self, decided: Decided) -> i64 {
        decided.site.0 as i64 - (TODAY + self.now.0 as i64) / 1000
    }
}

#[test]
fn one_bad_board_does_not_move_site_time_wherever_it_stands() {
    for bad in [IN_1970, NEXT_WEEK, FAST] {
        for place in 0..3 {
            for others in [GOOD, UNSYNCED] {
                let mut boards = [others; 3];
                boards[place] = bad;
                let mut site = Site::at(0, &boards);
                let decided = site.pass(60);
                assert!(site.ahead_ms(decided).abs() <= 2, "{boards:?}: {}", site.ahead_ms(decided));
                assert_eq!((decided.synced, decided.held), (others.synced, None));
            }
        }
    }
}

#[test]
fn one_bad_board_does_not_move_it_while_a_good_one_is_away() {
    for bad in [IN_1970, NEXT_WEEK] {
        let mut site = Site::at(0, &[UNSYNCED, bad, UNSYNCED]);
        site.pass(5);
        site.boards[2].heard = false;
        let decided = site.pass(600);
        assert!(site.ahead_ms(decided).abs() <= 2, "{}", site.ahead_ms(decided));
    }
}

#[test]
fn a_bad_board_that_alone_calls_itself_synchronised_gets_an_hour_at_most() {
    for (bad, limit_ms) in
        [(Board { synced: true, ..FAST }, HOUR / 1000), (Board { synced: true, ..NEXT_WEEK }, 2)]
    {
        let mut site = Site::at(0, &[UNSYNCED, bad, UNSYNCED]);
        let decided = site.pass(9_000);
        assert!((0..=limit_ms).contains(&site.ahead_ms(decided)), "{}", site.ahead_ms(decided));
        assert!(decided.held.is_some() && !decided.synced);
    }
    let mut site = Site::at(0, &[UNSYNCED, Board { synced: true, ..IN_1970 }, UNSYNCED]);
    let decided = site.pass(60);
    assert!(site.ahead_ms(decided).abs() <= 2, "it does not brake either");
}

#[test]
fn a_majority_corrects_it_and_it_slews_back_at_half_speed() {
    let mut site = Site::at(60_000_000, &[GOOD, GOOD, NEXT_WEEK]);
    let decided = site.pass(60);
    assert!((29_990..=30_010).contains(&site.ahead_ms(decided)), "{}", site.ahead_ms(decided));
    assert!(!decided.synced, "it is half a minute off");
    let decided = site.pass(61);
    assert!(site.ahead_ms(decided).abs() <= 2, "they met: {}", site.ahead_ms(decided));
    assert!(decided.synced);
}

#[test]
fn a_little_ahead_is_followed_at_once() {
    let mut site = Site::at(-HOUR + 1_000_000, &[UNSYNCED; 3]);
    let decided = site.heartbeat().unwrap();
    assert!(site.ahead_ms(decided).abs() <= 2);
    assert_eq!((decided.synced, decided.held), (false, None));
}

#[test]
fn a_jump_is_held_without_synchronised_clocks_until_an_operator_says_so() {
    let mut site = Site::at(-2 * HOUR, &[UNSYNCED; 3]);
    let decided = site.pass(600);
    assert!((site.ahead_ms(decided) + 7_200_000).abs() <= 2, "it goes on by the monotonic clock");
    let held = decided.held.expect("it is shown").0 as i64;
    assert!((held - (TODAY + site.now.0 as i64) / 1000).abs() <= 2);
    let (from, to) = site.times.step(site.now).unwrap();
    assert_eq!((from, to.0 as i64), (decided.site, held));
    let decided = site.pass(1);
    assert!(site.ahead_ms(decided).abs() <= 2);
    assert_eq!(decided.held, None);
}

#[test]
fn an_operator_sets_it_back_too() {
    let mut site = Site::at(WEEK, &[GOOD; 3]);
    site.pass(1);
    let (from, to) = site.times.step(site.now).unwrap();
    assert!(to < from);
    let decided = site.pass(5);
    assert!(site.ahead_ms(decided).abs() <= 2);
}

#[test]
fn a_jump_is_taken_when_a_synchronised_majority_agrees_in_two_rounds() {
    let mut site = Site::at(-WEEK, &[GOOD, GOOD, IN_1970]);
    let first = site.heartbeat().unwrap();
    assert!(first.held.is_some(), "one round is not enough");
    let decided = site.pass(2);
    assert!(site.ahead_ms(decided).abs() <= 2);
    assert!(decided.synced && decided.held.is_none());
}

#[test]
fn a_jump_is_not_taken_on_the_word_of_a_minority_or_of_clocks_that_disagree() {
    let apart = Board { off_us: 1_100_000, ..GOOD };
    let silent = Board { heard: false, ..GOOD };
    for boards in [
        vec![GOOD, UNSYNCED, UNSYNCED],
        vec![GOOD, apart, IN_1970],
        vec![GOOD, silent, UNSYNCED],
        vec![GOOD, GOOD, UNSYNCED, UNSYNCED],
    ] {
        let mut site = Site::at(-WEEK, &boards);
        let decided = site.pass(60);
        assert!(decided.held.is_some() && !decided.synced, "{boards:?}");
        assert!((site.ahead_ms(decided) + WEEK / 1000).abs() <= 2, "{boards:?}");
    }
}

#[test]
fn an_agreement_that_changes_its_mind_begins_anew() {
    let mut site = Site::at(-WEEK, &[GOOD; 3]);
    for _ in 0..100 {
        // Before the second round all clocks are set again.
        for _ in 0..15 {
            let decided = site.heartbeat().unwrap();
            assert!(decided.held.is_some());
        }
        for board in &mut site.boards {
            board.off_us += 2_000_000;
        }
    }
    let decided = site.pass(3);
    assert_eq!((decided.held, site.ahead_ms(decided) / 1000), (None, 200));
}

#[test]
fn a_site_of_one_takes_its_own_clock_and_a_jump_once_it_is_synchronised() {
    let mut site = Site::from(None, &[IN_1970], Instant(0));
    let decided = site.heartbeat().unwrap();
    assert!(decided.site < SiteTime(1000) && !decided.synced);
    site.boards[0] = GOOD;
    let decided = site.pass(3);
    assert!(site.ahead_ms(decided).abs() <= 2 && decided.synced);
}

#[test]
fn a_new_site_waits_for_all_voters_but_not_for_long() {
    let mut site = Site::from(None, &[IN_1970, UNSYNCED, UNSYNCED], Instant(0));
    let own = site.boards[0];
    assert_eq!(site.times.decide(Wall { us: own.wall_us(site.now), synced: false }, site.now), None);
    let decided = site.heartbeat().unwrap();
    assert!(site.ahead_ms(decided).abs() <= 2, "the third voter's clock decides");

    let mut site = Site::from(None, &[UNSYNCED, UNSYNCED, Board { heard: false, ..UNSYNCED }], Instant(0));
    assert_eq!(site.heartbeat(), None);
    assert!(site.pass(2).site > SiteTime(0));

    let silent = Board { heard: false, ..UNSYNCED };
    let mut alone = Site::from(None, &[UNSYNCED, silent, silent], Instant(0));
    assert!((0..200).all(|_| alone.heartbeat().is_none()), "one of three decides nothing");
}

#[test]
fn half_the_round_trip_is_added_and_delayed_readings_do_not_count() {
    let mut site = Site::at(0, &[IN_1970, GOOD, GOOD]);
    site.round_trip = Duration(300_000);
    site.now = Instant(1_000_000);
    let decided = site.pass(5);
    assert!(site.ahead_ms(decided).abs() <= 2, "{}", site.ahead_ms(decided));
    // An answer that was late on one way looks as if its clock were behind or ahead.
    for heartbeat in 0..200 {
        let late = if heartbeat % 8 == 0 { 0 } else { 200_000 };
        for id in [2, 3] {
            let asked = site.now.0 + BEAT;
            let wall_us = GOOD.wall_us(Instant(asked)) - 150_000;
            let reading = Reading { wall_us, synced: true, round_trip: Duration(300_000 + late) };
            site.times.on_reading(NodeId(id), reading, Instant(asked));
        }
        site.now += Duration(BEAT);
        let decided = site.times.decide(Wall::default(), site.now).unwrap();
        assert!(site.ahead_ms(decided).abs() <= 2, "{}", site.ahead_ms(decided));
    }
}

#[test]
fn the_offsets_say_how_far_each_clock_is_ahead() {
    let mut site = Site::at(0, &[GOOD, NEXT_WEEK, GOOD]);
    site.pass(1);
    let offsets = site.times.offsets(site.now);
    let ahead = |place: usize| offsets[place].ahead_us;
    assert_eq!(offsets.iter().map(|offset| offset.synced).collect::<Vec<_>>(), [true, false, true]);
    assert!(ahead(0).abs() < 2000 && (ahead(1) - WEEK).abs() < 2000 && ahead(2).abs() < 2000, "{offsets:?}");
}

fn board() -> impl Strategy<Value = Board> {
    let off = prop_oneof![-2_000_000..2_000_000i64, -TODAY..TODAY, Just(i64::MAX / 4), Just(-TODAY)];
    (off, -500_000..500_000i64, any::<bool>(), any::<bool>())
        .prop_map(|(off_us, fast_ppm, synced, heard)| Board { off_us, fast_ppm, synced, heard })
}

proptest! {
    #[test]
    fn it_never_goes_back_nor_panics_whatever_the_clocks_say(
        boards in prop::collection::vec(board(), 1..8),
        ahead_us in -TODAY..TODAY,
        changes in prop::collection::vec((0usize..8, board(), 0u64..400_000), 0..40),
    ) {
        let mut site = Site::at(ahead_us, &boards);
        let mut last = SiteTime(0);
        for (place, board, round_trip) in changes {
            let place = place % site.boards.len();
            site.boards[place] = board;
            site.round_trip = Duration(round_trip);
            site.now += Duration(round_trip);
            for _ in 0..30 {
                let decided = site.heartbeat().expect("it was known at the start");
                prop_assert!(decided.site >= last);
                last = decided.site;
            }
        }
    }

    #[test]
    fn any_words_are_taken(wall_us in any::<u64>(), round_trip in any::<u64>(), now in any::<u64>()) {
        let mut site = Site::at(0, &[GOOD, GOOD]);
        site.times.on_reading(NodeId(2), Reading { wall_us, synced: true, round_trip: Duration(round_trip) }, Instant(now));
        let _ = site.times.decide(Wall { us: wall_us, synced: true }, Instant(now));
        let _ = site.times.offsets(Instant(now));
        let _ = site.times.step(Instant(now));
        let _ = site.times.decide(Wall { us: 0, synced: true }, Instant(u64::MAX));
    }

    #[test]
    fn without_synchronised_clocks_a_minority_of_bad_boards_moves_nothing(
        bad in prop::collection::vec(board(), 2),
        places in prop::sample::subsequence(vec![0usize, 1, 2, 3, 4], 2),
    ) {
        let mut boards = [UNSYNCED; 5];
        for (place, bad) in places.into_iter().zip(bad) {
            boards[place] = Board { synced: false, ..bad };
        }
        let mut site = Site::at(0, &boards);
        let decided = site.pass(20);
        prop_assert!(site.ahead_ms(decided).abs() <= 2, "{}", site.ahead_ms(decided));
    }

    #[test]
    fn a_change_of_leader_moves_it_by_no_more_than_the_clocks_differ(
        offs in prop::collection::vec(-500_000..500_000i64, 3),
        rotation in 1usize..3,
    ) {
        let boards: Vec<Board> = offs.iter().map(|off| Board { off_us: *off, ..GOOD }).collect();
        let mut site = Site::at(0, &boards);
        let before = site.pass(5);
        let mut turned = boards.clone();
        turned.rotate_left(rotation);
        let mut next = Site::from(Some(before.site), &turned, site.now);
        let apart_ms = (offs.iter().max().unwrap() - offs.iter().min().unwrap()) / 1000;
        let mut last = before.site;
        for _ in 0..40 {
            let after = next.heartbeat().unwrap();
            let stepped_ms = after.site.0 as i64 - last.0 as i64 - BEAT as i64 / 1000;
            prop_assert!(stepped_ms.abs() <= apart_ms + 2, "{stepped_ms} of {apart_ms}");
            last = after.site;
        }
    }
}

#[test]
fn a_clock_beyond_the_end_of_time_is_met_at_the_end_and_never_left_backwards() {
    let beyond = Board { off_us: i64::MAX / 4, ..GOOD };
    let mut site = Site::at(0, &[beyond]);
    let decided = site.pass(5);
    assert_eq!(decided.site, SiteTime((1 << 48) - 1));
    site.boards[0] = GOOD;
    let decided = site.pass(5);
    assert_eq!(decided.site, SiteTime((1 << 48) - 1), "an operator has to step it back");
    site.times.step(site.now).unwrap();
    let decided = site.pass(1);
    assert!(site.ahead_ms(decided).abs() <= 2);
}
