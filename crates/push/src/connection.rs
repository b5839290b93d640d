//! One connected proxy.
//!
//! Owns its protocol session and what still has to be sent to it. All sending happens in the one task that serves the
//! connection; others only add to what is pending.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use meltemi_model::{Change, Node, Snapshot};
use meltemi_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use meltemi_xds::server::{Received, Response, Scope, Session, Shelf, Verdict};
use meltemi_xds::types::{self, CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST};
use meltemi_xds::{Resource, Variant, Violation};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::index::{LOCAL_CLUSTER, Place, host_of};
use crate::{Affected, Source};

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    pub node: Arc<Node>,
    pub variant: Variant,
    /// The remote address as text.
    pub address: String,
    /// The SPIFFE id the transport proved, if any.
    pub identity: Option<String>,
}

impl Peer {
    /// Whether this is a stream of a proxy's agent (for names, roots or reports), which says so in its node's metadata.
    pub fn is_agents(&self) -> bool {
        self.node.flag("AGENT_STREAM")
    }
}

/// A request of either variant.
#[derive(Debug, Clone)]
pub enum Incoming {
    Delta(DeltaDiscoveryRequest),
    StateOfTheWorld(DiscoveryRequest),
}

/// Why a connection ended other than by the client's wish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("a stream must not mix the protocol's variants")]
    MixedVariants,
}

/// What is known of one proxy, for `proxy-status`.
#[derive(Debug, Clone)]
pub struct ClientStatus {
    pub peer: Peer,
    pub connected_for: std::time::Duration,
    /// By type URL.
    pub types: BTreeMap<Arc<str>, TypeStatus>,
}

