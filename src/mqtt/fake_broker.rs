//! For tests: the least of a broker, which answers each topic as it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::BrokerUrl;

/// What becomes of a message on a topic, or of a subscription (`subscribe TOPIC`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Take,
    /// With a reason code.
    Refuse(u8),
    /// As some do to whom they do not trust.
    RefuseAndClose(u8),
    Close,
    Ignore,
}

type Rule = Box<dyn FnMut(&str) -> Act + Send>;

pub(crate) struct FakeBroker {
    port: u16,
    task: JoinHandle<()>,
    /// Topics of messages, in order, whatever became of them.
    pub(crate) published: Arc<Mutex<Vec<String>>>,
    rule: Arc<Mutex<Rule>>,
}

impl FakeBroker {
    /// `connack`: the answer to CONNECT from its reason code on.
    pub(crate) async fn start(
        connack: &'static [u8],
        rule: impl FnMut(&str) -> Act + Send + 'static,
    ) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let published: Arc<Mutex<Vec<String>>> = Arc::default();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let (seen, rules) = (Arc::clone(&published), Arc::clone(&rule));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, rules) = (Arc::clone(&seen), Arc::clone(&rules));
                tokio::spawn(async move {
                    // An error is a client that went.
                    let _ = serve(stream, connack, &seen, &rules).await;
                });
            }
        });
        FakeBroker { port, task, published, rule }
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, rule: impl FnMut(&str) -> Act + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    pub(crate) fn count(&self, topic: &str) -> usize {
        self.published.lock().unwrap().iter().filter(|one| *one == topic).count()
    }

    pub(crate) fn url(&self) -> BrokerUrl {
        format!("mqtt://127.0.0.1:{}", self.port).parse().unwrap()
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    connack: &[u8],
    published: &Mutex<Vec<String>>,
    rule: &Mutex<Rule>,
) -> std::io::Result<()> {
    loop {
        let first = stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14] {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let text = |at: usize| {
            let end = at + 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            (String::from_utf8(body[at + 2..end].to_vec()).unwrap(), end)
        };
        match first >> 4 {
            1 => {
                stream.write_all(&[0x20, connack.len() as u8 + 1, 0]).await?;
                stream.write_all(connack).await?;
            }
            3 => {
                let (topic, end) = text(0);
                published.lock().unwrap().push(topic.clone());
                let act = (rule.lock().unwrap())(&topic);
                let reason = match act {
                    Act::Take => 0,
                    Act::Refuse(reason) | Act::RefuseAndClose(reason) => reason,
                    Act::Close => return Ok(()),
                    Act::Ignore => continue,
                };
                stream.write_all(&[0x40, 3, body[end], body[end + 1], reason]).await?;
                if matches!(act, Act::RefuseAndClose(_)) {
                    // In order: a reset would take the answer along.
                    stream.shutdown().await?;
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                    return Ok(());
                }
            }
            8 => {
                let properties = usize::from(body[2]);
                let (topic, _) = text(3 + properties);
                let act = (rule.lock().unwrap())(&format!("subscribe {topic}"));
                let reason = match act {
                    Act::Take => 0,
                    Act::Refuse(reason) | Act::RefuseAndClose(reason) => reason,
                    Act::Close => return Ok(()),
                    Act::Ignore => continue,
                };
                stream.write_all(&[0x90, 4, body[0], body[1], 0, reason]).await?;
            }
            12 => stream.write_all(&[0xd0, 0]).await?,
            _ => return Ok(()),
        }
    }
}
