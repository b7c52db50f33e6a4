use super::*;
use tally_core::time::Duration as CoreDuration;

const A: NodeId = NodeId(2);
const B: NodeId = NodeId(3);

/// A leader, its two followers, and a clock that only the test moves.
struct Site {
    successors: Successors,
    now: Instant,
    own: Own,
    said: BTreeMap<NodeId, Condition>,
    caught_up: BTreeMap<NodeId, bool>,
    handed: Vec<(u64, NodeId, TransferReason)>,
    began: Instant,
    asks: bool,
    tries: u64,
}

impl Site {
    fn new() -> Site {
        let now = Instant::now();
        let well = Condition { disk_ok: Some(true), broker: None, sync_median: CoreDuration(500) };
        Site {
            successors: Successors::default(),
            now,
            own: Own { broker: None, sync_median: Duration::from_micros(500) },
            said: [(A, well), (B, well)].into(),
            caught_up: [(A, true), (B, true)].into(),
            handed: Vec::new(),
            began: now,
            asks: false,
            tries: 0,
        }
    }

    fn broker(&mut self, reached: bool) {
        if self.own.broker.is_none_or(|broker| broker.reached != reached) {
            self.own.broker = Some(Reach { reached, since: self.now });
        }
    }

    fn set(&mut self, id: NodeId, change: impl FnOnce(&mut Condition)) {
        change(self.said.get_mut(&id).unwrap());
    }

