//! Upstream connections of one worker.
//!
//! Owns reuse: HTTP/1 connections are a stack of idle ones (the warmest first), HTTP/2 connections are shared, the least loaded
//! first. Who waits for a connection waits in order. Nothing is locked, nothing is spawned for an HTTP/1 connection; a sweep
//! once a second drops what has been idle too long or was closed by its peer. Must never decide which endpoint to use.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    hash::{BuildHasherDefault, Hasher},
    ops::{Deref, DerefMut},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use meltemi_net::{Address, Stream};
use tokio::time::Instant;

use crate::{ClientStream, Protocol, ResetReason, h1, h2};

/// What identifies connections that may stand in for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub endpoint: u64,
    /// The transport socket, with whatever changes it for a request (ALPN, SNI, source address).
    pub transport: u64,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Http1,
    Http2,
    /// Whatever ALPN selects.
    Alpn,
}

/// Bounds and protocol options of a pool.
#[derive(Clone, Debug)]
pub struct Options {
    pub h1: h1::Limits,
    pub h2: h2::Options,
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// 0 is no limit.
    pub max_requests_per_connection: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            h1: h1::Limits::default(),
            h2: h2::Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: 0,
        }
    }
}

/// Why a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed it.
    Remote,
    /// We did: an exchange was given up, or nobody is to use it any more.
    Local,
    /// The peer said that it would not take another request.
    CloseAnnounced,
    IdleTimeout,
    MaxDuration,
    MaxRequests,
    /// The peer broke the protocol.
    Protocol,
}

/// Counts a connection: dropped when it has ended.
pub trait Guard {
    fn speaks(&self, _protocol: Protocol) {}

    /// Just before the drop; `busy`: in the midst of an exchange.
    fn ends(&self, _end: End, _busy: bool) {}
}

impl Guard for () {}

/// A transport ready for HTTP, and what counts it.
pub struct Connected {
    pub stream: Stream,
    pub guard: Box<dyn Guard>,
    /// What the connector wants to find again in [`ConnectionFacts`].
    pub note: Option<Rc<dyn Any>>,
}

/// Why no connection could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("connection timeout")]
    Timeout,
    /// The text of `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    #[error("{0}")]
    Transport(String),
    #[error("{0}")]
    Io(String),
}

/// What is known of an upstream connection, for logs.
pub struct ConnectionFacts {
    /// Unique in this thread.
    pub id: u64,
    pub local: Address,
    pub protocol: Protocol,
    pub opened: Instant,
    pub note: Option<Rc<dyn Any>>,
}

thread_local! {
    static NEXT_ID: Cell<u64> = const { Cell::new(1) };
}

impl ConnectionFacts {
    pub(crate) fn new(stream: &Stream, protocol: Protocol, note: Option<Rc<dyn Any>>) -> Self {
        let id = NEXT_ID.get();
        NEXT_ID.set(id + 1);
        Self { id, local: stream.local_addr(), protocol, opened: Instant::now(), note }
    }
}

/// Multiplies and mixes: keys are numbers that no peer chooses.
#[derive(Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, which multiplying leaves as regular as the numbers are.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }
}

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {
    pools: RefCell<HashMap<Key, Rc<Pool>, BuildHasherDefault<NumberHasher>>>,
}

impl Pools {
    pub fn new() -> Self {
        Self::default()
    }

    /// The pool of `key`; `options` is asked when it is new.
    pub fn pool(&self, key: Key, options: impl FnOnce() -> Rc<Options>) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(&key) {
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool::new(key.mode, options()));
        self.pools.borrow_mut().insert(key, Rc::clone(&pool));
        pool
    }

    /// Drops connections that are closed, or idle for too long, and pools without any. Called once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.pools.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            pool.open.get() > 0 || Rc::strong_count(pool) > 1
        });
    }

    /// Forgets pools that `keep` refuses: idle connections close, busy ones when their request is done.
    pub fn retain(&self, mut keep: impl FnMut(&Key) -> bool) {
        self.pools.borrow_mut().retain(|key, pool| {
            let kept = keep(key);
            if !kept {
                pool.close();
            }
            kept
        });
    }
}

