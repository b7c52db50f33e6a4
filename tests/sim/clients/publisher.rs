//! Publishes summaries in the leader's name and says what was delivered: some in its place, until the upstream itself
//! is simulated.

use tallyd::node::{Command, Input};
use tallyd::site::entry;
use tokio::sync::oneshot;

use crate::boxes::SimBox;
use crate::checks::Checks;
use crate::rng::Rng;

const AT_ONCE: u32 = 16;

#[derive(Debug, Default)]
pub(crate) struct Publisher;

impl Publisher {
    /// What the leader is to have in the log next, and which box that is.
    pub(crate) fn wake(boxes: &[SimBox], rng: &mut Rng, checks: &mut Checks) -> Option<(usize, Input)> {
        let leads = |one: &SimBox| {
            one.incarnation.as_ref().is_some_and(|incarnation| incarnation.handle.role().borrow().leads)
        };
        let place = boxes.iter().position(leads)?;
        let incarnation = boxes[place].incarnation.as_ref()?;
        let body = incarnation.handle.site(|site| {
            let numbered = site.numbered(site.delivered(), AT_ONCE as usize);
            for summary in &numbered {
                checks.delivery.published(site, summary);
            }
            match numbered.last().and_then(|last| last.seq) {
                // A broker that acknowledges late.
                Some(_) if rng.chance(200) => None,
                Some(last) => Some(entry::delivered(last)),
                None => (site.unnumbered_len() > 0).then(|| entry::number(AT_ONCE)),
            }
        })?;
        // Whether it was done is seen in the state.
        let (reply, _) = oneshot::channel();
        Some((place, Input::Command(Command::ProposeLocally { body, reply })))
    }
}
