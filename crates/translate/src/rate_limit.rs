//! RateLimitPolicies as Envoy's rate limit filters, and as the actions of virtual hosts that tell these what to count.
//!
//! Owns which filter counts which rule. Each policy has local filters of its own, one for each answer that it gives, so that
//! statistics tell policies apart; global rules share a filter where they share a server and an answer. A rule's descriptor
//! begins with the rule's name, so no filter counts what is another's.

mod action;
mod filter;
mod matching;

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_config::rate_limit::{
    RateLimitPolicy, RateLimitProvider, RateLimitResponse, RateLimitRule, RateLimitScope, RateLimitSource,
};
use meltemi_config::wire::Str;
use meltemi_model::{Config, ConfigRef, host};
use meltemi_proto::envoy::config::route::v3::RateLimit;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::names;
use crate::view::View;

/// Envoy's last stage: global filters beyond it share it, and a rule may then count twice. No workload has so many.
const LAST_STAGE: u32 = 10;

/// The limits of what a proxy accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RateLimits {
    policies: Vec<ConfigRef<RateLimitPolicy>>,
    /// By address as the policies have it.
    servers: BTreeMap<Str, Server>,
}

/// A rate limit server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    host: Arc<str>,
    cluster: Arc<str>,
}

/// A rule with its name.
struct Rule<'a> {
    rule: &'a RateLimitRule,
    value: String,
}

/// Rules that one filter counts.
struct Group<'a> {
    of: Kind<'a>,
    response: Option<&'a RateLimitResponse>,
    dry_run: bool,
    rules: Vec<Rule<'a>>,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Kind<'a> {
    Local(&'a Config<RateLimitPolicy>),
    Global(&'a RateLimitProvider),
}

impl RateLimits {
    /// Those of the policies that select the view's node.
    pub fn of(view: &View<'_>) -> Self {
        let policies = view.snapshot.rate_limit_policies(&view.snapshot.workload(view.node));
        let mut servers = BTreeMap::new();
        for policy in &policies {
            let providers = policy.rules().filter_map(|(_, rule)| rule.provider.as_ref());
            servers.extend(providers.filter_map(|own| Some((own.address.clone(), server(view, policy, own)?))));
        }
        Self { policies, servers }
    }

    /// Clusters that the proxy itself sends to.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.servers.values().map(|server| &server.cluster)
    }

    /// The filters, in the order in which they count.
    pub fn filters(&self) -> Vec<HttpFilter> {
        let groups = self.groups();
        let derived = self.derived();
        let mut filters: Vec<_> = filter::derive(&derived).into_iter().collect();
        for (index, group) in groups.iter().enumerate() {
            filters.extend(match group.of {
                Kind::Local(_) => Some(filter::local(group)),
                Kind::Global(provider) => {
                    let server = self.servers.get(&provider.address);
                    server.map(|server| filter::global(group, provider, server, stage(&groups, index)))
                }
            });
        }
        filters.extend(filter::forget(&derived));
        filters
    }

    /// What the virtual hosts say of requests.
    pub fn actions(&self) -> Vec<RateLimit> {
        let groups = self.groups();
        let of_group = |(index, group): (usize, &Group<'_>)| {
            let stage = stage(&groups, index);
            group.rules.iter().map(|rule| action::rate_limit(rule, stage)).collect::<Vec<_>>()
        };
        groups.iter().enumerate().flat_map(of_group).collect()
    }

    /// Local ones first: what a proxy refuses by itself costs no server anything.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for policy in &self.policies {
            for (index, rule) in policy.rules() {
                let of = match (&rule.scope, &rule.provider) {
                    (RateLimitScope::Local, _) => Kind::Local(policy),
                    (RateLimitScope::Global, Some(provider)) => Kind::Global(provider),
                    (RateLimitScope::Global, None) => continue,
                };
                let named = Rule { rule, value: meltemi_model::rate_limit::rule_value(&policy.key(), index, rule) };
                let (response, dry_run) = (rule.response.as_ref(), rule.dry_run);
                let same =
                    |group: &&mut Group<'_>| (group.of, group.response, group.dry_run) == (of, response, dry_run);
                match groups.iter_mut().find(same) {
                    Some(group) => group.rules.push(named),
                    None => groups.push(Group { of, response, dry_run, rules: vec![named] }),
                }
            }
        }
        groups.sort_by_key(|group| matches!(group.of, Kind::Global(_)));
        groups
    }

    /// What rules count by that only a header can hand to the filters.
    fn derived(&self) -> Vec<RateLimitSource<'_>> {
        let keys = self.policies.iter().flat_map(|policy| &policy.spec.rules).flat_map(|rule| &rule.by);
        let mut sources: Vec<_> = keys
            .filter_map(|key| key.source())
            .filter(|source| matches!(source, RateLimitSource::Path | RateLimitSource::SourcePrincipal))
            .collect();
        sources.sort();
        sources.dedup();
        sources
    }
}

/// The stage of a group: 0 of all local ones, one of its own of each global one.
fn stage(groups: &[Group<'_>], index: usize) -> u32 {
    let before = groups[..index].iter().filter(|group| matches!(group.of, Kind::Global(_))).count();
    match groups[index].of {
        Kind::Local(_) => 0,
        Kind::Global(_) => u32::try_from(before).unwrap_or(LAST_STAGE).saturating_add(1).min(LAST_STAGE),
    }
}

/// Where no service has the host, the cluster is missing too, and the filter does what `failOpen` says.
fn server(view: &View<'_>, policy: &Config<RateLimitPolicy>, provider: &RateLimitProvider) -> Option<Server> {
    let (name, port) = provider.address.rsplit_once(':')?;
    let full = host::fqdn(name, &policy.namespace, &view.snapshot.options.domain);
    let host = view.find_service(&full).or_else(|| view.find_service(name)).unwrap_or_else(|| full.into());
    let cluster = names::outbound(port.parse().ok()?, "", &host).into();
    Some(Server { host, cluster })
}

#[cfg(test)]
mod tests;
