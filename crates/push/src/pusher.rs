//! All connected proxies and the snapshot they follow.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt as _};
use meltemi_model::{Change, Node, Snapshot};
use meltemi_telemetry::Gauge;
use meltemi_xds::Resource;
use meltemi_xds::server::{Received, Response, Shelf, Want};
use meltemi_xds::types::{CLUSTER, ENDPOINT};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connection::{ClientStatus, Connection, Incoming, Peer, ServeError, note};
use crate::index::{Index, Place};
use crate::{Affected, Reach, Source, Stats};

/// What a pusher is made with.
pub struct PusherOptions {
    /// Names this control plane in every response.
    pub identifier: Arc<str>,
    pub stats: Stats,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Pusher(Arc<Shared>);

struct Shared {
    source: Arc<dyn Source>,
    options: PusherOptions,
    snapshot: RwLock<Arc<Snapshot>>,
    connections: Mutex<HashMap<Place, Arc<Connection>>>,
    index: Mutex<Index>,
    shelf: Arc<Shelf>,
    next_id: AtomicU64,
}

impl Pusher {
    pub fn new(source: Arc<dyn Source>, snapshot: Arc<Snapshot>, options: PusherOptions) -> Self {
        Self(Arc::new(Shared {
            source,
            options,
            snapshot: RwLock::new(snapshot),
            connections: Mutex::default(),
            index: Mutex::default(),
            shelf: Arc::default(),
            next_id: AtomicU64::new(first_id()),
        }))
    }

    /// The snapshot that proxies are brought to.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.read().clone()
    }

    pub fn stats(&self) -> &Stats {
        &self.0.options.stats
    }

    /// Takes a new snapshot and tells the proxies that the change concerns. `since` is when the change came.
    pub fn push(&self, snapshot: Arc<Snapshot>, change: Change, since: Instant) {
        if change.is_empty() {
            return;
        }
        let reach = self.0.source.reach(&snapshot, &change);
        *self.0.snapshot.write() = snapshot;
        let change = Arc::new(change);
        for connection in self.reached(&reach) {
            connection.enqueue(&change, since);
        }
    }

    fn reached(&self, reach: &Reach) -> Vec<Arc<Connection>> {
        match reach {
            Reach::Everyone => self.0.connections.lock().values().cloned().collect(),
            Reach::Some { hosts, addresses } => {
                let places = self.0.index.lock().reached(hosts, addresses);
                let connections = self.0.connections.lock();
                places.iter().filter_map(|place| connections.get(&place).cloned()).collect()
            }
        }
    }