struct Idle {
    client: Box<Http1>,
    /// When a sweep first found it here: reading the clock for each request would be for nothing.
    since: Option<Instant>,
}

struct Http1 {
    client: h1::Client,
    facts: Rc<ConnectionFacts>,
    guard: Box<dyn Guard>,
}

struct Http2 {
    connection: h2::ClientConnection,
    opened: Instant,
    streams: Cell<u64>,
    last_used: Cell<Instant>,
    closed: Cell<bool>,
    /// Why it is to end, if we decided so.
    ending: Cell<End>,
}

struct Waiter {
    outcome: RefCell<Option<Result<(), ConnectError>>>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn wake(&self, outcome: Result<(), ConnectError>) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Connections to one endpoint over one transport.
pub struct Pool {
    mode: Mode,
    options: Rc<Options>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    /// Connections open or opening.
    open: Cell<usize>,
    connecting: Cell<usize>,
    closed: Cell<bool>,
}

impl Pool {
    fn new(mode: Mode, options: Rc<Options>) -> Self {
        Self {
            mode,
            options,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiters: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            closed: Cell::new(false),
        }
    }

    /// Connections open or opening.
    pub fn connections(&self) -> usize {
        self.open.get()
    }

    /// A stream on a connection that exists, without waiting.
    pub fn try_stream(self: &Rc<Self>) -> Option<ClientStream> {
        if self.mode != Mode::Http2 {
            loop {
                let popped = self.idle.borrow_mut().pop();
                let Some(mut idle) = popped else { break };
                let Some(end) = self.end_of(&mut idle.client) else {
                    return Some(ClientStream::H1(Lease { http1: Some(idle.client), pool: Rc::clone(self) }));
                };
                idle.client.guard.ends(end, false);
                drop(idle);
                self.ended();
            }
        }
        if self.mode == Mode::Http1 {
            return None;
        }
        let shared = self.shared.borrow();
        let best = shared.iter().filter(|c| self.has_room(c)).min_by_key(|c| c.connection.active())?;
        best.streams.set(best.streams.get() + 1);
        best.last_used.set(Instant::now());
        Some(ClientStream::H2(best.connection.stream()))
    }

    /// Why an idle connection is not to be used; `None`: it is.
    fn end_of(&self, http1: &mut Http1) -> Option<End> {
        if !http1.client.is_idle_and_open() {
            return Some(End::Remote);
        }
        self.is_expired(http1.facts.opened).then_some(End::MaxDuration)
    }

    fn is_expired(&self, opened: Instant) -> bool {
        self.options.max_connection_duration.is_some_and(|limit| opened.elapsed() >= limit)
    }

    fn has_room(&self, shared: &Http2) -> bool {
        let limit = self.options.max_requests_per_connection;
        let most = (self.options.h2.max_concurrent_streams as usize).min(shared.connection.max_streams());
        !shared.closed.get()
            && shared.connection.active() < most
            && (limit == 0 || shared.streams.get() < limit)
            && !self.is_expired(shared.opened)
            && shared.connection.is_open()
    }

    /// Opens a connection and returns a stream on it, or on one that came free meanwhile; `None` if it was gone again before anyone
    /// could use it, as when the peer is about to leave. For HTTP/2 and ALPN the connection is
    /// opened by a task of its own, so that a request that gives up does not take down the others that wait for it.
    pub async fn open<F>(self: &Rc<Self>, connect: F) -> Result<Option<ClientStream>, ConnectError>
    where
        F: Future<Output = Result<Connected, ConnectError>> + 'static,
    {
        if self.mode == Mode::Http1 {
            let opening = Opening(Rc::clone(self), true);
            self.open.set(self.open.get() + 1);
            let connected = connect.await?;
            opening.done();
            return Ok(Some(ClientStream::H1(self.lease(connected))));
        }
        let expected = self.options.h2.max_concurrent_streams as usize * self.connecting.get();
        if self.waiters.borrow().len() >= expected {
            self.open.set(self.open.get() + 1);
            self.connecting.set(self.connecting.get() + 1);
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move { pool.open_shared(connect).await });
        }
        self.wait().await?;
        Ok(self.try_stream())
    }

