//! Five real boxes, each in a network namespace and on a disk, while links, disks and processes fail: what
//! clients were told is linearizable, and every increment they were told of is counted once.
//!
//! * `lab`: namespaces that the kernel takes apart when a test ends, however it ends. `network`: the boxes'
//!   wires and how they are cut. `lan`: the same without IPv4, by names. `relay`: loss and jitter. `small_disk`: a disk that can be filled or held up.
//!   `standstill`: whether the machine itself stood still.
//! * `site`: five boxes on that network. `clock`: the boxes' wall clocks. `clients`: who adds and reads, and what
//!   they were told. `history`: whether that is linearizable. `times`: whether site time and windows are as they
//!   must be. `plan`: what goes wrong, from a seed.
//! * `trouble`, `clocks`, `partitions`, `full_disk`, `slow_disk`, `failover`, `weather`, `ipv6`: what holds.

mod bounded_disk;
mod clients;
mod clock;
#[cfg(debug_assertions)]
mod clocks;
mod failover;
mod full_disk;
mod history;
mod history_tests;
mod ipv6;
pub(crate) mod lab;
pub(crate) mod lan;
mod network;
mod one_link;
mod partitions;
mod plan;
mod relay;
mod site;
mod slow_disk;
pub(crate) mod small_disk;
pub(crate) mod standstill;
mod times;
mod trouble;
mod unhealthy_disk;
mod weather;
