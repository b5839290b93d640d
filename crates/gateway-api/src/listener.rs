//! A listener as the server of an Istio Gateway, with what its status says.

use crate::catalogue::Catalogue;
use crate::class::Controller;
use crate::credential::{Owner, server_tls};
use crate::error::{Problem, reason};
use crate::reference::{GRPC_ROUTE, GroupKind, HTTP_ROUTE, TCP_ROUTE, TLS_ROUTE};
use crate::status::{Condition, Draft};
use meltemi_config::Str;
use meltemi_config::gateway_api::{
    AllowedRoutes, FromNamespaces, FrontendTls, GROUP, GatewayTls, Listener, ListenerTls, RouteGroupKind, TlsMode,
};
use meltemi_config::kube::Namespace;
use meltemi_config::networking::{Port, Server};
use meltemi_model::Labels;

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// An option of a listener's TLS: it passes every service of the mesh on by SNI.
const LISTENER_MODE: &str = "gateway.istio.io/listener-protocol";
/// On a Gateway: the network that it leads into.
const NETWORK: &str = "topology.istio.io/network";
/// On a Gateway: the port on which it leads there.
const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
const HBONE: &str = "HBONE";
/// Where an ambient mesh's proxies are reached.
pub const HBONE_PORT: u32 = 15008;
/// Names are needed, and there is one server in each Gateway.
const PORT_NAME: &str = "default";

/// What a listener became.
pub struct Report {
    pub name: Str,
    pub supported: Vec<GroupKind<'static>>,
    pub conditions: Vec<Condition>,
    /// Absent where the listener only holds the place of those that sets add.
    pub server: Option<Server>,
    /// Nothing is wrong with it.
    pub valid: bool,
}

/// The conditions of a listener, in the order of their names.
struct Drafts {
    accepted: Draft,
    conflicted: Option<Draft>,
    programmed: Draft,
    resolved: Option<Draft>,
}

impl Drafts {
    fn new() -> Self {
        let fine = |reason| Draft::new(reason, "No errors found");
        Self {
            accepted: fine("Accepted"),
            conflicted: Some(Draft { good: false, ..fine("NoConflicts") }),
            programmed: fine("Programmed"),
            resolved: Some(fine("ResolvedRefs")),
        }
    }

    fn finish(self, generation: i64) -> Vec<Condition> {
        let each = [
            ("Accepted", Some(self.accepted)),
            ("Conflicted", self.conflicted),
            ("Programmed", Some(self.programmed)),
            ("ResolvedRefs", self.resolved),
        ];
        each.into_iter().filter_map(|(kind, draft)| Some(draft?.finish(kind, generation))).collect()
    }
}

/// A listener that another one leaves no place for.
pub fn conflicted(owner: Owner<'_>, listener: &Listener, reason: &'static str) -> Report {
    let problem =
        || Some(Problem::new(reason, "Listener has a conflict with another listener attached to the same Gateway"));
    let mut drafts = Drafts::new();
    drafts.accepted.problem = problem();
    drafts.programmed.problem = problem();
    drafts.conflicted = Some(Draft { good: false, problem: problem(), ..Draft::new(reason, "") });
    drafts.resolved = None;
    report(owner, listener, None, false, drafts)
}

/// Where a listener belongs.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The Gateway's own.
    pub tls: Option<&'a GatewayTls>,
    /// The Gateway's.
    pub controller: Controller,
    /// The listener is a ListenerSet's.
    pub set: bool,
}

/// Converts a listener.
pub fn convert(owner: Owner<'_>, listener: &Listener, place: Place<'_>) -> Report {
    let Place { tls, controller, set } = place;
    let mut drafts = Drafts::new();
    let mut valid = true;
    let frontend = frontend(listener.port, tls);
    let own = listener
        .tls
        .as_ref()
        .map(|own| server_tls(owner, own, frontend, is_auto_passthrough(&owner.meta.labels, listener, own)));
    let (settings, problem) = own.map_or((None, None), |(settings, problem)| (Some(settings), problem));
    if let Some(problem) = problem {
        let bad =
            [reason::INVALID_CA_REF, reason::INVALID_CA_KIND, reason::REF_NOT_PERMITTED].contains(&problem.reason);
        if bad {
            drafts.accepted.problem = Some(Problem::new("NoValidCACertificate", problem.message.clone()));
        }
        drafts.resolved = drafts.resolved.map(|draft| Draft { problem: Some(problem), ..draft });
        drafts.programmed.problem = Some(Problem::new("Invalid", "Bad TLS configuration"));
        valid = false;
    }
    let refused = |message: String| Some(Problem::new("UnsupportedProtocol", message));
    let protocol = &*listener.protocol;
    if set && listener.port == 0 {
        drafts.accepted.problem = refused(format!("protocol {protocol} requires a port to be set"));
        valid = false;
    }
    if let Some(message) = unsupported(protocol, controller) {
        drafts.accepted.problem = refused(message);
        valid = false;
    }
    if let Some(message) = unexpected(listener, controller) {
        drafts.accepted.problem = refused(message.to_owned());
    }
    let placeholder = settings.is_none() && matches!(protocol, "HTTPS" | "TLS");
    if placeholder && set {
        drafts.accepted.problem = refused(format!("protocol is {protocol} but no TLS section is defined"));
        drafts.programmed.problem = Some(Problem::new("Invalid", "Bad TLS configuration"));
        valid = false;
    }
    let server = (!placeholder).then(|| Server {
        port: Some(Port {
            name: PORT_NAME.into(),
            number: listener.port,
            protocol: if unsupported(protocol, controller).is_some() { "".into() } else { listener.protocol.clone() },
            ..Port::default()
        }),
        hosts: hosts(owner, listener),
        tls: settings,
        ..Server::default()
    });
    report(owner, listener, server, valid, drafts)
}

