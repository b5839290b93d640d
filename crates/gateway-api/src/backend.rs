//! Where a route sends to: references to backends as Istio's destinations.

use crate::error::{Problem, reason};
use crate::policy;
use crate::reference::{BACKEND, GroupKind, HOSTNAME, INFERENCE_POOL, SERVICE, SERVICE_IMPORT};
use crate::route::Context;
use meltemi_config::Str;
use meltemi_config::gateway_api::{BackendRef, FilteredBackend, InferencePool, XBackend, XBackendTlsMode};
use meltemi_config::networking::{Destination, Headers, HttpDirectResponse, HttpRouteDestination, PortSelector};

/// Who names a backend.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub kind: GroupKind<'static>,
    pub namespace: &'a str,
    /// Whether a reference into another namespace needs a ReferenceGrant.
    pub grants: bool,
}

/// A destination, and why requests to it fail, where they do.
pub type Resolved = (Destination, Option<Problem>);

/// The destination of a reference. An error is one of the route; a backend that is not there or not allowed takes its share of
/// requests and fails them.
pub fn destination(context: &Context<'_>, from: From<'_>, to: &BackendRef) -> Result<Resolved, Problem> {
    let kind = GroupKind::of(to.group.as_ref(), to.kind.as_ref(), SERVICE);
    let namespace = to.namespace.as_deref().unwrap_or(from.namespace);
    let nowhere = |reason, message: String| Ok((Destination::default(), Some(Problem::new(reason, message))));
    if from.grants && namespace != from.namespace {
        let named = (kind, namespace, &*to.name);
        if !context.catalogue.is_granted((from.kind, from.namespace), named) {
            let message = format!(
                "backendRef {}/{namespace} not accessible to a {} in namespace {:?} (missing a ReferenceGrant?)",
                to.name, from.kind.kind, from.namespace
            );
            return nowhere(reason::REF_NOT_PERMITTED, message);
        }
    }
    let invalid = |message: &str| Err(Problem::new(reason::INVALID_DESTINATION, message));
    if kind == BACKEND {
        return Ok(external(context, namespace, to).unwrap_or_else(|problem| (Destination::default(), Some(problem))));
    }
    if kind == INFERENCE_POOL {
        return pool(context, namespace, to);
    }
    let (host, found): (Str, bool) = match kind {
        SERVICE if to.name.contains('.') => {
            return invalid("service name invalid; the name of the Service must be used, not the hostname.");
        }
        SERVICE | SERVICE_IMPORT => {
            let host = format!("{}.{namespace}.svc.{}", to.name, context.domain);
            (host.into(), context.catalogue.service(namespace, &to.name).is_some())
        }
        HOSTNAME if to.namespace.is_some() => return invalid("namespace may not be set with Hostname type"),
        HOSTNAME => (to.name.clone(), context.catalogue.has_host(&to.name, namespace, context.domain)),
        _ => {
            let (group, kind) = (to.group.as_deref().unwrap_or_default(), to.kind.as_deref().unwrap_or_default());
            let message = format!("referencing unsupported backendRef: group {group:?} kind {kind:?}");
            return nowhere(reason::INVALID_KIND, message);
        }
    };
    let Some(number) = to.port else { return invalid("port is required in backendRef") };
    let missing = || Problem::new(reason::BACKEND_NOT_FOUND, format!("backend({host}) not found"));
    let problem = (!found).then(missing);
    Ok((Destination { host, port: Some(PortSelector { number }), ..Destination::default() }, problem))
}

/// The destination of an InferencePool: the service that its controller makes of it, under a name that its own decides.
fn pool(context: &Context<'_>, namespace: &str, to: &BackendRef) -> Result<Resolved, Problem> {
    if to.name.contains('.') {
        let message = "InferencePool.Name invalid; the name of the InferencePool must be used, not the hostname.";
        return Err(Problem::new(reason::INVALID_DESTINATION, message));
    }
    let missing = |what: &str| {
        let problem = Problem::new(reason::BACKEND_NOT_FOUND, format!("backend({what}) not found"));
        Ok((Destination::default(), Some(problem)))
    };
    if context.catalogue.get::<InferencePool>(namespace, &to.name).is_none() {
        return missing(&to.name);
    }
    let host = format!("{}.{namespace}.svc.{}", pool_service(&to.name), context.domain);
    match context.catalogue.first_port(&host, namespace, context.domain) {
        None => missing(&host),
        Some(number) => {
            let port = Some(PortSelector { number });
            Ok((Destination { host: host.into(), port, ..Destination::default() }, None))
        }
    }
}

