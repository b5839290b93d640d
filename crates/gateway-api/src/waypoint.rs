//! Waypoints of others: whose service has one, takes routes from its controller and not from us.

use crate::catalogue::Catalogue;
use crate::class::Controller;
use crate::parent::{ParentKey, ParentKind};
use meltemi_config::Meta;
use meltemi_config::gateway_api::{GatewayClass, KubernetesGateway};

/// On a service or its namespace: the Gateway through which it is reached; `none`: no Gateway.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Beside it: the Gateway's namespace.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// True for a service whose waypoint is there and of a class that is not ours.
pub fn is_of_others(catalogue: &Catalogue, service: ParentKey<'_>) -> bool {
    let Some(meta) = meta(catalogue, service) else { return false };
    let namespace = catalogue.namespace(service.namespace);
    let named = [Some(meta), namespace].into_iter().flatten().find(|meta| meta.labels.contains_key(USE_WAYPOINT));
    let Some(labels) = named.map(|meta| &meta.labels) else { return false };
    let name = labels.get(USE_WAYPOINT).map_or("", |name| name);
    if name.is_empty() || name.eq_ignore_ascii_case("none") {
        return false;
    }
    let own = labels.get(USE_WAYPOINT_NAMESPACE).filter(|namespace| !namespace.is_empty());
    let namespace = own.map_or(service.namespace, |namespace| namespace);
    let gateway = catalogue.get::<KubernetesGateway>(namespace, name);
    let class = gateway.and_then(|(_, gateway)| catalogue.get::<GatewayClass>("", &gateway.gateway_class_name));
    class.is_some_and(|(_, class)| {
        let controller = Controller::of_name(&class.controller_name);
        !matches!(controller, Some(Controller::Gateway | Controller::Waypoint))
    })
}

fn meta<'a>(catalogue: &'a Catalogue, service: ParentKey<'_>) -> Option<&'a Meta> {
    match service.kind {
        ParentKind::Service => catalogue.service(service.namespace, service.name).map(|(meta, _)| meta),
        ParentKind::ServiceEntry => catalogue.service_entry(service.namespace, service.name).map(|(meta, _)| meta),
        ParentKind::Gateway | ParentKind::ListenerSet => None,
    }
}
