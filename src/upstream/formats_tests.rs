//! Several formats at once, to a real Mosquitto on loopback.

use serde_cbor::Value as Cell;
use tally_core::id::SourceId;
use tally_core::report::{Amount, Last, Sample, Sum};
use tally_core::time::SiteTime;

use super::broker_harness::*;
use super::*;
use crate::site::{SeriesId, Summary};

/// Beyond what a float of 64 bits counts, and beyond an integer of 64 bits.
const INCREASE: u128 = (1 << 53) + 1;
const TOTAL: i128 = (1 << 64) + (1 << 53) + 1;

fn both(broker: &Broker) -> UpstreamConfig {
    let format = vec!["json".to_owned(), "cbor".to_owned()].try_into().unwrap();
    UpstreamConfig { format, ..broker.config() }
}

fn summary(id: u32, amount: Amount, total: Option<i128>) -> Summary {
    Summary {
        seq: None,
        series: SeriesId(id),
        start: SiteTime(60_000),
        span_ms: 60_000,
        amount,
        total,
        late: false,
        synced: true,
    }
}

fn payload_of(subscriber: &Subscriber, topic: &str) -> Vec<u8> {
    let all = subscriber.on(topic);
    assert_eq!(all.len(), 1, "{topic}: {all:?}");
    let hex = all[0]["payload"].as_str().unwrap();
    let content = if topic.contains("-cbor") { "application/cbor" } else { "application/json" };
    assert_eq!(all[0]["content_type"], content);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn json_of(subscriber: &Subscriber, topic: &str) -> String {
    String::from_utf8(payload_of(subscriber, topic)).unwrap()
}

fn cbor_of(subscriber: &Subscriber, topic: &str) -> std::collections::BTreeMap<String, Cell> {
    serde_cbor::from_slice(&payload_of(subscriber, topic)).unwrap()
}

#[tokio::test]
async fn two_formats_at_once_have_topics_of_their_own_and_the_same_exact_numbers() {
    let broker = Broker::start("");
    let mut subscriber = Subscriber::start_in_hex(broker.port).await;
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &both(&broker));
    site.close(summary(0, Amount::Counter(INCREASE), Some(TOTAL)));
    let last = Last { at: SiteTime(1), source: SourceId(1), value: 0.1 };
    let sum = Sum(9_007_199_254_740_993_100_000_000);
    let sample = Sample { count: 3, sum, min: -2.0, max: 1e15, last };
    site.close(summary(1, Amount::Sample(sample), None));
    site.until_delivered(2).await;
    subscriber.until(|all| all.iter().filter(|one| one["topic"] != "ready").count() >= 9).await;

    // Each topic once, in its format; the status is JSON whatever the formats.
    let mut topics: Vec<String> =
        subscriber.on("tally/").iter().map(|one| one["topic"].to_string()).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 9, "{topics:?}");
    assert!(json_of(&subscriber, "tally/s/status").contains("\"online\""));

    let counter = json_of(&subscriber, "tally/s/summary/series/0");
    assert!(counter.contains(r#""seq":1,"series":"series/0""#), "{counter}");
    assert!(counter.contains(&format!("\"increase\":{INCREASE},\"total\":{TOTAL},")), "{counter}");
    let cbor = cbor_of(&subscriber, "tally/s/summary-cbor/series/0");
    assert_eq!((&cbor["seq"], &cbor["series"]), (&Cell::Integer(1), &Cell::Text("series/0".to_owned())));
    assert_eq!(cbor["increase"], Cell::Integer(INCREASE as i128));
    // A bignum, of which the decoder gives the bytes alone.
    let total = Cell::Bytes(TOTAL.to_be_bytes()[7..].to_vec());
    assert_eq!(cbor["total"], total);
    assert_eq!(cbor_of(&subscriber, "tally/s/total-cbor/series/0")["total"], total);
    assert!(json_of(&subscriber, "tally/s/total/series/0").contains(&format!("\"total\":{TOTAL},")));

    let sample = json_of(&subscriber, "tally/s/summary/series/1");
    assert!(sample.contains("\"sum\":9007199254740993.1,"), "{sample}");
    let cbor = cbor_of(&subscriber, "tally/s/summary-cbor/series/1");
    let decimal = Cell::Array(vec![Cell::Integer(-1), Cell::Integer(90_071_992_547_409_931)]);
    assert_eq!((&cbor["sum"], &cbor["last"]), (&decimal, &Cell::Float(0.1)));

    // Who comes later finds the totals of both.
    let mut later = Subscriber::start_in_hex(broker.port).await;
    later.until(|all| all.iter().filter(|one| one["retain"] == 1).count() >= 5).await;
    for topic in ["total/series/0", "total/series/1", "total-cbor/series/0", "total-cbor/series/1", "status"]
    {
        payload_of(&later, &format!("tally/s/{topic}"));
    }
    let status = upstream.status();
    assert_eq!((status.published, status.acknowledged, status.connections), (2, 2, 1));
    let formats: Vec<(&str, &str)> =
        status.formats.iter().map(|format| (format.name, format.topics[0].as_str())).collect();
    assert_eq!(formats, [("json", "tally/s/summary/#"), ("cbor", "tally/s/summary-cbor/#")]);
    assert!(status.formats.iter().all(|format| format.error.is_none()));
    upstream.stop(false).await;
}
