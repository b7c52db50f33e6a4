//! How long a batch waits for company: pure.
//!
//! Clients in a closed loop ask again as soon as they are answered. If they are few, it pays to wait for all of them: they
//! share one commit. If they are many, hearing from all of them takes longer than a commit does; then two halves take
//! turns: while the batch of one half is in flight, the requests of the other half come in. A single client never waits.

use std::time::{Duration, Instant};

/// How long a batch waits for the clients that were just answered, at most.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// A moving average takes this share of a new value: one of so many.
const SHARE: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Company {
    /// With so many requests the next batch goes.
    target: usize,
    /// It goes then at the latest.
    until: Instant,
    /// When the last batch was answered, and how many requests waited already.
    answered: Option<(Instant, usize)>,
    frozen: Instant,
    /// From freezing a batch to its receipt, on average.
    flight: Duration,
    /// Between the requests of two clients that were answered together, on average.
    between: Duration,
}

impl Company {
    pub(super) fn new(now: Instant) -> Company {
        Company {
            target: 1,
            until: now,
            answered: None,
            frozen: now,
            flight: Duration::ZERO,
            between: Duration::ZERO,
        }
    }

    /// Whether a batch with so many requests need not wait for more.
    pub(super) fn is_enough(&self, waiting: usize, now: Instant) -> bool {
        waiting >= self.target || now >= self.until
    }

    /// When what waits goes at the latest.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// A batch with so many requests was frozen.
    pub(super) fn on_frozen(&mut self, requests: usize, now: Instant) {
        self.frozen = now;
        let Some((at, already)) = self.answered.take() else { return };
        if let Some(joined @ 1..) =
            requests.checked_sub(already).and_then(|joined| u32::try_from(joined).ok())
        {
            self.between = averaged(self.between, now.saturating_duration_since(at) / joined);
        }
    }

    /// Its receipt came: so many were answered, and so many wait already.
    pub(super) fn on_answered(&mut self, answered: usize, waiting: usize, now: Instant) {
        self.flight = averaged(self.flight, now.saturating_duration_since(self.frozen));
        self.answered = Some((now, waiting));
        self.until = now + WAIT_MAX;
        let all = answered + waiting;
        // Two halves that take turns cost a second commit, but nobody waits for the other half. Both cost the same when
        // hearing from all takes about one and a half commits.
        let hearing = self.between * u32::try_from(answered).unwrap_or(u32::MAX);
        let takes_turns = hearing > self.flight * 3 / 2;
        self.target = if takes_turns { all.div_ceil(2) } else { all }.max(1);
    }
}

fn averaged(average: Duration, new: Duration) -> Duration {
    if average.is_zero() { new } else { (average * (SHARE - 1) + new) / SHARE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// A closed loop: each client asks again when it is answered, one after the other `between` apart; a commit takes
    /// `flight`. The sizes of the batches, and how long they took.
    fn sizes(clients: usize, between: Duration, flight: Duration) -> (Vec<usize>, Duration) {
        let start = Instant::now();
        let mut company = Company::new(start);
        let mut comes: Vec<Instant> = vec![start; clients];
        let (mut now, mut sizes, mut began) = (start, Vec::new(), start);
        for round in 0..200 {
            if round == 100 {
                (sizes, began) = (Vec::new(), now);
            }
            let waiting = |now: Instant| comes.iter().filter(|at| **at <= now).count();
            while waiting(now) == 0 || !company.is_enough(waiting(now), now) {
                now += us(1);
            }
            let size = waiting(now);
            company.on_frozen(size, now);
            sizes.push(size);
            let (mut left, mut answered) = (Vec::new(), 0);
            comes.drain(..).for_each(|at| if at <= now { answered += 1 } else { left.push(at) });
            now += flight;
            let waiting = left.iter().filter(|at| **at <= now).count();
            company.on_answered(answered, waiting, now);
            comes = left;
            comes.extend((1..=answered as u32).map(|place| now + between * place));
        }
        (sizes, now - began)
    }

    #[test]
    fn a_single_client_never_waits() {
        let start = Instant::now();
        let mut company = Company::new(start);
        for round in 0..10 {
            let now = start + us(1_000 * round);
            assert!(company.is_enough(1, now));
            company.on_frozen(1, now);
            company.on_answered(1, 0, now + us(400));
        }
    }

    #[test]
    fn few_clients_share_each_commit() {
        assert!(sizes(16, us(11), us(420)).0.iter().all(|size| *size == 16));
        assert!(sizes(2, us(30), us(420)).0.iter().all(|size| *size == 2));
        // A slow disk: there is time to hear from all.
        assert!(sizes(256, us(11), us(10_000)).0.iter().all(|size| *size == 256));
    }

    #[test]
    fn many_clients_take_turns_so_that_nobody_waits_for_all() {
        for clients in [256, 1_024] {
            let (sizes, took) = sizes(clients, us(11), us(420));
            assert!(sizes.iter().all(|size| *size < clients * 3 / 4), "{clients}: {sizes:?}");
            let each = took / u32::try_from(sizes.iter().sum::<usize>()).unwrap();
            let all_together = (us(11) * clients as u32 + us(420)) / clients as u32;
            assert!(
                each * 4 < all_together * 3,
                "{clients}: {each:?} an add, not much less than {all_together:?}"
            );
        }
    }

    #[test]
    fn clients_that_do_not_come_back_are_not_waited_for_longer_than_the_bound() {
        let start = Instant::now();
        let mut company = Company::new(start);
        company.on_frozen(8, start);
        company.on_answered(8, 0, start + us(400));
        assert!(!company.is_enough(1, start + us(500)));
        assert!(company.is_enough(1, start + us(400) + WAIT_MAX));
    }
}
