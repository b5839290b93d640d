//! ServiceEntry, WorkloadEntry, WorkloadGroup.

use super::{Validation, common};
use crate::names;
use crate::networking::{
    ReadinessProbe, Resolution, ServiceEntry, ServiceLocation, ServicePort, WorkloadEntry, WorkloadGroup,
};
use crate::object::Meta;
use crate::path::Path;

pub(super) fn service_entry(spec: &ServiceEntry, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    hosts(spec, at, v);
    selector_or_endpoints(spec, at, v);
    ports(spec, at, v);
    addresses(spec, at, v);
    let endpoints = at.field("endpoints");
    v.require(&endpoints, spec.endpoints.len() <= 4096, "at most 4096 endpoints");
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let at = endpoints.index(i);
        one_endpoint(spec, endpoint, &at, v);
    }
    resolution(spec, meta, at, v);
    ambiguous_tcp(spec, meta, at, v);
    ambiguous_hosts(spec, at, v);
    common::export_to(&spec.export_to, &meta.namespace, true, at, v);
}

fn hosts(spec: &ServiceEntry, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("hosts");
    v.require(&at, !spec.hosts.is_empty(), "service entry must have at least one host");
    v.require(&at, spec.hosts.len() <= 256, "at most 256 hosts");
    for (i, host) in spec.hosts.iter().enumerate() {
        let at = at.index(i);
        if &**host == "*" {
            v.error(&at, "hostname cannot be wildcard: invalid host *");
        } else {
            v.check(&at, names::wildcard_domain(host));
            let partial = host.starts_with('*') && !host.starts_with("*.");
            if partial && spec.resolution != Resolution::DynamicDns {
                v.warn(&at, format_args!("partial wildcard {host:?} not allowed: only whole labels can be wildcards"));
            }
        }
    }
}

fn selector_or_endpoints(spec: &ServiceEntry, at: &Path<'_>, v: &mut Validation) {
    common::workload_selector(spec.workload_selector.as_ref(), at, v);
    if spec.workload_selector.is_none() {
        return;
    }
    v.require(at, spec.endpoints.is_empty(), "only one of WorkloadSelector or Endpoints is allowed in Service Entry");
    if matches!(spec.resolution, Resolution::None) {
        v.warn(&at.field("workloadSelector"), "has no effect with resolution NONE");
    }
}

fn ports(spec: &ServiceEntry, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("ports");
    v.require(&at, spec.ports.len() <= 256, "at most 256 ports");
    for (i, port) in spec.ports.iter().enumerate() {
        let at = at.index(i);
        v.check(&at.field("number"), names::port(port.number));
        v.check(&at.field("name"), port_name(&port.name));
        if !port.protocol.is_empty() {
            v.check(&at.field("protocol"), names::known_protocol(&port.protocol));
        }
        if port.target_port != 0 {
            let at = at.field("targetPort");
            v.check(&at, names::port(port.target_port));
            if spec.resolution == Resolution::None {
                v.warn(&at, "targetPort has no effect with resolution NONE");
            }
        }
        let same_number = |p: &ServicePort| p.number == port.number;
        let same_name = |p: &ServicePort| p.name == port.name;
        v.require(&at.field("number"), !spec.ports[..i].iter().any(same_number), "port number cannot be duplicated");
        v.require(
            &at.field("name"),
            !spec.ports[..i].iter().any(same_name),
            format_args!("duplicate port name {:?}", port.name),
        );
    }
}

/// Two ports of one ServiceEntry may share no name; the name is a DNS label of any length up to 63.
fn port_name(name: &str) -> Result<(), String> {
    names::dns_label(name).map_err(|error| format!("invalid port name: {error}"))
}

fn addresses(spec: &ServiceEntry, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("addresses");
    v.require(&at, spec.addresses.len() <= 256, "at most 256 addresses");
    for (i, address) in spec.addresses.iter().enumerate() {
        let at = at.index(i);
        v.check(&at, names::ip_or_cidr(address));
        if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            v.error(&at, "CIDR addresses are allowed only for NONE/STATIC resolution types");
        }
    }
}

