//! What routes can be attached to, and whether one may: listeners of gateways, and the mesh by its services.

use crate::catalogue::Catalogue;
use crate::error::{Problem, reason};
use crate::gateway::Made;
use crate::reference::{
    GATEWAY, GRPC_ROUTE, GroupKind, HTTP_ROUTE, LISTENER_SET, SERVICE, SERVICE_ENTRY, TCP_ROUTE, TLS_ROUTE,
};
use crate::route::Route;
use crate::waypoint::is_of_others;
use meltemi_config::Str;
use meltemi_config::gateway_api::ParentReference;
use meltemi_model::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};

const MESH: &str = meltemi_model::virtual_service::MESH;

/// A listener, or the mesh.
#[derive(Clone, Debug)]
pub struct Parent {
    /// By which VirtualServices name it: `mesh`, or `namespace/name` of the Gateway that the listener became.
    pub internal_name: Str,
    pub allowed: Vec<GroupKind<'static>>,
    /// As of a Gateway's server: `namespace/host`. Empty: every host of every namespace.
    pub hosts: Vec<Str>,
    /// As the listener has it; empty where it has none.
    pub hostname: Str,
    pub section: Str,
    pub port: u32,
    pub protocol: Str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParentKind {
    Gateway,
    ListenerSet,
    Service,
    ServiceEntry,
}

impl ParentKind {
    fn of(kind: GroupKind<'_>) -> Option<Self> {
        match kind {
            GATEWAY => Some(Self::Gateway),
            LISTENER_SET => Some(Self::ListenerSet),
            SERVICE => Some(Self::Service),
            SERVICE_ENTRY => Some(Self::ServiceEntry),
            _ => None,
        }
    }
}

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentKey<'a> {
    pub kind: ParentKind,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl ParentKey<'_> {
    /// A service, by which the mesh is meant.
    pub fn is_mesh(&self) -> bool {
        matches!(self.kind, ParentKind::Service | ParentKind::ServiceEntry)
    }
}

/// Everything that can be a parent.
#[derive(Debug)]
pub struct Parents {
    mesh: [Parent; 1],
    listeners: BTreeMap<(ParentKind, ObjectKey), Vec<Parent>>,
}

impl Parents {
    /// The mesh, and these listeners, whether they are valid or not.
    pub fn of<'a>(made: impl IntoIterator<Item = &'a Made>) -> Self {
        let mesh = Parent {
            internal_name: MESH.into(),
            allowed: vec![HTTP_ROUTE, GRPC_ROUTE, TCP_ROUTE, TLS_ROUTE],
            hosts: Vec::new(),
            hostname: "".into(),
            section: "".into(),
            port: 0,
            protocol: "".into(),
        };
        let mut listeners: BTreeMap<_, Vec<Parent>> = BTreeMap::new();
        for one in made {
            listeners.entry((one.kind, one.key.clone())).or_default().push(one.parent.clone());
        }
        Self { mesh: [mesh], listeners }
    }

    fn fetch(&self, key: ParentKey<'_>) -> &[Parent] {
        if key.is_mesh() {
            return &self.mesh;
        }
        let key = (key.kind, ObjectKey::new(key.namespace, key.name));
        self.listeners.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// One parent of a route, with what came of it.
#[derive(Clone, Debug)]
pub struct Bound<'a> {
    pub parent: &'a Parent,
    pub reference: &'a ParentReference,
    pub key: ParentKey<'a>,
    pub denied: Option<Problem>,
    /// Hosts of the other listeners of the same port, which take what they match more exactly.
    banned: BTreeSet<&'a str>,
}

impl Bound<'_> {
    pub fn is_mesh(&self) -> bool {
        &*self.parent.internal_name == MESH
    }

    /// Whether a host of the route is this listener's, and no more exact one's.
    pub fn takes(&self, host: &str) -> bool {
        let own = &*self.parent.hostname;
        if !own.is_empty() && !own.starts_with('*') {
            return true;
        }
        if !own.is_empty() && !crate::hostname::meet(host, own) {
            return false;
        }
        let taken = |other: &&str| own.len() <= other.len() && crate::hostname::within(host, other);
        !self.banned.iter().any(taken)
    }
}

