//! What is deployed for Gateways, applied and kept as it is to be, and the classes that are built in. For the leader alone.
//!
//! Owns when a Gateway is looked at: when it, or what is deployed for it, changes. What others made is left alone, what a Gateway no
//! longer wants is removed, and what a removed Gateway had goes by its owner. A look costs two calls an object.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Kind, Meta, Object};
use meltemi_gateway_api::{
    Deployed, DeploymentTemplate, DeploymentValues, MANAGED, deployments, missing_classes, over,
};
use meltemi_kubernetes::apply::{Apply, Cluster, ClusterError, Labelled, Place, Resource, follow_labelled};
use meltemi_kubernetes::{Client, KubernetesStore};
use meltemi_model::{ObjectKey, Shared};
use meltemi_webhook::inject::{Cluster as InjectionCluster, GatewayTemplate, overlaid_proxy_config, told_proxy_config};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::followed::Followed;
use crate::State;
use crate::webhook::{self, installed_values};

/// Istio's, so that what it deployed is adopted.
const MANAGER: &str = "istio.io/gateway-controller";
/// What is followed, and what may be deployed.
const KINDS: [&str; 5] = ["ServiceAccount", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"];
const GATEWAY: Resource =
    Resource { api_version: "gateway.networking.k8s.io/v1", kind: "Gateway", plural: "gateways", namespaced: true };
const CLASS: Resource = Resource {
    api_version: "gateway.networking.k8s.io/v1",
    kind: "GatewayClass",
    plural: "gatewayclasses",
    namespaced: false,
};
/// On what is deployed for a Gateway, and by what ProxyConfigs select its proxies.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// On a Gateway: the variant of its proxies' image.
const IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
/// How soon a change is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// With what others made of an object meanwhile.
const ATTEMPTS: u32 = 4;
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What has been applied for a Gateway, and what it owned before.
struct Done {
    deployed: Deployed,
    owned: Labelled,
}

/// From what the values of deployments are made: the injector's ConfigMap, the mesh configuration, and ProxyConfigs.
type Source = (Option<Object>, Shared<MeshConfig>, Vec<Object>);

#[derive(Default)]
struct Kept {
    followed: Followed,
    source: Option<Source>,
    /// The installation's; absent until they have once been in order.
    values: Option<Value>,
    /// The installation's own, in place of what we make.
    template: Option<GatewayTemplate>,
    wanted: Vec<Deployed>,
    done: BTreeMap<ObjectKey, Done>,
    /// Until when a Gateway rests.
    failed: BTreeMap<ObjectKey, Instant>,
}

/// Keeps deployments and classes for as long as it is awaited.
pub(super) async fn keep(state: &State, store: &KubernetesStore, client: &Client) {
    let cluster = Cluster::of(client.clone(), MANAGER);
    tokio::join!(classes(state, store, &cluster), deploy(state, client, &cluster));
}

/// Makes built-in classes that are not there; one that is there is its owner's to change.
async fn classes(state: &State, store: &KubernetesStore, cluster: &Cluster) {
    if !state.options.gateways.makes_classes {
        std::future::pending().await
    }
    let mut followed = Followed::default();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rests: Option<Instant> = None;
    loop {
        ticks.tick().await;
        followed.follow(state);
        if !store.serves(Kind::GatewayClass) || rests.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        for class in missing_classes(&followed.catalogue) {
            rests = Some(Instant::now() + RETRY);
            if let Err(error) = cluster.create(&CLASS, &class).await {
                tracing::warn!(class = %class["metadata"]["name"], "GatewayClass not made: {error}");
            }
        }
    }
}

async fn deploy(state: &State, client: &Client, cluster: &Cluster) {
    if !state.options.gateways.deploys {
        std::future::pending().await
    }
    let held = watch::Sender::new(Labelled::new());
    let kinds: Vec<&Resource> = KINDS.iter().filter_map(|kind| Resource::of_kind(kind)).collect();
    let label = format!("{MANAGED}={}", MANAGER.replace('/', "-"));
    let deploying = async {
        let mut kept = Kept::default();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            kept.follow(state);
            let held = held.borrow().clone();
            kept.reconcile(cluster, &held).await;
        }
    };
    tokio::join!(follow_labelled(client, &label, &kinds, &held), deploying);
}

