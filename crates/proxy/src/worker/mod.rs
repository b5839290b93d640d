//! One worker: a thread with its own runtime, sockets, pools and cursors.
//!
//! Owns accepting and the drain of connections. Shares nothing mutable with other workers but atomics inside clusters; takes each
//! new [`World`] from the main thread. Must never block: all that waits is a local task.

mod connections;
mod listeners;
pub mod live;
#[cfg(feature = "h3")]
mod quic;
mod tcp;

pub use connections::{ConnectionHandle, Connections};
pub use live::{LiveChain, LiveListener, LiveListeners};
pub use tcp::LiveTcp;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::BuildHasherDefault,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meltemi_http::{
    HeaderValue,
    pool::{NumberHasher, Pools},
};
use meltemi_upstream::{Cluster, Endpoint, LbState, PickContext, PickError};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    runtime::LocalOptions,
    sync::{mpsc, watch},
};

use crate::{
    call::CurrentCalls,
    demand::{Demand, Need},
    router::transport::TransportCache,
    world::World,
};

/// Which listeners a drain is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Those of traffic direction `INBOUND`.
    Inbound,
    All,
}

impl Reach {
    fn covers(self, listener: &meltemi_plan::Listener) -> bool {
        self == Self::All || listener.traffic_direction == meltemi_plan::listener::TrafficDirection::Inbound
    }
}

/// What the whole process is doing; a later phase is never left for an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Serving,
    /// These listeners go on accepting, and every answer asks its client to come back on another connection: those who route
    /// to us do not know yet that we leave.
    Leaving(Reach),
    /// These listeners accept nothing; what is open goes on.
    Closed(Reach),
    /// Nothing is accepted; what is open is asked to finish, and the worker ends with it.
    Draining,
    /// Whatever is still open is dropped.
    Stopped,
}

/// Whether a worker could bind a listener.
#[derive(Debug)]
pub struct ListenerStatus {
    pub worker: usize,
    pub listener: Arc<str>,
    /// The bound address, with the port that the kernel chose for port 0.
    pub result: Result<meltemi_net::Address, String>,
}

/// What a worker is given by the main thread.
#[derive(Clone)]
pub struct Feed {
    pub worlds: watch::Receiver<Arc<World>>,
    pub phase: watch::Receiver<Phase>,
    pub status: Option<mpsc::Sender<ListenerStatus>>,
    /// What filters of all workers share.
    pub filters: Arc<meltemi_filters::Context>,
    /// Where to ask for what is not there; nowhere without a main thread that follows a control plane.
    pub demand: Option<Demand>,
}

/// State of one worker; one `Rc` shared by all of its tasks.
pub struct Worker {
    pub index: usize,
    world: RefCell<Arc<World>>,
    listeners: RefCell<LiveListeners>,
    pub pools: Pools,
    pub transports: TransportCache,
    cursors: RefCell<HashMap<usize, Cursor, BuildHasherDefault<NumberHasher>>>,
    rng: RefCell<SmallRng>,
    date: RefCell<(u64, HeaderValue)>,
    next_connection: Cell<u64>,
    status: Option<mpsc::Sender<ListenerStatus>>,
    filters: Arc<meltemi_filters::Context>,
    demand: Option<Demand>,
}

/// Load balancing state, with the cluster so that its address is not reused while we key by it.
struct Cursor {
    cluster: Arc<Cluster>,
    state: LbState,
}

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Starts a worker thread, which ends when `feed.phase` says [`Phase::Stopped`] or its sender is gone, or once it has drained.
pub fn spawn(index: usize, feed: Feed) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Not a `LocalSet`: its tasks would be queued twice, once in the set and once with the set in the runtime.
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(index, feed)),
            Err(error) => tracing::error!(%error, "cannot start worker"),
        }
    })
}