/// The name of a pool's service, as istiod makes it: at most 63 characters, the last of them of a digest of the pool's name.
fn pool_service(pool: &str) -> String {
    const SEPARATOR: &str = "-ip-";
    const DIGEST_BYTES: usize = 4;
    const MAX_LENGTH: usize = 63;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pool.as_bytes());
    let hash: String = digest.as_ref().iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let room = MAX_LENGTH - SEPARATOR.len() - hash.len();
    let base: String = pool.chars().take(room).collect();
    format!("{base}{SEPARATOR}{hash}")
}

/// The destination of an XBackend, which says its port itself.
fn external(context: &Context<'_>, namespace: &str, to: &BackendRef) -> Result<Resolved, Problem> {
    let missing = |what: &str| Problem::new(reason::BACKEND_NOT_FOUND, format!("backend({what}) not found"));
    let (_, backend) = context.catalogue.get::<XBackend>(namespace, &to.name).ok_or_else(|| missing(&to.name))?;
    let Some(host) = policy::external(backend) else {
        let message = format!("backend({}) type: expected ExternalHostname, got {}", to.name, backend.backend_type);
        return Err(Problem::new(reason::INVALID_KIND, message));
    };
    let number = backend.port.port;
    if let Some(other) = to.port.filter(|port| *port != number) {
        let message = format!("backend({}) does not expose port {other}, expected {number}", to.name);
        return Err(Problem::new(reason::BACKEND_NOT_FOUND, message));
    }
    if backend.tls.as_ref().is_some_and(|tls| tls.mode == XBackendTlsMode::ClientAndServer) {
        // Its policy is refused; without it requests would leave in the clear.
        return Err(Problem::new(reason::INVALID_DESTINATION, format!("backend({}) is not accepted", to.name)));
    }
    let found = context.catalogue.has_host(host, namespace, context.domain);
    let destination = Destination { host: host.clone(), port: Some(PortSelector { number }), ..Destination::default() };
    Ok((destination, (!found).then(|| missing(host))))
}

/// The weights of those that have one; a single one has all and needs none.
pub fn weighted<T>(backends: &[T], weight: impl Fn(&T) -> i32) -> Vec<(&T, i32)> {
    let mut some: Vec<_> = backends.iter().map(|to| (to, weight(to))).filter(|(_, weight)| *weight != 0).collect();
    if let [(_, weight)] = some.as_mut_slice() {
        *weight = 0;
    }
    some
}

/// Destinations, and what is wrong with some of them.
pub type Destinations = (Vec<HttpRouteDestination>, Option<Problem>);

/// Where a rule of HTTP sends requests to, with what `headers` makes of each backend's filters; `None`: to nobody.
pub fn destinations<B: FilteredBackend>(
    context: &Context<'_>,
    from: From<'_>,
    backends: &[B],
    headers: impl Fn(&[B::Filter]) -> Result<Option<Headers>, Problem>,
) -> Result<Option<Destinations>, Problem> {
    let some = weighted(backends, |own| own.backend().weight());
    if some.is_empty() {
        return Ok(None);
    }
    let (mut all, mut invalid) = (Vec::new(), None);
    for (own, weight) in some {
        let (destination, problem) = destination(context, from, &own.backend())?;
        invalid = problem.or(invalid);
        all.push(HttpRouteDestination { destination, weight, headers: headers(own.filters())? });
    }
    Ok(Some((all, invalid)))
}

/// The answer of a rule that sends requests to nobody.
pub fn nobody() -> HttpDirectResponse {
    HttpDirectResponse { status: 500, body: None }
}
