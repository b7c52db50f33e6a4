//! The demo's own Mosquitto, on a free loopback port.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::site::free_tcp_port;
use crate::tools;

const START_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    pub(super) fn start(folder: &Path) -> Result<Broker> {
        let port = free_tcp_port()?;
        let config = folder.join("mosquitto.conf");
        // Nothing that the subscriber has not taken yet may be dropped: the proof counts on it.
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let program = tools::find("mosquitto").context("mosquitto is not installed")?;
        let log = File::create(folder.join("mosquitto.log")).context("cannot make mosquitto's log")?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start mosquitto")?;
        let broker = Broker { child, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!(
                    "mosquitto does not accept connections; see {}",
                    folder.join("mosquitto.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
