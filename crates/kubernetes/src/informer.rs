//! One kind of object, followed for as long as the server has it, wherever its version goes.

use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher;
use meltemi_config::Kind;
use tokio::sync::watch;

use crate::decode::{Decoded, Reader};
use crate::follow::{Outage, Steps};
use crate::served::Served;
use crate::watched;
use crate::world::{Event, World};

/// Events that become one change at most.
const BATCH: usize = 256;

/// What all informers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub client: Client,
    pub reader: Arc<Reader>,
    pub world: Arc<Mutex<World>>,
    pub served: watch::Receiver<Served>,
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
                let watching = watch(kind, served, shared.clone());
                tokio::select! {
                    () = watching => {}
                    () = shared.changed(kind, version) => {
                        tracing::info!(%kind, version = served, "the API server serves the kind otherwise now");
                    }
                }
            }
        }
    }
}

/// Lists and watches a kind at one version. Never resolves.
async fn watch(kind: Kind, version: &'static str, shared: Shared) {
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), &watched::resource(kind, version));
    let mut steps = Steps::new(api, watched::config(kind), watched::name(kind), shared.outage.clone());
    let mut intake = Intake { kind, version, shared, listing: None, batch: Vec::new() };
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
                let decoded = reader.decode(self.kind, self.version, object);
                self.listing.get_or_insert_default().extend(decoded);
            }
            watcher::Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                self.shared.world(|world| world.replace(self.kind, listed));
            }
            watcher::Event::Apply(object) => {
                self.batch.extend(reader.decode(self.kind, self.version, object).map(Event::Said));
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
