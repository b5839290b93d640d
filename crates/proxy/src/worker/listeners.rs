//! The listening sockets of one worker, following the world.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use meltemi_net::{Address, Keepalive, ListenOptions, Listener, Stream, stream::unmapped};
use meltemi_plan as plan;
use tokio::sync::Notify;

use super::{ConnectionHandle, Connections, LiveListener, Reach, Worker, limits::Gate};
use crate::chain;

/// Out of file descriptors: wait for some to close.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Accepted before other tasks get their turn, where the listener does not say.
const ACCEPTS_PER_TURN: u32 = 32;

pub(super) struct Listeners {
    worker: Rc<Worker>,
    running: HashMap<Arc<str>, Vec<Running>>,
    /// Of listeners that are gone.
    retired: Vec<Rc<Connections>>,
    leaving: Option<Reach>,
    closed: Option<Reach>,
    draining: bool,
}

/// One bound socket.
struct Running {
    socket: SocketKey,
    current: Rc<RefCell<Rc<LiveListener>>>,
    connections: Rc<Connections>,
    gate: Arc<Gate>,
    stop: Rc<Stop>,
}

#[derive(Default)]
struct Stop {
    stopped: Cell<bool>,
    /// Goes on accepting, but each connection is asked to finish from the start.
    leaving: Cell<bool>,
    notify: Notify,
}

/// What cannot change without a new socket.
#[derive(PartialEq)]
struct SocketKey {
    /// UDP.
    quic: bool,
    address: plan::Address,
    transparent: bool,
    freebind: bool,
    options: Vec<plan::common::SocketOption>,
}

impl SocketKey {
    fn of(listener: &plan::Listener, address: &plan::Address) -> Self {
        Self {
            quic: listener.quic.is_some(),
            address: address.clone(),
            transparent: listener.transparent,
            freebind: listener.freebind,
            options: listener.socket_options.clone(),
        }
    }
}

impl Listeners {
    pub fn new(worker: Rc<Worker>) -> Self {
        Self { worker, running: HashMap::new(), retired: Vec::new(), leaving: None, closed: None, draining: false }
    }

    /// Follows the worker's world: binds what is new, hands changed listeners to their sockets, closes what is gone.
    pub fn apply(&mut self) {
        if self.draining {
            return;
        }
        let listeners: Vec<Rc<LiveListener>> = self.worker.listeners.borrow().iter().cloned().collect();
        let mut before = std::mem::take(&mut self.running);
        for listener in &listeners {
            if !listener.plan.bind_to_port || self.closed.is_some_and(|reach| reach.covers(&listener.plan)) {
                continue;
            }
            let mut old = before.remove(&listener.plan.name).unwrap_or_default();
            let mut now = Vec::new();
            for address in std::iter::once(&listener.plan.address).chain(&listener.plan.additional_addresses) {
                let key = SocketKey::of(&listener.plan, address);
                let kept = old.iter().position(|r| r.socket == key).map(|i| old.swap_remove(i));
                match kept {
                    Some(running) => {
                        running.update(listener);
                        now.push(running);
                    }
                    None => now.extend(self.start(listener, key)),
                }
            }
            old.into_iter().for_each(|running| self.retire(running));
            self.running.insert(Arc::clone(&listener.plan.name), now);
        }
        before.into_values().flatten().for_each(|running| self.retire(running));
        self.retired.retain(|connections| !connections.is_empty());
    }

    /// Asks all connections to finish, those yet to come as well.
    pub fn leave(&mut self, reach: Reach) {
        self.leaving = Some(reach);
        for running in self.running.values().flatten().filter(|running| running.is_within(reach)) {
            running.stop.leaving.set(true);
            running.connections.drain(|_| true);
        }
    }

    /// Stops accepting. Connections that nobody asked to finish go on.
    pub fn close(&mut self, reach: Reach) {
        self.closed = Some(reach);
        for (name, sockets) in std::mem::take(&mut self.running) {
            let (closed, open): (Vec<Running>, _) = sockets.into_iter().partition(|running| running.is_within(reach));
            closed.into_iter().for_each(|running| self.retired.push(running.stop_accepting()));
            self.running.insert(name, open);
        }
    }

