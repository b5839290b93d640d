//! Whether a pod is captured, and with which settings. Pure.
//!
//! Owns: what containers, labels and annotations mean for capture, as Istio's plugin reads them. Settings that cannot be
//! put in force are an error with the annotation's name: a pod whose traffic would go elsewhere than its owner thinks must
//! not start.

use meltemi_kubernetes::nodes::{PROXY, Pod};
use meltemi_netfilter::{Bypass, Capture, CaptureError, Dns, Interception, List};

#[cfg(test)]
pub(crate) mod tests;

/// What captures the pod itself, with rights of its own.
const INIT: &str = "istio-init";

const INJECT: &str = "sidecar.istio.io/inject";
const STATUS: &str = "sidecar.istio.io/status";
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
const STATUS_PORT: &str = "status.sidecar.istio.io/port";
const INCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
const EXCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";

/// Ports on which the proxy itself answers probes and scrapes.
const PROXY_PORTS: [u16; 3] = [15020, 15021, 15090];

/// Istio's `InboundTProxyMark`.
const TPROXY_MARK: u32 = 1337;

#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The pod is none of ours; why.
    Leave(String),
    Capture(Box<Settings>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub capture: Capture,
    /// Rules for IPv6, whether or not an address of it is in use.
    pub dual_stack: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("annotation {0}")]
    Annotation(#[from] CaptureError),
    #[error("annotation {INTERCEPTION_MODE}: `{0}` is none of REDIRECT, TPROXY, NONE")]
    Mode(String),
    #[error("variable {name} of container {PROXY}: `{value}` is neither true nor false")]
    Variable { name: &'static str, value: String },
}

/// A truth value as Go reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// What is to become of the pod.
pub fn decide(pod: &Pod) -> Result<Decision, SettingError> {
    if let Some(reason) = reason_to_leave(pod)? {
        return Ok(Decision::Leave(reason));
    }
    Ok(Decision::Capture(Box::new(Settings { capture: capture(pod)?, dual_stack: switch(pod, "ISTIO_DUAL_STACK")? })))
}

/// In Istio's order.
fn reason_to_leave(pod: &Pod) -> Result<Option<String>, SettingError> {
    let has = |name: &str| pod.containers.iter().any(|container| container.name == name);
    let leave = |reason: &str| Ok(Some(reason.to_owned()));
    if pod.host_network {
        return leave("it uses the node's network");
    }
    if has(INIT) {
        return leave("its container istio-init captures its traffic");
    }
    if switch(pod, "DISABLE_ENVOY")? {
        return leave("DISABLE_ENVOY is set for its proxy");
    }
    let Some(proxy) = pod.containers.iter().find(|container| container.name == PROXY) else {
        return leave("it has no container istio-proxy");
    };
    if let [first, kind, ..] = &proxy.arguments[..]
        && first == "proxy"
        && kind != "sidecar"
    {
        return Ok(Some(format!("its proxy is a {kind}, no sidecar")));
    }
    let inject = pod.labels.get(INJECT).or_else(|| pod.annotations.get(INJECT));
    if inject.is_some_and(|inject| truth(inject) == Some(false)) {
        return leave("sidecar.istio.io/inject is false");
    }
    if !pod.annotations.contains_key(STATUS) {
        return leave("it has no annotation sidecar.istio.io/status, so nothing was injected");
    }
    if annotation(pod, INTERCEPTION_MODE) == Some("NONE") {
        return leave("sidecar.istio.io/interceptionMode is NONE");
    }
    Ok(None)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.annotations.get(name).map(|value| value.trim())
}

/// A variable of the proxy's; not set is false.
fn switch(pod: &Pod, name: &'static str) -> Result<bool, SettingError> {
    let proxy = pod.containers.iter().find(|container| container.name == PROXY);
    match proxy.and_then(|proxy| proxy.variables.get(name)).map(String::as_str) {
        None | Some("") => Ok(false),
        Some(value) => truth(value).ok_or_else(|| SettingError::Variable { name, value: value.to_owned() }),
    }
}

fn capture(pod: &Pod) -> Result<Capture, SettingError> {
    let text = |name: &str, default: &'static str| annotation(pod, name).unwrap_or(default).to_owned();
    let virtual_interfaces = match annotation(pod, REROUTE_INTERFACES) {
        Some(names) => Capture::parse_names(REROUTE_INTERFACES, names)?,
        None => Capture::parse_names(KUBEVIRT_INTERFACES, &text(KUBEVIRT_INTERFACES, ""))?,
    };
    let capture = Capture {
        bypass: bypass(pod),
        interception: interception(pod)?,
        inbound_ports: Capture::parse_port_list(INCLUDE_INBOUND_PORTS, &text(INCLUDE_INBOUND_PORTS, "*"))?,
        inbound_ports_exclude: excluded_inbound_ports(pod)?,
        outbound_ports: Capture::parse_ports(INCLUDE_OUTBOUND_PORTS, &text(INCLUDE_OUTBOUND_PORTS, ""))?,
        outbound_ports_exclude: Capture::parse_ports(EXCLUDE_OUTBOUND_PORTS, &text(EXCLUDE_OUTBOUND_PORTS, "15020"))?,
        outbound_ranges: Capture::parse_range_list(INCLUDE_OUTBOUND_RANGES, &text(INCLUDE_OUTBOUND_RANGES, "*"))?,
        outbound_ranges_exclude: Capture::parse_ranges(EXCLUDE_OUTBOUND_RANGES, &text(EXCLUDE_OUTBOUND_RANGES, ""))?,
        virtual_interfaces,
        exclude_interfaces: Capture::parse_names(EXCLUDE_INTERFACES, &text(EXCLUDE_INTERFACES, ""))?,
        owner_groups: List::All,
        // The pod's resolver is not known from outside of it.
        dns: if switch(pod, "ISTIO_META_DNS_CAPTURE")? { Dns::All } else { Dns::Off },
        drop_invalid: switch(pod, "INVALID_DROP")?,
        ..Capture::default()
    };
    capture.check()?;
    Ok(capture)
}

/// The user and the group of the proxy's container. A proxy that runs as root, as TPROXY needs, is known by its group.
fn bypass(pod: &Pod) -> Bypass {
    let proxy = pod.containers.iter().find(|container| container.name == PROXY);
    let id = |id: Option<i64>| id.filter(|id| *id != 0).unwrap_or(1337).to_string();
    Bypass::Owner {
        uids: vec![id(proxy.and_then(|proxy| proxy.user))],
        gids: vec![id(proxy.and_then(|proxy| proxy.group))],
    }
}

fn interception(pod: &Pod) -> Result<Interception, SettingError> {
    match annotation(pod, INTERCEPTION_MODE) {
        None | Some("REDIRECT") => Ok(Interception::Redirect),
        Some("TPROXY") => Ok(Interception::Tproxy { mark: TPROXY_MARK }),
        Some(other) => Err(SettingError::Mode(other.to_owned())),
    }
}

/// Those of the pod's owner, and those of the proxy's own, each once.
fn excluded_inbound_ports(pod: &Pod) -> Result<Vec<u16>, SettingError> {
    let mut all =
        Capture::parse_ports(EXCLUDE_INBOUND_PORTS, annotation(pod, EXCLUDE_INBOUND_PORTS).unwrap_or("15020"))?;
    let status = annotation(pod, STATUS_PORT).filter(|port| *port != "0").unwrap_or_default();
    all.extend(Capture::parse_ports(STATUS_PORT, status)?);
    all.extend(PROXY_PORTS);
    let mut once = Vec::new();
    for port in all {
        if !once.contains(&port) {
            once.push(port);
        }
    }
    Ok(once)
}
