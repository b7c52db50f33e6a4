//! The same load on Redis, for comparison in the same run: a primary and two replicas with `appendfsync always`. Each
//! client sends an increment and `WAIT 1`, and so has its answer when two of three hold it, as with a site of three.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use serde_json::{Map, Value, json};

use crate::site::free_tcp_port;
use crate::tools;

/// As many keys as `tallyd bench` has series.
const KEYS: usize = 1_000;
const START_TIMEOUT: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_millis(500);

/// Redis servers, stopped when dropped.
struct Servers {
    primary: SocketAddr,
    children: Vec<Child>,
}

/// Gives adds a second by number of clients.
pub(super) fn measure(folder: &Path, clients: &[usize], seconds: u32) -> Result<Value> {
    let servers = Servers::start(folder)?;
    let mut rates = Map::new();
    for count in clients {
        let rate = load(servers.primary, *count, Duration::from_secs(seconds.into()))?;
        rates.insert(count.to_string(), json!(rate));
    }
    Ok(Value::Object(rates))
}

impl Servers {
    fn start(folder: &Path) -> Result<Servers> {
        let program = tools::find("redis-server").context("redis-server is missing")?;
        let primary = SocketAddr::from(([127, 0, 0, 1], free_tcp_port()?));
        let mut servers = Servers { primary, children: Vec::new() };
        for place in 0..3 {
            let home = folder.join(format!("redis{place}"));
            std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
            let port = if place == 0 { primary.port() } else { free_tcp_port()? };
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
            command.args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--repl-diskless-sync-delay",
                "0",
            ]);
            command.arg("--dir").arg(&home).stdout(Stdio::null());
            if place > 0 {
                command.args(["--replicaof", "127.0.0.1", &primary.port().to_string()]);
            }
            servers.children.push(command.spawn().context("cannot run redis-server")?);
        }
        servers.wait_replicas()?;
        Ok(servers)
    }

    fn wait_replicas(&self) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        while Instant::now() < end {
            if ask(self.primary, "INCRBY started 1\r\nWAIT 2 1000\r\n")
                .is_ok_and(|answer| answer.contains(":2\r\n"))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the Redis replicas did not follow within {} s", START_TIMEOUT.as_secs())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends two commands and gives both answers.
fn ask(to: SocketAddr, commands: &str) -> Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(commands.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 256]);
    while answer.iter().filter(|byte| **byte == b'\n').count() < 2 {
        match stream.read(&mut buffer)? {
            0 => bail!("Redis closed the connection"),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// One connection with one request outstanding.
struct Client {
    stream: TcpStream,
    next_key: usize,
    answer: Vec<u8>,
}

impl Client {
    fn send(&mut self) -> Result<()> {
        self.next_key = (self.next_key + 1) % KEYS;
        let command = format!("INCRBY bench/{:04} 1\r\nWAIT 1 0\r\n", self.next_key);
        // It fits the socket's buffer: nothing else is outstanding.
        self.stream.write_all(command.as_bytes()).context("cannot send to Redis")
    }

    /// Whether the outstanding request is answered.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 256];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("Redis closed a connection"),
            Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot read from Redis"),
        }
        if self.answer.iter().filter(|byte| **byte == b'\n').count() < 2 {
            return Ok(false);
        }
        // `WAIT` tells how many replicas hold it.
        let held = self.answer.ends_with(b":1\r\n") || self.answer.ends_with(b":2\r\n");
        if !self.answer.starts_with(b":") || !held {
            bail!("Redis answered {:?}", String::from_utf8_lossy(&self.answer));
        }
        self.answer.clear();
        Ok(true)
    }
}

/// The closed loop: gives requests a second.
fn load(to: SocketAddr, count: usize, span: Duration) -> Result<f64> {
    let poll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll")?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    for number in 0..count as u64 {
        let stream = TcpStream::connect(to).context("cannot connect to Redis")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&poll, stream.as_fd(), epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        let next_key = number as usize * 7;
        clients.insert(number, Client { stream, next_key, answer: Vec::new() });
    }
    for client in clients.values_mut() {
        client.send()?;
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + span;
    let (mut done, mut events) = (0_u64, Vec::with_capacity(1_024));
    while Instant::now() < end {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), Some(&Duration::from_secs(5).try_into()?))?;
        if events.is_empty() {
            bail!("Redis did not answer for 5 s");
        }
        let measured = Instant::now() >= begin;
        for event in &events {
            let client = clients.get_mut(&event.data.u64()).context("an event of an unknown connection")?;
            if client.receive()? {
                done += u64::from(measured);
                client.send()?;
            }
        }
    }
    Ok(done as f64 / span.as_secs_f64())
}
