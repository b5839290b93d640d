//! From what the store says to what the pusher sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Kind, Problem};
use meltemi_model::{MigrationStep, Shared, Snapshot, Update};
use meltemi_registry::{Registry, RegistryOptions};
use meltemi_store::{ChangeSet, ConfigSet, ConfigStore};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::bundles::Bundles;
use crate::documents::{Documents, Roots};
use crate::keys::{self, HttpFetch, KeyChanges, Resolver};
use crate::options::Options;
use crate::providers::Missing;
use crate::stats::Stats;
use crate::{State, authority, mesh, migration};

/// How often the MeshConfig file is looked at.
const MESH_POLL: Duration = Duration::from_secs(1);

/// The registry's state; gives the next snapshot for each change.
pub(crate) struct Follower {
    registry: Registry,
    mesh: mesh::Watch,
}

/// Something new from outside.
#[derive(Default)]
struct Batch {
    store: Option<(Arc<ConfigSet>, ChangeSet)>,
    mesh: Option<Shared<MeshConfig>>,
    keys: KeyChanges,
    /// The roots by which proxies verify each other are others: those of this generation of the authority.
    roots: Option<u64>,
    /// Who may have which Secrets has changed.
    access: bool,
    migration: Option<migration::Due>,
}

impl Batch {
    fn merge(&mut self, later: Self) {
        match (&mut self.store, later.store) {
            (Some((set, changes)), Some((latest, more))) => {
                *set = latest;
                changes.merge(more);
            }
            (own, Some(later)) => *own = Some(later),
            (_, None) => {}
        }
        if later.mesh.is_some() {
            self.mesh = later.mesh;
        }
        self.keys.extend(later.keys);
        self.roots = later.roots.or(self.roots);
        self.access |= later.access;
        self.migration = later.migration.or(self.migration);
    }
}

impl Follower {
    /// `watch` goes on where `mesh` came from.
    pub(crate) fn new(options: &Options, mesh: MeshConfig, watch: mesh::Watch, set: &ConfigSet) -> (Self, Snapshot) {
        let registry_options = RegistryOptions {
            domain: options.domain.as_str().into(),
            cluster_id: options.cluster_id.as_str().into(),
            network: "".into(),
        };
        let model_options = meltemi_model::Options {
            domain: registry_options.domain.clone(),
            cluster_id: registry_options.cluster_id.clone(),
            sessions: options.sessions.clone(),
            quic_listeners: options.quic_listeners,
            key_fetch: options.keys.fetch,
            several_external_authorizers: options.several_external_authorizers,
            headless_filter_chains: options.headless_filter_chains,
            compliance: meltemi_tls::compliance(),
        };
        let mut registry = Registry::new(registry_options);
        let mesh = watch.adopt(mesh);
        registry.set_mesh(&mesh);
        let update = registry.load_set(set);
        let snapshot = Snapshot::new(model_options, mesh).next(&update).0;
        (Self { registry, mesh: watch }, snapshot)
    }
}

/// What a batch means for the model, in the order in which it is to be applied. `begun` counts the changes of PeerAuthentications
/// that came into force in steps.
fn updates(registry: &mut Registry, batch: &Batch, begun: u64) -> Vec<Update> {
    let due = batch.migration.filter(|(number, _)| *number == begun);
    let step = due.map(|(_, step)| Update { migration: Some(step), ..Update::default() });
    let mesh = batch.mesh.as_ref().map(|mesh| registry.set_mesh(mesh));
    let store = batch
        .store
        .as_ref()
        .map(|(set, changes)| Update { migration: Some(MigrationStep::Begin), ..registry.follow(set, changes) });
    let keys = Update { key_sets: batch.keys.clone(), ..Update::default() };
    step.into_iter().chain(mesh).chain(store).chain((!keys.is_empty()).then_some(keys)).collect()
}

