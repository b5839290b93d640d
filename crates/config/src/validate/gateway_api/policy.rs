//! BackendTLSPolicy, XBackendTrafficPolicy, XBackend and InferencePool.

use std::time::Duration;

use super::super::Validation;
use super::{at_most, between, group, hostname, is_subdomain, kind, object_name, section_name};
use crate::gateway_api::{
    BackendTlsPolicy, BackendTlsValidation, InferencePool, LocalPolicyTarget, RetryConstraint, SubjectAltNameType,
    XBackend, XBackendTls, XBackendTlsMode, XBackendTrafficPolicy,
};
use crate::names;
use crate::path::Path;

const MAX_TARGETS: usize = 16;
const MAX_AUTHORITIES: usize = 8;
const MAX_NAMES: usize = 5;
const MAX_OPTIONS: usize = 16;
const MAX_PORTS: usize = 8;
const MAX_RATE: u32 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const PROTOCOLS: &[&str] = &["", "TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP"];

pub(in super::super) fn backend_tls_policy(spec: &BackendTlsPolicy, at: &Path<'_>, v: &mut Validation) {
    targets(&spec.target_refs, true, at, v);
    tls_validation(&spec.validation, true, &at.field("validation"), v);
    at_most(spec.options.len(), MAX_OPTIONS, &at.field("options"), v);
}

/// `sections` where a target may be one port of an object.
fn targets(all: &[LocalPolicyTarget], sections: bool, at: &Path<'_>, v: &mut Validation) {
    let targets = at.field("targetRefs");
    between(all.len(), 1, MAX_TARGETS, &targets, v);
    for (i, target) in all.iter().enumerate() {
        let at = targets.index(i);
        group(&target.group, &at.field("group"), v);
        kind(&target.kind, &at.field("kind"), v);
        object_name(&target.name, &at.field("name"), v);
        if let Some(section) = &target.section_name {
            let here = at.field("sectionName");
            v.require(&here, sections, "there are no sections here: the policy is for the whole Service");
            section_name(section, &here, v);
        }
        let object = |own: &LocalPolicyTarget| (own.group.clone(), own.kind.clone(), own.name.clone());
        for other in all[..i].iter().filter(|other| sections && object(other) == object(target)) {
            let same = "targetRefs includes 2 or more references to the same target";
            let told = other.section_name.is_some() == target.section_name.is_some();
            v.require(&at, told, format_args!("sectionName must be specified when {same}"));
            let distinct = other.section_name != target.section_name;
            v.require(&at, distinct, format_args!("sectionName must be unique when {same}"));
        }
    }
}

/// `required` where the host name has no other source.
fn tls_validation(validation: &BackendTlsValidation, required: bool, at: &Path<'_>, v: &mut Validation) {
    let authorities = at.field("caCertificateRefs");
    at_most(validation.ca_certificate_refs.len(), MAX_AUTHORITIES, &authorities, v);
    for (i, reference) in validation.ca_certificate_refs.iter().enumerate() {
        let at = authorities.index(i);
        group(&reference.group, &at.field("group"), v);
        kind(&reference.kind, &at.field("kind"), v);
        object_name(&reference.name, &at.field("name"), v);
    }
    let known = validation.well_known_ca_certificates.is_some();
    let both = known && !validation.ca_certificate_refs.is_empty();
    v.require(at, !both, "must not contain both CACertificateRefs and WellKnownCACertificates");
    let either = known || !validation.ca_certificate_refs.is_empty();
    v.require(at, either, "must specify either CACertificateRefs or WellKnownCACertificates");
    if let Some(name) = validation.well_known_ca_certificates.as_deref() {
        let fits = name == "System" || name.split_once('/').is_some_and(|(domain, _)| is_subdomain(domain));
        v.require(&at.field("wellKnownCACertificates"), fits, "System, or a domain and a name");
    }
    let host = at.field("hostname");
    v.require(&host, !required || !validation.hostname.is_empty(), "required");
    if !validation.hostname.is_empty() {
        hostname(&validation.hostname, false, &host, v);
    }
    alternative_names(validation, at, v);
}

fn alternative_names(validation: &BackendTlsValidation, at: &Path<'_>, v: &mut Validation) {
    let all = at.field("subjectAltNames");
    at_most(validation.subject_alt_names.len(), MAX_NAMES, &all, v);
    for (i, name) in validation.subject_alt_names.iter().enumerate() {
        let at = all.index(i);
        let Some(name_type) = name.name_type else {
            v.error(&at.field("type"), "required: Hostname or URI");
            continue;
        };
        let is_host = name_type == SubjectAltNameType::Hostname;
        let rule = |fits: bool, field: &'static str, must: &'static str, v: &mut Validation| {
            let how = if must == "must contain" { "is" } else { "is not" };
            let message =
                format_args!("SubjectAltName element {must} {field}, if Type {how} set to {field}").to_string();
            v.require(&at, fits, message);
        };
        rule(!is_host || !name.hostname.is_empty(), "Hostname", "must contain", v);
        rule(is_host || name.hostname.is_empty(), "Hostname", "must not contain", v);
        rule(is_host || !name.uri.is_empty(), "URI", "must contain", v);
        rule(!is_host || name.uri.is_empty(), "URI", "must not contain", v);
        if !name.hostname.is_empty() {
            hostname(&name.hostname, true, &at.field("hostname"), v);
        }
        let absolute = name.uri.is_empty() || name.uri.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty());
        v.require(&at.field("uri"), absolute, "must be an absolute URI, such as spiffe://domain/path");
    }
}

