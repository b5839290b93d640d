//! One kind of object, followed for as long as the server has it, wherever its version goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher;
use meltemi_config::Kind;
use tokio::sync::watch;

use crate::decode::{Decoded, Reader};
use crate::follow::{Outage, Steps};
use crate::revision::Names;
use crate::served::Served;
use crate::watched;
use crate::world::{Event, World};

/// Events that become one change at most.
const BATCH: usize = 256;
/// How long nothing that may be another revision's is read for want of tags.
const TAGS_PATIENCE: Duration = Duration::from_secs(5);

/// What all informers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub client: Client,
    pub reader: Arc<Reader>,
    pub world: Arc<Mutex<World>>,
    pub served: watch::Receiver<Served>,
    pub names: watch::Receiver<Option<Names>>,
    pub outage: Outage,
}

impl Shared {
    fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the kind is served now. Waits until that is known.
    async fn version(&mut self, kind: Kind) -> Option<&'static str> {
        if !watched::has_definition(kind) {
            return kind.info().versions.first().copied();
        }
        // Closed: the store is gone, and this task with it.
        let served = self.served.wait_for(Option::is_some).await.ok()?;
        served.as_ref().and_then(|served| served.get(&kind)).copied()
    }

    /// Waits until the kind is served otherwise than at `version`.
    async fn changed(&mut self, kind: Kind, version: Option<&'static str>) {
        let other = |served: &Served| served.as_ref().is_some_and(|served| served.get(&kind).copied() != version);
        if !watched::has_definition(kind) || self.served.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }

    /// The names that our revision goes by, where objects of the kind may be another's.
    async fn names(&mut self, kind: Kind) -> Names {
        let own = Names::of(&self.reader.revision);
        if !watched::is_revisioned(kind) {
            return own;
        }
        let known = tokio::time::timeout(TAGS_PATIENCE, self.names.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|names| names.clone()).unwrap_or(own)
    }

    /// Waits until our revision goes by other names than these.
    async fn renamed(&mut self, kind: Kind, names: &Names) {
        let other = |known: &Option<Names>| known.as_ref().is_some_and(|known| known != names);
        if !watched::is_revisioned(kind) || self.names.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Follows a kind. Never resolves.
pub(crate) async fn follow(kind: Kind, mut shared: Shared) {
    loop {
        let version = shared.version(kind).await;
        match version {
            None => {
                shared.world(|world| world.vanish(kind));
                shared.changed(kind, None).await;
            }
            Some(served) => {
                let names = shared.names(kind).await;
                let watching = watch((kind, served), names.clone(), shared.clone());
                let mut renaming = shared.clone();
                tokio::select! {
                    () = watching => {}
                    () = shared.changed(kind, version) => {
                        tracing::info!(%kind, version = served, "the API server serves the kind otherwise now");
                    }
                    () = renaming.renamed(kind, &names) => {
                        tracing::info!(%kind, "other tags lead to this revision now");
                    }
                }
            }
        }
    }
}

/// Lists and watches a kind at one version. Never resolves.
async fn watch((kind, version): (Kind, &'static str), names: Names, shared: Shared) {
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), &watched::resource(kind, version));
    let mut steps = Steps::new(api, watched::config(kind), watched::name(kind), shared.outage.clone());
    let mut intake = Intake { kind, version, names, shared, listing: None, batch: Vec::new() };
    loop {
        intake.take(steps.next().await);
        while intake.batch.len() < BATCH
            && let Some(event) = steps.ready()
        {
            intake.take(event);
        }
        intake.flush();
    }
}

struct Intake {
    kind: Kind,
    version: &'static str,
    names: Names,
    shared: Shared,
    /// What has come of a list that is not whole yet.
    listing: Option<Vec<Decoded>>,
    batch: Vec<Event>,
}

impl Intake {
    fn take(&mut self, event: watcher::Event<DynamicObject>) {
        let reader = self.shared.reader.clone();
        match event {
            watcher::Event::Init => {
                self.flush();
                self.listing = Some(Vec::new());
            }
            watcher::Event::InitApply(object) => {
                let decoded = reader.decode((self.kind, self.version), &self.names, object);
                self.listing.get_or_insert_default().extend(decoded);
            }
            watcher::Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                self.shared.world(|world| world.replace(self.kind, listed));
            }
            watcher::Event::Apply(object) => {
                let decoded = reader.decode((self.kind, self.version), &self.names, object);
                self.batch.extend(decoded.map(Event::Said));
            }
            watcher::Event::Delete(object) => self.batch.extend(reader.key(self.kind, &object).map(Event::Deleted)),
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.shared.world(|world| world.apply(self.kind, batch));
        }
    }
}