    pub fn drain_all(&mut self) {
        self.draining = true;
        let all = std::mem::take(&mut self.running);
        all.into_values().flatten().for_each(|running| self.retire(running));
        self.retired.iter().for_each(|connections| connections.drain(|_| true));
    }

    /// Drained, and nothing is open any more.
    pub fn is_drained(&self) -> bool {
        self.draining && self.retired.iter().all(|connections| connections.is_empty())
    }

    fn retire(&mut self, running: Running) {
        running.stop.leaving.set(true);
        running.connections.drain(|_| true);
        self.retired.push(running.stop_accepting());
    }

    fn start(&self, listener: &Rc<LiveListener>, socket: SocketKey) -> Option<Running> {
        if socket.quic && self.worker.index != QUIC_WORKER {
            return None;
        }
        let name = &listener.plan.name;
        let running = Running {
            socket,
            current: Rc::new(RefCell::new(Rc::clone(listener))),
            connections: Rc::default(),
            gate: self.worker.limits.gate(&listener.plan),
            stop: Rc::default(),
        };
        running.stop.leaving.set(self.leaving.is_some_and(|reach| reach.covers(&listener.plan)));
        let SocketKey { address, quic, .. } = &running.socket;
        let started = listen_options(&listener.plan, address).and_then(|options| {
            let acceptor = running.acceptor(&self.worker);
            let started = if *quic { start_quic(acceptor, &options) } else { start_tcp(acceptor, &options) };
            started.map_err(|error| format!("{address}: {error}"))
        });
        match started {
            Ok(address) => {
                self.worker.report(name, Ok(address));
                Some(running)
            }
            Err(error) => {
                tracing::error!(listener = %name, %error, "cannot listen");
                self.worker.report(name, Err(error));
                None
            }
        }
    }
}

/// The worker that has the sockets of QUIC. The kernel would spread datagrams over several sockets by their addresses, and so
/// send a client whose address changes to a worker that knows nothing of its connection.
const QUIC_WORKER: usize = 0;

fn start_tcp(acceptor: Acceptor, options: &ListenOptions) -> std::io::Result<Address> {
    let socket = Listener::bind(options)?;
    let address = socket.local_addr()?;
    tokio::task::spawn_local(accept(acceptor, socket));
    Ok(address)
}

#[cfg(feature = "h3")]
fn start_quic(acceptor: Acceptor, options: &ListenOptions) -> std::io::Result<Address> {
    super::quic::start(acceptor, options)
}

#[cfg(not(feature = "h3"))]
fn start_quic(_acceptor: Acceptor, _options: &ListenOptions) -> std::io::Result<Address> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this program was built without HTTP/3"))
}

/// What a task that accepts on a socket works with.
pub(super) struct Acceptor {
    pub worker: Rc<Worker>,
    current: Rc<RefCell<Rc<LiveListener>>>,
    pub connections: Rc<Connections>,
    gate: Arc<Gate>,
    stop: Rc<Stop>,
}

impl Acceptor {
    /// The listener as it is now.
    pub fn listener(&self) -> Rc<LiveListener> {
        self.current.borrow().clone()
    }

    /// Counts a new connection, unless that is beyond a limit; one that comes after the others were asked to finish is asked as
    /// well.
    pub fn admit(&self, listener: &LiveListener, source: Option<IpAddr>) -> Option<ConnectionHandle> {
        let seat = self.gate.enter(source, !listener.plan.ignore_global_conn_limit)?;
        let handle = self.connections.add(self.worker.next_connection_id(), seat);
        if self.stop.leaving.get() {
            handle.drain();
        }
        Some(handle)
    }

    /// No more connections are to be accepted.
    pub fn is_stopped(&self) -> bool {
        self.stop.stopped.get()
    }

    /// Resolves when accepting is to stop.
    pub async fn stopped(&self) {
        self.stop.notify.notified().await;
    }
}

impl Running {
    fn is_within(&self, reach: Reach) -> bool {
        reach.covers(&self.current.borrow().plan)
    }

