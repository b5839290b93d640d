//! What goes into the next snapshot, and what differs from the last.

use crate::config::{ConfigRef, ObjectKey};
use crate::endpoint::EndpointShard;
use crate::key_set::KeySource;
use crate::migration::MigrationStep;
use crate::policy::Selection;
use crate::service::{Service, ServiceKey};
use crate::shared::Shared;
use meltemi_config::Key;
use meltemi_config::kube::Secret;
use meltemi_config::mesh::MeshConfig;
use meltemi_config::mixer::{MemQuota, Quota};
use meltemi_config::networking::{DestinationRule, Gateway, Sidecar, VirtualService};
use meltemi_config::rate_limit::RateLimitPolicy;
use meltemi_config::resilience::ResiliencePolicy;
use meltemi_config::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use meltemi_config::wire::Str;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Changed objects of one kind; `None` is a removal.
pub type Changes<T> = Vec<(ObjectKey, Option<ConfigRef<T>>)>;

/// What a registry and a store hand over. Objects that are not named stay as they were.
#[derive(Clone, Debug, Default)]
pub struct Update {
    pub mesh: Option<Shared<MeshConfig>>,
    pub services: BTreeMap<ServiceKey, Option<Shared<Service>>>,
    pub endpoints: BTreeMap<ServiceKey, Option<Shared<EndpointShard>>>,
    pub virtual_services: Changes<VirtualService>,
    pub destination_rules: Changes<DestinationRule>,
    pub gateways: Changes<Gateway>,
    pub sidecars: Changes<Sidecar>,
    pub peer_authentications: Changes<PeerAuthentication>,
    /// How these, or earlier ones, come into force.
    pub migration: Option<MigrationStep>,
    pub authorization_policies: Changes<AuthorizationPolicy>,
    pub request_authentications: Changes<RequestAuthentication>,
    /// `None`: the keys are no longer known.
    pub key_sets: Vec<(KeySource, Option<Str>)>,
    pub secrets: Changes<Secret>,
    pub rate_limit_policies: Changes<RateLimitPolicy>,
    pub mem_quotas: Changes<MemQuota>,
    pub quotas: Changes<Quota>,
    pub resilience_policies: Changes<ResiliencePolicy>,
    /// Policies in the other spelling, which is a kind with names of its own.
    pub future_features: Changes<ResiliencePolicy>,
}

impl Update {
    pub fn is_empty(&self) -> bool {
        self.mesh.is_none()
            && self.services.is_empty()
            && self.endpoints.is_empty()
            && self.virtual_services.is_empty()
            && self.destination_rules.is_empty()
            && self.gateways.is_empty()
            && self.sidecars.is_empty()
            && self.peer_authentications.is_empty()
            && self.migration.is_none()
            && self.authorization_policies.is_empty()
            && self.request_authentications.is_empty()
            && self.key_sets.is_empty()
            && self.secrets.is_empty()
            && self.rate_limit_policies.is_empty()
            && self.mem_quotas.is_empty()
            && self.quotas.is_empty()
            && self.resilience_policies.is_empty()
            && self.future_features.is_empty()
    }
}

/// What differs between two snapshots. What is not named here is the same in both, so a push need not look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Anything may differ: the mesh's own configuration changed.
    pub full: bool,
    /// Services that came, went or differ (other than in endpoints).
    pub services: BTreeSet<ServiceKey>,
    /// Services whose endpoints differ.
    pub endpoints: BTreeSet<ServiceKey>,
    /// Those of them whose clusters can differ too: identities or mTLS ability changed (see `EndpointSummary`).
    pub summaries: BTreeSet<ServiceKey>,
    /// Addresses that joined or left a service: nodes at these have other inbound services now.
    pub addresses: BTreeSet<Arc<str>>,
    /// Configuration objects that came, went or differ.
    pub configs: BTreeSet<Key>,
    /// Hosts named by the changed DestinationRules, before and after.
    pub destination_hosts: BTreeSet<Arc<str>>,
    /// Host names of the changed VirtualServices, before and after.
    pub route_hosts: BTreeSet<Arc<str>>,
    /// Whom the changed AuthorizationPolicies, RequestAuthentications and RateLimitPolicies are for, before and after.
    pub selections: BTreeSet<Selection>,
}

impl Change {
    /// Everything, for a first push.
    pub fn everything() -> Self {
        Self { full: true, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Only endpoints differ, and no workload has other services than before.
    pub fn is_endpoints_only(&self) -> bool {
        !self.full && self.services.is_empty() && self.configs.is_empty() && self.selections.is_empty()
    }

    /// Takes in a later change, for a node that missed this one.
    pub fn merge(&mut self, other: &Self) {
        self.full |= other.full;
        self.services.extend(other.services.iter().cloned());
        self.endpoints.extend(other.endpoints.iter().cloned());
        self.summaries.extend(other.summaries.iter().cloned());
        self.addresses.extend(other.addresses.iter().cloned());
        self.configs.extend(other.configs.iter().cloned());
        self.destination_hosts.extend(other.destination_hosts.iter().cloned());
        self.route_hosts.extend(other.route_hosts.iter().cloned());
        self.selections.extend(other.selections.iter().cloned());
    }
}