impl Kept {
    /// Sees what is to be deployed now.
    fn follow(&mut self, state: &State) {
        let mut differs = self.followed.follow(state);
        let options = &state.options;
        let key = Key::new(Kind::ConfigMap, &options.namespace, &options.webhook.config_map());
        let set = &self.followed.set;
        let proxy_configs = set.of_kind(Kind::ProxyConfig).cloned().collect();
        let source = (set.get(&key).cloned(), state.pusher.snapshot().mesh.clone(), proxy_configs);
        if self.source.as_ref() != Some(&source) {
            // Values and templates that are wrong are told of by the injector; those in force stay.
            let origin = webhook::Source::Map(source.0.clone());
            let settings = webhook::settings(&options.webhook, &origin, &source.1);
            if let Some(Ok(template)) = settings.ok().map(GatewayTemplate::of) {
                self.template = template;
            }
            if let Ok(values) = installed_values(&origin) {
                self.values = Some(values);
            }
            self.source = Some(source);
            differs = true;
        }
        let (values, source) = (self.values.as_ref(), self.source.as_ref());
        if let Some((values, (_, mesh, _))) = values.zip(source).filter(|_| differs) {
            let known = webhook::Known(self.followed.set.clone());
            let own = self.template.as_ref();
            let make = own.map(|template| |gateway: &Value| template.objects(gateway));
            let template = make.as_ref().map(|make| make as DeploymentTemplate<'_>);
            let values = |gateway: &Meta| values_for(gateway, values, (mesh, &known));
            self.wanted = deployments(&self.followed.catalogue, values, template);
            let known: BTreeSet<&ObjectKey> = self.wanted.iter().map(|deployed| &deployed.gateway).collect();
            self.done.retain(|gateway, _| known.contains(gateway));
            self.failed.retain(|gateway, _| known.contains(gateway));
        }
    }

    async fn reconcile(&mut self, cluster: &Cluster, held: &Labelled) {
        for deployed in &self.wanted {
            let gateway = &deployed.gateway;
            let owned = owned(held, &deployed.uid);
            let done = self.done.get(gateway);
            let is_done = done.is_some_and(|done| done.deployed == *deployed && done.owned == owned);
            if is_done || self.failed.get(gateway).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            match apply(cluster, deployed, &owned).await {
                Ok(()) => {
                    self.failed.remove(gateway);
                    self.done.insert(gateway.clone(), Done { deployed: deployed.clone(), owned });
                }
                Err(reason) => {
                    tracing::warn!(%gateway, "not deployed: {reason}");
                    self.failed.insert(gateway.clone(), Instant::now() + RETRY);
                }
            }
        }
    }
}

/// The installation's values with what ProxyConfigs, and an annotation, say of a Gateway's proxies.
fn values_for(gateway: &Meta, values: &Value, (mesh, known): (&MeshConfig, &dyn InjectionCluster)) -> DeploymentValues {
    let labels = [(GATEWAY_NAME.to_owned(), gateway.name.to_string())].into();
    let mut config = mesh.default_config.clone();
    for text in known.proxy_configs(&mesh.root_namespace, &gateway.namespace, &labels) {
        match overlaid_proxy_config(&config, &text) {
            Ok(laid) => config = laid,
            Err(error) => tracing::warn!(gateway = %gateway.name, "a ProxyConfig is left out: {error}"),
        }
    }
    let mut values = values.clone();
    let of_config = config.image.as_ref().map(|image| &image.image_type).filter(|name| !name.is_empty());
    if let Some(image) = gateway.annotations.get(IMAGE_TYPE).or(of_config) {
        values["global"]["variant"] = image.to_string().into();
    }
    DeploymentValues {
        proxy_config: told_proxy_config(&config),
        proxy_metadata: config.proxy_metadata.clone(),
        ..DeploymentValues::of(&values, mesh)
    }
}

/// What a Gateway has had deployed by us.
fn owned(held: &Labelled, uid: &str) -> Labelled {
    let is_own = |owners: &[String]| owners.iter().any(|owner| owner == uid);
    let own = held.iter().filter(|(_, object)| is_own(&object.owners));
    own.map(|(place, object)| (place.clone(), object.clone())).collect()
}

async fn apply(cluster: &Cluster, deployed: &Deployed, owned: &Labelled) -> Result<(), String> {
    let objects = match &deployed.objects {
        Ok(objects) => objects,
        Err(problem) => {
            tracing::warn!(gateway = %deployed.gateway, "what is deployed stays as it is: {}", problem.message);
            return Ok(());
        }
    };
    if let Some(claim) = &deployed.claim {
        cluster.apply_status(&GATEWAY, claim).await.map_err(|error| format!("Gateway: {error}"))?;
    }
    let mut wanted = BTreeSet::new();
    for object in objects {
        let Some(place) = place(object) else { continue };
        apply_one(cluster, object, &place).await.map_err(|error| format!("{} {}: {error}", place.kind, place.name))?;
        wanted.insert(place);
    }
    for place in unwanted(owned, &wanted) {
        let Some(resource) = Resource::of_kind(place.kind) else { continue };
        let removed = cluster.delete(resource, &place.namespace, &place.name).await;
        if removed.map_err(|error| format!("{} {}: {error}", place.kind, place.name))? {
            tracing::info!(gateway = %deployed.gateway, kind = place.kind, name = place.name, "removed");
        }
    }
    Ok(())
}

/// Others write, too: a controller the status of what it runs.
async fn apply_one(cluster: &Cluster, object: &Value, place: &Place) -> Result<(), ClusterError> {
    for _ in 1..ATTEMPTS {
        match apply_now(cluster, object, place).await {
            Err(ClusterError::Modified) => {}
            other => return other,
        }
    }
    apply_now(cluster, object, place).await
}

async fn apply_now(cluster: &Cluster, object: &Value, place: &Place) -> Result<(), ClusterError> {
    let Some(resource) = Resource::of_kind(place.kind) else { return Ok(()) };
    let before = cluster.get(resource, &place.namespace, &place.name).await?;
    let Some(object) = over(before.as_ref().unwrap_or(&Value::Null), object.clone()) else {
        tracing::debug!(kind = place.kind, name = place.name, "somebody else's, and left alone");
        return Ok(());
    };
    let how = Apply { take_over: true, ..Apply::default() };
    let applied = cluster.apply(resource, &object, before.as_ref(), how).await?;
    tracing::debug!(kind = place.kind, namespace = place.namespace, name = place.name, ?applied, "deployed");
    Ok(())
}

fn place(object: &Value) -> Option<Place> {
    let kind = KINDS.into_iter().find(|kind| object["kind"] == *kind)?;
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    Some(Place { kind, namespace: text("namespace")?, name: text("name")? })
}

/// What we applied once and a Gateway does not want any more.
fn unwanted<'a>(owned: &'a Labelled, wanted: &BTreeSet<Place>) -> Vec<&'a Place> {
    let is_ours = |managers: &[String]| managers.iter().any(|manager| manager == MANAGER);
    let own = owned.iter().filter(|(_, object)| is_ours(&object.managers)).map(|(place, _)| place);
    own.filter(|place| !wanted.contains(*place)).collect()
}

#[cfg(test)]
mod tests;
