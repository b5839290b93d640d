//! Descriptors: what a request is counted by, from the rate limit policies of its route and virtual host.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ipnet::IpNet;
use meltemi_http::RequestHead;
use meltemi_plan::HeaderMatcher;
use meltemi_plan::rate_limit::{DescriptorAction, HostPolicies, RateLimitPolicy};
use meltemi_plan::route::find;

use crate::info::StreamInfo;
use crate::lookup::RequestFields;

/// Keys and values, in order.
pub(crate) type Descriptor = Vec<(Arc<str>, String)>;

/// Whose policies count.
#[derive(Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub stage: u32,
    /// Instead of the route's, unless empty; of any stage.
    pub own: &'a [RateLimitPolicy],
    /// Unless the route includes them.
    pub host: HostPolicies,
    pub service_cluster: &'a str,
}

/// The descriptors of a request; none where no policy is of the stage.
pub(crate) fn all(counted: Counted<'_>, head: &RequestHead, info: &StreamInfo) -> Vec<Descriptor> {
    let descriptor = |policy: &RateLimitPolicy| one(policy, counted.service_cluster, head, info);
    if !counted.own.is_empty() {
        return counted.own.iter().filter_map(descriptor).collect();
    }
    let mut found = Vec::new();
    let mut add = |policies: &[RateLimitPolicy]| {
        let of_stage = policies.iter().filter(|policy| policy.stage == counted.stage);
        found.extend(of_stage.filter_map(descriptor));
    };
    let forward = info.route.as_deref().and_then(|route| route.forward());
    let of_route = forward.map_or(&[][..], |forward| &forward.rate_limits);
    add(of_route);
    let includes = forward.is_some_and(|forward| forward.include_host_rate_limits);
    let host = if includes { HostPolicies::Include } else { counted.host };
    let counts = match host {
        HostPolicies::Include => true,
        HostPolicies::Override => of_route.is_empty(),
        HostPolicies::Ignore => false,
    };
    if counts && let Some(host) = &info.virtual_host {
        add(&host.rate_limits);
    }
    found
}

/// `None`: an action found nothing, so that there is no descriptor. One whose entries were all left out is one, as in Envoy.
fn one(policy: &RateLimitPolicy, own: &str, head: &RequestHead, info: &StreamInfo) -> Option<Descriptor> {
    let mut entries = Vec::with_capacity(policy.actions.len());
    for action in &policy.actions {
        match entry(action, own, head, info) {
            Entry::Is(key, value) => entries.push((key, value)),
            Entry::Skipped => {}
            Entry::Nothing => return None,
        }
    }
    Some(entries)
}

enum Entry {
    Is(Arc<str>, String),
    Skipped,
    Nothing,
}

impl Entry {
    fn of(key: &Arc<str>, value: Option<String>, skip_if_absent: bool) -> Self {
        match value {
            Some(value) => Self::Is(key.clone(), value),
            None if skip_if_absent => Self::Skipped,
            None => Self::Nothing,
        }
    }

    fn fixed(key: &'static str, value: Option<String>) -> Self {
        value.map_or(Self::Nothing, |value| Self::Is(key.into(), value))
    }

    fn when(holds: bool, key: &Arc<str>, value: &str) -> Self {
        if holds { Self::Is(key.clone(), value.to_owned()) } else { Self::Nothing }
    }
}

fn entry(action: &DescriptorAction, own: &str, head: &RequestHead, info: &StreamInfo) -> Entry {
    let fields = RequestFields(head);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let ip = || info.remote.socket().map(|address| address.ip());
    match action {
        DescriptorAction::SourceCluster => Entry::fixed("source_cluster", Some(own.to_owned())),
        DescriptorAction::DestinationCluster => {
            Entry::fixed("destination_cluster", info.upstream.cluster.as_ref().map(|cluster| cluster.name.to_string()))
        }
        DescriptorAction::RequestHeader { header, key, skip_if_absent } => {
            Entry::of(key, fields.first(header).map(text), *skip_if_absent)
        }
        DescriptorAction::QueryParameter { name, key, skip_if_absent } => {
            let mut parameters = find::query_parameters(&head.path);
            let value = parameters.find(|(known, _)| **known == **name).map(|(_, value)| value.to_owned());
            Entry::of(key, value, *skip_if_absent)
        }
        DescriptorAction::RemoteAddress => Entry::fixed("remote_address", ip().map(|ip| ip.to_string())),
        DescriptorAction::MaskedRemoteAddress { v4, v6 } => {
            let net = ip().and_then(|ip| IpNet::new(ip, if ip.is_ipv4() { *v4 } else { *v6 }).ok());
            Entry::fixed("masked_remote_address", net.map(|net| net.trunc().to_string()))
        }
        DescriptorAction::GenericKey { key, value } => Entry::when(true, key, value),
        DescriptorAction::HeaderMatch { key, value, expect, headers } => {
            Entry::when(HeaderMatcher::all_match(headers, &fields) == *expect, key, value)
        }
        DescriptorAction::QueryMatch { key, value, expect, parameters } => {
            Entry::when(find::query_matches(parameters, &head.path) == *expect, key, value)
        }
        DescriptorAction::Metadata { key, of_route, namespace, path, default, skip_if_absent } => {
            let value = if *of_route {
                info.route.as_deref().and_then(|route| route.metadata.as_deref()?.value(namespace, path))
            } else {
                info.found(namespace, path)
            };
            let found = value.and_then(|value| value.as_str()).filter(|text| !text.is_empty());
            let found = found.or(Some(&**default).filter(|text| !text.is_empty())).map(str::to_owned);
            Entry::of(key, found, *skip_if_absent)
        }
    }
}

/// Whether a request's descriptor has these keys, and these values where there are any.
pub(crate) fn fits(descriptor: &Descriptor, wanted: &[(Arc<str>, Arc<str>)]) -> bool {
    descriptor.len() == wanted.len()
        && descriptor.iter().zip(wanted).all(|((key, value), (known, expected))| {
            key == known && (expected.is_empty() || value.as_str() == &**expected)
        })
}

/// Whether a request's descriptor is the one that a bucket is for.
pub(crate) fn is(descriptor: &Descriptor, wanted: &[(Arc<str>, Arc<str>)]) -> bool {
    let mut pairs = descriptor.iter().zip(wanted);
    descriptor.len() == wanted.len() && pairs.all(|(have, wanted)| have.0 == wanted.0 && *have.1 == *wanted.1)
}