    /// Waits in line until a connection may be free.
    pub async fn wait(self: &Rc<Self>) -> Result<(), ConnectError> {
        let waiter = Rc::new(Waiter { outcome: RefCell::new(None), waker: RefCell::new(None) });
        self.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        let place = Place { pool: self, waiter };
        poll_fn(|cx| {
            if let Some(outcome) = place.waiter.outcome.borrow_mut().take() {
                return Poll::Ready(outcome);
            }
            *place.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn lease(self: &Rc<Self>, connected: Connected) -> Lease {
        let facts = Rc::new(ConnectionFacts::new(&connected.stream, Protocol::Http11, connected.note));
        let client = h1::Client::new(connected.stream, self.options.h1);
        connected.guard.speaks(Protocol::Http11);
        let http1 = Box::new(Http1 { client, facts, guard: connected.guard });
        Lease { http1: Some(http1), pool: Rc::clone(self) }
    }

    async fn open_shared<F>(self: Rc<Self>, connect: F)
    where
        F: Future<Output = Result<Connected, ConnectError>>,
    {
        let result = connect.await;
        let connected = match result {
            Ok(connected) => connected,
            Err(error) => return self.failed(error),
        };
        if self.mode == Mode::Alpn && connected.stream.alpn() != Some(b"h2") {
            self.connecting.set(self.connecting.get() - 1);
            // Dropping the lease puts the connection among the idle ones and wakes the first waiter.
            let mut lease = self.lease(connected);
            lease.put_back(true);
            return;
        }
        let Connected { stream, guard, note } = connected;
        let facts = Rc::new(ConnectionFacts::new(&stream, Protocol::Http2, note));
        match h2::handshake(stream, &self.options.h2, facts).await {
            Ok((connection, driver)) => {
                self.connecting.set(self.connecting.get() - 1);
                guard.speaks(Protocol::Http2);
                self.drive(connection, driver, guard).await;
            }
            Err(error) => self.failed(ConnectError::Io(error.to_string())),
        }
    }

    fn failed(&self, error: ConnectError) {
        self.connecting.set(self.connecting.get() - 1);
        self.open.set(self.open.get() - 1);
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for waiter in waiters {
            waiter.wake(Err(error.clone()));
        }
    }

    async fn drive(self: Rc<Self>, connection: h2::ClientConnection, mut driver: h2::Driver, guard: Box<dyn Guard>) {
        let now = Instant::now();
        let shared = Rc::new(Http2 {
            connection,
            opened: now,
            streams: Cell::new(0),
            last_used: Cell::new(now),
            closed: Cell::new(false),
            ending: Cell::new(End::Local),
        });
        self.shared.borrow_mut().push(Rc::clone(&shared));
        self.wake_all();
        let weak = Rc::downgrade(&self);
        drop(self);
        poll_fn(|cx| driver.poll(cx)).await;
        shared.closed.set(true);
        let end = match shared.connection.over() {
            Some(ResetReason::Protocol) => End::Protocol,
            Some(ResetReason::ConnectionClosed) if shared.ending.get() == End::Local => End::Remote,
            _ => shared.ending.get(),
        };
        guard.ends(end, shared.connection.active() > 0);
        drop(guard);
        if let Some(pool) = weak.upgrade() {
            pool.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, &shared));
            pool.ended();
        }
    }

    /// A connection is gone: whoever waits may open another.
    fn ended(&self) {
        self.open.set(self.open.get() - 1);
        self.wake_one();
    }

    fn wake_one(&self) {
        let first = self.waiters.borrow_mut().pop_front();
        if let Some(waiter) = first {
            waiter.wake(Ok(()));
        }
    }

    fn wake_all(&self) {
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for waiter in waiters {
            waiter.wake(Ok(()));
        }
    }

    fn sweep(&self, now: Instant) {
        let limit = self.options.idle_timeout;
        let mut gone = Vec::new();
        self.idle.borrow_mut().retain_mut(|idle| {
            let since = *idle.since.get_or_insert(now);
            let unused = limit.is_some_and(|limit| now.duration_since(since) >= limit);
            let end = self.end_of(&mut idle.client).or(unused.then_some(End::IdleTimeout));
            if let Some(end) = end {
                idle.client.guard.ends(end, false);
                gone.push(());
            }
            end.is_none()
        });
        for () in gone {
            self.ended();
        }
        for shared in self.shared.borrow().iter() {
            let idle = shared.connection.active() == 0
                && limit.is_some_and(|limit| now.duration_since(shared.last_used.get()) >= limit);
            let expired = self.is_expired(shared.opened);
            if idle || expired {
                shared.ending.set(if expired { End::MaxDuration } else { End::IdleTimeout });
                shared.connection.retire();
            }
        }
    }

    fn close(&self) {
        self.closed.set(true);
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        self.open.set(self.open.get() - idle.len());
        idle.iter().for_each(|idle| idle.client.guard.ends(End::Local, false));
        for shared in self.shared.borrow().iter() {
            shared.connection.retire();
        }
    }
}

/// Undoes the count of a connection that was not opened after all.
struct Opening(Rc<Pool>, bool);

impl Opening {
    fn done(mut self) {
        self.1 = false;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.1 {
            self.0.ended();
        }
    }
}

/// A place in the line; leaving it passes an unused wake-up on.
struct Place<'a> {
    pool: &'a Pool,
    waiter: Rc<Waiter>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let before = self.pool.waiters.borrow().len();
        self.pool.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        let was_woken = self.pool.waiters.borrow().len() == before;
        if was_woken && matches!(*self.waiter.outcome.borrow(), Some(Ok(()))) {
            self.pool.wake_one();
        }
    }
}

