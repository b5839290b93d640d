//! Counts in a Redis that several servers share: `INCRBY` and `EXPIRE`, pipelined.
//!
//! One connection, owned by one task: what waits is sent together, so that a round trip serves many requests. Nothing waits
//! longer than the time-out; a connection that failed is made anew after a growing pause, in which requests fail at once.
//! The credential is never logged.

use std::time::Duration;

use meltemi_base::Backoff;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::resp::{self, Reply};
use super::{CounterError, Hit};

/// Requests that may wait for the connection.
const MAX_WAITING: usize = 4096;
/// Requests of one round trip.
const MAX_TOGETHER: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What `AUTH` takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// None: of the default user.
    user: Option<String>,
    password: String,
}

impl Credential {
    /// From `password` or `user:password`.
    pub fn new(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, password)) => Self { user: Some(user.to_owned()), password: password.to_owned() },
            None => Self { user: None, password: text.to_owned() },
        }
    }
}

/// Without the password.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.user.as_deref().unwrap_or("default"))
    }
}

/// Which Redis, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `host:port`.
    pub address: String,
    pub credential: Option<Credential>,
    /// Of a connection, and of an answer.
    pub timeout: Duration,
}

/// The way to the task that has the connection.
#[derive(Debug)]
pub(crate) struct Redis {
    sender: mpsc::Sender<Batch>,
    timeout: Duration,
}

type Answer = Result<Vec<u64>, CounterError>;

/// The hits of one request.
struct Batch {
    hits: Vec<Hit>,
    answer: oneshot::Sender<Answer>,
}

impl Redis {
    /// Connects when there is something to count. The task ends with the returned value.
    pub fn start(options: RedisOptions) -> Self {
        let (sender, batches) = mpsc::channel(MAX_WAITING);
        let timeout = options.timeout;
        tokio::spawn(Client::new(options).run(batches));
        Self { sender, timeout }
    }

    pub(super) async fn add(&self, hits: Vec<Hit>) -> Answer {
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Batch { hits, answer }).map_err(|_| CounterError::Full)?;
        match timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CounterError::Unavailable("the client has ended".to_owned())),
            Err(_) => Err(CounterError::TimedOut),
        }
    }
}

/// The connection's owner.
struct Client {
    options: RedisOptions,
    connection: Option<Connection>,
    backoff: Backoff,
    /// No connection is tried before.
    not_before: Instant,
}

impl Client {
    fn new(options: RedisOptions) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { options, connection: None, backoff, not_before: Instant::now() }
    }

    async fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        let mut together = Vec::new();
        while batches.recv_many(&mut together, MAX_TOGETHER).await > 0 {
            // Who waits no more is not counted.
            together.retain(|batch| !batch.answer.is_closed());
            self.serve(&mut together).await;
        }
    }

    async fn serve(&mut self, together: &mut Vec<Batch>) {
        let hits: Vec<&Hit> = together.iter().flat_map(|batch| &batch.hits).collect();
        let mut counts = match self.exchange(&hits).await {
            Ok(counts) => counts.into_iter(),
            Err(error) => {
                for batch in together.drain(..) {
                    drop(batch.answer.send(Err(error.clone())));
                }
                return;
            }
        };
        for batch in together.drain(..) {
            let own: Answer = counts.by_ref().take(batch.hits.len()).collect();
            drop(batch.answer.send(own));
        }
    }

    async fn exchange(&mut self, hits: &[&Hit]) -> Result<Vec<Result<u64, CounterError>>, CounterError> {
        if Instant::now() < self.not_before {
            return Err(CounterError::Unavailable("no connection; the next attempt is yet to come".to_owned()));
        }
        let limit = self.options.timeout;
        match timeout(limit, self.try_exchange(hits)).await {
            Ok(Ok(counts)) => {
                self.backoff.reset();
                Ok(counts)
            }
            Ok(Err(error)) => Err(self.failed(CounterError::Unavailable(error.to_string()))),
            Err(_) => Err(self.failed(CounterError::TimedOut)),
        }
    }

    /// Over the connection that is there; over another one where Redis has closed it meanwhile.
    async fn try_exchange(&mut self, hits: &[&Hit]) -> std::io::Result<Vec<Result<u64, CounterError>>> {
        if let Some(connection) = &mut self.connection {
            if let Ok(counts) = connection.exchange(hits).await {
                return Ok(counts);
            }
            self.connection = None;
        }
        let connection = self.connection.insert(Connection::open(&self.options).await?);
        connection.exchange(hits).await
    }

    fn failed(&mut self, error: CounterError) -> CounterError {
        self.connection = None;
        let pause = self.backoff.next();
        self.not_before = Instant::now() + pause;
        tracing::warn!(address = self.options.address, "{error}; the next attempt is in {} ms", pause.as_millis());
        error
    }
}

struct Connection {
    stream: TcpStream,
    /// What was read and not yet understood.
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(options: &RedisOptions) -> std::io::Result<Self> {
        let stream = TcpStream::connect(&options.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, buffer: Vec::new() };
        if let Some(credential) = &options.credential {
            connection.authenticate(credential).await?;
        }
        Ok(connection)
    }

    async fn authenticate(&mut self, credential: &Credential) -> std::io::Result<()> {
        let words = ["AUTH"].into_iter().chain(credential.user.as_deref()).chain([&*credential.password]);
        let mut out = Vec::new();
        resp::command(&mut out, &words.collect::<Vec<_>>());
        self.stream.write_all(&out).await?;
        match self.reply().await? {
            Reply::Text(text) if text == "OK" => Ok(()),
            Reply::Error(reason) => Err(std::io::Error::other(reason)),
            _ => Err(std::io::Error::other("AUTH was not answered")),
        }
    }

    /// Each hit is two commands.
    async fn exchange(&mut self, hits: &[&Hit]) -> std::io::Result<Vec<Result<u64, CounterError>>> {
        let mut out = Vec::new();
        for hit in hits {
            // Redis counts in signed 64 bits.
            let amount = i64::try_from(hit.hits).unwrap_or(i64::MAX).to_string();
            resp::command(&mut out, &["INCRBY", &hit.key, &amount]);
            resp::command(&mut out, &["EXPIRE", &hit.key, &hit.length.to_string()]);
        }
        self.stream.write_all(&out).await?;
        let mut counts = Vec::with_capacity(hits.len());
        for _ in hits {
            let count = self.reply().await?;
            let expiry = self.reply().await?;
            counts.push(match (count, expiry) {
                (Reply::Integer(count), Reply::Integer(_)) => Ok(u64::try_from(count).unwrap_or_default()),
                (Reply::Error(reason), _) | (_, Reply::Error(reason)) => Err(CounterError::Refused(reason)),
                _ => return Err(std::io::Error::other(resp::RespError::Kind)),
            });
        }
        Ok(counts)
    }

    async fn reply(&mut self) -> std::io::Result<Reply> {
        loop {
            if let Some((reply, length)) = resp::parse(&self.buffer).map_err(std::io::Error::other)? {
                self.buffer.drain(..length);
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
