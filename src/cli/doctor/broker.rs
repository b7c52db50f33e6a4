//! The broker: a login of its own, beside that of the daemon.

use super::{Line, Subject, look, ok, wrong};
use crate::identity::SiteId;
use crate::upstream;

pub(super) async fn check(subject: &Subject) -> Vec<Line> {
    let identity = subject.identity.as_ref();
    let site = identity.map_or("doctor", |identity| &identity.site);
    let site_id = identity.map_or(SiteId(0), |identity| identity.site_id);
    let name = identity.map_or("box", |identity| &identity.me().name);
    let config = &subject.found.config.upstream;
    let tried = upstream::try_broker(config, site, site_id, &format!("doctor-{name}")).await;
    vec![match tried {
        None => ok("broker", "none is configured: summaries wait in the outbox"),
        Some(Ok(url)) => ok("broker", format!("{url} lets this box in")),
        Some(Err(why)) if why.contains("Permission denied") => {
            look("broker", format!("not tried: {why}"), "run the doctor as root or as the daemon's user")
        }
        Some(Err(why)) if why.starts_with("cannot reach") => wrong(
            "broker",
            why,
            "is the broker on, and is its port open from here? Else correct upstream.url",
        ),
        Some(Err(why)) => wrong(
            "broker",
            why,
            "correct [upstream] in the configuration, or the user and its rights at the broker",
        ),
    }]
}
