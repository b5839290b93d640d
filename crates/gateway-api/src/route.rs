//! What all kinds of routes have in common: parents, hosts, and the VirtualServices that they become.

use crate::backend::From;
use crate::catalogue::Catalogue;
use crate::error::Problem;
use crate::parent::{Bound, ParentKind, Parents, bound};
use crate::reference::GroupKind;
use meltemi_config::gateway_api::{ParentReference, RouteRule, RuledRoute};
use meltemi_config::networking::{HttpMatchRequest, HttpRoute, VirtualService};
use meltemi_config::{Meta, Resource, Str};
use meltemi_model::{Config, config, semantics};
use std::sync::Arc;

/// What a conversion reads.
pub struct Context<'a> {
    pub catalogue: &'a Catalogue,
    pub domain: &'a str,
    pub parents: Parents,
}

/// A route, whatever its kind.
pub struct Route<'a> {
    pub kind: GroupKind<'static>,
    pub meta: &'a Meta,
    pub parents: &'a [ParentReference],
    pub hostnames: &'a [Str],
}

impl<'a> Route<'a> {
    pub fn namespace(&self) -> &'a str {
        &self.meta.namespace
    }
}

/// A route's rules in Istio's form, for parents of one sort.
#[derive(Clone, Debug)]
pub struct Rules<T> {
    pub routes: Vec<T>,
    /// With rules: some of their destinations are wrong. Without: the route is.
    pub problem: Option<Problem>,
}

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Self { routes: Vec::new(), problem: None }
    }
}

/// A rule of Istio's, and what is wrong with its destinations.
pub type Converted<T> = Result<(T, Option<Problem>), Problem>;

impl<T> FromIterator<Converted<T>> for Rules<T> {
    /// A rule that cannot be converted takes the whole route with it.
    fn from_iter<I: IntoIterator<Item = Converted<T>>>(rules: I) -> Self {
        let mut all = Self::default();
        for rule in rules {
            match rule {
                Ok((route, problem)) => {
                    all.routes.push(route);
                    all.problem = problem.or(all.problem);
                }
                Err(problem) => return Self { routes: Vec::new(), problem: Some(problem) },
            }
        }
        all
    }
}

/// A route with its parents, and its rules for each sort of them.
pub struct Bindings<'a, T> {
    pub parents: Vec<Bound<'a>>,
    pub mesh: Rules<T>,
    pub gateway: Rules<T>,
}

impl<'a, T> Bindings<'a, T> {
    /// `rules` is asked with true for the mesh, where references into other namespaces need no grant.
    pub fn of(context: &'a Context<'_>, route: &Route<'a>, rules: impl Fn(bool) -> Rules<T>) -> Self {
        let parents = bound(context.catalogue, &context.parents, route);
        let (mesh, gateway) = (parents.iter().any(Bound::is_mesh), parents.iter().any(|bound| !bound.is_mesh()));
        let rules = |needed: bool, mesh| if needed { rules(mesh) } else { Rules::default() };
        Self { mesh: rules(mesh, true), gateway: rules(gateway, false), parents }
    }

    /// The parents that take the route, in the order of their names.
    pub fn admitted(&self) -> Vec<&Bound<'a>> {
        let mut admitted: Vec<_> = self.parents.iter().filter(|bound| bound.denied.is_none()).collect();
        admitted.sort_by(|a, b| a.parent.internal_name.cmp(&b.parent.internal_name));
        admitted
    }
}

/// A kind of route that becomes rules of HTTP.
pub trait HttpKind: RuledRoute + Resource {
    const GROUP_KIND: GroupKind<'static>;

    /// One rule, named, for one of its matches; without one every request is meant.
    fn convert(
        context: &Context<'_>,
        from: From<'_>,
        rule: &Self::Rule,
        matched: (Str, Option<&<Self::Rule as RouteRule>::Match>),
    ) -> Converted<HttpRoute>;
}

/// The route without its rules.
pub fn http_view<'a, R: HttpKind>(meta: &'a Meta, spec: &'a R) -> Route<'a> {
    Route { kind: R::GROUP_KIND, meta, parents: spec.parent_refs(), hostnames: spec.hostnames() }
}

