//! Kubernetes kinds: what the API server would refuse and a mesh depends on.

use std::net::IpAddr;

use super::{Validation, common};
use crate::kube::{EndpointSlice, Endpoints, KubeService, PodSpec, PodTemplate, ServiceType, WorkloadLabelSelector};
use crate::names;
use crate::object::{Object, Spec};
use crate::path::Path;
use crate::security::AuthorizationAction;
use crate::wire::IntOrString;

/// Annotations of what was made of the Gateway API.
const PARENTS: &str = "internal.istio.io/parents";
const PARENT_NAMESPACE: &str = "internal.istio.io/parent-namespace";

/// An object with this annotation is refused, whatever it says: how one finds out that validation is at work.
pub const ALWAYS_REJECT: &str = "internal.istio.io/webhook-always-reject";

const DRY_RUN: &str = "istio.io/dry-run";
/// As Go reads them.
const BOOLEANS: [&str; 12] = ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];

/// Names and labels of any object: an API server's business.
pub(super) fn names_and_labels(object: &Object, v: &mut Validation) {
    let at = &Path::root("metadata");
    let name = &*object.meta.name;
    let label_only = matches!(object.spec, Spec::Service(_) | Spec::Namespace(_));
    let lower = !name.bytes().any(|b| b.is_ascii_uppercase());
    let valid = if label_only {
        names::is_dns_label(name)
    } else {
        names::fqdn(name).is_ok() || names::label_value(name).is_ok()
    };
    v.require(
        &at.field("name"),
        valid && lower && name.len() <= 253,
        format_args!("{name:?} is not a valid object name"),
    );
    if !object.meta.namespace.is_empty() {
        v.check(&at.field("namespace"), names::dns_label(&object.meta.namespace));
    }
    common::labels(&object.meta.labels, &at.field("labels"), v);
}

/// Annotations that mean something to a mesh.
pub(super) fn annotations(object: &Object, v: &mut Validation) {
    let at = &Path::root("metadata");
    for internal in [PARENTS, PARENT_NAMESPACE].into_iter().filter(|name| object.meta.annotations.contains_key(*name)) {
        // What carries these is trusted with more than users are.
        v.error(&at.field("annotations").field(internal), "annotation found, this may not be set by users");
    }
    let annotations = at.field("annotations");
    let rejected = object.meta.annotations.contains_key(ALWAYS_REJECT);
    v.require(&annotations.field(ALWAYS_REJECT), !rejected, "annotation found, rejecting");
    if let Some(value) = object.meta.annotations.get(DRY_RUN) {
        dry_run(object, value, &annotations.field(DRY_RUN), v);
    }
}

fn dry_run(object: &Object, value: &str, at: &Path<'_>, v: &mut Validation) {
    let Spec::AuthorizationPolicy(policy) = &object.spec else {
        let other = !object.kind().is_istio();
        v.require(at, other, "dry run is only for AuthorizationPolicy: please remove the annotation");
        return;
    };
    match policy.action {
        AuthorizationAction::Allow | AuthorizationAction::Deny => {
            let known = BOOLEANS.contains(&value);
            v.require(at, known, format_args!("{value:?} is not true or false"));
        }
        AuthorizationAction::Audit | AuthorizationAction::Custom => {
            v.error(at, format_args!("only actions ALLOW and DENY can be tried, not {}", policy.action));
        }
    }
}

pub(super) fn service(service: &KubeService, v: &mut Validation) {
    let at = &Path::root("spec");
    let spec = &service.spec;
    if spec.service_type == ServiceType::ExternalName {
        v.check(&at.field("externalName"), names::fqdn(&spec.external_name));
    } else if spec.ports.is_empty() && !spec.is_headless() {
        v.error(&at.field("ports"), "a service needs at least one port");
    }
    for ip in spec.vips() {
        v.check(&at.field("clusterIP"), names::ip(ip));
    }
    let ports = at.field("ports");
    for (i, port) in spec.ports.iter().enumerate() {
        let at = ports.index(i);
        v.check(&at.field("port"), names::port(port.port));
        if spec.ports.len() > 1 || !port.name.is_empty() {
            v.check(&at.field("name"), names::dns_label(&port.name));
        }
        let known = matches!(&*port.protocol, "" | "TCP" | "UDP" | "SCTP");
        v.require(&at.field("protocol"), known, format_args!("{:?} is not TCP, UDP or SCTP", port.protocol));
        let repeated = spec.ports[..i].iter().any(|p| p.name == port.name);
        v.require(&at.field("name"), !repeated, format_args!("duplicate port name {:?}", port.name));
        if let Some(IntOrString::Int(number)) = &port.target_port {
            v.check(&at.field("targetPort"), names::port(*number));
        }
    }
    let distribution = matches!(&*spec.traffic_distribution, "" | "PreferClose" | "PreferSameZone" | "PreferSameNode");
    v.require(
        &at.field("trafficDistribution"),
        distribution,
        format_args!("{:?} is not supported", spec.traffic_distribution),
    );
    common::labels(&spec.selector, &at.field("selector"), v);
}

