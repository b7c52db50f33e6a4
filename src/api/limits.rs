//! How often somebody may try a token, and how often use one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::problem::{Name, Problem};

/// So many wrong tokens an address may present in [`SPAN`].
const WRONG_MAX: u32 = 5;
const SPAN: Duration = Duration::from_secs(60);

/// So many addresses are remembered; then the one whose minute began first is forgotten.
const ADDRESSES_MAX: usize = 1024;

/// So many requests a second a token may make for long,
const RATE: f64 = 1000.0;
/// and so many at once.
const BURST: f64 = 2000.0;

/// So many tokens are remembered: more than a site keeps, so that those that ended do not displace others at once.
const TOKENS_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Limits {
    wrong: HashMap<IpAddr, (Instant, u32)>,
    used: HashMap<String, (Instant, f64)>,
}

impl Limits {
    /// Whether an address may present a token now.
    pub(super) fn check_address(&mut self, address: Option<IpAddr>, now: Instant) -> Result<(), Problem> {
        let Some((since, count)) = address.and_then(|address| self.wrong.get(&address).copied()) else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(since);
        if count < WRONG_MAX || passed >= SPAN {
            return Ok(());
        }
        let wait = (SPAN - passed).as_secs() + 1;
        let detail =
            format!("{count} wrong tokens came from this address within a minute; try again in {wait} s");
        Err(Problem::new(Name::TooManyTries, detail).after(wait))
    }

    /// A wrong token came from there.
    pub(super) fn wrong(&mut self, address: Option<IpAddr>, now: Instant) {
        let Some(address) = address else { return };
        if let Some((since, count)) = self.wrong.get_mut(&address) {
            if now.saturating_duration_since(*since) >= SPAN {
                (*since, *count) = (now, 0);
            }
            *count += 1;
            return;
        }
        if self.wrong.len() >= ADDRESSES_MAX {
            let first = self.wrong.iter().min_by_key(|(_, (since, _))| *since).map(|(address, _)| *address);
            first.and_then(|first| self.wrong.remove(&first));
        }
        self.wrong.insert(address, (now, 1));
    }

    /// Whether a token may be used now; it is used by that.
    pub(super) fn check_token(&mut self, name: &str, now: Instant) -> Result<(), Problem> {
        if !self.used.contains_key(name) {
            if self.used.len() >= TOKENS_MAX {
                let first = self.used.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
                first.and_then(|first| self.used.remove(&first));
            }
            self.used.insert(name.to_owned(), (now, BURST));
        }
        let Some((at, left)) = self.used.get_mut(name) else { return Ok(()) };
        *left = (*left + now.saturating_duration_since(*at).as_secs_f64() * RATE).min(BURST);
        *at = now;
        if *left < 1.0 {
            let detail =
                format!("a token may make {RATE} requests a second at a box; retry, or use another box");
            return Err(Problem::new(Name::TooBusy, detail));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn five_wrong_tokens_are_refused_as_wrong_and_then_nothing_is_looked_at_for_the_minute() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for second in 0..5 {
            let now = now + Duration::from_secs(second);
            assert!(limits.check_address(address(1), now).is_ok());
            limits.wrong(address(1), now);
        }
        let problem = limits.check_address(address(1), now + Duration::from_secs(20)).unwrap_err();
        assert_eq!((problem.name, problem.retry_after_s), (Name::TooManyTries, 41));
        assert!(limits.check_address(address(2), now).is_ok(), "another address");
        assert!(limits.check_address(None, now).is_ok(), "the admin socket");
        let later = now + SPAN;
        assert!(limits.check_address(address(1), later).is_ok());
        limits.wrong(address(1), later);
        assert!(limits.check_address(address(1), later).is_ok(), "another minute");
    }

    #[test]
    fn however_many_addresses_try_few_are_remembered() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for number in 0..5000u32 {
            let address = Some(IpAddr::from(number.to_be_bytes()));
            limits.wrong(address, now + Duration::from_millis(number.into()));
        }
        assert_eq!(limits.wrong.len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_token_makes_so_many_requests_a_second_and_others_do_not_suffer() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let allowed = (0..5000).filter(|_| limits.check_token("press", now).is_ok()).count();
        assert_eq!(allowed, BURST as usize);
        assert!(limits.check_token("phone", now).is_ok());
        let later = now + Duration::from_secs(1);
        let allowed = (0..5000).filter(|_| limits.check_token("press", later).is_ok()).count();
        assert_eq!(allowed, RATE as usize);
        for number in 0..1000 {
            let _ = limits.check_token(&number.to_string(), later);
        }
        assert!(limits.used.len() <= TOKENS_MAX);
    }
}
