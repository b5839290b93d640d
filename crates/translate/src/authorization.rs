//! AuthorizationPolicies as Envoy's filters: RBAC, and external authorization behind an RBAC that chooses the requests.
//!
//! Owns which policies make which filter, in Istio's order: CUSTOM before anything else, then AUDIT, DENY and ALLOW. A dry run
//! is evaluated as shadow rules, which decide nothing. Whatever cannot be translated makes a policy stricter, never wider: an
//! ALLOW rule is left out, of a DENY rule what is left stays, and requests of a CUSTOM policy that nobody can be asked about
//! are denied.

mod external;
pub(crate) mod matcher;
mod permission;
mod principal;
mod rule;
mod trust_domain;

use std::collections::BTreeMap;

use meltemi_config::security::{AuthorizationAction, AuthorizationPolicy};
use meltemi_config::wire::Str;
use meltemi_model::ConfigRef;
use meltemi_proto::envoy::config::listener::v3::Filter;
use meltemi_proto::envoy::config::rbac::v3::rbac::Action;
use meltemi_proto::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac};
use meltemi_proto::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use meltemi_proto::envoy::extensions::filters::network::rbac::v3::Rbac as TcpRbac;

pub use external::{Authorizer, POLICY_PREFIX as CUSTOM_POLICY, SHADOW_PREFIX as CUSTOM_METADATA};
use rule::{Context, Matcher as _, Transport};

use crate::listener::{http_filter, network_filter};

const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const PROXYLESS_DENY: &str = "envoy.filters.http.rbac.DENY";
const TCP_RBAC: &str = "envoy.filters.network.rbac";

/// Istio's prefix of the statistics of TCP authorization.
const TCP_STAT_PREFIX: &str = "tcp.";

/// Before the metadata in which shadow rules leave what they would have done.
const DRY_RUN_ALLOW: &str = "istio_dry_run_allow_";
const DRY_RUN_DENY: &str = "istio_dry_run_deny_";

/// Nobody reads what the shadow rules find, or there are none.
const DRY_RUN_NONE: &str = "";

/// `istio.io/dry-run` on an AuthorizationPolicy.
const DRY_RUN: &str = "istio.io/dry-run";

/// Ends the names of policies that deny because nobody can be asked.
pub const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";

/// Everything that a proxy's authorization filters depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Authorization {
    /// Those that select the proxy.
    pub policies: Vec<ConfigRef<AuthorizationPolicy>>,
    /// The mesh's own first, then its aliases.
    pub trust_domains: Vec<Str>,
    /// The external services that policies name; one that is not here cannot be asked.
    pub authorizers: Vec<Authorizer>,
    /// Policies of one proxy may name different ones.
    pub several_authorizers: bool,
}

impl Authorization {
    /// The filters of CUSTOM policies; they come before tokens are read.
    pub fn external_http(&self) -> Vec<HttpFilter> {
        let mut filters = Vec::new();
        for step in self.external(Transport::Http) {
            match step {
                External::Deny(rules) => filters.push(http_rbac(Some(rules), None, DRY_RUN_NONE)),
                External::Ask(shadow, authorizer) => {
                    filters.push(http_rbac(None, Some(shadow), external::SHADOW_PREFIX));
                    filters.push(authorizer.http_filter());
                }
            }
        }
        filters
    }

    /// The filters of AUDIT, DENY and ALLOW policies.
    pub fn local_http(&self) -> Vec<HttpFilter> {
        let engines = self.engines(Transport::Http);
        engines.map(|engine| http_rbac(engine.rules, engine.shadow, engine.shadow_prefix)).collect()
    }

    /// The filters of a gRPC library, which knows ALLOW and DENY alone and no shadow rules. It can ask nobody about a call, and so
    /// denies what a CUSTOM policy chooses.
    pub fn proxyless(&self) -> Vec<HttpFilter> {
        let in_force = |of: &[AuthorizationAction]| -> Vec<_> {
            let with = self.policies.iter().filter(|policy| of.contains(&policy.spec.action));
            with.filter(|policy| !is_dry_run(policy)).collect()
        };
        let filter = |called: &str, policies: Vec<&ConfigRef<AuthorizationPolicy>>, action: Action| {
            let rules = || self.rules(&policies, action, Transport::Http, rule_name);
            (!policies.is_empty())
                .then(|| http_filter(called, &HttpRbac { rules: Some(rules()), ..HttpRbac::default() }))
        };
        let deny = in_force(&[AuthorizationAction::Deny, AuthorizationAction::Custom]);
        let allow = in_force(&[AuthorizationAction::Allow]);
        // Names of filters are unique.
        let filters = [filter(PROXYLESS_DENY, deny, Action::Deny), filter(HTTP_RBAC, allow, Action::Allow)];
        filters.into_iter().flatten().collect()
    }

    pub fn external_tcp(&self) -> Vec<Filter> {
        let mut filters = Vec::new();
        for step in self.external(Transport::Tcp) {
            match step {
                External::Deny(rules) => filters.push(tcp_rbac(Some(rules), None, DRY_RUN_NONE)),
                External::Ask(shadow, authorizer) => {
                    // Only a gRPC service can be asked about a connection.
                    let Some(ask) = authorizer.tcp_filter() else { continue };
                    filters.push(tcp_rbac(None, Some(shadow), external::SHADOW_PREFIX));
                    filters.push(ask);
                }
            }
        }
        filters
    }

