//! The security filters of what a proxy accepts: tokens, authorization and rate limits.
//!
//! Owns their order. A listener's input holds one [`Security`], of the policies that select its proxy and of nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use meltemi_config::wire::Str;
use meltemi_model::{Shared, Workload};
use meltemi_proto::envoy::config::listener::v3::Filter;
use meltemi_proto::envoy::config::route::v3::RateLimit;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::authentication::Authentication;
use crate::authorization::{Authorization, Authorizer};
use crate::rate_limit::RateLimits;
use crate::view::View;

/// Nothing where connections leave: policies are about what a workload receives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Security {
    authentication: Authentication,
    authorization: Authorization,
    rate_limits: RateLimits,
}

impl Security {
    /// Of connections that leave.
    pub fn none() -> Shared<Self> {
        static NONE: OnceLock<Shared<Security>> = OnceLock::new();
        NONE.get_or_init(|| Shared::new(Self::default())).clone()
    }

    pub fn of(view: &View<'_>) -> Self {
        let workload = view.snapshot.workload(view.node);
        Self {
            authentication: Authentication::of(view, &workload),
            authorization: authorization(view, &workload),
            rate_limits: RateLimits::of(view),
        }
    }

    /// Clusters that the proxy itself sends to: external authorizers, servers of keys and of rate limits.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let authorizers = self.authorization.authorizers.iter().map(|authorizer| &authorizer.cluster);
        authorizers.chain(self.authentication.clusters()).chain(self.rate_limits.clusters())
    }

    /// Of a gRPC library that serves without a proxy.
    pub fn proxyless_filters(&self) -> Vec<HttpFilter> {
        self.authorization.proxyless()
    }

    pub fn filters(&self) -> SecurityFilters {
        let mut http = self.authorization.external_http();
        http.extend(self.authentication.http_filter());
        http.extend(self.authorization.local_http());
        // Who may not ask at all is not counted.
        http.extend(self.rate_limits.filters());
        let mut tcp = self.authorization.external_tcp();
        tcp.extend(self.authorization.local_tcp());
        SecurityFilters { http, tcp, rate_limits: self.rate_limits.actions() }
    }
}

/// Clusters of all external authorizers that the mesh has, asked or not: connections that began before a policy left one for
/// another go on asking it until they end.
pub fn authorizer_clusters(view: &View<'_>) -> Vec<Arc<str>> {
    let mesh = &view.snapshot.mesh;
    let resolve = |name: &Str| Authorizer::resolve(mesh, name, |service| view.find_service(service));
    mesh.extension_providers.iter().filter_map(|provider| Some(resolve(&provider.name)?.cluster)).collect()
}

/// The same for every chain of a listener.
#[derive(Debug, Default)]
pub struct SecurityFilters {
    pub http: Vec<HttpFilter>,
    pub tcp: Vec<Filter>,
    /// What virtual hosts say to the filters that limit.
    pub rate_limits: Vec<RateLimit>,
}

fn authorization(view: &View<'_>, workload: &Workload<'_>) -> Authorization {
    let policies = view.snapshot.authorization_policies(workload);
    if policies.is_empty() {
        return Authorization::default();
    }
    let mesh = &view.snapshot.mesh;
    let providers: BTreeSet<&Str> =
        policies.iter().filter_map(|policy| Some(&policy.spec.provider.as_ref()?.name)).collect();
    let resolve = |name: &Str| Authorizer::resolve(mesh, name, |service| view.find_service(service));
    Authorization {
        trust_domains: std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).cloned().collect(),
        authorizers: providers.into_iter().filter_map(resolve).collect(),
        several_authorizers: view.snapshot.options.several_external_authorizers,
        policies,
    }
}

#[cfg(test)]
mod tests;
