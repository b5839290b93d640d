//! Policies as the ambient data plane's node proxy takes them: `istio.security.Authorization`, of connections alone.
//!
//! Owns the conversion of an AuthorizationPolicy, of which what only HTTP has is left out (a DENY keeps the rest, an ALLOW loses
//! the rule), and of a PeerAuthentication with modes of ports, which is a policy that denies plaintext.

mod mtls;

use std::net::IpAddr;

use meltemi_config::security::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, Operation, Source,
};
use meltemi_config::wire::Str;
use meltemi_model::ConfigRef;
use meltemi_proto::istio::security::{
    Action, Address, Authorization, Group, Match, Rules, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};

use crate::authorization::is_dry_run;

pub use mtls::of_peer_authentication;

/// `None` for what a node proxy does not have: targets, dry runs, AUDIT and CUSTOM.
pub fn of_authorization_policy(policy: &ConfigRef<AuthorizationPolicy>, root_namespace: &str) -> Option<Authorization> {
    let spec = &policy.spec;
    let action = match spec.action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
        AuthorizationAction::Audit | AuthorizationAction::Custom => return None,
    };
    if is_dry_run(policy) || spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return None;
    }
    let scope = match &spec.selector {
        Some(_) => Scope::WorkloadSelector,
        None if *policy.namespace == *root_namespace => Scope::Global,
        None => Scope::Namespace,
    };
    Some(Authorization {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        scope: scope as i32,
        action: action as i32,
        groups: spec.rules.iter().filter_map(|rule| group(rule, action, &policy.namespace)).collect(),
        dry_run: false,
    })
}

/// `None` for a rule of an ALLOW that asks for more than a connection shows.
fn group(rule: &AuthorizationRule, action: Action, namespace: &str) -> Option<Group> {
    let operations: Vec<&Operation> = rule.to.iter().flatten().filter_map(|to| to.operation.as_ref()).collect();
    let sources: Vec<&Source> = rule.from.iter().flatten().filter_map(|from| from.source.as_ref()).collect();
    let conditions = rule.when.as_deref().unwrap_or_default();
    let http = operations.iter().any(|operation| is_http_operation(operation))
        || sources.iter().any(|source| is_http_source(source))
        || conditions.iter().any(|condition| !CONDITIONS.contains(&&*condition.key));
    if http && action == Action::Allow {
        return None;
    }
    let mut rules = Vec::new();
    if !operations.is_empty() {
        rules.push(Rules { matches: operations.into_iter().map(of_operation).collect() });
    }
    if !sources.is_empty() {
        rules.push(Rules { matches: sources.into_iter().map(|source| of_source(source, namespace)).collect() });
    }
    rules.extend(conditions.iter().map(|condition| Rules { matches: vec![of_condition(condition)] }));
    Some(Group { rules })
}

/// Keys of conditions that a connection can be asked for.
const CONDITIONS: [&str; 5] =
    ["source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"];

fn is_http_operation(operation: &Operation) -> bool {
    [
        &operation.hosts,
        &operation.not_hosts,
        &operation.methods,
        &operation.not_methods,
        &operation.paths,
        &operation.not_paths,
    ]
    .into_iter()
    .any(is_set)
}

fn is_http_source(source: &Source) -> bool {
    [&source.remote_ip_blocks, &source.not_remote_ip_blocks, &source.request_principals, &source.not_request_principals]
        .into_iter()
        .any(is_set)
}

fn is_set(list: &Option<Vec<Str>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn of_operation(operation: &Operation) -> Match {
    Match {
        destination_ports: ports(&operation.ports),
        not_destination_ports: ports(&operation.not_ports),
        ..Match::default()
    }
}

fn of_source(source: &Source, namespace: &str) -> Match {
    Match {
        namespaces: texts(&source.namespaces),
        not_namespaces: texts(&source.not_namespaces),
        principals: texts(&source.principals),
        not_principals: texts(&source.not_principals),
        source_ips: addresses(&source.ip_blocks),
        not_source_ips: addresses(&source.not_ip_blocks),
        service_accounts: accounts(&source.service_accounts, namespace),
        not_service_accounts: accounts(&source.not_service_accounts, namespace),
        ..Match::default()
    }
}

fn of_condition(condition: &Condition) -> Match {
    let (values, not_values) = (&condition.values, &condition.not_values);
    match &*condition.key {
        "source.ip" => {
            Match { source_ips: addresses(values), not_source_ips: addresses(not_values), ..Match::default() }
        }
        "source.namespace" => {
            Match { namespaces: texts(values), not_namespaces: texts(not_values), ..Match::default() }
        }
        "source.principal" => {
            Match { principals: texts(values), not_principals: texts(not_values), ..Match::default() }
        }
        "destination.ip" => {
            Match { destination_ips: addresses(values), not_destination_ips: addresses(not_values), ..Match::default() }
        }
        "destination.port" => {
            Match { destination_ports: ports(values), not_destination_ports: ports(not_values), ..Match::default() }
        }
        // Of a DENY: a match without fields is passed over.
        _ => Match::default(),
    }
}

fn ports(values: &Option<Vec<Str>>) -> Vec<u32> {
    values.iter().flatten().filter_map(|value| value.parse::<u16>().ok()).map(u32::from).collect()
}

fn texts(values: &Option<Vec<Str>>) -> Vec<StringMatch> {
    let one = |value: &Str| {
        let kind = match (&**value, value.strip_prefix('*'), value.strip_suffix('*')) {
            ("*", ..) => MatchType::Presence(()),
            (_, Some(suffix), _) => MatchType::Suffix(suffix.into()),
            (_, None, Some(prefix)) => MatchType::Prefix(prefix.into()),
            (exact, None, None) => MatchType::Exact(exact.into()),
        };
        StringMatch { match_type: Some(kind) }
    };
    values.iter().flatten().map(one).collect()
}

/// `name`, or `namespace/name`.
fn accounts(values: &Option<Vec<Str>>, own_namespace: &str) -> Vec<ServiceAccountMatch> {
    let one = |value: &Str| {
        let (namespace, name) = value.split_once('/').unwrap_or((own_namespace, value));
        ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() }
    };
    values.iter().flatten().map(one).collect()
}

fn addresses(values: &Option<Vec<Str>>) -> Vec<Address> {
    values.iter().flatten().filter_map(|value| address(value)).collect()
}

fn address(value: &str) -> Option<Address> {
    let (text, length) = match value.split_once('/') {
        Some((text, length)) => (text, Some(length.parse::<u32>().ok()?)),
        None => (value, None),
    };
    let (address, bits) = match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(v4) => (v4.octets().to_vec(), 32),
        IpAddr::V6(v6) => (v6.octets().to_vec(), 128),
    };
    let length = length.unwrap_or(bits);
    (length <= bits).then(|| Address { address: address.into(), length })
}