/// What the route names as its parents, known ones only, in a stable order. A reference without a section is to each listener.
pub fn bound<'a>(catalogue: &Catalogue, parents: &'a Parents, route: &Route<'a>) -> Vec<Bound<'a>> {
    let mut found = Vec::new();
    for reference in route.parents {
        let Some(key) = key_of(reference, route.namespace()) else { continue };
        if is_of_others(catalogue, key) {
            continue;
        }
        let candidates = parents.fetch(key);
        for parent in candidates {
            let others = candidates.iter().filter(|other| {
                !std::ptr::eq(*other, parent) && other.port == parent.port && other.protocol == parent.protocol
            });
            let mut banned: BTreeSet<&str> = others.map(|other| &*other.hostname).collect();
            banned.remove(&*parent.hostname);
            let denied = denial(catalogue, parent, key, reference, route);
            found.push(Bound { parent, reference, key, denied, banned });
        }
    }
    found.sort_by_cached_key(|bound| text(bound.reference, route.namespace()));
    found
}

/// `None` for what is no parent of ours.
fn key_of<'a>(reference: &'a ParentReference, namespace: &'a str) -> Option<ParentKey<'a>> {
    let kind = GroupKind::of(reference.group.as_ref(), reference.kind.as_ref(), GATEWAY);
    let namespace = reference.namespace.as_deref().unwrap_or(namespace);
    Some(ParentKey { kind: ParentKind::of(kind)?, namespace, name: &reference.name })
}

/// A reference in one line, by which istiod sorts.
pub fn text(reference: &ParentReference, namespace: &str) -> String {
    format!(
        "{}/{}/{}/{}/{}.{}",
        reference.group.as_deref().unwrap_or(GATEWAY.group),
        reference.kind.as_deref().unwrap_or(GATEWAY.kind),
        reference.name,
        reference.section_name.as_deref().unwrap_or_default(),
        reference.port.unwrap_or_default(),
        reference.namespace.as_deref().unwrap_or(namespace)
    )
}

/// Why the parent does not take the route.
fn denial(
    catalogue: &Catalogue,
    parent: &Parent,
    key: ParentKey<'_>,
    reference: &ParentReference,
    route: &Route<'_>,
) -> Option<Problem> {
    let denied = match key.kind {
        ParentKind::Service => {
            let found = catalogue.service(key.namespace, key.name).is_some();
            (!found)
                .then(|| Problem::new(reason::NO_MATCHING_PARENT, format!("parent service: {:?} not found", key.name)))
        }
        ParentKind::ServiceEntry => {
            let found = catalogue.service_entry(key.namespace, key.name).is_some();
            let message = || format!("parent service entry: {:?} not found", key.name);
            (!found).then(|| Problem::new(reason::NO_MATCHING_PARENT, message()))
        }
        ParentKind::Gateway | ParentKind::ListenerSet => {
            wrong_listener(parent, reference).or_else(|| no_host(parent, route))
        }
    };
    let message = || format!("kind {} is not allowed", route.kind);
    let kind =
        || (!parent.allowed.contains(&route.kind)).then(|| Problem::new(reason::NOT_ALLOWED_BY_LISTENERS, message()));
    denied.or_else(kind)
}

fn wrong_listener(parent: &Parent, reference: &ParentReference) -> Option<Problem> {
    let message = match (reference.port, &reference.section_name) {
        (Some(port), _) if port != parent.port => format!("port {port} not found"),
        (_, Some(section)) if *section != parent.section => format!("sectionName {section:?} not found"),
        _ => return None,
    };
    Some(Problem::new(reason::NO_MATCHING_PARENT, message))
}

/// A route needs one host that the listener has, for its namespace.
fn no_host(parent: &Parent, route: &Route<'_>) -> Option<Problem> {
    if parent.hosts.is_empty() {
        return None;
    }
    let every = [Str::from("*")];
    let hosts = if route.hostnames.is_empty() { &every[..] } else { route.hostnames };
    let mut by_name = false;
    for own in &parent.hosts {
        let (namespace, own) = own.split_once('/').unwrap_or(("*", own));
        let meets = hosts.iter().any(|host| crate::hostname::meet(own, host));
        by_name |= meets;
        if meets && (namespace == "*" || namespace == route.namespace()) {
            return None;
        }
    }
    let hostname = &parent.hostname;
    Some(if by_name {
        let namespace = route.namespace();
        let message = format!(
            "hostnames matched parent hostname {hostname:?}, but namespace {namespace:?} is not allowed by the parent"
        );
        Problem::new(reason::NOT_ALLOWED_BY_LISTENERS, message)
    } else {
        Problem::new(
            reason::NO_MATCHING_LISTENER_HOSTNAME,
            format!("no hostnames matched parent hostname {hostname:?}"),
        )
    })
}