pub(super) fn endpoint_slice(slice: &EndpointSlice, v: &mut Validation) {
    let root = &Path::root("");
    let endpoints = root.field("endpoints");
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        let at = endpoints.index(i);
        let at = at.field("addresses");
        v.require(&at, !endpoint.addresses.is_empty(), "an endpoint needs an address");
        for (i, address) in endpoint.addresses.iter().enumerate() {
            let parsed = address.parse::<IpAddr>();
            let fits = match &*slice.address_type {
                "IPv4" => parsed.is_ok_and(|a| a.is_ipv4()),
                "IPv6" => parsed.is_ok_and(|a| a.is_ipv6()),
                _ => names::fqdn(address).is_ok(),
            };
            v.require(&at.index(i), fits, format_args!("{address:?} is not of type {}", slice.address_type));
        }
    }
    let known = matches!(&*slice.address_type, "IPv4" | "IPv6" | "FQDN");
    v.require(&root.field("addressType"), known, format_args!("{:?} is not IPv4, IPv6 or FQDN", slice.address_type));
    let ports = root.field("ports");
    for (i, port) in slice.ports.iter().enumerate() {
        if let Some(number) = port.port {
            v.check(&ports.index(i).field("port"), names::port(number));
        }
    }
}

pub(super) fn endpoints(endpoints: &Endpoints, v: &mut Validation) {
    let root = &Path::root("");
    let subsets = root.field("subsets");
    for (i, subset) in endpoints.subsets.iter().enumerate() {
        let at = subsets.index(i);
        for (field, list) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
            let at = at.field(field);
            for (i, address) in list.iter().enumerate() {
                v.check(&at.index(i).field("ip"), names::ip(&address.ip));
            }
        }
    }
}

pub(super) fn workload(
    template: &PodTemplate,
    selector: &WorkloadLabelSelector,
    replicas: Option<i32>,
    v: &mut Validation,
) {
    let at = &Path::root("spec");
    v.require(&at.field("replicas"), replicas.is_none_or(|r| r >= 0), "cannot be negative");
    for (key, value) in &selector.match_labels {
        if template.metadata.labels.get(key) != Some(value) {
            let at = at.field("selector");
            v.error(&at.field("matchLabels"), format_args!("the pods of the template have no label {key}={value}"));
        }
    }
    pod_template(template, v);
}

pub(super) fn pod_template(template: &PodTemplate, v: &mut Validation) {
    let root = Path::root("spec");
    let at = root.field("template");
    let metadata = at.field("metadata");
    common::labels(&template.metadata.labels, &metadata.field("labels"), v);
    pod(&template.spec, &at.field("spec"), v);
}

pub(super) fn pod(spec: &PodSpec, at: &Path<'_>, v: &mut Validation) {
    let containers = at.field("containers");
    v.require(&containers, !spec.containers.is_empty(), "a pod needs at least one container");
    for (i, container) in spec.containers.iter().enumerate() {
        let at = containers.index(i);
        v.check(&at.field("name"), names::dns_label(&container.name));
        let repeated = spec.containers[..i].iter().any(|c| c.name == container.name);
        v.require(&at.field("name"), !repeated, format_args!("duplicate container name {:?}", container.name));
        let ports = at.field("ports");
        for (i, port) in container.ports.iter().enumerate() {
            v.check(&ports.index(i).field("containerPort"), names::port(port.container_port));
        }
        let env = at.field("env");
        for (i, variable) in container.env.iter().enumerate() {
            let at = env.index(i);
            v.require(
                &at.field("name"),
                !variable.name.is_empty() && !variable.name.contains('='),
                "not a variable name",
            );
            let both = !variable.value.is_empty() && variable.value_from.is_some();
            v.require(&at, !both, "only one of value and valueFrom can be set");
        }
    }
}