    /// Every connected proxy.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let connections: Vec<_> = self.0.connections.lock().values().cloned().collect();
        connections.iter().map(|connection| connection.status()).collect()
    }

    /// What a connected proxy would be sent now, by type; `None` where no such proxy is connected among those that may be
    /// shown. A proxy is named by its node id or by the `<pod>.<namespace>` in it.
    pub fn resources_of(
        &self,
        proxy: &str,
        may_be_shown: impl Fn(&Node) -> bool,
    ) -> Option<Vec<(Arc<str>, Vec<Resource>)>> {
        let connections: Vec<_> = self.0.connections.lock().values().cloned().collect();
        let is_meant = |connection: &&Arc<Connection>| {
            let node = &connection.peer.node;
            (*node.id == *proxy || *node.name == *proxy) && !connection.peer.is_agents() && may_be_shown(node)
        };
        let connection = connections.iter().filter(is_meant).max_by_key(|connection| connection.id)?;
        let snapshot = self.snapshot();
        let types = connection.types_in_order().into_iter().map(|type_url| {
            let resources = connection.resources(&*self.0.source, &snapshot, &type_url);
            (type_url, resources)
        });
        Some(types.collect())
    }

    /// Serves one stream until the client ends it. `responses` is bounded by the caller: it is how a slow reader is felt.
    pub async fn serve<E>(
        &self,
        peer: Peer,
        requests: impl Stream<Item = Result<Incoming, E>>,
        responses: mpsc::Sender<Response>,
    ) -> Result<(), ServeError> {
        let registration = Registration::new(self.0.clone(), peer);
        let connection = &registration.connection;
        tokio::pin!(requests);
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => {
                        for response in self.answer(connection, &request)? {
                            if !self.send(response, &responses).await {
                                return Ok(());
                            }
                        }
                    }
                    Some(Err(_)) | None => return Ok(()),
                },
                () = connection.woken.notified() => {}
                () = responses.closed() => return Ok(()),
            }
            if !self.advance(connection, &responses).await {
                return Ok(());
            }
        }
    }

    /// What a request is answered with.
    fn answer(&self, connection: &Arc<Connection>, request: &Incoming) -> Result<[Option<Response>; 2], ServeError> {
        let received = connection.receive(request)?;
        note(&self.0.options.stats, connection, &received);
        if *received.type_url == *ENDPOINT {
            let all = connection.session.lock().watch(ENDPOINT).is_some_and(|watch| watch.is_wildcard());
            let mut index = self.0.index.lock();
            index.unwatch(connection.place, &received.resubscribed.removed);
            index.watch(connection.place, &received.resubscribed.added);
            index.watch_all_endpoints(connection.place, all);
        }
        let Received { type_url, want, .. } = received;
        let affected = match want {
            Want::Nothing => return Ok([None, None]),
            Want::Names(names) => Affected::Names(names),
            Want::Everything => {
                if *type_url == *ENDPOINT {
                    connection.renew_for_warming();
                }
                Affected::Everything
            }
        };
        let snapshot = self.snapshot();
        connection.started(&snapshot);
        let begun = Instant::now();
        // A proxy that resumes may still route to clusters that are gone.
        let response = match &*type_url {
            CLUSTER => connection.respond_clusters(&*self.0.source, &snapshot, &affected),
            _ => connection.respond(&*self.0.source, &snapshot, &type_url, &affected),
        };
        self.took(&type_url, response.as_ref(), begun);
        let begun = Instant::now();
        // A proxy that resumes may have been told of other clusters than it held; it waits for their endpoints.
        let endpoints =
            (*type_url == *CLUSTER).then(|| self.respond_endpoints(connection, &snapshot, Affected::Nothing)).flatten();
        self.took(ENDPOINT, endpoints.as_ref(), begun);
        Ok([response, endpoints])
    }

    /// Sends what is pending, unless the proxy still has to answer. Says whether the proxy is still there.
    async fn advance(&self, connection: &Arc<Connection>, responses: &mpsc::Sender<Response>) -> bool {
        loop {
            if connection.is_outstanding() {
                return true;
            }
            // Before what is pending, or proxies of a mesh that never rests would keep all they ever had.
            if let Some(last) = connection.may_withdraw() {
                let response = connection.withdraw(&*self.0.source, &last);
                if !self.send(response, responses).await {
                    return false;
                }
            } else if let Some(pending) = connection.take_pending() {
                if !self.push_to(connection, &pending.change, pending.since, responses).await {
                    return false;
                }
            } else {
                return true;
            }
        }
    }

    /// Sends one change, type by type in order.
    async fn push_to(
        &self,
        connection: &Arc<Connection>,
        change: &Change,
        since: Instant,
        responses: &mpsc::Sender<Response>,
    ) -> bool {
        let stats = &self.0.options.stats;
        let source = &*self.0.source;
        stats.queued(since.elapsed());
        let snapshot = self.snapshot();
        let mut sent = false;
        for type_url in connection.types_in_order() {
            let begun = Instant::now();
            let affected = source.affected(&snapshot, change, &connection.peer.node, &type_url);
            let response = match &*type_url {
                CLUSTER => connection.respond_clusters(source, &snapshot, &affected),
                ENDPOINT => self.respond_endpoints(connection, &snapshot, affected),
                _ => connection.respond(source, &snapshot, &type_url, &affected),
            };
            self.took(&type_url, response.as_ref(), begun);
            sent |= response.is_some();
            if !self.send(response, responses).await {
                return false;
            }
            // A large push must not keep a whole mesh of other connections from being served.
            tokio::task::yield_now().await;
        }
        connection.pushed(&snapshot);
        if sent {
            stats.converged(since.elapsed());
        }
        true
    }

    /// Endpoints of rebuilt clusters go with those that the change altered.
    fn respond_endpoints(
        &self,
        connection: &Arc<Connection>,
        snapshot: &Snapshot,
        affected: Affected,
    ) -> Option<Response> {
        let renewed = connection.renew_endpoints();
        let source = &*self.0.source;
        let affected = match affected {
            Affected::Everything => Affected::Everything,
            Affected::Nothing => Affected::Names(renewed),
            Affected::Names(names) => Affected::Names(names.into_iter().chain(renewed).collect()),
            // Of a wildcard subscription the source knows the names.
            Affected::Hosts(hosts) if connection.watches_all(ENDPOINT) && renewed.is_empty() => Affected::Hosts(hosts),
            Affected::Hosts(_) if connection.watches_all(ENDPOINT) => Affected::Everything,
            Affected::Hosts(hosts) => {
                let watched = self.0.index.lock().watched_of(connection.place, &hosts);
                Affected::Names(watched.into_iter().chain(renewed).collect())
            }
        };
        connection.respond(source, snapshot, ENDPOINT, &affected)
    }

    /// Counts how long it took to make a response, where there is one.
    fn took(&self, type_url: &str, response: Option<&Response>, begun: Instant) {
        if response.is_some() {
            self.0.options.stats.push_took(type_url, begun.elapsed());
        }
    }

    async fn send(&self, response: Option<Response>, responses: &mpsc::Sender<Response>) -> bool {
        let Some(response) = response else { return true };
        let stats = &self.0.options.stats;
        stats.pushed(&response.type_url, response.body_bytes());
        let begun = Instant::now();
        let is_taken = responses.send(response).await.is_ok();
        stats.send_took(begun.elapsed());
        is_taken
    }
}

/// Ids of this process's connections start where another's are unlikely to be, since nonces are made of them.
fn first_id() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_micros() as u64) << 8
}

/// A connection's place among the others, given up when it ends however it does.
struct Registration {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    /// None: the stream of an agent, beside that of its proxy, which is counted.
    gauge: Option<Gauge>,
}

impl Registration {
    fn new(shared: Arc<Shared>, peer: Peer) -> Self {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let place = shared.index.lock().join(&peer.node.ip_addresses);
        let identifier = shared.options.identifier.clone();
        let version = peer.node.text("ISTIO_VERSION").unwrap_or_default();
        let gauge = (!peer.is_agents()).then(|| shared.options.stats.connection(version));
        let connection = Arc::new(Connection::new(id, place, peer, identifier, shared.shelf.clone()));
        shared.connections.lock().insert(place, connection.clone());
        Self { shared, connection, gauge }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let connection = &self.connection;
        self.shared.connections.lock().remove(&connection.place);
        let session = connection.session.lock();
        let mut index = self.shared.index.lock();
        index.unwatch(connection.place, session.watch(ENDPOINT).into_iter().flat_map(|watch| watch.names()));
        index.leave(connection.place, &connection.peer.node.ip_addresses);
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
    }
}
