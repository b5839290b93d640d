//! Which Gateways are ours: by the controller of their class.

use crate::catalogue::Catalogue;
use meltemi_config::gateway_api::GatewayClass;
use serde_json::{Value, json};

/// The controllers that we stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// `istio.io/gateway-controller`.
    Gateway,
    /// `istio.io/mesh-controller`: a waypoint, which routes do not become listeners of.
    Waypoint,
    /// `istio.io/eastwest-controller`: between networks of an ambient mesh.
    EastWest,
    /// `istio.io/unmanaged-gateway`: a gateway of another cluster, of which only the address counts.
    Remote,
}

pub const GATEWAY_CONTROLLER: &str = "istio.io/gateway-controller";
pub const MESH_CONTROLLER: &str = "istio.io/mesh-controller";
const EAST_WEST_CONTROLLER: &str = "istio.io/eastwest-controller";
const REMOTE_CONTROLLER: &str = "istio.io/unmanaged-gateway";
/// Name, controller and description of the classes that are there by themselves.
const BUILT_IN: [(&str, &str, &str); 2] = [
    ("istio", GATEWAY_CONTROLLER, "Gateways that the mesh deploys"),
    ("istio-remote", REMOTE_CONTROLLER, "Gateways of another cluster, of which only the address counts"),
];

impl Controller {
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            GATEWAY_CONTROLLER => Some(Self::Gateway),
            MESH_CONTROLLER => Some(Self::Waypoint),
            EAST_WEST_CONTROLLER => Some(Self::EastWest),
            REMOTE_CONTROLLER => Some(Self::Remote),
            _ => None,
        }
    }

    /// Whether the names of what is deployed end in the class's.
    pub fn has_suffix(self) -> bool {
        matches!(self, Self::Gateway | Self::Remote)
    }

    /// Whether others may add listeners.
    pub fn takes_sets(self) -> bool {
        self == Self::Gateway
    }

    /// The controller of a class: of one that is there, or of a built-in one.
    pub fn of_class(catalogue: &Catalogue, class: &str) -> Option<Self> {
        let object = catalogue.get::<GatewayClass>("", class);
        match object.map(|(_, spec)| &*spec.controller_name) {
            Some(controller) => Self::of_name(controller),
            None => match class {
                "istio" => Some(Self::Gateway),
                "istio-waypoint" => Some(Self::Waypoint),
                "istio-east-west" => Some(Self::EastWest),
                "istio-remote" => Some(Self::Remote),
                _ => None,
            },
        }
    }
}

/// The built-in classes that are not there, as documents to create.
pub fn missing(catalogue: &Catalogue) -> Vec<Value> {
    let missing = BUILT_IN.into_iter().filter(|(name, ..)| catalogue.get::<GatewayClass>("", name).is_none());
    let document = |(name, controller, description)| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": name},
            "spec": {"controllerName": controller, "description": description},
        })
    };
    missing.map(document).collect()
}