    /// Looks ten times a second. Leadership stays here all the same: what is tested is the wish.
    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until {
            self.now += Duration::from_millis(100);
            for (id, said) in &self.said {
                // Only who is asked tries.
                let said = Condition { broker: said.broker.filter(|_| self.asks), ..*said };
                self.successors.on_condition(*id, said, self.now);
            }
            let voters: Vec<Voter> = self
                .caught_up
                .iter()
                .map(|(id, caught_up)| Voter { id: *id, caught_up: *caught_up })
                .collect();
            let wish = self.successors.decide(self.own, &voters, self.now);
            self.asks = wish.asks_for_broker;
            self.tries += u64::from(wish.try_broker);
            if let Some((to, reason)) = wish.transfer {
                self.handed.push(((self.now - self.began).as_secs(), to, reason));
                self.successors.on_transfer(self.now);
            }
        }
    }

    fn best(&self) -> Option<NodeId> {
        let voters = self.caught_up.iter().map(|(id, caught_up)| Voter { id: *id, caught_up: *caught_up });
        self.successors.best_candidate(&voters.collect::<Vec<Voter>>())
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn leadership_goes_to_the_voter_that_reaches_the_broker_and_then_rests() {
    let mut site = Site::new();
    site.broker(false);
    site.set(A, |a| a.broker = Some(false));
    site.set(B, |b| b.broker = Some(true));
    site.pass(s(9));
    assert!(!site.asks && site.handed.is_empty(), "a broker's restart is borne");
    site.pass(s(6));
    assert_eq!(site.handed, [(13, B, TransferReason::Broker)]);
    assert_eq!(site.tries, 1, "it tried again itself as soon as it heard");
    site.pass(s(50));
    assert_eq!(site.handed.len(), 1, "it rests");
    site.pass(s(20));
    assert_eq!(site.handed.len(), 2, "it is tried again if it came to nothing");
}

#[test]
fn who_was_to_take_over_and_did_not_is_asked_again_soon() {
    let mut site = Site::new();
    site.broker(false);
    site.set(B, |b| b.broker = Some(true));
    site.pass(s(14));
    site.successors.on_transfer_failed(site.now);
    site.pass(s(6));
    assert_eq!(site.handed.len(), 2, "{:?}", site.handed);
}

#[test]
fn a_broker_that_nobody_reaches_moves_nothing() {
    let mut site = Site::new();
    site.broker(false);
    site.set(A, |a| a.broker = Some(false));
    site.pass(s(3600));
    assert!(site.asks && site.handed.is_empty());
    // It comes back for all at once: the leader tries at once, and has it.
    site.set(A, |a| a.broker = Some(true));
    site.pass(s(1));
    assert_eq!(site.tries, 1);
    site.broker(true);
    site.pass(s(60));
    assert!(!site.asks && site.handed.is_empty());
}

#[test]
fn without_a_broker_nothing_happens() {
    let mut site = Site::new();
    site.set(A, |a| a.broker = Some(true));
    site.pass(s(3600));
    assert!(!site.asks && site.handed.is_empty());
}

#[test]
fn a_broker_that_comes_and_goes_moves_nothing() {
    let mut site = Site::new();
    site.set(A, |a| a.broker = Some(true));
    for _ in 0..100 {
        site.broker(false);
        site.pass(s(8));
        site.broker(true);
        site.pass(s(3));
    }
    assert_eq!(site.handed, []);
}

#[test]
fn nobody_with_an_unhealthy_disk_or_far_behind_is_given_leadership() {
    for spoil in [(|site: &mut Site| site.set(B, |b| b.disk_ok = Some(false))) as fn(&mut Site), |site| {
        *site.caught_up.get_mut(&B).unwrap() = false
    }] {
        let mut site = Site::new();
        spoil(&mut site);
        site.set(B, |b| b.broker = Some(true));
        site.set(A, |a| a.broker = Some(false));
        site.broker(false);
        site.pass(s(600));
        assert_eq!(site.handed, []);
        assert_eq!(site.best(), Some(A));
        site.caught_up.insert(A, false);
        assert_eq!(site.best(), None);
    }
}

#[test]
fn a_disk_many_times_slower_for_minutes_gives_leadership_to_a_quick_one() {
    let mut site = Site::new();
    site.own.sync_median = Duration::from_millis(200);
    site.set(A, |a| a.sync_median = CoreDuration(20_000));
    site.pass(s(179));
    assert_eq!(site.handed, []);
    site.pass(s(3));
    assert_eq!(site.handed, [(180, B, TransferReason::Disk)]);
}

#[test]
fn disks_that_are_alike_or_slow_for_a_while_or_not_known_move_nothing() {
    let mut site = Site::new();
    // All on the same kind of card.
    site.own.sync_median = Duration::from_millis(200);
    site.set(A, |a| a.sync_median = CoreDuration(60_000));
    site.set(B, |b| b.sync_median = CoreDuration(0));
    site.pass(s(3600));
    // Slow for two minutes now and then.
    site.set(A, |a| a.sync_median = CoreDuration(500));
    for _ in 0..20 {
        site.own.sync_median = Duration::from_millis(200);
        site.pass(s(120));
        site.own.sync_median = Duration::from_millis(2);
        site.pass(s(10));
    }
    // Many times slower, and nobody notices.
    site.own.sync_median = Duration::from_millis(10);
    site.pass(s(3600));
    assert_eq!(site.handed, []);
}

#[test]
fn the_broker_is_not_given_up_for_a_quicker_disk() {
    let mut site = Site::new();
    site.broker(true);
    site.own.sync_median = Duration::from_millis(200);
    site.set(A, |a| a.broker = Some(false));
    site.set(B, |b| b.broker = Some(false));
    site.pass(s(3600));
    assert!(site.asks && site.handed.is_empty());
    site.set(B, |b| b.broker = Some(true));
    site.pass(s(1));
    assert_eq!(site.handed, [(3600, B, TransferReason::Disk)]);
}

#[test]
fn the_best_successor_reaches_the_broker_and_then_has_the_quicker_disk() {
    let mut site = Site::new();
    site.set(A, |a| a.sync_median = CoreDuration(4_000));
    site.pass(s(1));
    assert_eq!(site.best(), Some(B));
    site.asks = true;
    site.set(B, |b| b.broker = Some(false));
    let (a, b) = (site.said[&A], site.said[&B]);
    site.successors.on_condition(A, a, site.now);
    site.successors.on_condition(B, b, site.now);
    assert_eq!(site.best(), Some(A));
    site.successors.begin_term();
    assert!(site.best().is_some(), "of those who said nothing yet, anyone");
}

#[test]
fn a_reason_comes_back_from_its_number() {
    for reason in TransferReason::ALL {
        assert_eq!(TransferReason::numbered(reason.number()), Some(reason));
    }
    assert_eq!(TransferReason::numbered(5), None);
}