/// Follows the store until told to stop.
pub(crate) async fn run(
    follower: Follower,
    store: Arc<dyn ConfigStore>,
    state: Arc<State>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let (sender, mut news) = mpsc::channel(1);
    let debounce = state.options.debounce;
    let Follower { mut registry, mesh } = follower;
    let (want, wanted) = watch::channel(keys::wanted(&state.pusher.snapshot()));
    let (found, new_keys) = mpsc::channel(1);
    let settings = &state.options.keys;
    let fetch = HttpFetch::new(settings.forbidden.clone(), settings.extra_roots.clone());
    let documents = Documents::new(settings.forbidden.clone(), Roots::SystemAnd(settings.extra_roots.clone()));
    let known = (state.federated.clone(), &state.options.bundles);
    let bundles = Bundles::new(documents, state.pusher.snapshot().mesh.clone(), known);
    let sources = Sources { mesh, bundles };
    let resolving = Resolver::new(fetch, settings.interval, state.stats.keys.clone(), found).run(wanted);
    let (begun, beginning) = watch::channel(0);
    let (due, steps) = mpsc::channel(1);
    let migrating = migration::run(state.clone(), beginning, due);
    let watching = watch_sources(store, sources, state.clone(), (new_keys, steps), sender);
    let mut missing = Missing::default();
    missing.follow(&state.pusher.snapshot());
    let working = async {
        while let Some(batch) = debounce.next(&mut news, Batch::merge).await {
            state.stats.push.debounced(batch.since.elapsed());
            apply(&mut registry, &state, &batch.change, (batch.since, &begun));
            missing.follow(&state.pusher.snapshot());
            let latest = keys::wanted(&state.pusher.snapshot());
            want.send_if_modified(|known| std::mem::replace(known, latest.clone()) != latest);
        }
    };
    tokio::select! {
        () = watching => {}
        () = working => {}
        () = resolving => {}
        () = migrating => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    Ok(())
}

fn apply(registry: &mut Registry, state: &State, batch: &Batch, (since, migrations): (Instant, &watch::Sender<u64>)) {
    let begun = Instant::now();
    let mut snapshot = Snapshot::clone(&state.pusher.snapshot());
    let mut change = meltemi_model::Change::default();
    let count = *migrations.borrow();
    for update in updates(registry, batch, count) {
        let (next, part) = snapshot.next(&update);
        let declared = update.migration == Some(MigrationStep::Begin);
        if declared && next.is_migrating() && part.configs.iter().any(|key| key.kind == Kind::PeerAuthentication) {
            migrations.send_modify(|count| *count += 1);
        }
        snapshot = next;
        change.merge(&part);
    }
    if batch.mesh.is_some() {
        state.authenticator.set_aliases(authority::aliases(&snapshot.mesh));
        if let Some(external) = &state.options.external {
            external.set_mesh(&snapshot.mesh, &state.options.authority);
        }
        if let Some(cluster) = &state.options.cluster {
            cluster.store.select(&snapshot.mesh.discovery_selectors);
        }
    }
    // Whatever else does not differ is not sent again.
    change.full |= batch.roots.is_some() || batch.access;
    state.stats.push.initialised(begun.elapsed());
    if let Some((set, _)) = &batch.store {
        state.config.store(set.clone());
        state.stats.describe(&snapshot, set);
    }
    tracing::info!(
        version = snapshot.version,
        services = change.services.len(),
        endpoints = change.endpoints.len(),
        configs = change.configs.len(),
        proxies = state.stats.push.connected(),
        "push"
    );
    state.stats.triggered(&change);
    state.pusher.push(Arc::new(snapshot), change, since);
    if let Some(generation) = batch.roots {
        state.roots_pushed.store(generation, Ordering::Release);
    }
}

/// Where the mesh configuration comes from, and the roots that it names by URL.
struct Sources {
    mesh: mesh::Watch,
    bundles: Bundles<Documents>,
}

impl Sources {
    fn of_store(&mut self, set: Arc<ConfigSet>, changes: ChangeSet) -> Batch {
        let mesh = self.mesh.follow(&set, &changes).map(|mesh| self.bundles.resolve(mesh));
        Batch { mesh, store: Some((set, changes)), ..Batch::default() }
    }
}

async fn watch_sources(
    store: Arc<dyn ConfigStore>,
    mut sources: Sources,
    state: Arc<State>,
    (mut keys, mut steps): (mpsc::Receiver<KeyChanges>, mpsc::Receiver<migration::Due>),
    sender: mpsc::Sender<Batch>,
) {
    let mut changes = store.changes();
    // Whatever changed between the first reading and now.
    let missed = state.config.load().diff(changes.seen());
    if !missed.is_empty() && sender.send(sources.of_store(changes.seen().clone(), missed)).await.is_err() {
        return;
    }
    let mut roots = state.options.authority.subscribe();
    if *roots.borrow() > state.roots_pushed.load(Ordering::Acquire) {
        roots.mark_changed();
    }
    // Never changes without a cluster; the sender is there for as long as we are.
    let (_none, mut access) = watch::channel(0);
    if let Some(cluster) = &state.options.cluster {
        access = cluster.access.subscribe();
    }
    let mut poll = tokio::time::interval(MESH_POLL);
    loop {
        let batch = tokio::select! {
            next = changes.next() => match next {
                Some((set, changes)) => {
                    state.stats.received(&changes);
                    state.registrations.follow(&set, &changes);
                    sources.of_store(set, changes)
                }
                None => std::future::pending().await,
            },
            _ = poll.tick(), if sources.mesh.has_file() => match sources.mesh.look() {
                Some(mesh) => Batch { mesh: Some(sources.bundles.resolve(mesh)), ..Batch::default() },
                None => continue,
            },
            mesh = sources.bundles.changed() => Batch { mesh: Some(mesh), ..Batch::default() },
            Some(keys) = keys.recv() => Batch { keys, ..Batch::default() },
            // The sender is in the cluster that we hold.
            _ = access.changed() => Batch { access: true, ..Batch::default() },
            Some(due) = steps.recv() => Batch { migration: Some(due), ..Batch::default() },
            // The sender is in the authority that we hold.
            _ = roots.changed() => Batch { roots: Some(*roots.borrow_and_update()), ..Batch::default() },
        };
        if sender.send(batch).await.is_err() {
            return;
        }
    }
}

/// Logs what comes to be wrong with the documents, each problem once.
pub(crate) async fn log_problems(mut problems: watch::Receiver<Arc<[Problem]>>, stats: Stats) {
    let mut known: Arc<[Problem]> = Arc::default();
    loop {
        let current = problems.borrow_and_update().clone();
        let new = || current.iter().filter(|problem| !known.contains(problem));
        for problem in new() {
            tracing::warn!("{problem}");
        }
        stats.refused(new());
        known = current;
        // Closed: the store is gone.
        if problems.changed().await.is_err() {
            return;
        }
    }
}
