//! The listening sockets of one worker, following the world.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use meltemi_net::{Address, Keepalive, ListenOptions, Listener};
use meltemi_plan as plan;
use tokio::sync::Notify;

use super::{Connections, LiveListener, Reach, Worker};
use crate::chain;

/// Out of file descriptors: wait for some to close.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Accepted before other tasks get their turn.
const ACCEPTS_PER_TURN: usize = 32;

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
    address: plan::Address,
    transparent: bool,
    freebind: bool,
    options: Vec<plan::common::SocketOption>,
}

impl SocketKey {
    fn of(listener: &plan::Listener, address: &plan::Address) -> Self {
        Self {
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
        let name = &listener.plan.name;
        let bound = listen_options(&listener.plan, &socket.address).and_then(|options| {
            let bound = Listener::bind(&options).map_err(|e| format!("{}: {e}", socket.address))?;
            bound.local_addr().map(|address| (bound, address)).map_err(|e| e.to_string())
        });
        let (bound, address) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                tracing::error!(listener = %name, %error, "cannot listen");
                self.worker.report(name, Err(error));
                return None;
            }
        };
        self.worker.report(name, Ok(address));
        let running = Running {
            socket,
            current: Rc::new(RefCell::new(Rc::clone(listener))),
            connections: Rc::default(),
            stop: Rc::default(),
        };
        running.stop.leaving.set(self.leaving.is_some_and(|reach| reach.covers(&listener.plan)));
        let accept = accept(
            Rc::clone(&self.worker),
            bound,
            Rc::clone(&running.current),
            Rc::clone(&running.connections),
            Rc::clone(&running.stop),
        );
        tokio::task::spawn_local(accept);
        Some(running)
    }
}

impl Running {
    fn is_within(&self, reach: Reach) -> bool {
        reach.covers(&self.current.borrow().plan)
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

async fn accept(
    worker: Rc<Worker>,
    socket: Listener,
    current: Rc<RefCell<Rc<LiveListener>>>,
    connections: Rc<Connections>,
    stop: Rc<Stop>,
) {
    let serve = |(stream, peer)| {
        let listener = current.borrow().clone();
        let handle = connections.add(worker.next_connection_id());
        if stop.leaving.get() {
            // Accepted after the others were asked to finish.
            handle.drain();
        }
        tokio::task::spawn_local(chain::serve(Rc::clone(&worker), listener, stream, peer, handle));
    };
    let mut burst = 0;
    while !stop.stopped.get() {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = stop.notify.notified() => break,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
        burst += 1;
        if burst % ACCEPTS_PER_TURN == 0 {
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