impl ClientStatus {
    /// Whether this is a stream of a proxy: agents have streams of their own, and who only asks of others subscribes to nothing.
    pub fn is_proxy(&self) -> bool {
        !self.peer.is_agents() && !self.types.is_empty()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeStatus {
    pub sent_nonce: String,
    pub acked_nonce: String,
    /// The rejection that no acceptance has followed.
    pub rejection: Option<String>,
    /// When the last response was made.
    pub sent_at: Option<SystemTime>,
    /// Resources held.
    pub resources: usize,
    pub outstanding: bool,
}

/// Changes that a proxy has not been told of.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub change: Arc<Change>,
    /// When the oldest came.
    pub since: Instant,
}

/// Tells a stream's nonces from those of all others.
pub(crate) type ConnectionId = u64;

#[derive(Debug)]
pub(crate) struct Connection {
    pub id: ConnectionId,
    pub place: Place,
    pub peer: Peer,
    pub connected: Instant,
    pub session: Mutex<Session>,
    pending: Mutex<Option<Pending>>,
    pub woken: Notify,
    /// Clusters to be withdrawn once nothing that the proxy holds refers to them.
    withdrawing: Mutex<BTreeSet<Arc<str>>>,
    /// Clusters that the proxy was told to rebuild. Envoy warms a changed cluster until its endpoints come again, and does not
    /// ask for them.
    rebuilt: Mutex<BTreeSet<Arc<str>>>,
    /// When each type's last response was made; a handful of types.
    sent: Mutex<Vec<(Arc<str>, SystemTime)>>,
    /// The snapshot that the last push was made of, for what is to be kept a little longer.
    last: Mutex<Option<Arc<Snapshot>>>,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, place: Place, peer: Peer, identifier: Arc<str>, shelf: Arc<Shelf>) -> Self {
        Self {
            id,
            place,
            session: Mutex::new(Session::sharing(peer.variant, id, identifier, shelf)),
            peer,
            connected: Instant::now(),
            pending: Mutex::default(),
            woken: Notify::new(),
            withdrawing: Mutex::default(),
            rebuilt: Mutex::default(),
            sent: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Adds a change to what is pending. The first is shared; only a proxy that lags costs a merged copy.
    pub(crate) fn enqueue(&self, change: &Arc<Change>, since: Instant) {
        let mut pending = self.pending.lock();
        match &mut *pending {
            Some(pending) => Arc::make_mut(&mut pending.change).merge(change),
            None => *pending = Some(Pending { change: change.clone(), since }),
        }
        drop(pending);
        self.woken.notify_one();
    }

    pub(crate) fn take_pending(&self) -> Option<Pending> {
        self.pending.lock().take()
    }

    pub(crate) fn is_outstanding(&self) -> bool {
        self.session.lock().watches().any(|(_, watch)| watch.is_outstanding())
    }

    /// Whether the proxy asked for all of a type.
    pub(crate) fn watches_all(&self, type_url: &str) -> bool {
        self.session.lock().watch(type_url).is_some_and(|watch| watch.is_wildcard())
    }

    /// Takes a request into the session.
    pub(crate) fn receive(&self, request: &Incoming) -> Result<Received, ServeError> {
        let mut session = self.session.lock();
        match (request, self.peer.variant) {
            (Incoming::Delta(request), Variant::Delta) => Ok(session.on_delta(request)?),
            (Incoming::StateOfTheWorld(request), Variant::StateOfTheWorld) => Ok(session.on_sotw(request)?),
            _ => Err(ServeError::MixedVariants),
        }
    }

    /// Types subscribed to, in the order in which a change is sent.
    pub(crate) fn types_in_order(&self) -> Vec<Arc<str>> {
        let mut types: Vec<Arc<str>> = self.session.lock().watches().map(|(type_url, _)| type_url.clone()).collect();
        types.sort_by_key(|type_url| types::push_rank(type_url));
        types
    }

    /// What is affected by name. `None` is everything; an empty set is nothing.
    fn names_of(
        &self,
        source: &dyn Source,
        snapshot: &Snapshot,
        type_url: &str,
        affected: &Affected,
    ) -> Option<BTreeSet<Arc<str>>> {
        match affected {
            Affected::Nothing => Some(BTreeSet::new()),
            Affected::Everything => None,
            Affected::Names(names) => Some(names.clone()),
            Affected::Hosts(hosts) => {
                {
                    let session = self.session.lock();
                    let watch = session.watch(type_url)?;
                    if !watch.is_wildcard() {
                        let touched = |name: &&Arc<str>| &***name == LOCAL_CLUSTER || covers(hosts, host_of(name));
                        return Some(watch.names().filter(touched).cloned().collect());
                    }
                }
                // Those that are, and those that were when the proxy was last told: it may hold some that are gone.
                let last = self.last.lock().clone()?;
                let mut names = source.names_of(snapshot, &self.peer.node, type_url, hosts)?;
                names.extend(source.names_of(&last, &self.peer.node, type_url, hosts)?);
                Some(names)
            }
        }
    }

    /// The response that brings a type up to date within the scope, if there is something to say.
    pub(crate) fn respond(
        &self,
        source: &dyn Source,
        snapshot: &Snapshot,
        type_url: &str,
        affected: &Affected,
    ) -> Option<Response> {
        let names = self.names_of(source, snapshot, type_url, affected);
        if names.as_ref().is_some_and(BTreeSet::is_empty) {
            return None;
        }
        let (wanted, names) = self.wanted(type_url, names)?;
        let current = self.generate(source, snapshot, type_url, wanted.as_deref());
        match type_url {
            CLUSTER => self.note_rebuilt(&current),
            ENDPOINT => drop(self.renew_endpoints()),
            _ => {}
        }
        let scope = names.as_ref().map_or(Scope::Everything, Scope::Names);
        let response = self.session.lock().push(type_url, &current, scope);
        self.timed(response)
    }

    /// Remembers when a response was made.
    fn timed(&self, response: Option<Response>) -> Option<Response> {
        let type_url = &response.as_ref()?.type_url;
        let (now, mut sent) = (SystemTime::now(), self.sent.lock());
        match sent.iter_mut().find(|(known, _)| known == type_url) {
            Some((_, time)) => *time = now,
            None => sent.push((type_url.clone(), now)),
        }
        drop(sent);
        response
    }

    /// What to generate (`None`: all of a wildcard) and within which names to push (`None`: everything).
    #[allow(clippy::type_complexity)] // Named once and taken apart at once.
    fn wanted(
        &self,
        type_url: &str,
        names: Option<BTreeSet<Arc<str>>>,
    ) -> Option<(Option<Vec<Arc<str>>>, Option<BTreeSet<Arc<str>>>)> {
        let session = self.session.lock();
        let watch = session.watch(type_url)?;
        let names = if session.needs_full_set(type_url) { None } else { names };
        Some(match names {
            None if watch.is_wildcard() => (None, None),
            None => (Some(watch.names().cloned().collect()), None),
            Some(names) => {
                let covered: BTreeSet<Arc<str>> = names.into_iter().filter(|name| watch.covers(name)).collect();
                (Some(covered.iter().cloned().collect()), Some(covered))
            }
        })
    }

    /// What the proxy would be sent of a type now.
    pub(crate) fn resources(&self, source: &dyn Source, snapshot: &Snapshot, type_url: &str) -> Vec<Resource> {
        let names: Option<Vec<Arc<str>>> = {
            let session = self.session.lock();
            let named = session.watch(type_url).filter(|watch| !watch.is_wildcard());
            named.map(|watch| watch.names().cloned().collect())
        };
        self.generate(source, snapshot, type_url, names.as_deref())
    }

    fn generate(
        &self,
        source: &dyn Source,
        snapshot: &Snapshot,
        type_url: &str,
        names: Option<&[Arc<str>]>,
    ) -> Vec<Resource> {
        let node = &self.peer.node;
        let mut found = match names {
            Some([]) => Vec::new(),
            Some(names) if node.on_demand() && self.watches_all(type_url) => {
                return self.generate_asked(source, snapshot, type_url, names);
            }
            names => source.generate(snapshot, node, type_url, names),
        };
        // Names asked for beside the wildcard that it does not cover.
        if names.is_none() {
            let mut extra: BTreeSet<Arc<str>> = {
                let session = self.session.lock();
                session.watch(type_url).into_iter().flat_map(|watch| watch.names()).cloned().collect()
            };
            if !extra.is_empty() {
                for resource in &found {
                    extra.remove(&resource.name);
                }
                let extra: Vec<Arc<str>> = extra.into_iter().collect();
                found.extend(source.generate(snapshot, node, type_url, Some(&extra)));
            }
        }
        found
    }

    /// Of these names what the proxy has: of all that exists, its wildcard covers only a part.
    fn generate_asked(
        &self,
        source: &dyn Source,
        snapshot: &Snapshot,
        type_url: &str,
        names: &[Arc<str>],
    ) -> Vec<Resource> {
        let node = &self.peer.node;
        let (asked, covered): (Vec<Arc<str>>, Vec<Arc<str>>) = {
            let session = self.session.lock();
            let is_asked = |name: &Arc<str>| session.watch(type_url).is_some_and(|watch| watch.is_named(name));
            names.iter().cloned().partition(is_asked)
        };
        let mut found = Vec::new();
        if !asked.is_empty() {
            found = source.generate(snapshot, node, type_url, Some(&asked));
        }
        if !covered.is_empty() {
            let all = source.generate(snapshot, node, type_url, None);
            found.extend(all.into_iter().filter(|resource| covered.contains(&resource.name)));
        }
        found
    }

    /// Like [`Self::respond`] for clusters, but keeps those that are gone until routes no longer name them.
    pub(crate) fn respond_clusters(
        &self,
        source: &dyn Source,
        snapshot: &Snapshot,
        affected: &Affected,
    ) -> Option<Response> {
        let names = self.names_of(source, snapshot, CLUSTER, affected);
        if names.as_ref().is_some_and(BTreeSet::is_empty) {
            return None;
        }
        let (wanted, names) = self.wanted(CLUSTER, names)?;
        let mut current = self.generate(source, snapshot, CLUSTER, wanted.as_deref());
        let gone = self.gone(&current, names.as_ref());
        self.note_rebuilt(&current);
        let mut session = self.session.lock();
        if gone.is_empty() {
            let scope = names.as_ref().map_or(Scope::Everything, Scope::Names);
            return self.timed(session.push(CLUSTER, &current, scope));
        }
        self.withdrawing.lock().extend(gone.iter().cloned());
        if session.needs_full_set(CLUSTER) {
            drop(session);
            let before = self.last.lock().clone();
            current.extend(before.iter().flat_map(|before| self.generate(source, before, CLUSTER, Some(&gone))));
            let response = self.session.lock().push(CLUSTER, &current, Scope::Everything);
            return self.timed(response);
        }
        let present = current.iter().map(|resource| resource.name.clone()).collect();
        self.timed(session.push(CLUSTER, &current, Scope::Names(&present)))
    }

    /// Clusters held that are not among the current ones.
    fn gone(&self, current: &[Resource], names: Option<&BTreeSet<Arc<str>>>) -> Vec<Arc<str>> {
        let session = self.session.lock();
        let Some(watch) = session.watch(CLUSTER) else { return Vec::new() };
        let kept = current.iter().filter(|resource| watch.holds(&resource.name)).count();
        if names.is_none() && kept == watch.held_count() {
            return Vec::new();
        }
        let present: HashSet<&str> = current.iter().map(|resource| &*resource.name).collect();
        let is_gone = |name: &&Arc<str>| !present.contains(&***name);
        match names {
            Some(names) => names.iter().filter(is_gone).filter(|name| watch.holds(name)).cloned().collect(),
            None => watch.held().filter(is_gone).cloned().collect(),
        }
    }

    /// Remembers the clusters that the proxy holds in another version.
    fn note_rebuilt(&self, current: &[Resource]) {
        let session = self.session.lock();
        let Some(watch) = session.watch(CLUSTER) else { return };
        let differs = current.iter().filter(|resource| watch.holds_other(resource));
        self.rebuilt.lock().extend(differs.map(|resource| resource.name.clone()));
    }

    /// Makes the next push of endpoints send those of rebuilt clusters whatever the proxy holds; gives their names.
    pub(crate) fn renew_endpoints(&self) -> BTreeSet<Arc<str>> {
        let mut session = self.session.lock();
        if session.watch(ENDPOINT).is_none() {
            return BTreeSet::new();
        }
        let rebuilt = std::mem::take(&mut *self.rebuilt.lock());
        session.renew(ENDPOINT, &rebuilt)
    }

    /// An Envoy whose stream broke while it warmed clusters claims their endpoints, yet waits for them to come again; which
    /// clusters those are it does not say. Other clients are taken at their word.
    pub(crate) fn renew_for_warming(&self) {
        if &*self.peer.node.user_agent == "envoy" {
            self.session.lock().renew_all(ENDPOINT);
        }
    }

    /// The snapshot whose listeners and routes the proxy has taken, where they do without clusters that it still has.
    pub(crate) fn may_withdraw(&self) -> Option<Arc<Snapshot>> {
        if self.withdrawing.lock().is_empty() {
            return None;
        }
        let session = self.session.lock();
        let mut users = [LISTENER, ROUTE, VIRTUAL_HOST].iter().filter_map(|type_url| session.watch(type_url));
        if users.any(|watch| watch.rejection().is_some()) {
            return None;
        }
        self.last.lock().clone()
    }

    pub(crate) fn withdraw(&self, source: &dyn Source, snapshot: &Snapshot) -> Option<Response> {
        let gone = std::mem::take(&mut *self.withdrawing.lock());
        let whole = self.session.lock().needs_full_set(CLUSTER);
        let affected = if whole { Affected::Everything } else { Affected::Names(gone) };
        self.respond(source, snapshot, CLUSTER, &affected)
    }

    /// The first snapshot that the proxy was told of.
    pub(crate) fn started(&self, snapshot: &Arc<Snapshot>) {
        self.last.lock().get_or_insert_with(|| snapshot.clone());
    }

    pub(crate) fn pushed(&self, snapshot: &Arc<Snapshot>) {
        *self.last.lock() = Some(snapshot.clone());
    }

    pub(crate) fn status(&self) -> ClientStatus {
        let sent = self.sent.lock().clone();
        let session = self.session.lock();
        let types = session.watches().map(|(type_url, watch)| {
            let status = TypeStatus {
                sent_at: sent.iter().find(|(known, _)| known == type_url).map(|(_, time)| *time),
                sent_nonce: watch.sent_nonce().unwrap_or_default().to_owned(),
                acked_nonce: watch.acked_nonce().unwrap_or_default().to_owned(),
                rejection: watch.rejection().map(|rejection| rejection.message.clone()),
                resources: watch.held_count(),
                outstanding: watch.is_outstanding(),
            };
            (type_url.clone(), status)
        });
        ClientStatus { peer: self.peer.clone(), connected_for: self.connected.elapsed(), types: types.collect() }
    }
}

/// Whether a host is among hosts and patterns of hosts (`*.example.com`).
fn covers(hosts: &BTreeSet<Arc<str>>, host: &str) -> bool {
    hosts.contains(host) || hosts.iter().filter_map(|host| host.strip_prefix('*')).any(|suffix| host.ends_with(suffix))
}

/// Logs and counts what a request said of an earlier response.
pub(crate) fn note(stats: &crate::Stats, connection: &Connection, received: &Received) {
    let node = &connection.peer.node.id;
    match &received.verdict {
        Verdict::None => {}
        Verdict::Accepted { nonce } => {
            tracing::debug!(%node, kind = types::short_name(&received.type_url), nonce, "ACK");
        }
        Verdict::Stale => {
            stats.stale(&received.type_url);
            tracing::debug!(%node, kind = types::short_name(&received.type_url), "stale nonce");
        }
        Verdict::Rejected { nonce, message } => {
            stats.rejected(&received.type_url);
            tracing::warn!(%node, kind = types::short_name(&received.type_url), nonce, message, "NACK");
        }
    }
}
