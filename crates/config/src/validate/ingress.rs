//! Ingress and IngressClass: what Kubernetes' own validation demands.

use super::Validation;
use crate::kube::{HttpIngressPath, Ingress, IngressBackend, IngressClass, PathType};
use crate::names;
use crate::path::Path;

pub(super) fn ingress(ingress: &Ingress, v: &mut Validation) {
    let at = &Path::root("spec");
    let spec = &ingress.spec;
    v.require(
        at,
        spec.default_backend.is_some() || !spec.rules.is_empty(),
        "either defaultBackend or rules must be specified",
    );
    if let Some(own) = &spec.default_backend {
        backend(own, &at.field("defaultBackend"), v);
    }
    let tls = at.field("tls");
    for (i, entry) in spec.tls.iter().enumerate() {
        let hosts = tls.index(i);
        let hosts = hosts.field("hosts");
        for (i, own) in entry.hosts.iter().enumerate() {
            host(own, &hosts.index(i), v);
        }
    }
    let rules = at.field("rules");
    for (i, rule) in spec.rules.iter().enumerate() {
        let at = rules.index(i);
        if !rule.host.is_empty() {
            host(&rule.host, &at.field("host"), v);
        }
        let Some(http) = &rule.http else { continue };
        let http_at = at.field("http");
        let paths = http_at.field("paths");
        v.require(&paths, !http.paths.is_empty(), "at least 1 needed");
        for (i, own) in http.paths.iter().enumerate() {
            path(own, &paths.index(i), v);
        }
    }
}

fn host(host: &str, at: &Path<'_>, v: &mut Validation) {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    let fits = lower && name.len() <= 253 && name.split('.').all(names::is_dns_label);
    v.require(at, fits, format_args!("{host:?} is not a host name"));
    v.require(at, names::ip(host).is_err(), "an address is not a host name");
}

fn path(own: &HttpIngressPath, at: &Path<'_>, v: &mut Validation) {
    let here = at.field("path");
    match own.path_type {
        None => v.error(&at.field("pathType"), "required: Exact, Prefix or ImplementationSpecific"),
        Some(PathType::Exact | PathType::Prefix) => {
            v.require(&here, own.path.starts_with('/'), "must be an absolute path");
            let odd = ["//", "/./", "/../", "%2f", "%2F"].iter().find(|part| own.path.contains(**part));
            let end = ["/..", "/."].iter().find(|part| own.path.ends_with(**part));
            if let Some(part) = odd.or(end) {
                v.error(&here, format_args!("must not contain {part:?}"));
            }
        }
        Some(PathType::ImplementationSpecific) => {
            v.require(&here, own.path.is_empty() || own.path.starts_with('/'), "must be an absolute path");
        }
    }
    backend(&own.backend, &at.field("backend"), v);
}

fn backend(backend: &IngressBackend, at: &Path<'_>, v: &mut Validation) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => v.error(at, "cannot set both resource and service backends"),
        (None, None) => v.error(at, "resource or service backend is required"),
        (None, Some(_)) => v.warn(&at.field("resource"), "a backend that is no Service takes no requests"),
        (Some(service), None) => {
            let at = at.field("service");
            v.check(&at.field("name"), names::dns_label(&service.name));
            let port = at.field("port");
            match (&*service.port.name, service.port.number) {
                ("", 0) => v.error(&port, "port name or number is required"),
                ("", number) => v.check(&port.field("number"), names::port(number)),
                (_, 0) => {}
                _ => v.error(&port, "cannot set both port name & port number"),
            }
        }
    }
}

pub(super) fn ingress_class(class: &IngressClass, v: &mut Validation) {
    let root = Path::root("spec");
    let fits =
        class.spec.controller.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
    v.require(&root.field("controller"), fits, "must be a domain and a path, such as istio.io/ingress-controller");
}

#[cfg(test)]
mod tests;