/// Serves until told to stop. For callers that bring their own local set, such as tests.
pub async fn run(index: usize, feed: Feed) {
    let Feed { mut worlds, mut phase, status, filters, demand } = feed;
    let worker = Rc::new(Worker::new(index, worlds.borrow_and_update().clone(), status, (filters, demand)));
    let mut listeners = listeners::Listeners::new(Rc::clone(&worker));
    listeners.apply();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            changed = worlds.changed() => {
                if changed.is_err() {
                    return;
                }
                let world = worlds.borrow_and_update().clone();
                worker.adopt(world);
                listeners.apply();
            }
            changed = phase.changed() => {
                match *phase.borrow_and_update() {
                    _ if changed.is_err() => return,
                    Phase::Serving => {}
                    Phase::Leaving(reach) => listeners.leave(reach),
                    Phase::Closed(reach) => listeners.close(reach),
                    Phase::Draining => listeners.drain_all(),
                    Phase::Stopped => return,
                }
            }
            fetcher = worker.filters.next_key_fetcher() => {
                tokio::task::spawn_local(fetcher.run(CurrentCalls(Rc::clone(&worker))));
            }
            _ = sweep.tick() => {
                worker.pools.sweep();
                if listeners.is_drained() {
                    return;
                }
            }
        }
    }
}

impl Worker {
    fn new(
        index: usize,
        world: Arc<World>,
        status: Option<mpsc::Sender<ListenerStatus>>,
        (filters, demand): (Arc<meltemi_filters::Context>, Option<Demand>),
    ) -> Self {
        Self {
            index,
            listeners: RefCell::new(LiveListeners::default().next(&world, &filters)),
            world: RefCell::new(world),
            pools: Pools::new(),
            transports: TransportCache::default(),
            cursors: RefCell::default(),
            rng: RefCell::new(SmallRng::seed_from_u64(rand::random())),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            next_connection: Cell::new(1),
            status,
            filters,
            demand,
        }
    }

    /// The configuration to use for one request or connection from here on.
    pub fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// Asks for what is not there, and waits no longer than the limit: the configuration in which it is, or is known not to be.
    pub async fn ask(&self, need: Need, limit: Duration) -> Option<Arc<World>> {
        self.demand.as_ref()?.ask(need, limit).await
    }

    fn adopt(&self, world: Arc<World>) {
        self.cursors.borrow_mut().retain(|_, cursor| {
            world.clusters.get(&cursor.cluster.plan.name).is_some_and(|current| Arc::ptr_eq(current, &cursor.cluster))
        });
        self.transports.clear();
        let listeners = self.listeners.borrow().next(&world, &self.filters);
        *self.listeners.borrow_mut() = listeners;
        *self.world.borrow_mut() = world;
    }

    /// The listener that owns an original destination.
    pub fn listener_at(&self, address: std::net::SocketAddr) -> Option<Rc<LiveListener>> {
        self.listeners.borrow().at(address).cloned()
    }

    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// An id that is unique in the process: workers count in their own ranges.
    pub fn next_connection_id(&self) -> u64 {
        let n = self.next_connection.get();
        self.next_connection.set(n + 1);
        (self.index as u64) << 40 | n
    }

    /// The host of `cluster` for a request.
    pub fn pick(&self, cluster: &Arc<Cluster>, context: &PickContext<'_>) -> Result<Arc<Endpoint>, PickError> {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors
            .entry(Arc::as_ptr(cluster) as usize)
            .or_insert_with(|| Cursor { cluster: Arc::clone(cluster), state: LbState::default() });
        cluster.pick(context, &mut cursor.state)
    }

    /// The `date` field of a response made at `now`; formatted once a second.
    pub fn date(&self, now: SystemTime) -> HeaderValue {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != seconds {
            let text = imf_fixdate(seconds);
            *date = (seconds, HeaderValue::from_str(&text).expect("a date is visible ASCII"));
        }
        date.1.clone()
    }

    fn report(&self, listener: &Arc<str>, result: Result<meltemi_net::Address, String>) {
        if let Some(status) = &self.status {
            let _ = status.try_send(ListenerStatus { worker: self.index, listener: Arc::clone(listener), result });
        }
    }
}

/// RFC 9110 5.6.7, from seconds since 1970.
fn imf_fixdate(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date, after Howard Hinnant's algorithm: eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::imf_fixdate;

    #[test]
    fn dates() {
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_219_199, "Fri, 20 Nov 2026 23:59:59 GMT"),
        ];
        for (seconds, text) in cases {
            assert_eq!(imf_fixdate(seconds), text);
        }
    }
}
