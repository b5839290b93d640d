//! Which rule of a route of the Gateway API a route was made from: its name says, where the rule has none of its own.

use meltemi_config::gateway_api::{GROUP, HttpRouteMatch, HttpRouteRule, PathMatchType};
use meltemi_config::networking::{Gateway, StringMatch};
use meltemi_config::{Key, Kind, Spec, Str};
use meltemi_model::{ConfigRef, Labels, Snapshot, semantics};
use meltemi_plan::Route;

use super::rule::same_path;
use super::{Origins, Place};

/// A listener of the Gateway API.
#[derive(Debug)]
pub(super) struct MadeListener {
    /// Of the Gateway, or of the ListenerSet.
    owner: Key,
    name: String,
    port: u32,
    /// `namespace/host` of the services behind which its proxies are.
    services: Vec<String>,
}

impl Origins {
    /// Learns of which objects Gateways and VirtualServices were made that no user wrote.
    pub fn add_made(&mut self, snapshot: &Snapshot) {
        self.listeners.extend(snapshot.gateways.values().filter_map(made_listener));
        for config in snapshot.virtual_services.iter() {
            let Some(parents) = config.annotations.get(semantics::PARENTS) else { continue };
            let key = Key::new(Kind::VirtualService, &config.namespace, &config.name);
            self.made.insert(key, parents.split(',').filter_map(parent).collect());
        }
    }

    /// The rule and match of the objects that a route's VirtualService was made of.
    pub(super) fn of_made(&self, parents: &[Key], route: &Route) -> Option<Place> {
        for key in parents {
            let is_own = |own: Option<&Str>, position: usize| *route.name == *name(own, key, position);
            let path = match &self.objects.get(key)?.spec {
                Spec::HttpRoute(spec) => {
                    let found = spec.rules.iter().enumerate().find(|(at, rule)| is_own(rule.name.as_ref(), *at));
                    found.map(|(position, rule)| http_path(position, rule, route))
                }
                Spec::GrpcRoute(spec) => {
                    let found = spec.rules.iter().enumerate().position(|(at, rule)| is_own(rule.name.as_ref(), at));
                    found.map(|position| format!("spec.rules[{position}]"))
                }
                _ => None,
            };
            if let Some(path) = path {
                return self.place(key, &path);
            }
        }
        self.place(parents.first()?, "")
    }

    /// The listeners with one of these ports of the Gateways that a workload with these labels serves.
    pub(super) fn listeners(&self, labels: &Labels, ports: &[u32]) -> Vec<Place> {
        let serves = |service: &String| {
            let (namespace, host) = service.split_once('/').unwrap_or_default();
            let name = host.split('.').next().unwrap_or_default();
            match self.objects.get(&Key::new(Kind::Service, namespace, name)).map(|object| &object.spec) {
                Some(Spec::Service(service)) => {
                    let selector = &service.spec.selector;
                    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                }
                _ => false,
            }
        };
        let own = self.listeners.iter().filter(|own| ports.contains(&own.port) && own.services.iter().any(serves));
        own.filter_map(|own| self.place(&own.owner, &self.listener_path(own))).collect()
    }

    fn listener_path(&self, own: &MadeListener) -> String {
        let listeners = match self.objects.get(&own.owner).map(|object| &object.spec) {
            Some(Spec::KubernetesGateway(spec)) => &spec.listeners[..],
            Some(Spec::ListenerSet(spec)) => &spec.listeners[..],
            _ => &[],
        };
        let position = listeners.iter().position(|listener| *listener.name == *own.name);
        position.map(|position| format!("spec.listeners[{position}]")).unwrap_or_default()
    }
}

/// From `Kind/name/listener.namespace` and the services.
fn made_listener(config: &ConfigRef<Gateway>) -> Option<MadeListener> {
    let (kind, rest) = config.annotations.get(semantics::PARENTS)?.split_once('/')?;
    let (owner, rest) = rest.split_once('/')?;
    let (name, namespace) = rest.rsplit_once('.')?;
    let (services, of) = semantics::gateway_services(config)?;
    Some(MadeListener {
        owner: Key::new(Kind::find(GROUP, kind)?, namespace, owner),
        name: name.to_owned(),
        port: config.spec.servers.first()?.port.as_ref()?.number,
        services: services.map(|host| format!("{of}/{host}")).collect(),
    })
}

fn http_path(position: usize, rule: &HttpRouteRule, route: &Route) -> String {
    match rule.matches.iter().position(|condition| fits(condition, route)) {
        Some(condition) => format!("spec.rules[{position}].matches[{condition}]"),
        None => format!("spec.rules[{position}]"),
    }
}

/// From `Kind/name.namespace`.
fn parent(text: &str) -> Option<Key> {
    let (kind, rest) = text.split_once('/')?;
    let (name, namespace) = rest.rsplit_once('.')?;
    let ingress = Some(Kind::Ingress).filter(|own| own.as_str() == kind);
    Some(Key::new(Kind::find(GROUP, kind).or(ingress)?, namespace, name))
}

fn name(own: Option<&Str>, key: &Key, position: usize) -> Str {
    own.cloned().unwrap_or_else(|| format!("{}.{}.{position}", key.namespace, key.name).into())
}

fn fits(condition: &HttpRouteMatch, route: &Route) -> bool {
    let path = condition.path.as_ref();
    let text = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    let uri = match path.map_or(PathMatchType::PathPrefix, |path| path.match_type) {
        PathMatchType::PathPrefix if text != "/" => StringMatch::prefix(text.strip_suffix('/').unwrap_or(text)),
        PathMatchType::PathPrefix => StringMatch::prefix(text),
        PathMatchType::Exact => StringMatch::exact(text),
        PathMatchType::RegularExpression => StringMatch::regex(text),
    };
    let headers = condition.headers.len() + usize::from(condition.method.is_some());
    let matcher = &route.matcher;
    same_path(&matcher.path, Some(&uri))
        && matcher.headers.len() == headers
        && matcher.query.len() == condition.query_params.len()
}
