//! Kubernetes' Gateway API and Ingress as the Gateways, VirtualServices and DestinationRules that istiod makes of it, under istiod's names.
//!
//! Owns the conversion, as a function of the objects it was shown. Never does I/O and never looks at a clock; what is made
//! differs in nothing from what users write but in annotations (`internal.istio.io/…`), so that nothing after this crate
//! knows the Gateway API. A conversion costs all of the API's objects, and nothing where there are none.

mod backend;
pub mod case;
mod catalogue;
mod class;
mod conflict;
mod credential;
mod deployment;
mod error;
mod feature;
mod filter;
mod gateway;
mod grpc;
mod hostname;
mod http;
mod ingress;
mod instances;
mod l4;
mod listener;
mod merge;
mod parent;
mod policy;
mod reference;
mod report;
mod route;
pub mod status;
mod waypoint;
mod written;

pub use catalogue::Catalogue;
pub use class::missing as missing_classes;
pub use deployment::{Deployed, DeploymentValues, MANAGED, Template as DeploymentTemplate, deployments, over};
pub use error::Problem;
pub use ingress::{IngressSettings, node_addresses};
pub use instances::{GatewayService, Services};
pub use report::statuses;
pub use status::Status;
pub use written::{carry_on, written};

use meltemi_config::gateway_api::{GrpcRoute, HttpRoute};
use meltemi_config::kube::Secret;
use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{DestinationRule, Gateway, VirtualService};
use meltemi_model::{Changes, ConfigRef, ObjectKey, Shared, Update};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the objects of the Gateway API mean, in Istio's own kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// One for each listener that is in order, in the place of the object with the listener.
    pub gateways: BTreeMap<ObjectKey, ConfigRef<Gateway>>,
    pub virtual_services: BTreeMap<ObjectKey, ConfigRef<VirtualService>>,
    /// One for each host of what has a policy.
    pub destination_rules: BTreeMap<ObjectKey, ConfigRef<DestinationRule>>,
    /// Roots for peers' certificates that are in ConfigMaps, under names that no Secret has.
    pub roots: BTreeMap<ObjectKey, ConfigRef<Secret>>,
}

impl Converted {
    /// Adds to `update` what is to change where `before` was in force.
    pub fn changes_since(&self, before: &Self, update: &mut Update) {
        update.gateways.extend(changes(&before.gateways, &self.gateways));
        update.destination_rules.extend(changes(&before.destination_rules, &self.destination_rules));
        update.secrets.extend(changes(&before.roots, &self.roots));
        update.virtual_services.extend(changes(&before.virtual_services, &self.virtual_services));
    }
}

fn changes<T: PartialEq>(
    before: &BTreeMap<ObjectKey, ConfigRef<T>>,
    after: &BTreeMap<ObjectKey, ConfigRef<T>>,
) -> Changes<T> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), None));
    let new = after.iter().filter(|(key, config)| before.get(key) != Some(config));
    gone.chain(new.map(|(key, config)| (key.clone(), Some(config.clone())))).collect()
}

/// What of the mesh's settings a conversion depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Completes the names of Services: `cluster.local`.
    pub domain: Arc<str>,
    pub ingress: IngressSettings,
}

impl Settings {
    pub fn new(domain: &str, mesh: &MeshConfig) -> Self {
        Self { domain: domain.into(), ingress: IngressSettings::of(mesh) }
    }
}

/// Converts everything.
pub fn convert(catalogue: &Catalogue, settings: &Settings) -> Converted {
    let (domain, ingress) = (&*settings.domain, &settings.ingress);
    let gateways = gateway::all(catalogue, domain);
    let made = || gateways.iter().flat_map(|gateway| &gateway.made);
    let context = route::Context { catalogue, domain, parents: parent::Parents::of(made()) };
    let mut http = route::all_http_services::<HttpRoute>(&context);
    http.extend(route::all_http_services::<GrpcRoute>(&context));
    let mut virtual_services = merge::merged(http);
    virtual_services.extend(l4::routes(&context).into_iter().map(|config| (config.key(), Shared::new(config))));
    let of_ingress = ingress::virtual_services(catalogue, domain, ingress);
    virtual_services.extend(of_ingress.into_iter().map(|config| (config.key(), Shared::new(config))));
    let valid = || made().filter(|made| made.valid);
    let servers = valid().flat_map(|made| made.config.spec.servers.iter());
    let gateways_of = policy::of_routes(catalogue);
    let policies = policy::all(&policy::Context { catalogue, domain, gateways: &gateways_of });
    let of_rules = policies.rules.values().flat_map(|rule| credential::rule_roots(catalogue, &rule.spec));
    Converted {
        roots: servers.filter_map(|server| credential::roots(catalogue, server)).chain(of_rules).collect(),
        destination_rules: policies.rules.clone(),
        gateways: valid()
            .map(|made| made.config.clone())
            .chain(ingress::gateways(catalogue, ingress))
            .map(|config| (config.key(), Shared::new(config)))
            .collect(),
        virtual_services,
    }
}
