//! Load balancer settings: consistent hash, locality, zone awareness, warm-up.

use super::Validation;
use super::common::{duration, percent};
use crate::networking::{
    ConsistentHashLb, LoadBalancerSettings, LocalityFailover, LocalityLbSetting, OutlierDetection, ZoneAwareLbSetting,
};
use crate::path::Path;

/// Envoy's largest Maglev table.
const MAX_MAGLEV: u64 = 5_000_011;

pub(super) fn load_balancer(
    lb: &LoadBalancerSettings,
    outlier: Option<&OutlierDetection>,
    at: &Path<'_>,
    v: &mut Validation,
) {
    v.require(
        at,
        lb.simple.is_none() || lb.consistent_hash.is_none(),
        "only one of simple and consistentHash can be set",
    );
    if let Some(hash) = &lb.consistent_hash {
        consistent_hash(hash, &at.field("consistentHash"), v);
    }
    if lb.locality_lb_setting.is_some() && lb.zone_aware_lb_setting.is_some() {
        v.error(at, "only one of localityLbSetting and zoneAwareLbSetting can be set");
    }
    if let Some(locality) = &lb.locality_lb_setting {
        locality_lb(locality, outlier, &at.field("localityLbSetting"), v);
    }
    if let Some(zone) = &lb.zone_aware_lb_setting {
        zone_aware_lb(zone, outlier, &at.field("zoneAwareLbSetting"), v);
    }
    if lb.warmup_duration_secs.is_some() {
        let at = at.field("warmupDurationSecs");
        duration(lb.warmup_duration_secs, &at, v);
        v.warn(&at, "deprecated; use warmup");
    }
    let Some(warmup) = &lb.warmup else { return };
    let at = at.field("warmup");
    v.require(&at.field("duration"), warmup.duration.is_some(), "duration is required");
    duration(warmup.duration, &at.field("duration"), v);
    if let Some(minimum) = warmup.minimum_percent {
        percent(minimum.value(), &at.field("minimumPercent"), v);
    }
    if let Some(aggression) = warmup.aggression {
        v.require(&at.field("aggression"), aggression.value() > 0.0, "aggression must be greater than 0");
    }
}

fn consistent_hash(hash: &ConsistentHashLb, at: &Path<'_>, v: &mut Validation) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    v.require(at, keys.iter().filter(|k| **k).count() <= 1, "only one key to hash can be set");
    v.require(at, hash.ring_hash.is_none() || hash.maglev.is_none(), "only one of ringHash and maglev can be set");
    if let Some(name) = &hash.http_header_name {
        v.check(&at.field("httpHeaderName"), crate::names::header_name(name));
    }
    if let Some(cookie) = &hash.http_cookie {
        let at = at.field("httpCookie");
        v.require(&at.field("name"), !cookie.name.is_empty(), "name required for httpCookie");
        let attributes = at.field("attributes");
        for (i, attribute) in cookie.attributes.iter().enumerate() {
            let at = attributes.index(i);
            let at = at.field("name");
            v.require(&at, !attribute.name.is_empty(), "a cookie attribute must have a name");
            let repeated = cookie.attributes[..i].iter().any(|a| a.name == attribute.name);
            v.require(&at, !repeated, format_args!("duplicate cookie attribute {:?}", attribute.name));
        }
    }
    if hash.minimum_ring_size != 0 {
        let at = at.field("minimumRingSize");
        v.warn(&at, "deprecated; use ringHash.minimumRingSize");
        let alone = hash.ring_hash.is_none() && hash.maglev.is_none();
        v.require(&at, alone, "only one of minimumRingSize and ringHash or maglev can be set");
    }
    if let Some(maglev) = &hash.maglev {
        let size = maglev.table_size;
        let at = at.field("maglev");
        let at = at.field("tableSize");
        v.require(&at, is_prime(size), format_args!("tableSize {size} must be a prime number"));
        v.require(&at, size < MAX_MAGLEV, format_args!("tableSize must be less than {MAX_MAGLEV}"));
    }
}