fn report(owner: Owner<'_>, listener: &Listener, server: Option<Server>, valid: bool, mut drafts: Drafts) -> Report {
    let (supported, known) = supported_kinds(listener);
    if !known {
        drafts.resolved = Some(Draft { good: false, ..Draft::new("InvalidRouteKinds", "Invalid route kinds") });
    }
    let conditions = drafts.finish(owner.meta.generation);
    Report { name: listener.name.clone(), supported, conditions, server, valid }
}

fn frontend(port: u32, tls: Option<&GatewayTls>) -> Option<&FrontendTls> {
    let frontend = tls?.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|own| own.port == port);
    Some(own.map_or(&frontend.default, |own| &own.tls))
}

fn is_auto_passthrough(labels: &Labels, listener: &Listener, tls: &ListenerTls) -> bool {
    if tls.options.get(LISTENER_MODE).is_some_and(|mode| &**mode == "auto-passthrough") {
        return true;
    }
    let port = labels.get(GATEWAY_PORT).map_or("15443", |port| port);
    labels.contains_key(NETWORK) && listener.port.to_string() == port
}

/// What a waypoint or a gateway between networks cannot have; said of the listener, which counts as valid as in istiod.
fn unexpected(listener: &Listener, controller: Controller) -> Option<&'static str> {
    let hbone = listener.port == HBONE_PORT && &*listener.protocol == HBONE;
    let mode = listener.tls.as_ref().map(|tls| tls.mode.unwrap_or_default());
    let fits = match controller {
        Controller::Waypoint => hbone,
        Controller::EastWest if listener.port == HBONE_PORT => hbone && mode == Some(TlsMode::Terminate),
        Controller::EastWest => &*listener.protocol == "TLS" && mode == Some(TlsMode::Passthrough),
        Controller::Gateway | Controller::Remote => true,
    };
    match controller {
        _ if fits => None,
        Controller::EastWest => Some(
            "East-west gateway listeners must be either port 15008 with protocol \"HBONE\" and TLS.Mode == Terminate, or \
             TLS with TLS.Mode == Passthrough",
        ),
        _ => Some("Expected a single listener on port 15008 with protocol \"HBONE\""),
    }
}

fn unsupported(protocol: &str, controller: Controller) -> Option<String> {
    const SUPPORTED: [&str; 4] = ["HTTP", "HTTPS", "TLS", "TCP"];
    let ambient = matches!(controller, Controller::Waypoint | Controller::EastWest);
    if SUPPORTED.contains(&protocol) || ambient && protocol == HBONE {
        return None;
    }
    let upper = protocol.to_uppercase();
    Some(match protocol {
        HBONE => "protocol \"HBONE\" is only supported for waypoint proxies".to_owned(),
        _ if SUPPORTED.contains(&&*upper) || upper == HBONE => {
            format!("protocol {protocol:?} is unsupported. hint: {upper:?} (uppercase) may be supported")
        }
        _ => format!("protocol {protocol:?} is unsupported"),
    })
}

/// Of the kinds of the protocol those that the listener wants; and whether it wants no others.
pub fn supported_kinds(listener: &Listener) -> (Vec<GroupKind<'static>>, bool) {
    let terminates = listener.tls.as_ref().is_some_and(|tls| tls.mode == Some(TlsMode::Terminate));
    let supported = match &*listener.protocol {
        "HTTP" | "HTTPS" => vec![HTTP_ROUTE, GRPC_ROUTE],
        "TCP" => vec![TCP_ROUTE],
        "TLS" if terminates => vec![TLS_ROUTE, TCP_ROUTE],
        "TLS" => vec![TLS_ROUTE],
        _ => Vec::new(),
    };
    let wanted = listener.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
    if wanted.is_empty() {
        return (supported, true);
    }
    let is = |own: &RouteGroupKind, kind: &GroupKind<'_>| {
        *own.kind == *kind.kind && own.group.as_deref().unwrap_or(GROUP) == kind.group
    };
    let both: Vec<_> = supported.into_iter().filter(|kind| wanted.iter().any(|own| is(own, kind))).collect();
    let all = both.len() == wanted.len();
    (both, all)
}

/// `namespace/host` for each namespace whose routes are allowed; `~` where there is none.
fn hosts(owner: Owner<'_>, listener: &Listener) -> Vec<Str> {
    let host = listener.hostname.as_deref().unwrap_or("*");
    let namespaces = route_namespaces(owner.catalogue, &owner.meta.namespace, listener.allowed_routes.as_ref());
    if namespaces.is_empty() {
        return vec![format!("~/{host}").into()];
    }
    namespaces.into_iter().map(|namespace| format!("{namespace}/{host}").into()).collect()
}

fn route_namespaces(catalogue: &Catalogue, own: &Str, allowed: Option<&AllowedRoutes>) -> Vec<Str> {
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let from = namespaces.and_then(|namespaces| namespaces.from).unwrap_or_default();
    let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
    match (from, selector) {
        (FromNamespaces::Same, _) => vec![own.clone()],
        (FromNamespaces::Selector | FromNamespaces::None, Some(selector)) => catalogue
            .all::<Namespace>()
            .filter(|(meta, _)| selector.selects(&named_labels(&meta.name, &meta.labels)))
            .map(|(meta, _)| meta.name.clone())
            .collect(),
        (FromNamespaces::All | FromNamespaces::Selector | FromNamespaces::None, _) => vec!["*".into()],
    }
}

/// A namespace's labels with the one that Kubernetes adds.
pub fn named_labels(name: &Str, labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.insert(NAMESPACE_NAME.into(), name.clone());
    labels
}
