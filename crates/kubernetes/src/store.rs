//! An API server as a store of configuration.
//!
//! Owns one watch for each kind that the server has. What it said last stays in force while it cannot be reached. An idle
//! store costs its objects, trimmed to what is read of them, and a connection for each kind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use meltemi_config::mesh::MeshLabelSelector;
use meltemi_config::{Key, Kind, Problem, Str};
use meltemi_store::{Changes, ConfigSet, ConfigStore, MemoryStore};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::decode::Reader;
use crate::entries::{EntryWriter, Replica};
use crate::follow::Outage;
use crate::informer::{self, Shared};
use crate::revision::{self, Names};
use crate::served::Served;
use crate::status::StatusWriter;
use crate::sweep::Sweeper;
use crate::world::World;
use crate::{served, watched};

/// How long nothing is said of a first list that does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store of an API server's objects. Stops watching when dropped.
pub struct KubernetesStore {
    view: Arc<MemoryStore>,
    world: Arc<Mutex<World>>,
    outage: Outage,
    ready: watch::Receiver<bool>,
    client: Client,
    served: watch::Receiver<Served>,
    names: watch::Receiver<Option<Names>>,
    _tasks: JoinSet<()>,
}

impl KubernetesStore {
    /// Starts watching; nothing is there before [`Self::ready`].
    pub fn start(client: Client, reader: Reader) -> Self {
        let view = Arc::new(MemoryStore::default());
        let world = World::new(watched::kinds(), view.clone());
        let ready = world.ready();
        let world = Arc::new(Mutex::new(world));
        let (sender, served) = watch::channel(None);
        let outage = Outage::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(served::follow(client.clone(), sender, outage.clone()));
        let (sender, names) = watch::channel(None);
        let reader = Arc::new(reader);
        let (ours, asking, failing) = (reader.clone(), client.clone(), outage.clone());
        tasks.spawn(async move { revision::follow(asking, &ours, sender, failing).await });
        let shared = Shared {
            client: client.clone(),
            reader,
            world: world.clone(),
            served: served.clone(),
            names: names.clone(),
            outage: outage.clone(),
        };
        for kind in watched::kinds() {
            tasks.spawn(informer::follow(kind, shared.clone()));
        }
        Self { view, world, outage, ready, client, served, names, _tasks: tasks }
    }

    /// Waits until everything has been listed once. Says what it waits for when that takes long.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        loop {
            // Closed: impossible while we hold the sender.
            if tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.is_ok() {
                return;
            }
            let kinds: Vec<&str> = self.world().waiting().map(Kind::as_str).collect();
            tracing::warn!(?kinds, reasons = ?self.outage.reasons(), "waiting for the API server's first lists");
        }
    }

    /// Puts the mesh's `discoverySelectors` in force.
    pub fn select(&self, selectors: &[MeshLabelSelector]) {
        self.world().select(selectors);
    }

    /// The namespaces that are selected and stay.
    pub fn namespaces(&self) -> BTreeSet<Str> {
        self.world().namespaces()
    }

    /// Whether the API server has the kind now.
    pub fn serves(&self, kind: Kind) -> bool {
        let served = self.served.borrow();
        !watched::has_definition(kind) || served.as_ref().is_some_and(|served| served.contains_key(&kind))
    }

    /// Writes statuses of objects, in the versions that are watched.
    pub fn statuses(&self) -> StatusWriter {
        let ownership = Ownership { names: self.names.clone(), world: self.world.clone() };
        StatusWriter::new(self.client.clone(), self.served.clone(), ownership)
    }

    /// Follows the names that the revision goes by.
    pub fn watch_names(&self) -> watch::Receiver<Option<Names>> {
        self.names.clone()
    }

    /// Writes WorkloadEntries in the name of this replica.
    pub fn entries(&self, replica: &Replica<'_>) -> EntryWriter {
        EntryWriter::new(self.client.clone(), self.served.clone(), replica)
    }

    /// Takes away what replicas that are gone left behind, `grace` after.
    pub fn sweeper(&self, writer: Arc<EntryWriter>, grace: Duration) -> Sweeper {
        Sweeper::new(self.world.clone(), writer, grace)
    }

    /// Follows what is wrong with objects.
    pub fn watch_problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.world().problems()
    }

    /// Of an object with which something is wrong, as it was last seen.
    pub fn uid_of_wrong(&self, key: &Key) -> Option<Str> {
        self.world().uid_of_wrong(key)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose statuses are ours to write.
#[derive(Clone)]
pub(crate) struct Ownership {
    names: watch::Receiver<Option<Names>>,
    world: Arc<Mutex<World>>,
}

impl Ownership {
    /// By the object's label, else its namespace's. Where neither the namespace nor tags are known it is ours.
    pub fn includes(&self, namespace: &str, label: Option<&str>) -> bool {
        let of_namespace = || self.world.lock().unwrap_or_else(PoisonError::into_inner).revision_of(namespace);
        let label = label.map(Str::from).or_else(of_namespace);
        let names = self.names.borrow();
        label.zip(names.as_ref()).is_none_or(|(label, names)| names.write(&label))
    }
}

impl ConfigStore for KubernetesStore {
    fn snapshot(&self) -> Arc<ConfigSet> {
        self.view.snapshot()
    }

    fn changes(&self) -> Changes {
        self.view.changes()
    }
}