/// An HTTP/1 connection in use. Dropped, it goes back to its pool if the exchange ended cleanly, and closes otherwise.
pub struct Lease {
    http1: Option<Box<Http1>>,
    pool: Rc<Pool>,
}

impl Lease {
    pub fn facts(&self) -> &Rc<ConnectionFacts> {
        &self.http1.as_ref().expect("a lease holds its connection until it is dropped").facts
    }

    fn put_back(&mut self, unused: bool) {
        let Some(mut http1) = self.http1.take() else { return };
        let Some((end, busy)) = self.end_after(&mut http1, unused) else {
            self.pool.idle.borrow_mut().push(Idle { client: http1, since: None });
            self.pool.wake_one();
            return;
        };
        http1.guard.ends(end, busy);
        drop(http1);
        self.pool.ended();
    }

    /// Why the connection cannot take another exchange, and whether this one was cut short; `None`: it can.
    fn end_after(&self, http1: &mut Http1, unused: bool) -> Option<(End, bool)> {
        let limit = self.pool.options.max_requests_per_connection;
        if !unused && !http1.client.recycle() {
            let busy = !http1.client.response_ended();
            return Some((http1.client.end(), busy));
        }
        if limit > 0 && http1.client.requests() >= limit {
            return Some((End::MaxRequests, false));
        }
        if self.pool.is_expired(http1.facts.opened) {
            return Some((End::MaxDuration, false));
        }
        self.pool.closed.get().then_some((End::Local, false))
    }
}

impl Deref for Lease {
    type Target = h1::Client;

    fn deref(&self) -> &h1::Client {
        &self.http1.as_ref().expect("a lease holds its connection until it is dropped").client
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut h1::Client {
        &mut self.http1.as_mut().expect("a lease holds its connection until it is dropped").client
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.put_back(false);
    }
}

#[cfg(test)]
mod tests;
