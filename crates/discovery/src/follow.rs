//! From what the store says to what the pusher sends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use meltemi_config::Problem;
use meltemi_config::mesh::MeshConfig;
use meltemi_model::{Shared, Snapshot, Update};
use meltemi_registry::{Registry, RegistryOptions};
use meltemi_store::{ChangeSet, ConfigSet, ConfigStore};
use tokio::sync::{mpsc, watch};

use crate::options::Options;
use crate::{State, mesh};

/// How often the MeshConfig file is looked at.
const MESH_POLL: Duration = Duration::from_secs(1);

/// The registry's state; gives the next snapshot for each change.
pub(crate) struct Follower {
    registry: Registry,
    mesh_file: Option<PathBuf>,
}

/// Something new from outside.
enum News {
    Store(Arc<ConfigSet>, ChangeSet),
    Mesh(Shared<MeshConfig>),
}

#[derive(Default)]
struct Batch {
    store: Option<(Arc<ConfigSet>, ChangeSet)>,
    mesh: Option<Shared<MeshConfig>>,
}

impl Batch {
    fn of(news: News) -> Self {
        let mut batch = Self::default();
        batch.take(news);
        batch
    }

    fn take(&mut self, news: News) {
        match news {
            News::Mesh(mesh) => self.mesh = Some(mesh),
            News::Store(set, changes) => match &mut self.store {
                Some((latest, merged)) => {
                    *latest = set;
                    merged.merge(changes);
                }
                None => self.store = Some((set, changes)),
            },
        }
    }

    fn merge(&mut self, later: Self) {
        if let Some((set, changes)) = later.store {
            self.take(News::Store(set, changes));
        }
        if let Some(mesh) = later.mesh {
            self.mesh = Some(mesh);
        }
    }
}

impl Follower {
    pub(crate) fn new(options: &Options, mesh: Shared<MeshConfig>, set: &ConfigSet) -> (Self, Snapshot) {
        let registry_options = RegistryOptions {
            domain: options.domain.as_str().into(),
            cluster_id: options.cluster_id.as_str().into(),
            network: "".into(),
        };
        let model_options = meltemi_model::Options {
            domain: registry_options.domain.clone(),
            cluster_id: registry_options.cluster_id.clone(),
        };
        let mut registry = Registry::new(registry_options);
        let mesh = with_trust_domain(mesh, options);
        registry.set_mesh(&mesh);
        let update = registry.load_set(set);
        let snapshot = Snapshot::new(model_options, mesh).next(&update).0;
        (Self { registry, mesh_file: options.mesh_config.clone() }, snapshot)
    }

    /// What a batch means for the model, in the order in which it is to be applied.
    fn updates(&mut self, batch: &Batch) -> Vec<Update> {
        let mesh = batch.mesh.as_ref().map(|mesh| self.registry.set_mesh(mesh));
        let store = batch.store.as_ref().map(|(set, changes)| self.registry.follow(set, changes));
        mesh.into_iter().chain(store).collect()
    }
}

/// The trust domain of the identities that we issue is the mesh's.
fn with_trust_domain(mesh: Shared<MeshConfig>, options: &Options) -> Shared<MeshConfig> {
    if *mesh.trust_domain == *options.trust_domain.as_str() || options.trust_domain.as_str() == "cluster.local" {
        return mesh;
    }
    let mut mesh = MeshConfig::clone(&mesh);
    mesh.trust_domain = options.trust_domain.as_str().into();
    Shared::new(mesh)
}

/// Follows the store until told to stop.
pub(crate) async fn run(
    mut follower: Follower,
    store: Arc<dyn ConfigStore>,
    state: Arc<State>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let (sender, mut news) = mpsc::channel(1);
    let debounce = state.options.debounce;
    let watching = watch_sources(store, follower.mesh_file.clone(), state.clone(), sender);
    let working = async {
        while let Some(batch) = debounce.next(&mut news, Batch::merge).await {
            apply(&mut follower, &state, &batch.change, batch.since);
        }
    };
    tokio::select! {
        () = watching => {}
        () = working => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    Ok(())
}

fn apply(follower: &mut Follower, state: &State, batch: &Batch, since: tokio::time::Instant) {
    let mut snapshot = Snapshot::clone(&state.pusher.snapshot());
    let mut change = meltemi_model::Change::default();
    for update in follower.updates(batch) {
        let (next, part) = snapshot.next(&update);
        snapshot = next;
        change.merge(&part);
    }
    if let Some((set, _)) = &batch.store {
        state.config.store(set.clone());
        state.stats.describe(&snapshot, set);
    }
    tracing::info!(
        version = snapshot.version,
        services = change.services.len(),
        endpoints = change.endpoints.len(),
        configs = change.configs.len(),
        proxies = state.stats.push.connections.value(),
        "push"
    );
    state.stats.triggered(&change);
    state.pusher.push(Arc::new(snapshot), change, since);
}

async fn watch_sources(
    store: Arc<dyn ConfigStore>,
    mesh_file: Option<PathBuf>,
    state: Arc<State>,
    sender: mpsc::Sender<Batch>,
) {
    let mut changes = store.changes();
    // Whatever changed between the first reading and now.
    let missed = state.config.load().diff(changes.seen());
    if !missed.is_empty() && sender.send(Batch::of(News::Store(changes.seen().clone(), missed))).await.is_err() {
        return;
    }
    let mut mesh_time = mesh_file.as_ref().and_then(modified);
    let mut poll = tokio::time::interval(MESH_POLL);
    loop {
        let batch = tokio::select! {
            next = changes.next() => match next {
                Some((set, changes)) => {
                    state.stats.received(&changes);
                    Batch::of(News::Store(set, changes))
                }
                None => std::future::pending().await,
            },
            _ = poll.tick(), if mesh_file.is_some() => {
                let time = mesh_file.as_ref().and_then(modified);
                if time == mesh_time {
                    continue;
                }
                mesh_time = time;
                match mesh::load(mesh_file.as_deref()) {
                    Ok(mesh) => Batch::of(News::Mesh(with_trust_domain(mesh, &state.options))),
                    Err(error) => {
                        tracing::warn!(%error, "the mesh configuration in force stays");
                        continue;
                    }
                }
            }
        };
        if sender.send(batch).await.is_err() {
            return;
        }
    }
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

/// Logs what comes to be wrong with the documents, each problem once.
pub(crate) async fn log_problems(mut problems: watch::Receiver<Arc<[Problem]>>) {
    let mut known: Arc<[Problem]> = Arc::default();
    loop {
        let current = problems.borrow_and_update().clone();
        for problem in current.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!("{problem}");
        }
        known = current;
        // Closed: the store is gone.
        if problems.changed().await.is_err() {
            return;
        }
    }
}