fn is_prime(n: u64) -> bool {
    // Larger tables are refused whatever they are.
    n > MAX_MAGLEV || n > 0 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// Of a DestinationRule or of MeshConfig.
pub(super) fn locality_lb(
    locality: &LocalityLbSetting,
    outlier: Option<&OutlierDetection>,
    at: &Path<'_>,
    v: &mut Validation,
) {
    let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
    if !locality.distribute.is_empty() && !locality.failover.is_empty() {
        v.error(at, "can not simultaneously specify 'distribute' and 'failover'");
    }
    if outlier.is_none() && fails_over {
        v.warn(at, "outlier detection policy must be provided for failover");
    }
    let distribute = at.field("distribute");
    let mut origins = Vec::new();
    for (i, rule) in locality.distribute.iter().enumerate() {
        let at = distribute.index(i);
        origins.push(&*rule.from);
        v.check(&at.field("to"), localities(rule.to.keys().map(|k| &**k)));
        let mut total = 0u64;
        for (to, weight) in &rule.to {
            v.require(&at.field("to").field(to), *weight > 0, "locality weight must not be 0");
            total += u64::from(*weight);
        }
        v.require(&at.field("to"), total == 100, format_args!("total locality weight {total} != 100"));
    }
    v.check(&distribute, localities(origins.into_iter()));
    failover(&locality.failover, &at.field("failover"), v);
    if let Some(label) = locality.failover_priority.iter().find(|label| is_topology(label))
        && !locality.failover.is_empty()
    {
        v.error(
            at,
            format_args!("can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'"),
        );
    }
}

pub(super) fn zone_aware_lb(
    zone: &ZoneAwareLbSetting,
    outlier: Option<&OutlierDetection>,
    at: &Path<'_>,
    v: &mut Validation,
) {
    let fails_over = !zone.failover.is_empty() || !zone.failover_priority.is_empty();
    if outlier.is_none() && fails_over {
        v.warn(at, "outlier detection policy must be provided for failover");
    }
    failover(&zone.failover, &at.field("failover"), v);
    let priorities = at.field("failoverPriority");
    for (i, priority) in zone.failover_priority.iter().enumerate() {
        v.require(
            &priorities.index(i),
            !is_topology(priority),
            format_args!(
                "'failover_priority' for zone aware lb must not use topology label '{priority}': \
                 regions and zones are ordered by zone awareness itself"
            ),
        );
    }
    if let Some(size) = zone.min_cluster_size {
        v.require(&at.field("minClusterSize"), size >= 1, "must be at least 1");
    }
}

/// A label that says where a workload is.
fn is_topology(label: &str) -> bool {
    matches!(label, "topology.kubernetes.io/region" | "topology.kubernetes.io/zone" | "topology.istio.io/subzone")
}

fn failover(rules: &[LocalityFailover], at: &Path<'_>, v: &mut Validation) {
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        for (field, region) in [("from", &rule.from), ("to", &rule.to)] {
            let at = at.field(field);
            v.require(&at, !region.contains('*'), "a region cannot have a wildcard");
            v.require(&at, !region.contains('/'), "only a region is allowed, without zone");
        }
        v.require(&at, rule.from != rule.to, format_args!("failover from {:?} to itself", rule.from));
    }
}

/// Localities `region/zone/subzone`, each with a `*` as last part at most, none within another.
pub(super) fn localities<'a>(list: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let list: Vec<&str> = list.collect();
    for (i, locality) in list.iter().enumerate() {
        let parts: Vec<&str> = locality.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|p| p.is_empty()) {
            return Err(format!("locality {locality:?} is not region/zone/subzone"));
        }
        if let Some(star) = parts.iter().position(|p| p.contains('*'))
            && (parts[star] != "*" || star + 1 != parts.len())
        {
            return Err(format!("locality {locality:?}: a wildcard can only be the last part"));
        }
        for other in &list[..i] {
            if within(locality, other) || within(other, locality) {
                return Err(format!("locality {locality:?} overlaps {other:?}"));
            }
        }
    }
    Ok(())
}

/// True if `inner` is `outer` or lies in it.
fn within(inner: &str, outer: &str) -> bool {
    let outer = outer.strip_suffix('*').unwrap_or(outer).trim_end_matches('/');
    outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}
