//! Where a route sends to: references to backends as Istio's destinations.

use crate::error::{Problem, reason};
use crate::reference::{GroupKind, HOSTNAME, SERVICE, SERVICE_IMPORT};
use crate::route::Context;
use meltemi_config::Str;
use meltemi_config::gateway_api::{BackendRef, FilteredBackend};
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