    fn acceptor(&self, worker: &Rc<Worker>) -> Acceptor {
        Acceptor {
            worker: Rc::clone(worker),
            current: Rc::clone(&self.current),
            connections: Rc::clone(&self.connections),
            gate: Arc::clone(&self.gate),
            stop: Rc::clone(&self.stop),
        }
    }

    fn stop_accepting(self) -> Rc<Connections> {
        self.stop.stopped.set(true);
        self.stop.notify.notify_one();
        self.connections
    }

    /// Hands the new version over. Connections of chains that it changed or dropped are asked to finish.
    fn update(&self, listener: &Rc<LiveListener>) {
        let before = std::mem::replace(&mut *self.current.borrow_mut(), Rc::clone(listener));
        if Rc::ptr_eq(&before, listener) {
            return;
        }
        let kept: Vec<u64> = listener.chains().map(|chain| chain.plan.fingerprint).collect();
        self.connections.drain(|chain| !kept.contains(&chain));
    }
}

async fn accept(acceptor: Acceptor, socket: Listener) {
    let serve = |(stream, peer): (Stream, Address)| {
        let listener = acceptor.listener();
        // Without a handle the stream closes here.
        if let Some(handle) = acceptor.admit(&listener, peer.socket().map(|peer| unmapped(peer).ip())) {
            let worker = Rc::clone(&acceptor.worker);
            tokio::task::spawn_local(chain::serve(worker, listener, stream, peer, handle));
        }
    };
    let mut burst = 0;
    while !acceptor.is_stopped() {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = acceptor.stopped() => break,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
        burst += 1;
        if burst >= acceptor.current.borrow().plan.max_accepts_per_event.unwrap_or(ACCEPTS_PER_TURN) {
            burst = 0;
            tokio::task::yield_now().await;
        }
    }
    // Closing the socket would reset what the kernel has already accepted for us.
    while let Some(Ok(accepted)) = socket.accept().now_or_never() {
        serve(accepted);
    }
}

fn listen_options(listener: &plan::Listener, address: &plan::Address) -> Result<ListenOptions, String> {
    let address = match address {
        plan::Address::Socket(address) => Address::Socket(*address),
        plan::Address::Pipe { path, .. } => Address::Unix(Arc::new(path.to_path_buf())),
        plan::Address::Name { .. } | plan::Address::Internal { .. } => {
            return Err(format!("{address}: not a socket address"));
        }
    };
    let mut options = ListenOptions::new(address);
    // Workers always share the port: without it only one of them could accept.
    options.reuse_port = true;
    options.transparent = listener.transparent;
    options.freebind = listener.freebind;
    options.backlog = listener.backlog.unwrap_or(options.backlog);
    options.keepalive = listener.keepalive.map(|k| Keepalive { probes: k.probes, time: k.time, interval: k.interval });
    for option in &listener.socket_options {
        apply_option(&mut options, option)?;
    }
    Ok(options)
}

/// Istio sets `SO_MARK` and keepalive this way; what is not known here is refused.
fn apply_option(options: &mut ListenOptions, option: &plan::common::SocketOption) -> Result<(), String> {
    use nix::libc;
    let plan::common::SocketOptionValue::Int(value) = option.value else {
        return Err(format!("socket option {}/{} has no number", option.level, option.name));
    };
    let unsigned = u32::try_from(value).map_err(|_| format!("socket option value {value}"))?;
    let seconds = Duration::from_secs(u64::from(unsigned));
    let mut keepalive = options.keepalive.unwrap_or_default();
    match (option.level, option.name) {
        (libc::SOL_SOCKET, libc::SO_MARK) => options.mark = Some(unsigned),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) if value != 0 => options.keepalive = Some(keepalive),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => {}
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
            keepalive.time = Some(seconds);
            options.keepalive = Some(keepalive);
        }
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => {
            keepalive.interval = Some(seconds);
            options.keepalive = Some(keepalive);
        }
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => {
            keepalive.probes = Some(unsigned);
            options.keepalive = Some(keepalive);
        }
        (level, name) => return Err(format!("socket option {level}/{name} is not supported")),
    }
    Ok(())
}
