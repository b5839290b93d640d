//! The annotations of a pod that injection reads, each with what may be in it.

use std::net::IpAddr;

use meltemi_config::{Severity, parse_proxy_config};
use serde_json::{Map, Value};

use super::names;
use super::shape::canonical_quantity;

/// Linux' limit of an interface's name (IFNAMSIZ without its end).
const MAX_INTERFACE_NAME: usize = 15;

type Check = fn(&str) -> Result<(), String>;

/// Istio's `AnnotationValidation`.
const CHECKS: &[(&str, Check)] = &[
    (names::INTERCEPTION_MODE, interception_mode),
    (names::STATUS_PORT, |value| port(value).map_err(|error| format!("excludeInboundPorts invalid: {error}"))),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", unsigned),
    ("readiness.status.sidecar.istio.io/periodSeconds", unsigned),
    ("readiness.status.sidecar.istio.io/failureThreshold", unsigned),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", |value| {
        if value == "*" { Ok(()) } else { cidrs("includeIPRanges", value) }
    }),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", |value| cidrs("excludeIPRanges", value)),
    ("traffic.sidecar.istio.io/includeInboundPorts", |value| {
        if value == "*" { Ok(()) } else { ports("includeInboundPorts", value) }
    }),
    ("traffic.sidecar.istio.io/excludeInboundPorts", |value| ports("excludeInboundPorts", value)),
    ("traffic.sidecar.istio.io/includeOutboundPorts", |value| {
        if value == "*" { Ok(()) } else { ports("includeOutboundPorts", value) }
    }),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", |value| ports("excludeOutboundPorts", value)),
    ("traffic.sidecar.istio.io/excludeInterfaces", interfaces),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", interfaces),
    ("istio.io/reroute-virtual-interfaces", interfaces),
    (names::MERGE_METRICS, |value| parse_bool(value).map(|_| ()).ok_or_else(|| format!("{value:?} is not a boolean"))),
    (names::PROXY_CONFIG, proxy_config),
    ("sidecar.istio.io/proxyCPU", quantity),
    ("sidecar.istio.io/proxyMemory", quantity),
    ("sidecar.istio.io/proxyCPULimit", quantity),
    ("sidecar.istio.io/proxyMemoryLimit", quantity),
];

/// What is wrong with a pod's annotations, one line each.
pub fn problems(annotations: &Map<String, Value>) -> Vec<String> {
    let given = CHECKS.iter().filter_map(|(name, check)| Some((*name, check, annotations.get(*name)?.as_str()?)));
    given
        .filter_map(|(name, check, value)| {
            let error = check(value).err()?;
            Some(format!("invalid value '{value}' for annotation '{name}': {error}"))
        })
        .collect()
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn interception_mode(mode: &str) -> Result<(), String> {
    match mode {
        "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
        _ => Err(format!("interceptionMode invalid, use REDIRECT,TPROXY,NONE: {mode}")),
    }
}

fn unsigned(value: &str) -> Result<(), String> {
    let is_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<u32>() {
        Ok(_) if is_digits => Ok(()),
        _ => Err(format!("{value:?} is not a number from 0 to {}", u32::MAX)),
    }
}

fn port(text: &str) -> Result<(), String> {
    text.trim().parse::<u16>().map(|_| ()).map_err(|error| format!("failed parsing port '{text}': {error}"))
}

fn ports(parameter: &str, list: &str) -> Result<(), String> {
    let list = list.trim();
    if list.is_empty() {
        return Ok(());
    }
    list.split(',').try_for_each(port).map_err(|error| format!("{parameter} invalid: {error}"))
}

fn cidrs(parameter: &str, list: &str) -> Result<(), String> {
    if list.is_empty() {
        return Ok(());
    }
    let wrong = list.split(',').find(|cidr| !is_prefix(cidr));
    wrong.map_or(Ok(()), |cidr| Err(format!("{parameter} invalid: failed parsing cidr '{cidr}'")))
}

/// An address and a length; bits after the prefix may be set, as `10.96.0.1/24`.
fn is_prefix(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    match (address.parse::<IpAddr>(), length.parse::<u8>()) {
        (Ok(address), Ok(length)) => is_number && length <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

fn interfaces(list: &str) -> Result<(), String> {
    if list.is_empty() {
        return Ok(());
    }
    for name in list.split(',').map(str::trim) {
        let mut letters = name.chars();
        let Some(first) = letters.next() else { return Err("empty interface name".to_owned()) };
        if name.len() > MAX_INTERFACE_NAME {
            return Err(format!("interface name {name:?} too long (max {MAX_INTERFACE_NAME} chars)"));
        }
        if !first.is_ascii_alphabetic() || !letters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
            return Err(format!("interface name {name:?} contains invalid characters"));
        }
    }
    Ok(())
}

fn proxy_config(text: &str) -> Result<(), String> {
    let Err(problems) = parse_proxy_config(names::PROXY_CONFIG, text) else { return Ok(()) };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    Err(format!("failed to apply proxy config: {}", errors.join("; ")))
}

fn quantity(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err("value contains control characters".to_owned());
    }
    canonical_quantity(value).map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
