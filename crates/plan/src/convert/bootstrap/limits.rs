//! Limits on downstream connections, which Envoy has in its overload manager and in its runtime.

use super::super::common::{list, required, resolve, unpack};
use crate::bootstrap::{ConnectionLimits, RuntimeLayer};
use crate::error::{At, Result, refuse};
use meltemi_proto::envoy::config::overload::v3::{OverloadManager, ResourceMonitor, resource_monitor};
use meltemi_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use std::sync::Arc;

/// A resource monitor that exists here; others say what an operator wants of Envoy's own process.
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";
const TOTAL: &str = "overload.global_downstream_max_connections";
const LISTENER: (&str, &str) = ("envoy.resource_limits.listener.", ".connection_limit");
const PER_SOURCE: &str = "meltemi.resource_limits.connections_per_source";

/// Adds to `ignored` the monitors that have no effect.
pub(super) fn limits(
    manager: Option<&OverloadManager>,
    runtime: &[RuntimeLayer],
    ignored: &mut Vec<(Arc<str>, Arc<str>)>,
) -> Result<ConnectionLimits> {
    let mut limits = of_runtime(runtime)?;
    let monitors = manager.map_or(&[][..], |manager| &manager.resource_monitors);
    let found = list(monitors, "resource_monitors", of_monitor).at("overload_manager")?;
    for (index, total) in found.iter().enumerate() {
        match total {
            Some(total) => limits.total = Some(*total),
            None => ignored.push((
                format!("overload_manager.resource_monitors[{index}]").into(),
                "nothing is shed by load: only connections are counted".into(),
            )),
        }
    }
    Ok(limits)
}

fn of_monitor(monitor: &ResourceMonitor) -> Result<Option<u64>> {
    if monitor.name != CONNECTIONS {
        return Ok(None);
    }
    let resource_monitor::ConfigType::TypedConfig(any) = required(&monitor.config_type, "typed_config")?;
    let config: DownstreamConnectionsConfig = resolve(any).and_then(|any| unpack(&any)).at("typed_config")?;
    match u64::try_from(config.max_active_downstream_connections) {
        Ok(total @ 1..) => Ok(Some(total)),
        _ => refuse("max_active_downstream_connections: must be greater than zero").at("typed_config"),
    }
}

/// What later layers say counts.
fn of_runtime(layers: &[RuntimeLayer]) -> Result<ConnectionLimits> {
    let mut limits = ConnectionLimits::default();
    for layer in layers {
        let mut found = Vec::new();
        flatten(&layer.values, String::new(), &mut found);
        for (key, value) in found {
            let number = || {
                value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64))
            };
            let limit = || match number() {
                Some(limit) => Ok(limit),
                None => refuse(format!("layered_runtime: {key}: {value} is not a number of connections")),
            };
            let listener = key.strip_prefix(LISTENER.0).and_then(|rest| rest.strip_suffix(LISTENER.1));
            match (&*key, listener) {
                (TOTAL, _) => limits.total = Some(limit()?),
                (PER_SOURCE, _) => limits.per_source = Some(limit()?),
                (_, Some(name)) => drop(limits.listeners.insert(name.into(), limit()?)),
                _ => {}
            }
        }
    }
    Ok(limits)
}

/// A layer's values by their full keys; `a: {b: 1}` and `a.b: 1` are the same.
fn flatten<'a>(value: &'a serde_json::Value, key: String, found: &mut Vec<(String, &'a serde_json::Value)>) {
    let serde_json::Value::Object(fields) = value else { return found.push((key, value)) };
    for (name, value) in fields {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        flatten(value, key, found);
    }
}

#[cfg(test)]
mod tests;
