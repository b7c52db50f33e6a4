//! Runs the upstream's [`Machine`] in the daemon: brings it what comes, and does what it says.

use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::machine::{Input, Machine, Output};
use super::outbox::Outbox;
use crate::mqtt::{self, Answer, BrokerTarget, Connection, Ending, Learned, Message};

/// See the module.
pub(super) struct Shell<O> {
    machine: Machine<O>,
    target: BrokerTarget,
    way: Way,
    stopped: mpsc::Receiver<bool>,
    is_stopping: bool,
    asked: FuturesUnordered<BoxFuture<'static, Input>>,
    probe: Option<BoxFuture<'static, Input>>,
}

/// The way to the broker.
struct Way {
    link: Link,
    learned: Learned,
}

enum Link {
    None,
    /// A connection comes about.
    Opens(BoxFuture<'static, Opened>),
    Open(Box<Connected>),
    /// It is closed.
    Closes(BoxFuture<'static, Input>),
}

struct Opened {
    number: u64,
    result: Result<Box<Connection<u64>>, Ending>,
    learned: Learned,
}

struct Connected {
    number: u64,
    connection: Box<Connection<u64>>,
    /// What the client library did not take.
    failed: Option<String>,
}

impl<O: Outbox> Shell<O> {
    pub(super) fn new(machine: Machine<O>, target: BrokerTarget, stopped: mpsc::Receiver<bool>) -> Shell<O> {
        Shell {
            machine,
            target,
            way: Way { link: Link::None, learned: Learned::default() },
            stopped,
            is_stopping: false,
            asked: FuturesUnordered::new(),
            probe: None,
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        self.step(None);
        while !self.machine.is_over() {
            let input = self.input().await;
            self.step(input);
        }
    }

    /// Waits for something to take in, for a change of the site, or until something is due.
    async fn input(&mut self) -> Option<Input> {
        let due = self.machine.due().map(tokio::time::Instant::from_std);
        let looks_at = tokio::time::Instant::from_std(self.machine.looks_at());
        let outbox = &mut self.machine.site;
        let changed = async {
            sleep_until(looks_at).await;
            outbox.changed().await;
        };
        tokio::select! {
            input = self.way.input() => Some(input),
            Some(input) = self.asked.next(), if !self.asked.is_empty() => Some(input),
            input = of_probe(&mut self.probe) => Some(input),
            last = self.stopped.recv(), if !self.is_stopping => {
                self.is_stopping = true;
                Some(Input::Stop { last: last.unwrap_or(false) })
            }
            () = changed => None,
            () = async { sleep_until(due.unwrap_or(looks_at)).await }, if due.is_some() => None,
        }
    }

    fn step(&mut self, input: Option<Input>) {
        self.machine.wake(Instant::now());
        if let Some(input) = input {
            self.machine.take(input);
        }
        // Those that came with it: one round for all of them.
        while let Some(input) = self.way.input().now_or_never() {
            self.machine.take(input);
        }
        self.machine.step();
        while let Some(output) = self.machine.next_output() {
            self.follow(output);
        }
    }

    fn follow(&mut self, output: Output) {
        match output {
            Output::Ask { ticket, ask } => {
                let answer = self.machine.site.ask(ask);
                self.asked.push(Box::pin(async move { Input::Asked { ticket, result: answer.await } }));
            }
            Output::Connect { connection, will } => self.way.open(connection, self.target.clone(), will),
            Output::Send { id, message } => self.way.on_open(|connection| connection.send(id, message)),
            Output::Subscribe { id, topic } => {
                self.way.on_open(|connection| connection.subscribe(id, &topic));
            }
            Output::Close { connection, last } => self.way.close(connection, last),
            Output::Abandon => self.way.link = Link::None,
            Output::Probe { ticket } => {
                let probe = mqtt::probe(self.target.clone(), self.machine.site.name());
                self.probe = Some(Box::pin(async move { Input::Probed { ticket, result: probe.await } }));
            }
            Output::EndProbe => self.probe = None,
        }
    }
}

async fn of_probe(probe: &mut Option<BoxFuture<'static, Input>>) -> Input {
    match probe {
        Some(future) => {
            let input = future.await;
            *probe = None;
            input
        }
        None => future::pending().await,
    }
}

impl Way {
    fn open(&mut self, number: u64, target: BrokerTarget, will: Message) {
        let mut learned = self.learned;
        self.link = Link::Opens(Box::pin(async move {
            let result = Connection::open(&target, will, &mut learned).await.map(Box::new);
            Opened { number, result, learned }
        }));
    }

    fn on_open(&mut self, act: impl FnOnce(&mut Connection<u64>) -> Result<(), String>) {
        if let Link::Open(connected) = &mut self.link
            && let Err(what) = act(&mut connected.connection)
        {
            // What is not sent must not look as if it were under way.
            connected.failed = Some(what);
        }
    }

    fn close(&mut self, number: u64, last: bool) {
        let link = std::mem::replace(&mut self.link, Link::None);
        self.link = Link::Closes(Box::pin(async move {
            if let Link::Open(connected) = link {
                connected.connection.close(last).await;
            }
            Input::Closed { connection: number }
        }));
    }

    /// What comes next. May be cancelled and called again.
    async fn input(&mut self) -> Input {
        match &mut self.link {
            Link::None => future::pending().await,
            Link::Opens(opened) => {
                let Opened { number, result, learned } = opened.await;
                self.learned = learned;
                let (link, result) = match result {
                    Ok(connection) => {
                        let limits = connection.limits();
                        let connected = Connected { number, connection, failed: None };
                        (Link::Open(Box::new(connected)), Ok(limits))
                    }
                    Err(ending) => (Link::None, Err(ending)),
                };
                self.link = link;
                Input::Opened { connection: number, result }
            }
            Link::Open(connected) => {
                let answer = match connected.failed.take() {
                    Some(what) => Answer::Ended(Ending { what, ..Ending::default() }),
                    None => connected.connection.answer().await,
                };
                let connection = connected.number;
                if matches!(answer, Answer::Ended(_)) {
                    self.link = Link::None;
                }
                Input::Answer { connection, answer }
            }
            Link::Closes(closed) => {
                let input = closed.await;
                self.link = Link::None;
                input
            }
        }
    }
}