pub(in super::super) fn backend_traffic_policy(spec: &XBackendTrafficPolicy, at: &Path<'_>, v: &mut Validation) {
    targets(&spec.target_refs, false, at, v);
    if let Some(constraint) = &spec.retry_constraint {
        retry_constraint(constraint, &at.field("retryConstraint"), v);
    }
}

fn retry_constraint(constraint: &RetryConstraint, at: &Path<'_>, v: &mut Validation) {
    if let Some(budget) = &constraint.budget {
        let at = at.field("budget");
        let percent = budget.percent.is_none_or(|percent| (0..=100).contains(&percent));
        v.require(&at.field("percent"), percent, "a percentage is 0 to 100");
        let fits = budget.interval.is_none_or(|interval| (Duration::from_secs(1)..=HOUR).contains(&interval));
        v.require(&at.field("interval"), fits, "interval cannot be greater than one hour or less than one second");
    }
    if let Some(rate) = &constraint.min_retry_rate {
        let at = at.field("minRetryRate");
        let count = rate.count.is_none_or(|count| (1..=MAX_RATE).contains(&count));
        v.require(&at.field("count"), count, "a rate is 1 to 1000000");
        let fits = rate.interval.is_none_or(|interval| !interval.is_zero() && interval <= HOUR);
        v.require(&at.field("interval"), fits, "interval cannot be zero or greater than one hour");
    }
}

pub(in super::super) fn backend_resource(spec: &XBackend, at: &Path<'_>, v: &mut Validation) {
    let external = &*spec.backend_type == "ExternalHostname";
    v.require(&at.field("type"), external, "ExternalHostname is the only type");
    let host = at.field("externalHostname");
    match &spec.external_hostname {
        Some(own) => {
            let at = host.field("hostname");
            hostname(&own.hostname, false, &at, v);
            let outside = !own.hostname.ends_with(".cluster.local");
            v.require(&at, outside, "hostname must not be an IP address or end with .cluster.local");
        }
        None => v.require(&host, !external, "externalHostname must be set when type is ExternalHostname"),
    }
    v.check(&at.field("port").field("port"), names::port(spec.port.port));
    if let Some(name) = spec.port.name.as_deref().filter(|name| !name.is_empty()) {
        v.check(&at.field("port").field("name"), names::dns_label(name));
    }
    let known = PROTOCOLS.contains(&&*spec.protocol);
    v.require(&at.field("protocol"), known, "TCP, HTTP, HTTP2, HTTP11, H2C or MCP");
    if let Some(tls) = &spec.tls {
        backend_tls(tls, &at.field("tls"), v);
    }
}

fn backend_tls(tls: &XBackendTls, at: &Path<'_>, v: &mut Validation) {
    let mutual = tls.mode == XBackendTlsMode::ClientAndServer;
    v.require(
        at,
        mutual == tls.client_certificate_ref.is_some(),
        "clientCertificateRef must be set if and only if mode is ClientAndServer",
    );
    if tls.validation != BackendTlsValidation::default() {
        tls_validation(&tls.validation, true, &at.field("validation"), v);
    }
}

pub(in super::super) fn inference_pool(spec: &InferencePool, at: &Path<'_>, v: &mut Validation) {
    let labels = &spec.selector.match_labels;
    super::super::common::labels(labels, &at.field("selector").field("matchLabels"), v);
    let ports = at.field("targetPorts");
    between(spec.target_ports.len(), 1, MAX_PORTS, &ports, v);
    for (i, port) in spec.target_ports.iter().enumerate() {
        let at = ports.index(i);
        v.check(&at.field("number"), names::port(port.number));
        v.require(&at, !spec.target_ports[..i].contains(port), "port number must be unique");
    }
    let protocol = matches!(&*spec.app_protocol, "" | "http" | "kubernetes.io/h2c");
    v.require(&at.field("appProtocol"), protocol, "http or kubernetes.io/h2c");
    let picker = &spec.endpoint_picker_ref;
    let at = at.field("endpointPickerRef");
    object_name(&picker.name, &at.field("name"), v);
    let service = picker.kind.as_deref().unwrap_or("Service") == "Service";
    v.require(&at.field("port"), !service || picker.port.is_some(), "port is required when kind is 'Service'");
    let mode = matches!(&*picker.failure_mode, "" | "FailOpen" | "FailClose");
    v.require(&at.field("failureMode"), mode, "FailOpen or FailClose");
}