fn one_endpoint(spec: &ServiceEntry, endpoint: &WorkloadEntry, at: &Path<'_>, v: &mut Validation) {
    workload_entry(endpoint, at, v);
    let ports = at.field("ports");
    for name in endpoint.ports.keys() {
        let known = spec.ports.iter().any(|p| p.name == *name);
        v.require(
            &ports.field(name),
            known,
            format_args!("endpoint port {name:?} is not defined by the service entry"),
        );
    }
    let address = at.field("address");
    let unix = endpoint.address.starts_with("unix://");
    match spec.resolution {
        Resolution::Static => {
            let ip = unix || endpoint.address.is_empty() || names::ip(&endpoint.address).is_ok();
            v.require(&address, ip, "resolution STATIC needs an IP address or a unix socket");
            v.require(at, !unix || spec.ports.len() == 1, "an endpoint with a unix socket needs exactly one port");
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            v.require(&address, !unix, "resolution DNS cannot have a unix socket");
            v.require(
                &address,
                !endpoint.address.is_empty(),
                "endpoint address \"\" is not a valid FQDN or an IP address",
            );
        }
        Resolution::None | Resolution::DynamicDns => {}
    }
}

fn resolution(spec: &ServiceEntry, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("resolution");
    let unnamed = spec.hosts.iter().find_map(|host| names::fqdn(host).err());
    match spec.resolution {
        Resolution::None => {
            v.require(&at, spec.endpoints.is_empty(), "no endpoints should be provided for resolution type none")
        }
        // Without endpoints and selector the service is there and answers nothing.
        Resolution::Static => {}
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if let Some(error) = unnamed.filter(|_| spec.endpoints.is_empty()) {
                v.error(
                    &at,
                    format_args!(
                        "hosts must be FQDN if no endpoints are provided for resolution mode {}: {error}",
                        spec.resolution
                    ),
                );
            }
            if spec.resolution == Resolution::DnsRoundRobin {
                v.require(
                    &at,
                    spec.endpoints.len() <= 1,
                    "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN",
                );
            }
        }
        Resolution::DynamicDns => dynamic_dns(spec, meta, &at, v),
    }
}

fn dynamic_dns(spec: &ServiceEntry, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    v.require(at, spec.endpoints.is_empty(), "DYNAMIC_DNS mode cannot set endpoints");
    if spec.workload_selector.is_some() {
        v.warn(at, "workloadSelector has no effect with resolution DYNAMIC_DNS");
    }
    let waypoint = meta.labels.get("istio.io/use-waypoint");
    let waypoint = waypoint.is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    let internal = spec.location == ServiceLocation::MeshInternal;
    v.require(at, !(internal && waypoint), "location MESH_INTERNAL with DYNAMIC_DNS is not supported with a waypoint");
    v.require(at, spec.addresses.is_empty(), "DYNAMIC_DNS cannot have addresses");
    let wildcard = spec.hosts.iter().all(|h| h.starts_with('*'));
    v.require(at, wildcard, "DYNAMIC_DNS is only for wildcard hosts");
    for port in &spec.ports {
        let served = matches!(names::protocol(&port.protocol), Some("HTTP" | "TLS" | "GRPC" | "HTTP2"));
        v.require(at, served, format_args!("DYNAMIC_DNS does not serve protocol {:?}", port.protocol));
    }
}

/// Without an address, TCP traffic is told apart by port alone.
fn ambiguous_tcp(spec: &ServiceEntry, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    // Otherwise the service gets an address of its own.
    let opted_out = meta.labels.get("networking.istio.io/enable-autoallocate-ip").is_some_and(|l| &**l == "false");
    let bare = spec.addresses.is_empty() && (spec.resolution == Resolution::None || opted_out);
    let ports = at.field("ports");
    for (i, port) in spec.ports.iter().enumerate() {
        let protocol = names::protocol(&port.protocol);
        let tcp = matches!(protocol, None | Some("TCP"));
        if tcp && bare {
            v.warn(
                &ports.index(i),
                "addresses are required for ports serving TCP (or unset) protocol of a service without address: \
                 traffic to other hosts on this port is taken as well",
            );
        }
        let secure = matches!(protocol, Some("HTTPS" | "TLS"));
        if secure && spec.hosts.len() > 1 && !spec.addresses.is_empty() {
            v.warn(&ports.index(i), "several hosts with one address and TLS: only the first host can be told apart");
        }
    }
}

/// Hosts of one service are told apart by what a request or a greeting names; without addresses of endpoints, not at all.
fn ambiguous_hosts(spec: &ServiceEntry, at: &Path<'_>, v: &mut Validation) {
    if spec.resolution == Resolution::None || spec.hosts.len() < 2 {
        return;
    }
    let ports = at.field("ports");
    for (i, port) in spec.ports.iter().enumerate() {
        let secure = matches!(names::protocol(&port.protocol), Some("HTTPS" | "TLS"));
        let named = secure || names::is_plain_http(&port.protocol);
        v.require(&ports.index(i), named, "multiple hosts provided with non-HTTP, non-TLS ports");
    }
}

