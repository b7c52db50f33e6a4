//! How long a box takes from its start until it is ready.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{fresh_site, median};
use crate::http;
use crate::site::free_tcp_port;

const STARTS: usize = 9;
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Medians in milliseconds: of a box alone, first start and later ones, and of a box that returns to
/// its site.
pub(super) fn measure(program: &Path, folder: &Path) -> Result<Value> {
    let mut first = Vec::new();
    let mut again = Vec::new();
    for start in 0..STARTS {
        let own = folder.join(format!("alone-{start}"));
        first.push(alone(program, &own)?);
        again.push(alone(program, &own)?);
    }
    let mut site = fresh_site(program, &folder.join("returning"))?;
    site.wait_ready()?;
    let leader = site.leader().context("no box is the leader")?;
    let names: Vec<String> = site.views().into_iter().map(|view| view.name).collect();
    let follower = names.iter().find(|name| **name != leader).context("a site of one box")?;
    let mut returning = Vec::new();
    for _ in 0..STARTS {
        site.kill(follower)?;
        let began = Instant::now();
        site.revive(follower)?;
        let api = site.api_address(follower)?;
        returning.push(wait_ready(api, began, || site.check())?);
    }
    site.stop();
    Ok(json!({
        "alone_first_ms": median(first), "alone_again_ms": median(again), "returning_ms": median(returning),
    }))
}

/// A box alone: started, ready, killed.
fn alone(program: &Path, folder: &Path) -> Result<f64> {
    let api = SocketAddr::from(([127, 0, 0, 1], free_tcp_port()?));
    let mut command = Command::new(program);
    command.args(["run", "--data-dir"]).arg(folder);
    command.env("TALLYD_API_LISTEN", api.to_string()).env("TALLYD_INGEST_STATSD_LISTEN", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = Ended(command.spawn().context("the daemon cannot be started")?);
    wait_ready(api, began, || match child.0.try_wait()? {
        Some(status) => bail!("a single box ended by itself ({status})"),
        None => Ok(()),
    })
}

/// Milliseconds from `began` until the box can commit.
fn wait_ready(api: SocketAddr, began: Instant, mut check: impl FnMut() -> Result<()>) -> Result<f64> {
    loop {
        if http::get_status(api, "/readyz").is_ok_and(|status| status == 200) {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        check()?;
        if began.elapsed() > READY_TIMEOUT {
            bail!("a box is not ready after {READY_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends with the measurement.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