/// One rule for each match, as precedence goes by matches.
pub fn http_bindings<'a, R: HttpKind>(
    context: &'a Context<'_>,
    route: &Route<'a>,
    spec: &R,
) -> Bindings<'a, HttpRoute> {
    let of_rule = |from, position, rule: &R::Rule| {
        let all = rule.matches().iter().map(Some);
        let every = rule.matches().is_empty().then_some(None);
        let name = rule_name(rule.name(), route.meta, position);
        let convert = |matched| R::convert(context, from, rule, (name.clone(), matched));
        all.chain(every).map(convert).collect::<Vec<_>>()
    };
    Bindings::of(context, route, |mesh| {
        let from = From { kind: R::GROUP_KIND, namespace: &route.meta.namespace, grants: !mesh };
        let each = spec.rules().iter().enumerate();
        each.flat_map(|(position, rule)| of_rule(from, position, rule)).collect()
    })
}

/// A rule's own name, or one that says where it stands.
fn rule_name(own: Option<&Str>, meta: &Meta, position: usize) -> Str {
    own.cloned().unwrap_or_else(|| format!("{}.{}.{position}", meta.namespace, meta.name).into())
}

/// The VirtualServices of every route of a kind.
pub fn all_http_services<R: HttpKind>(context: &Context<'_>) -> Vec<Keyed> {
    let of_one = |(meta, spec): (&Meta, &R)| {
        let route = http_view(meta, spec);
        http_services(context, &route, &http_bindings(context, &route, spec))
    };
    context.catalogue.all::<R>().flat_map(of_one).collect()
}

/// A VirtualService of one route, parent and host. Those with one key become one.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// `<gateway>/<host>`, or `<namespace>[/<port>]/<host>` for the mesh.
    pub key: String,
    pub config: Config<VirtualService>,
}

/// The VirtualServices of a route of HTTP.
fn http_services(context: &Context<'_>, route: &Route<'_>, bindings: &Bindings<'_, HttpRoute>) -> Vec<Keyed> {
    let mut all = Vec::new();
    for bound in bindings.admitted() {
        let (rules, hosts, key) = if bound.is_mesh() {
            let port = bound.reference.port;
            let key = port.map_or_else(|| route.namespace().to_owned(), |port| format!("{}/{port}", route.namespace()));
            let rules = bindings.mesh.routes.iter().map(|rule| at_port(rule, port)).collect();
            (rules, mesh_hosts(context, bound), key)
        } else {
            let hosts = if route.hostnames.is_empty() { vec!["*".into()] } else { route.hostnames.to_vec() };
            (bindings.gateway.routes.clone(), hosts, bound.parent.internal_name.to_string())
        };
        if rules.is_empty() {
            continue;
        }
        for host in hosts.into_iter().filter(|host| bound.takes(host)) {
            let spec = VirtualService {
                hosts: vec![host.clone()],
                gateways: vec![bound.parent.internal_name.clone()],
                http: crate::merge::by_precedence(rules.clone()),
                ..VirtualService::default()
            };
            let name = format!("{}~{}~{}", route.meta.name, all.len(), semantics::AUTOGENERATED);
            all.push(Keyed { key: format!("{key}/{host}"), config: service(route, name, spec) });
        }
    }
    all
}

/// The rule, for one port of its hosts.
fn at_port(rule: &HttpRoute, port: Option<u32>) -> HttpRoute {
    let mut rule = rule.clone();
    let Some(port) = port else { return rule };
    if rule.matches.is_empty() {
        rule.matches.push(HttpMatchRequest::default());
    }
    rule.matches.iter_mut().for_each(|condition| condition.port = port);
    rule
}

/// The hosts of a service that is a parent.
pub fn mesh_hosts(context: &Context<'_>, bound: &Bound<'_>) -> Vec<Str> {
    let key = bound.key;
    if key.kind == ParentKind::ServiceEntry {
        let entry = context.catalogue.service_entry(key.namespace, key.name);
        return entry.map(|(_, entry)| entry.hosts.clone()).unwrap_or_default();
    }
    vec![format!("{}.{}.svc.{}", key.name, key.namespace, context.domain).into()]
}

/// A VirtualService that was made of a route.
pub fn service(route: &Route<'_>, name: String, spec: VirtualService) -> Config<VirtualService> {
    let parents = format!("{}/{}.{}", route.kind.kind, route.meta.name, route.meta.namespace);
    let annotations = [(semantics::PARENTS, parents.as_str()), (semantics::ROUTE, semantics::GATEWAY_VALUE)];
    Config {
        name: name.into(),
        namespace: route.meta.namespace.clone(),
        labels: Default::default(),
        annotations: annotations.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        creation: config::creation(route.meta),
        spec: Arc::new(spec),
    }
}