/// Of its own, or an endpoint or template.
pub(super) fn workload_entry(spec: &WorkloadEntry, at: &Path<'_>, v: &mut Validation) {
    let address = at.field("address");
    if spec.address.is_empty() {
        if spec.network.is_empty() {
            v.error(&address, "address is required");
        } else {
            v.warn(&address, "without an address, only the gateways of its network can reach the workload");
        }
    } else if spec.address.starts_with("unix://") {
        v.check(&address, names::unix_address(&spec.address));
        v.require(
            &at.field("ports"),
            spec.ports.is_empty(),
            format_args!("unix endpoint {} must not include ports", spec.address),
        );
    } else {
        v.require(&address, spec.address.len() <= 256, "address is longer than 256 characters");
        let valid = names::ip(&spec.address).is_ok() || names::fqdn(&spec.address).is_ok();
        let message = format_args!("endpoint address {:?} is not a valid FQDN or an IP address", spec.address);
        v.require(&address, valid, message);
    }
    rest_of_entry(spec, at, v);
}

fn rest_of_entry(spec: &WorkloadEntry, at: &Path<'_>, v: &mut Validation) {
    let ports = at.field("ports");
    v.require(&ports, spec.ports.len() <= 128, "at most 128 ports");
    for (name, number) in &spec.ports {
        let at = ports.field(name);
        v.check(&at, port_name(name));
        v.check(&at, names::port(*number));
    }
    common::labels(&spec.labels, &at.field("labels"), v);
    v.require(&at.field("labels"), spec.labels.len() <= 256, "at most 256 labels");
    v.require(&at.field("locality"), spec.locality.len() <= 2048, "longer than 2048 characters");
    v.require(&at.field("network"), spec.network.len() <= 2048, "longer than 2048 characters");
    v.require(&at.field("serviceAccount"), spec.service_account.len() <= 253, "longer than 253 characters");
}

pub(super) fn workload_group(spec: &WorkloadGroup, at: &Path<'_>, v: &mut Validation) {
    if let Some(metadata) = &spec.metadata {
        let at = at.field("metadata");
        common::labels(&metadata.labels, &at.field("labels"), v);
        v.require(&at.field("labels"), metadata.labels.len() <= 256, "at most 256 labels");
        v.require(&at.field("annotations"), metadata.annotations.len() <= 256, "at most 256 annotations");
    }
    let template = at.field("template");
    match &spec.template {
        None => v.error(&template, "template is required"),
        // The address is the workload's own when it registers.
        Some(entry) if entry.address.is_empty() => rest_of_entry(entry, &template, v),
        Some(entry) => workload_entry(entry, &template, v),
    }
    if let Some(probe) = &spec.probe {
        readiness_probe(probe, &at.field("probe"), v);
    }
}

pub(super) fn readiness_probe(probe: &ReadinessProbe, at: &Path<'_>, v: &mut Validation) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        v.require(&at.field(field), value >= 0, "cannot be negative");
    }
    let methods = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    v.require(
        at,
        methods.iter().filter(|m| **m).count() == 1,
        "exactly one of httpGet, tcpSocket, exec and grpc must be set",
    );
    if let Some(http) = &probe.http_get {
        let at = at.field("httpGet");
        v.check(&at.field("port"), names::port(http.port));
        let scheme = matches!(&*http.scheme, "" | "HTTP" | "HTTPS");
        v.require(&at.field("scheme"), scheme, "httpGet.scheme must be one of \"HTTPS\", \"HTTP\"");
        let headers = at.field("httpHeaders");
        for (i, header) in http.http_headers.iter().enumerate() {
            v.check(&headers.index(i).field("name"), names::probe_header_name(&header.name));
        }
    }
    if let Some(tcp) = &probe.tcp_socket {
        v.check(&at.field("tcpSocket").field("port"), names::port(tcp.port));
    }
    if let Some(grpc) = &probe.grpc {
        v.check(&at.field("grpc").field("port"), names::port(grpc.port));
    }
    if let Some(exec) = &probe.exec {
        let exec_at = at.field("exec");
        let at = exec_at.field("command");
        v.require(&at, !exec.command.is_empty(), "exec.command is required");
        v.require(&at, exec.command.iter().all(|c| !c.is_empty()), "an element of the command is empty");
    }
}
