//! The demo's end: what was acknowledged, what the site holds, what the subscriber's summaries sum up to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::{Acknowledged, SERIES};
use super::subscriber::{Books, Subscriber};
use crate::http;
use crate::site::Site;

/// How long the three may take to agree: windows close, the outbox empties, boxes catch up.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) struct Proof {
    /// By counted series: what each box holds.
    held: BTreeMap<&'static str, Vec<Value>>,
    books: Books,
    /// `(applied, digest)` of each box, at a moment at which they had applied the same, if there was one.
    digests: Option<(u64, String)>,
    agreed: bool,
}

/// Asks until the three agree, or for as long as is reasonable.
pub(super) fn await_agreement(
    site: &Site,
    subscriber: &Subscriber,
    acknowledged: &Acknowledged,
    mut meanwhile: impl FnMut(&Site, &Subscriber),
) -> Result<Proof> {
    if acknowledged.len() < SERIES.len() {
        bail!("not every client had an add acknowledged: {acknowledged:?}");
    }
    let began = Instant::now();
    let mut digests = None;
    loop {
        meanwhile(site, subscriber);
        digests = digests.or_else(|| common_digest(site));
        let books = subscriber.books();
        let agreed =
            acknowledged.iter().all(|(series, sum)| summed(&books, series) == Some(i128::from(*sum)));
        if (agreed && digests.is_some()) || began.elapsed() > PATIENCE {
            let held = held(site)?;
            return Ok(Proof { held, books, digests, agreed });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn summed(books: &Books, series: &str) -> Option<i128> {
    books.rows.get(series).map(|row| row.sum)
}

/// What each box holds of the counted series, read linearizably.
fn held(site: &Site) -> Result<BTreeMap<&'static str, Vec<Value>>> {
    let addresses = site.api_addresses();
    let read = |series: &'static str| {
        let totals: Result<Vec<Value>> = addresses.iter().map(|address| total(*address, series)).collect();
        totals.map(|totals| (series, totals))
    };
    SERIES.into_iter().map(read).collect()
}

fn total(address: SocketAddr, series: &str) -> Result<Value> {
    let answer = http::get(address, &format!("/v1/series/{series}"))
        .with_context(|| format!("the box at {address} does not return {series}"))?;
    if answer.status != 200 {
        bail!("{address} does not return {series}: status {}, {}", answer.status, answer.body);
    }
    answer.body.get("total").cloned().with_context(|| format!("{address} returns no total of {series}"))
}

/// The boxes' digest, if all have applied the same index just now.
fn common_digest(site: &Site) -> Option<(u64, String)> {
    let mut views = site.views().into_iter().map(|view| {
        let status = view.status?;
        Some((status["applied"].as_u64()?, status["digest"].as_str()?.to_owned()))
    });
    let first = views.next()??;
    let mut digest = first.1.clone();
    for other in views {
        let other = other?;
        if other.0 != first.0 {
            return None;
        }
        if other.1 != first.1 {
            "DIFFERENT".clone_into(&mut digest);
        }
    }
    Some((first.0, digest))
}

impl Proof {
    pub(super) fn holds(&self) -> bool {
        let held = self.held.iter().all(|(series, totals)| {
            let sum = summed(&self.books, series).unwrap_or_default();
            totals.iter().all(|total| total.as_i64().map(i128::from) == Some(sum))
        });
        self.agreed
            && held
            && self.totals_agree()
            && self.no_gap()
            && self.books.wrongs.is_empty()
            && self.same_digest()
    }

    fn no_gap(&self) -> bool {
        self.books.gaps().1.is_empty()
    }

    fn same_digest(&self) -> bool {
        self.digests.as_ref().is_some_and(|(_, digest)| digest != "DIFFERENT")
    }

    /// For every counter, polled ones too: the increases received sum up to the total that the latest
    /// summary names.
    fn totals_agree(&self) -> bool {
        self.books.rows.values().all(|row| row.total.is_none_or(|total| total == row.sum))
    }

    pub(super) fn print(&self, acknowledged: &Acknowledged) {
        println!("\nThe proof\n");
        println!("  {:24} {:>14} {:>16} {:>20}", "", "acknowledged", "the site holds", "summaries sum up to");
        for (series, row) in &self.books.rows {
            let Some((series, sum)) = acknowledged.get_key_value(series.as_str()) else {
                if let Some(total) = row.total {
                    println!("  {series:24} {:>14} {total:>16} {:>20}  as of its last summary", "", row.sum);
                }
                continue;
            };
            let totals = self.held.get(series).cloned().unwrap_or_default();
            let same = totals.windows(2).all(|pair| pair[0] == pair[1]);
            let held = if same { totals.first().map(Value::to_string) } else { Some(format!("{totals:?}")) };
            println!("  {series:24} {sum:>14} {:>16} {:>20}", held.unwrap_or_default(), row.sum);
        }
        let (last, missing) = self.books.gaps();
        let line = |ok: bool, text: String| println!("  {} {text}", if ok { "✓" } else { "✗" });
        println!();
        line(
            missing.is_empty(),
            format!("numbers 1 to {last}, missing: {missing:?}; {} repeats dropped", self.books.repeated),
        );
        line(self.books.wrongs.is_empty(), format!("no published total went back{}", self.wrongs()));
        match &self.digests {
            Some((applied, digest)) => {
                line(self.same_digest(), format!("all boxes at entry {applied}: digest {digest}"))
            }
            None => line(false, "the boxes did not reach the same entry".to_owned()),
        }
        line(self.holds(), "acknowledged = held = summed up".to_owned());
    }

    fn wrongs(&self) -> String {
        self.books.wrongs.iter().take(5).map(|wrong| format!("\n    {wrong}")).collect()
    }
}