    pub fn local_tcp(&self) -> Vec<Filter> {
        let engines = self.engines(Transport::Tcp);
        engines.map(|engine| tcp_rbac(engine.rules, engine.shadow, engine.shadow_prefix)).collect()
    }

    fn with_action(&self, action: AuthorizationAction) -> impl Iterator<Item = &ConfigRef<AuthorizationPolicy>> {
        self.policies.iter().filter(move |policy| policy.spec.action == action)
    }

    fn engines(&self, transport: Transport) -> impl Iterator<Item = Engine> {
        let order = [
            (AuthorizationAction::Audit, Action::Log),
            (AuthorizationAction::Deny, Action::Deny),
            (AuthorizationAction::Allow, Action::Allow),
        ];
        order.into_iter().filter_map(move |(of, action)| {
            let with = |dry_run: bool| {
                let policies: Vec<_> = self.with_action(of).filter(|policy| is_dry_run(policy) == dry_run).collect();
                (!policies.is_empty()).then(|| self.rules(&policies, action, transport, rule_name))
            };
            let (rules, shadow) = (with(false), with(true));
            // Istio names the prefix of ALLOW where there are no shadow rules.
            let shadow_prefix = match shadow.as_ref().map(|_| action) {
                None | Some(Action::Allow) => DRY_RUN_ALLOW,
                Some(Action::Deny) => DRY_RUN_DENY,
                Some(Action::Log) => DRY_RUN_NONE,
            };
            (rules.is_some() || shadow.is_some()).then_some(Engine { rules, shadow, shadow_prefix })
        })
    }

    /// By external service, in the order of their names. A dry run asks nobody.
    fn external(&self, transport: Transport) -> Vec<External<'_>> {
        let mut by_name: BTreeMap<&str, Vec<&ConfigRef<AuthorizationPolicy>>> = BTreeMap::new();
        for policy in self.with_action(AuthorizationAction::Custom).filter(|policy| !is_dry_run(policy)) {
            let name = policy.spec.provider.as_ref().map_or("", |provider| &*provider.name);
            by_name.entry(name).or_default().push(policy);
        }
        let too_many = by_name.len() > 1 && !self.several_authorizers;
        let steps = by_name.into_iter().map(|(name, policies)| {
            let rules = self.rules(&policies, Action::Deny, transport, |policy, index| {
                external::policy_prefix(name) + &rule_name(policy, index)
            });
            match self.authorizers.iter().find(|authorizer| &*authorizer.name == name) {
                Some(authorizer) if !too_many => External::Ask(rules, authorizer),
                _ => External::Deny(bad_custom(rules)),
            }
        });
        steps.collect()
    }

    /// The rules of policies, each under a name of its own.
    fn rules(
        &self,
        policies: &[&ConfigRef<AuthorizationPolicy>],
        action: Action,
        transport: Transport,
        name: impl Fn(&ConfigRef<AuthorizationPolicy>, usize) -> String,
    ) -> Rbac {
        let mut named = BTreeMap::new();
        for policy in policies {
            let context = Context {
                namespace: &policy.namespace,
                trust_domains: &self.trust_domains,
                transport,
                lenient: action != Action::Allow,
            };
            for (index, rule) in policy.spec.rules.iter().enumerate() {
                named.extend(rule::policy(rule, &context).map(|translated| (name(policy, index), translated)));
            }
            if policy.spec.rules.is_empty() {
                named.insert(name(policy, 0), never());
            }
        }
        Rbac { action: action as i32, policies: named, audit_logging_options: None }
    }
}

/// What one RBAC filter evaluates.
struct Engine {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    shadow_prefix: &'static str,
}

/// What becomes of requests that a CUSTOM policy chooses.
enum External<'a> {
    Deny(Rbac),
    Ask(Rbac, &'a Authorizer),
}

/// The policy's annotation says that it is only to be evaluated.
pub fn is_dry_run(policy: &ConfigRef<AuthorizationPolicy>) -> bool {
    // The spellings of true that Istio takes.
    policy.annotations.get(DRY_RUN).is_some_and(|value| matches!(&**value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Istio's name of a rule.
fn rule_name(policy: &ConfigRef<AuthorizationPolicy>, index: usize) -> String {
    format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name)
}

fn bad_custom(rules: Rbac) -> Rbac {
    let policies = rules.policies.into_iter().map(|(name, policy)| (name + BAD_CUSTOM, policy)).collect();
    Rbac { policies, ..rules }
}

/// A policy that no request matches.
fn never() -> Policy {
    Policy {
        permissions: vec![Permission::any().negated()],
        principals: vec![Principal::any().negated()],
        ..Policy::default()
    }
}

fn http_rbac(rules: Option<Rbac>, shadow: Option<Rbac>, shadow_prefix: &str) -> HttpFilter {
    let config =
        HttpRbac { rules, shadow_rules: shadow, shadow_rules_stat_prefix: shadow_prefix.into(), ..HttpRbac::default() };
    http_filter(HTTP_RBAC, &config)
}

fn tcp_rbac(rules: Option<Rbac>, shadow: Option<Rbac>, shadow_prefix: &str) -> Filter {
    let config = TcpRbac {
        rules,
        shadow_rules: shadow,
        shadow_rules_stat_prefix: shadow_prefix.into(),
        stat_prefix: TCP_STAT_PREFIX.into(),
        ..TcpRbac::default()
    };
    network_filter(TCP_RBAC, &config)
}

#[cfg(test)]
mod tests;
