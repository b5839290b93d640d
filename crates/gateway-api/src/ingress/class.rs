//! Which Ingresses are ours, by the mesh's settings and their class.

use crate::catalogue::Catalogue;
use meltemi_config::kube::{Ingress, IngressClass};
use meltemi_config::mesh::{IngressControllerMode, MeshConfig};
use meltemi_config::{Meta, Str};
use std::collections::BTreeMap;

/// On an Ingress, of old: its class.
const CLASS: &str = "kubernetes.io/ingress.class";
const CONTROLLER: &str = "istio.io/ingress-controller";
/// The label by which gateways are selected.
const ISTIO: &str = "istio";
const DEFAULT_SERVICE: &str = "istio-ingressgateway";
const DEFAULT_SELECTOR: &str = "ingressgateway";

/// What of MeshConfig is about Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressSettings {
    /// `ingressControllerMode`.
    pub mode: IngressControllerMode,
    /// `ingressClass`: what the annotation must say.
    pub class: Str,
    /// `ingressService`: whose addresses are told.
    pub service: Str,
    /// `ingressSelector`.
    pub gateway: Str,
    /// The root namespace, in which gateways are.
    pub namespace: Str,
    /// Where gateways are reached without a Service; others find it out ([`super::node_addresses`]).
    pub nodes: Vec<Str>,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self::of(&MeshConfig::default())
    }
}

impl IngressSettings {
    pub fn of(mesh: &MeshConfig) -> Self {
        Self {
            mode: mesh.ingress_controller_mode,
            class: mesh.ingress_class.clone(),
            service: mesh.ingress_service.clone(),
            gateway: mesh.ingress_selector.clone(),
            namespace: mesh.root_namespace.clone(),
            nodes: Vec::new(),
        }
    }

    /// The labels of the gateways' pods.
    pub fn selector(&self) -> BTreeMap<Str, Str> {
        let value = match (&*self.gateway, &*self.service) {
            ("", "" | DEFAULT_SERVICE) => DEFAULT_SELECTOR.into(),
            ("", _) => self.service.clone(),
            _ => self.gateway.clone(),
        };
        [(Str::from(ISTIO), value)].into_iter().collect()
    }

    /// The annotation decides, then the class that is named and there, then the mode.
    fn takes(&self, catalogue: &Catalogue, meta: &Meta, ingress: &Ingress) -> bool {
        let by_mode = match self.mode {
            IngressControllerMode::Off => return false,
            IngressControllerMode::Default => true,
            IngressControllerMode::Strict | IngressControllerMode::Unspecified => false,
        };
        if let Some(class) = meta.annotations.get(CLASS) {
            return self.mode != IngressControllerMode::Unspecified && *class == self.class;
        }
        let named = ingress.spec.ingress_class_name.as_deref();
        let class = named.and_then(|name| catalogue.get::<IngressClass>("", name));
        class.map_or(by_mode, |(_, class)| &*class.spec.controller == CONTROLLER)
    }
}

/// The Ingresses of ours, in the order of namespaces and names.
pub fn ours<'a>(
    catalogue: &'a Catalogue,
    settings: &'a IngressSettings,
) -> impl Iterator<Item = (&'a Meta, &'a Ingress)> {
    catalogue.all::<Ingress>().filter(|(meta, ingress)| settings.takes(catalogue, meta, ingress))
}
