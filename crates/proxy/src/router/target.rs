//! Which cluster a request goes to, and what it asks of the host.

use std::{borrow::Cow, sync::Arc};

use http::StatusCode;
use meltemi_filters::{LocalReply, RequestFields, ResponseFlags, set_cookie};
use meltemi_plan::{
    HeaderKey, HeaderLookup,
    common::Value,
    route::{ClusterSpec, Forward, HashBy, HashPolicy, WeightRandom, WeightedName},
};
use meltemi_upstream::{Cluster, RoutingPriority};

use crate::hcm::Exchange;

/// What all attempts of a request have in common.
pub struct Target {
    pub cluster: Arc<Cluster>,
    pub hash: Option<u64>,
    /// Where the connection was going; for a dynamic forward proxy, where the request's host is.
    pub original_dst: Option<std::net::SocketAddr>,
    pub priority: RoutingPriority,
    /// Wanted endpoint metadata, for subset load balancing.
    pub metadata_match: Option<Value>,
}

/// Decides the cluster by the route. Done with the route itself, so that whatever answers instead can say whose request it was.
/// Gives its name where there is none by that name.
pub(crate) fn resolve(exchange: &mut Exchange<'_>, forward: &Forward) -> Option<Arc<str>> {
    let view = RequestFields(&exchange.request);
    let by_header = |key| view.value(key).and_then(|v| String::from_utf8(v.into_owned()).ok()).map(Arc::<str>::from);
    let name = match &forward.cluster {
        ClusterSpec::Named(name) => Some(Arc::clone(name)),
        ClusterSpec::Header(key) => by_header(key),
        ClusterSpec::Weighted(clusters) => {
            let value = match &clusters.random {
                WeightRandom::Stream => exchange.random,
                WeightRandom::Header(key) => {
                    by_header(key).and_then(|text| text.parse().ok()).unwrap_or(exchange.random)
                }
                WeightRandom::HashPolicy => hash(exchange, &forward.hash_policy).unwrap_or(exchange.random),
            };
            let chosen = clusters.pick(value);
            let index = clusters.clusters.iter().position(|c| std::ptr::eq(c, chosen)).unwrap_or(0);
            exchange.info.weighted = Some((Arc::clone(clusters), index));
            match &chosen.cluster {
                WeightedName::Named(name) => Some(Arc::clone(name)),
                WeightedName::Header(key) => by_header(key),
            }
        }
    };
    let cluster = name.as_ref().and_then(|name| exchange.world.clusters.get(name)).cloned();
    exchange.info.upstream.cluster = cluster.as_ref().map(|cluster| Arc::clone(&cluster.plan));
    exchange.cluster = cluster;
    name.filter(|_| exchange.cluster.is_none())
}

pub(super) fn choose(exchange: &Exchange<'_>, forward: &Forward) -> Result<Target, Box<LocalReply>> {
    let Some(cluster) = exchange.cluster.clone() else {
        let status = StatusCode::from_u16(forward.cluster_not_found_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return Err(super::bare(status, "cluster_not_found", ResponseFlags::NO_CLUSTER));
    };
    let entry = exchange.info.weighted_cluster();
    let metadata_match =
        cluster.plan.subsets.as_ref().and_then(|_| {
            merged(forward.metadata_match.as_ref(), entry.and_then(|entry| entry.metadata_match.as_ref()))
        });
    Ok(Target {
        metadata_match,
        cluster,
        hash: hash(exchange, &forward.hash_policy),
        original_dst: exchange.context.connection.local.socket(),
        priority: if forward.high_priority { RoutingPriority::High } else { RoutingPriority::Default },
    })
}

/// A weighted cluster's criteria add to its route's, and win.
fn merged(route: Option<&Value>, weighted: Option<&Value>) -> Option<Value> {
    let (Some(Value::Object(route)), Some(Value::Object(weighted))) = (route, weighted) else {
        return weighted.or(route).cloned();
    };
    let mut all = route.clone();
    all.extend(weighted.clone());
    Some(Value::Object(all))
}

fn xx_hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, 0)
}

/// The combined hash of the policies that found something, as Envoy combines them.
fn hash(exchange: &Exchange<'_>, policies: &[HashPolicy]) -> Option<u64> {
    let mut combined: Option<u64> = None;
    for policy in policies {
        if let Some(hash) = hash_of(exchange, &policy.by) {
            combined = Some(combined.map_or(hash, |before| before.rotate_left(1) ^ hash));
            if policy.terminal {
                break;
            }
        }
    }
    combined
}

fn hash_of(exchange: &Exchange<'_>, by: &HashBy) -> Option<u64> {
    let request = &exchange.request;
    match by {
        HashBy::Header { key, rewrite } => {
            let view = RequestFields(request);
            let mut values: Vec<_> = match key {
                HeaderKey::Name(name) if *name != http::header::HOST => {
                    request.headers.get_all(name).map(|value| Cow::Borrowed(value.as_bytes())).collect()
                }
                _ => view.value(key).into_iter().collect(),
            };
            if let Some(rewrite) = rewrite {
                values = values.iter().map(|value| Cow::Owned(rewrite.apply(value))).collect();
            }
            // Repeated fields: the same in any order.
            values.sort();
            values.iter().fold(None, |seed, value| Some(xxhash_rust::xxh64::xxh64(value, seed.unwrap_or(0))))
        }
        HashBy::Cookie { name, ttl, .. } => match cookie(exchange, name) {
            Some(hash) => Some(hash),
            None => ttl.map(|_| xx_hash(made_cookie(exchange).as_bytes())),
        },
        HashBy::SourceIp => Some(xx_hash(exchange.info.remote.socket()?.ip().to_string().as_bytes())),
        HashBy::QueryParameter(name) => {
            let mut parameters = meltemi_plan::route::find::query_parameters(&request.path);
            parameters.find(|(key, _)| **key == **name).map(|(_, value)| xx_hash(value.as_bytes()))
        }
        HashBy::FilterState(key) => exchange.info.state(key).map(|value| xx_hash(value.as_bytes())),
    }
}

/// The hash of a cookie that the client sent.
fn cookie(exchange: &Exchange<'_>, name: &str) -> Option<u64> {
    let cookies = exchange.request.headers.joined(&http::header::COOKIE)?;
    meltemi_plan::route::find::cookie(&cookies, name).map(xx_hash)
}

/// The value of a cookie made here, from who speaks to whom, so that a connection keeps its host even where the client keeps no
/// cookies.
fn made_cookie(exchange: &Exchange<'_>) -> String {
    let connection = &exchange.context.connection;
    format!("{:016x}", xx_hash(format!("{}{}", connection.remote, connection.local).as_bytes()))
}

/// `set-cookie` for each cookie that the hash policy asks for and the client did not send.
pub(super) fn set_cookies(exchange: &Exchange<'_>, forward: &Forward, headers: &mut meltemi_http::Headers) {
    for policy in &forward.hash_policy {
        let HashBy::Cookie { name, ttl: Some(ttl), path, attributes } = &policy.by else { continue };
        if cookie(exchange, name).is_some() {
            continue;
        }
        let text = set_cookie(name, &made_cookie(exchange), (*ttl, path), attributes);
        if let Ok(value) = http::HeaderValue::from_str(&text) {
            headers.append(http::header::SET_COOKIE, value);
        }
    }
}
