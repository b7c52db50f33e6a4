//! A network without IPv4, on which boxes and their broker are named by host names.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use super::lab::{run, run_with};
use crate::boxes::Place;

/// The test's own place on it: of a broker that it runs.
pub(crate) const HERE: &str = "fd00:77::fe";
/// The name of that.
pub(crate) const BROKER: &str = "broker.lan";

/// Boxes on a bridge, named `box1.lan` and so on. There is no IPv4 but on their loopback, where the tests talk to
/// them; the bridge is in the namespace of the test itself.
#[derive(Debug)]
pub(crate) struct Lan {
    boxes: usize,
    hosts: PathBuf,
}

impl Lan {
    /// Lays the wires. Nothing has a name yet.
    pub(crate) fn lay(scratch: &Path, boxes: usize) -> Lan {
        let mut here =
            format!("link add br0 type bridge\nlink set br0 up\naddr add {HERE}/64 dev br0 nodad\n");
        for number in 1..=boxes {
            run("ip", ["netns", "add", &format!("box{number}")]);
            here.push_str(&format!(
                "link add wire{number} type veth peer name eth0 netns box{number}\n\
                 link set wire{number} master br0 up\n"
            ));
        }
        run_with("ip", &["-batch", "-"], &here);
        for number in 1..=boxes {
            let there =
                format!("link set lo up\nlink set eth0 up\naddr add fd00:77::{number}/64 dev eth0 nodad\n");
            run_with("ip", &["-n", &format!("box{number}"), "-batch", "-"], &there);
        }
        let lan = Lan { boxes, hosts: scratch.join("hosts") };
        lan.name_nothing();
        run("mount", ["--bind", &lan.hosts.display().to_string(), "/etc/hosts"]);
        lan
    }

    /// Where the boxes are.
    pub(crate) fn places(&self) -> Vec<Place> {
        let place = |number| Place {
            address: format!("box{number}.lan:7400"),
            http: 7480,
            statsd: 8125,
            namespace: Some(PathBuf::from(format!("/run/netns/box{number}"))),
        };
        (1..=self.boxes).map(place).collect()
    }

    /// What names stand for, besides the machine itself.
    pub(crate) fn name(&self, lines: &str) {
        std::fs::write(&self.hosts, format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }

    /// Each name stands for an IPv6 address and nothing else.
    pub(crate) fn name_all(&self) {
        let boxes: String =
            (1..=self.boxes).map(|number| format!("fd00:77::{number} box{number}.lan\n")).collect();
        self.name(&format!("{boxes}{HERE} {BROKER}\n"));
    }

    /// No name stands for anything.
    pub(crate) fn name_nothing(&self) {
        self.name("");
    }

    /// Has everybody ask a name server that never answers for the names that nothing stands for, as long as this is kept.
    pub(crate) fn mute_name_server(&self) -> UdpSocket {
        let file = self.hosts.with_file_name("resolv.conf");
        std::fs::write(&file, format!("nameserver {HERE}\noptions timeout:2 attempts:1\n")).unwrap();
        let place = Path::new("/etc/resolv.conf");
        if !place.exists() {
            // A link into /run, which is the lab's own; or there is none at all, and nobody is asked.
            let Ok(link) = std::fs::read_link(place) else { return UdpSocket::bind((HERE, 53)).unwrap() };
            let target = Path::new("/etc").join(link);
            std::fs::create_dir_all(target.parent().expect("it is in /run")).unwrap();
            std::fs::write(target, "").unwrap();
        }
        run("mount", ["--bind", &file.display().to_string(), "/etc/resolv.conf"]);
        UdpSocket::bind((HERE, 53)).unwrap()
    }
}
