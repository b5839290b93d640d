//! What policies name: which values of what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use meltemi_config::Str;
use meltemi_config::security::{AuthorizationPolicy, Condition, Operation, Source};
use meltemi_model::ConfigRef;
use meltemi_proto::istio::security::{
    Address, Authorization, ServiceAccountMatch, StringMatch, string_match::MatchType,
};

use super::ambient;

/// What a value is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Principal,
    Namespace,
    TrustDomain,
    /// `namespace/name`
    ServiceAccount,
    /// `issuer/subject`
    RequestPrincipal,
    SourceIp,
    RemoteIp,
    DestinationIp,
    Port,
    ServerName,
    Host,
    Method,
    Path,
    /// In lower case.
    Header(String),
    Claim(Vec<String>),
    /// What a filter finds out under a key.
    Found {
        filter: String,
        key: String,
    },
}

pub type Mentions = BTreeMap<Field, BTreeSet<String>>;

pub fn of_policies(policies: &[ConfigRef<AuthorizationPolicy>]) -> Mentions {
    let mut mentions = Mentions::new();
    for policy in policies {
        for rule in &policy.spec.rules {
            for source in rule.from.iter().flatten().filter_map(|from| from.source.as_ref()) {
                of_source(source, &policy.namespace, &mut mentions);
            }
            for operation in rule.to.iter().flatten().filter_map(|to| to.operation.as_ref()) {
                of_operation(operation, &mut mentions);
            }
            for condition in rule.when.iter().flatten() {
                of_condition(condition, &policy.namespace, &mut mentions);
            }
        }
    }
    mentions
}

type Values = Option<Vec<Str>>;

fn add(field: Field, lists: [&Values; 2], into: &mut Mentions) {
    let values = lists.into_iter().flatten().flatten().map(|value| value.to_string());
    into.entry(field).or_default().extend(values);
}

fn add_accounts(lists: [&Values; 2], namespace: &str, into: &mut Mentions) {
    let whole = |value: &Str| if value.contains('/') { value.to_string() } else { format!("{namespace}/{value}") };
    into.entry(Field::ServiceAccount).or_default().extend(lists.into_iter().flatten().flatten().map(whole));
}

fn of_source(source: &Source, namespace: &str, into: &mut Mentions) {
    add(Field::Principal, [&source.principals, &source.not_principals], into);
    add(Field::Namespace, [&source.namespaces, &source.not_namespaces], into);
    add(Field::TrustDomain, [&source.trust_domains, &source.not_trust_domains], into);
    add(Field::RequestPrincipal, [&source.request_principals, &source.not_request_principals], into);
    add(Field::SourceIp, [&source.ip_blocks, &source.not_ip_blocks], into);
    add(Field::RemoteIp, [&source.remote_ip_blocks, &source.not_remote_ip_blocks], into);
    add_accounts([&source.service_accounts, &source.not_service_accounts], namespace, into);
}

fn of_operation(operation: &Operation, into: &mut Mentions) {
    add(Field::Host, [&operation.hosts, &operation.not_hosts], into);
    add(Field::Method, [&operation.methods, &operation.not_methods], into);
    add(Field::Path, [&operation.paths, &operation.not_paths], into);
    add(Field::Port, [&operation.ports, &operation.not_ports], into);
}

/// A key that is not known here names nothing.
fn of_condition(condition: &Condition, namespace: &str, into: &mut Mentions) {
    let lists = [&condition.values, &condition.not_values];
    let field = match &*condition.key {
        "source.ip" => Field::SourceIp,
        "remote.ip" => Field::RemoteIp,
        "source.namespace" => Field::Namespace,
        "source.principal" => Field::Principal,
        "source.trustDomain" => Field::TrustDomain,
        "source.serviceAccount" => return add_accounts(lists, namespace, into),
        "request.auth.principal" => Field::RequestPrincipal,
        "request.auth.audiences" => Field::Claim(vec!["aud".into()]),
        "request.auth.presenter" => Field::Claim(vec!["azp".into()]),
        "destination.ip" => Field::DestinationIp,
        "destination.port" => Field::Port,
        "connection.sni" => Field::ServerName,
        other => match bracketed(other) {
            Some(("request.headers", name)) => of_header(name),
            Some(("request.auth.claims", path)) => Field::Claim(path.split("][").map(str::to_owned).collect()),
            Some((name, key)) => match name.strip_prefix("experimental.") {
                Some(filter) => Field::Found { filter: filter.into(), key: key.into() },
                None => return,
            },
            None => return,
        },
    };
    add(field, lists, into);
}

fn bracketed(key: &str) -> Option<(&str, &str)> {
    key.strip_suffix(']')?.split_once('[')
}

fn of_header(name: &str) -> Field {
    match name.to_ascii_lowercase().as_str() {
        ":method" => Field::Method,
        ":authority" | "host" => Field::Host,
        ":path" => Field::Path,
        name => Field::Header(name.to_owned()),
    }
}

/// What a policy of the ambient data plane names, in the spelling of an AuthorizationPolicy.
pub fn of_ambient(policy: &Authorization) -> Mentions {
    let mut mentions = Mentions::new();
    let mut add = |field: Field, values: Vec<String>| mentions.entry(field).or_default().extend(values);
    for one in ambient::matches(policy) {
        add(Field::Namespace, both(&one.namespaces, &one.not_namespaces, pattern));
        add(Field::Principal, both(&one.principals, &one.not_principals, pattern));
        add(Field::ServiceAccount, both(&one.service_accounts, &one.not_service_accounts, account));
        add(Field::SourceIp, both(&one.source_ips, &one.not_source_ips, range));
        add(Field::DestinationIp, both(&one.destination_ips, &one.not_destination_ips, range));
        add(Field::Port, both(&one.destination_ports, &one.not_destination_ports, u32::to_string));
    }
    mentions
}

fn both<T>(values: &[T], not_values: &[T], text: impl Fn(&T) -> String) -> Vec<String> {
    values.iter().chain(not_values).map(text).collect()
}

fn pattern(wanted: &StringMatch) -> String {
    match &wanted.match_type {
        Some(MatchType::Exact(text)) => text.clone(),
        Some(MatchType::Prefix(text)) => format!("{text}*"),
        Some(MatchType::Suffix(text)) => format!("*{text}"),
        Some(MatchType::Presence(())) | None => "*".into(),
    }
}

fn account(wanted: &ServiceAccountMatch) -> String {
    format!("{}/{}", wanted.namespace, wanted.service_account)
}

fn range(range: &Address) -> String {
    let address: Option<IpAddr> = match range.address.len() {
        4 => <[u8; 4]>::try_from(&*range.address).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(&*range.address).ok().map(IpAddr::from),
    };
    address.map(|address| format!("{address}/{}", range.length)).unwrap_or_default()
}
