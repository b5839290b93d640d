//! Which Gateways are ours: by the controller of their class.

use crate::catalogue::Catalogue;
use meltemi_config::gateway_api::GatewayClass;

/// The controllers that we stand for, as far as their Gateways become listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// `istio.io/gateway-controller`.
    Gateway,
    /// `istio.io/unmanaged-gateway`: a gateway of another cluster, of which only the address counts.
    Remote,
}

pub const GATEWAY_CONTROLLER: &str = "istio.io/gateway-controller";
const REMOTE_CONTROLLER: &str = "istio.io/unmanaged-gateway";

impl Controller {
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            GATEWAY_CONTROLLER => Some(Self::Gateway),
            REMOTE_CONTROLLER => Some(Self::Remote),
            _ => None,
        }
    }

    /// The controller of a class: of one that is there, or of a built-in one.
    pub fn of_class(catalogue: &Catalogue, class: &str) -> Option<Self> {
        let object = catalogue.get::<GatewayClass>("", class);
        match object.map(|(_, spec)| &*spec.controller_name) {
            Some(controller) => Self::of_name(controller),
            None => match class {
                "istio" => Some(Self::Gateway),
                "istio-remote" => Some(Self::Remote),
                _ => None,
            },
        }
    }
}
