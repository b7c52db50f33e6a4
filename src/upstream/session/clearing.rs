//! Clears the retained totals of names that series had: the site remembers each until a leader has done it.

use super::*;

/// Names that left are looked through this often.
const LOOKED_EVERY: Duration = Duration::from_millis(500);
/// So many are cleared at once.
const CLEARED_AT_ONCE: usize = 100;

/// What this session does about names that left.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    /// How many messages of each are not acknowledged.
    lacking: BTreeMap<u64, usize>,
    /// Those of which the broker has nothing any more, as far as this session knows.
    done: VecDeque<u64>,
    looked: Option<Instant>,
}

impl<S: SiteView> Machine<S> {
    /// Clears what is due, in the order in which it left.
    pub(super) fn clear(&mut self, now: Instant) {
        if self.session.asks.cleared.is_none()
            && let Some(departure) = self.session.clearing.done.pop_front()
        {
            let ticket = self.ask(Ask::Cleared(departure));
            self.session.asks.cleared = Some((ticket, departure));
        }
        if self.session.clearing.looked.is_some_and(|at| now - at < LOOKED_EVERY)
            || self.site.position().departures == 0
            || deliberate::is(Bug::ClearsNothing) && self.attempt.term > 1
        {
            return;
        }
        self.session.clearing.looked = Some(now);
        for due in self.site.departures_due(CLEARED_AT_ONCE) {
            let clearing = &self.session.clearing;
            if clearing.lacking.contains_key(&due.id) || clearing.done.contains(&due.id) {
                continue;
            }
            let places = 0..self.setting.formats.iter().count() as Place;
            let is_barred = |place| self.trials.is_barred(TrialTarget::Total(due.series, place), now);
            if !due.is_overtaken && places.clone().any(is_barred) {
                continue;
            }
            // What was refused of it must not be tried again, over the total of another series of the name.
            self.trials.forget_total(due.series, &due.name);
            // Where the broker retains nothing there is nothing to clear, nor where another series' total is.
            if due.is_overtaken || !self.session.limits.retains {
                self.session.clearing.done.push_back(due.id);
                continue;
            }
            for (place, format) in places.clone().zip(self.setting.formats.clone().iter()) {
                let sent = Sent::Clear { departure: due.id, series: due.series, place };
                let topic = format.total_topic(&self.setting.naming, &due.name);
                let message = Message { topic, retain: true, ..Message::default() };
                let out = self.out(sent, message);
                self.session.out.push_back(out);
            }
            self.session.clearing.lacking.insert(due.id, places.len());
        }
    }

    /// The broker has cleared one topic of a name.
    pub(super) fn on_clear_acknowledged(&mut self, departure: u64) {
        let clearing = &mut self.session.clearing;
        if let Some(lacking) = clearing.lacking.get_mut(&departure) {
            *lacking -= 1;
            if *lacking == 0 {
                clearing.lacking.remove(&departure);
                clearing.done.push_back(departure);
            }
        }
    }

    /// The broker does not clear it: it is tried again when the pause after a refusal is over.
    pub(super) fn on_clear_refused(&mut self, departure: u64) {
        self.session.clearing.lacking.remove(&departure);
    }

    pub(super) fn on_cleared(&mut self, result: Result<(), String>) {
        // It is due still, and so cleared again.
        if let Err(error) = result {
            self.shared.trouble(&format!("cannot record that a removed series is cleared: {error}"));
        }
    }
}
