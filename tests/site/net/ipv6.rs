//! Boxes that are named by host names on a network without IPv4.

use std::path::Path;

use super::lab::in_lab;
use super::lan::Lan;
use crate::boxes::Site;
use crate::harness::until;

const BOXES: usize = 3;

/// A site whose names stand for an IPv4 address, too, that nobody can reach.
fn site_by_names(scratch: &Path) -> (Lan, Site) {
    let lan = Lan::lay(scratch, BOXES);
    let both = |number| format!("192.0.2.{number} box{number}.lan\nfd00:77::{number} box{number}.lan\n");
    lan.name(&(1..=BOXES).map(both).collect::<String>());
    let site = Site::provision_in(lan.places(), "1s", "");
    (lan, site)
}

#[test]
fn boxes_named_by_host_names_find_each_other_where_there_is_only_ipv6() {
    in_lab("net::ipv6::boxes_named_by_host_names_find_each_other_where_there_is_only_ipv6", || {
        let scratch = tempfile::tempdir().unwrap();
        let (_lan, mut site) = site_by_names(scratch.path());
        site.start_all();
        assert_eq!(site.boxes[0].add("a", 1), 1);
        let leader = site.leader();
        site.boxes[leader].kill();
        let next = site.leader();
        assert_eq!(site.boxes[next].add("a", 2), 3);
        site.start_all();
        assert_eq!(site.boxes[leader].total("a"), 3);
        for member in site.boxes[next].status()["members"].as_array().unwrap() {
            assert_eq!(member["refused"], serde_json::Value::Null, "{member}");
        }
    });
}

#[test]
fn a_box_that_listens_on_ipv4_alone_says_whose_address_is_ipv6_only() {
    in_lab("net::ipv6::a_box_that_listens_on_ipv4_alone_says_whose_address_is_ipv6_only", || {
        let scratch = tempfile::tempdir().unwrap();
        let (lan, mut site) = site_by_names(scratch.path());
        lan.name_all();
        // As sites have it that were provisioned by an earlier release.
        site.boxes[0].start_with(&[("TALLYD_CLUSTER_LISTEN", Path::new("0.0.0.0:7400"))]);
        site.boxes[1].start();
        site.boxes[2].start();
        site.boxes[1].until_ready();
        until("the status names the boxes that cannot be reached, and why", || {
            let status = site.boxes[0].try_status()?;
            let others = status["members"].as_array()?.iter().filter(|member| member["name"] != "box1");
            let is_named = |member: &serde_json::Value| {
                let why = member["refused_because"].as_str().unwrap_or_default();
                member["refused"] == "peer-ipv6-only"
                    && why.contains("IPv6 only and this box listens on IPv4 only")
            };
            (others.filter(|member| is_named(member)).count() == 2).then_some(())
        });
        site.boxes[0].until_log("cannot reach box2 at box2.lan:7400: its address is IPv6 only");
        // Those would reach this one.
        site.boxes.iter_mut().for_each(|one| one.kill());
        // An address that only IPv4 leads to, on a machine that has none.
        lan.name("fd00:77::1 box1.lan\n192.0.2.2 box2.lan\n");
        site.boxes[0].start();
        site.boxes[0].until_log("cannot reach box2 at box2.lan:7400: this machine has no route");
    });
}
