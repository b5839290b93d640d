//! The Gateway API's kinds: what their CRDs demand, in schema and CEL rules.

mod filters;
mod gateway;
mod grpc;
mod http;
mod l4;
mod policy;
mod rule;

pub(super) use gateway::{gateway, gateway_class, listener_set};
pub(super) use grpc::grpc_route;
pub(super) use http::http_route;
pub(super) use l4::{tcp_route, tls_route};
pub(super) use policy::{backend_resource, backend_tls_policy, backend_traffic_policy, inference_pool};

use super::Validation;
use crate::gateway_api::{BackendRef, ParentReference, ReferenceGrant};
use crate::names;
use crate::path::Path;
use crate::wire::Str;

const MAX_PARENTS: usize = 32;
const MAX_HOSTNAMES: usize = 16;
const MAX_GRANTS: usize = 16;
const MAX_WEIGHT: i32 = 1_000_000;

pub(super) fn reference_grant(spec: &ReferenceGrant, at: &Path<'_>, v: &mut Validation) {
    let from = at.field("from");
    between(spec.from.len(), 1, MAX_GRANTS, &from, v);
    for (i, entry) in spec.from.iter().enumerate() {
        let at = from.index(i);
        group(&entry.group, &at.field("group"), v);
        kind(&entry.kind, &at.field("kind"), v);
        v.check(&at.field("namespace"), names::dns_label(&entry.namespace));
    }
    let to = at.field("to");
    between(spec.to.len(), 1, MAX_GRANTS, &to, v);
    for (i, entry) in spec.to.iter().enumerate() {
        let at = to.index(i);
        group(&entry.group, &at.field("group"), v);
        kind(&entry.kind, &at.field("kind"), v);
        if let Some(name) = &entry.name {
            object_name(name, &at.field("name"), v);
        }
    }
}

fn between(found: usize, least: usize, most: usize, at: &Path<'_>, v: &mut Validation) {
    v.require(at, found >= least, format_args!("at least {least} needed"));
    at_most(found, most, at, v);
}

fn at_most(found: usize, most: usize, at: &Path<'_>, v: &mut Validation) {
    v.require(at, found <= most, format_args!("at most {most} allowed, found {found}"));
}

fn group(group: &str, at: &Path<'_>, v: &mut Validation) {
    v.require(at, group.is_empty() || is_subdomain(group), format_args!("{group:?} is not a group"));
}

fn kind(kind: &str, at: &Path<'_>, v: &mut Validation) {
    let starts = kind.starts_with(|c: char| c.is_ascii_alphabetic());
    v.require(at, starts && names::is_dns_label(kind), format_args!("{kind:?} is not a kind"));
}

fn object_name(name: &str, at: &Path<'_>, v: &mut Validation) {
    v.require(at, (1..=253).contains(&name.len()), "a name has 1 to 253 characters");
}

/// The name of a listener or rule.
fn section_name(name: &str, at: &Path<'_>, v: &mut Validation) {
    v.require(at, is_subdomain(name), format_args!("{name:?} is not a name: lower case letters, digits, '-' and '.'"));
}

fn is_subdomain(text: &str) -> bool {
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    lower && text.len() <= 253 && text.split('.').all(names::is_dns_label)
}

/// Without ports and never an address; the first label may be `*`.
fn hostname(host: &str, wildcard: bool, at: &Path<'_>, v: &mut Validation) {
    let name = host.strip_prefix("*.").filter(|_| wildcard).unwrap_or(host);
    v.require(at, is_subdomain(name), format_args!("{host:?} is not a host name"));
    v.require(at, names::ip(host).is_err(), "an address is not a host name");
}

fn hostnames(hosts: &[Str], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("hostnames");
    at_most(hosts.len(), MAX_HOSTNAMES, &at, v);
    for (i, host) in hosts.iter().enumerate() {
        hostname(host, true, &at.index(i), v);
    }
}

fn parents(parents: &[ParentReference], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("parentRefs");
    at_most(parents.len(), MAX_PARENTS, &at, v);
    for (i, parent) in parents.iter().enumerate() {
        let here = at.index(i);
        if let Some(name) = &parent.group {
            group(name, &here.field("group"), v);
        }
        if let Some(name) = &parent.kind {
            kind(name, &here.field("kind"), v);
        }
        if let Some(namespace) = &parent.namespace {
            v.check(&here.field("namespace"), names::dns_label(namespace));
        }
        object_name(&parent.name, &here.field("name"), v);
        if let Some(section) = &parent.section_name {
            section_name(section, &here.field("sectionName"), v);
        }
        if let Some(port) = parent.port {
            v.check(&here.field("port"), names::port(port));
        }
        for other in &parents[..i] {
            parent_pair(parent, other, &here, v);
        }
    }
}

/// Two references to one parent must be told apart by section or port, in both of them.
fn parent_pair(a: &ParentReference, b: &ParentReference, at: &Path<'_>, v: &mut Validation) {
    let group = |parent: &ParentReference| parent.group.as_deref().unwrap_or(crate::gateway_api::GROUP).to_owned();
    let kind = |parent: &ParentReference| parent.kind.as_deref().unwrap_or("Gateway").to_owned();
    let same = a.name == b.name && a.namespace == b.namespace && group(a) == group(b) && kind(a) == kind(b);
    if !same {
        return;
    }
    let told = a.section_name.is_some() == b.section_name.is_some() && a.port.is_some() == b.port.is_some();
    v.require(
        at,
        told,
        "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent",
    );
    let distinct = a.section_name != b.section_name || a.port != b.port;
    v.require(
        at,
        distinct,
        "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
    );
}

/// `weighted` where a weight means something.
fn backend(backend: &BackendRef, weighted: bool, at: &Path<'_>, v: &mut Validation) {
    if let Some(name) = &backend.group {
        group(name, &at.field("group"), v);
    }
    if let Some(name) = &backend.kind {
        kind(name, &at.field("kind"), v);
    }
    if let Some(namespace) = &backend.namespace {
        v.check(&at.field("namespace"), names::dns_label(namespace));
    }
    object_name(&backend.name, &at.field("name"), v);
    let group = backend.group.as_deref().unwrap_or_default();
    let service = group.is_empty() && backend.kind.as_deref().unwrap_or("Service") == "Service";
    v.require(&at.field("port"), !service || backend.port.is_some(), "Must have port for Service reference");
    if let Some(port) = backend.port {
        v.check(&at.field("port"), names::port(port));
    }
    let weight = backend.weight();
    let fits = (0..=MAX_WEIGHT).contains(&weight) && (weighted || backend.weight.is_none());
    v.require(&at.field("weight"), fits, if weighted { "a weight is 0 to 1000000" } else { "there is no weight here" });
}

#[cfg(test)]
mod tests;
