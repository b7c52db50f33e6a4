//! Clears what a site retains at its broker, which it leaves: it goes on under another name.

use super::config::UpstreamConfig;
use super::formats::Naming;
use super::{BaseTopic, client_id};
use crate::identity::SiteId;
use crate::mqtt::{Answer, Connection, Learned, Message};

/// Clears the status, the last number and the totals of these series under the base topic of that site, unless the configuration has a
/// base topic of its own, which stays. The upstream has stopped: this takes its session over and ends it.
///
/// # Errors
/// The broker is not reached, or refuses some of it.
pub(crate) async fn clear_retained(
    config: &UpstreamConfig,
    site: &str,
    site_id: SiteId,
    series: Vec<String>,
) -> Result<(), String> {
    let Some(access) = config.access().filter(|_| config.base.is_none()) else { return Ok(()) };
    let naming = Naming { site: site.to_owned(), site_id, base: BaseTopic::of_site(site) };
    let target = access.open(client_id(site, site_id)).map_err(|error| error.to_string())?;
    let cleared = |topic| Message { topic, retain: true, ..Message::default() };
    // The end of the session publishes the will, which so must say nothing either.
    let status = cleared(naming.status_topic());
    let opened = Connection::open(&target, status.clone(), &mut Learned::default()).await;
    let mut connection = opened.map_err(|ending| ending.what)?;
    let mut topics = config
        .format
        .iter()
        .flat_map(|format| series.iter().map(|name| format.total_topic(&naming, name)))
        .chain([naming.numbered_topic()])
        .map(cleared)
        .chain([status]);
    let window = connection.limits().window();
    let (mut under_way, mut refused) = (0, None);
    loop {
        while under_way < window
            && let Some(message) = topics.next()
        {
            let topic = message.topic.clone();
            connection.send(topic, message)?;
            under_way += 1;
        }
        if under_way == 0 {
            break;
        }
        match connection.answer().await {
            Answer::Acknowledged(_) => under_way -= 1,
            Answer::Refused(topic, why) => {
                under_way -= 1;
                refused = Some(format!("{topic}: {}", why.what));
            }
            Answer::Heard(_) => {}
            Answer::Ended(ending) => return Err(ending.what),
        }
    }
    connection.close(true).await;
    refused.map_or(Ok(()), Err)
}
