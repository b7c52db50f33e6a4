//! What a broker says it cannot do: against a real Mosquitto.

use super::broker_harness::*;
use super::*;
use crate::identity::SiteId;
use crate::mqtt::fake_broker::{Act, FakeBroker};

#[tokio::test]
async fn a_broker_without_retained_messages_is_connected_without_a_retained_will() {
    let broker = Broker::start("retain_available false");
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let site = Site::new();
    site.lead("box1", 1);
    site.count([0, 1]);
    let upstream = site.start("box1", &broker.config());
    site.until_delivered(2).await;
    subscriber.until(|all| all.iter().any(|one| one["topic"] == "tally/s/total/series/1")).await;
    let status = upstream.shared().status();
    assert_eq!((status.connections, status.limits.unwrap().retains), (1, false));
    upstream.stop(true).await;
}

#[tokio::test]
async fn a_broker_of_qos_0_is_named_with_what_to_do() {
    let broker = Broker::start("max_qos 0");
    let site = Site::new();
    site.lead("box1", 1);
    let upstream = site.start("box1", &broker.config());
    let what = trouble(&upstream, "max_qos").await;
    assert!(what.contains("QoS not supported (0x9B)"), "{what}");
    upstream.stop(false).await;
    // One that says so only in its answer, and would take a will of QoS 1.
    let broker = FakeBroker::start(&[0, 2, 0x24, 0], |_| Act::Take).await;
    let upstream = site.start("box1", &broker.config());
    trouble(&upstream, "QoS 0 only").await;
    assert_eq!(*broker.published.lock().unwrap(), Vec::<String>::new());
    upstream.stop(false).await;
}

#[tokio::test]
async fn a_broker_that_takes_one_message_at_a_time_gets_one_at_a_time() {
    let broker = Broker::start("max_inflight_messages 1");
    let site = Site::new();
    site.lead("box1", 1);
    site.count((0..60).map(|n| n % 3));
    let upstream = site.start("box1", &broker.config());
    site.until_delivered(60).await;
    assert_eq!(upstream.shared().status().limits.unwrap().receive_max, Some(1));
    assert_eq!(upstream.shared().status().connections, 1);
    upstream.stop(false).await;
}

#[tokio::test]
async fn two_sites_of_one_name_see_each_other() {
    let broker = Broker::start("");
    let (site, other) = (Site::new(), Site::new());
    site.lead("box1", 1);
    other.lead("box1", 1);
    let other_id = SiteId(0x1234_5678_9abc_def0);
    let first = site.start("box1", &broker.config());
    site.count([0]);
    site.until_delivered(1).await;
    assert_eq!(first.shared().status().other_site, None);
    let second = other.start_as("box1", other_id, &broker.config(), ANSWER_TIMEOUT);
    for (upstream, rival) in [(&first, "123456789abcdef0"), (&second, "abcdef0123456789")] {
        let heard = async {
            loop {
                if let Some(heard) = upstream.shared().status().other_site {
                    return heard;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await.expect("the other site is seen");
        assert_eq!((heard.site_id.as_str(), heard.state.as_str()), (rival, "online"));
        assert!(heard.what.contains("upstream.base"));
    }
    first.stop(false).await;
    second.stop(false).await;
}

#[tokio::test]
async fn a_lower_bound_of_numbers_is_kept_to_and_no_entry_numbers_nothing() {
    let broker = Broker::start("");
    let site = Site::new();
    // The site panics at an entry that numbers nothing.
    site.change(|state| state.numbered_max = 5);
    site.lead("box1", 1);
    site.count([0; 15]);
    let upstream = site.start("box1", &broker.config());
    site.until_delivered(15).await;
    assert_eq!(site.numbered_at_once_max(), 5);
    upstream.stop(false).await;
}
