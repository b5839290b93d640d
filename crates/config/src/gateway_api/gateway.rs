//! GatewayClass and Gateway: listeners at the edge of the mesh.

use std::collections::BTreeMap;

use crate::wire::{Str, enumeration, message};

message! {
    /// `gateway.networking.k8s.io` GatewayClass.
    struct GatewayClass {
        controller_name: Str,
        description: Str,
        parameters_ref: Option<ParametersReference>,
    }

    struct ParametersReference {
        group: Str,
        kind: Str,
        name: Str,
        namespace: Option<Str>,
    }

    /// `gateway.networking.k8s.io` Gateway.
    struct KubernetesGateway {
        gateway_class_name: Str,
        listeners: Vec<Listener>,
        addresses: Vec<GatewayAddress>,
        infrastructure: Option<GatewayInfrastructure>,
        allowed_listeners: Option<AllowedListeners>,
        tls: Option<GatewayTls>,
        default_scope: Str,
    }

    /// Of a Gateway.
    struct Listener {
        name: Str,
        /// Default: every host.
        hostname: Option<Str>,
        port: u32,
        /// HTTP, HTTPS, TLS, TCP, UDP, or an implementation's own.
        protocol: Str,
        tls: Option<ListenerTls>,
        allowed_routes: Option<AllowedRoutes>,
    }

    struct ListenerTls {
        /// Default: `Terminate`.
        mode: Option<TlsMode>,
        certificate_refs: Vec<SecretReference>,
        /// `gateway.istio.io/tls-terminate-mode`, `gateway.istio.io/tls-cipher-suites`.
        options: BTreeMap<Str, Str>,
    }

    struct SecretReference {
        /// Default: the core group.
        group: Option<Str>,
        /// Default: `Secret`.
        kind: Option<Str>,
        name: Str,
        /// Default: the object's own; another needs a ReferenceGrant.
        namespace: Option<Str>,
    }

    struct AllowedRoutes {
        namespaces: Option<RouteNamespaces>,
        /// Empty: all that the protocol allows.
        kinds: Vec<RouteGroupKind>,
    }

    struct RouteNamespaces {
        /// Default: `Same` of routes, `None` of listener sets.
        from: Option<FromNamespaces>,
        selector: Option<NamespaceSelector>,
    }

    /// Kubernetes' `LabelSelector`, with expressions.
    struct NamespaceSelector {
        match_labels: BTreeMap<Str, Str>,
        match_expressions: Vec<LabelSelectorRequirement>,
    }

    struct LabelSelectorRequirement {
        key: Str,
        operator: SelectorOperator,
        values: Vec<Str>,
    }

    struct RouteGroupKind {
        /// Default: `gateway.networking.k8s.io`.
        group: Option<Str>,
        kind: Str,
    }

    struct GatewayAddress {
        /// Default: `IPAddress`.
        #[serde(rename = "type")]
        address_type: Option<Str>,
        value: Str,
    }

    struct GatewayInfrastructure {
        labels: BTreeMap<Str, Str>,
        annotations: BTreeMap<Str, Str>,
        parameters_ref: Option<ParametersReference>,
    }

    /// Which namespaces may attach a ListenerSet.
    struct AllowedListeners {
        namespaces: Option<RouteNamespaces>,
    }

    struct GatewayTls {
        backend: Option<GatewayBackendTls>,
        frontend: Option<GatewayFrontendTls>,
    }

    struct GatewayBackendTls {
        /// What the gateway shows to backends.
        client_certificate_ref: Option<SecretReference>,
    }

    /// How clients' certificates are checked.
    struct GatewayFrontendTls {
        default: FrontendTls,
        per_port: Vec<PortFrontendTls>,
    }

    struct PortFrontendTls {
        port: u32,
        tls: FrontendTls,
    }

    struct FrontendTls {
        validation: Option<FrontendValidation>,
    }

    struct FrontendValidation {
        ca_certificate_refs: Vec<ObjectReference>,
        mode: FrontendValidationMode,
    }

    /// Names a kind without defaults.
    struct ObjectReference {
        group: Str,
        kind: Str,
        name: Str,
        namespace: Option<Str>,
    }
}

enumeration! {
    enum TlsMode {
        #[default]
        Terminate = "Terminate",
        Passthrough = "Passthrough",
    }

    enum FromNamespaces {
        #[default]
        Same = "Same",
        All = "All",
        Selector = "Selector",
        None = "None",
    }

    enum SelectorOperator {
        #[default]
        In = "In",
        NotIn = "NotIn",
        Exists = "Exists",
        DoesNotExist = "DoesNotExist",
    }

    enum FrontendValidationMode {
        #[default]
        AllowValidOnly = "AllowValidOnly",
        AllowInsecureFallback = "AllowInsecureFallback",
    }
}

impl KubernetesGateway {
    /// Whether it names a Service, of its own namespace, as what serves it.
    pub fn names_service(&self, name: &str) -> bool {
        let is_host = |address: &&GatewayAddress| address.address_type.as_deref() == Some("Hostname");
        self.addresses.iter().filter(is_host).any(|address| address.value.split('.').next() == Some(name))
    }
}

impl NamespaceSelector {
    /// Whether it selects something with these labels.
    pub fn selects(&self, labels: &BTreeMap<Str, Str>) -> bool {
        let pairs = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        let holds = |requirement: &LabelSelectorRequirement| {
            let found = labels.get(&requirement.key);
            match requirement.operator {
                SelectorOperator::In => found.is_some_and(|value| requirement.values.contains(value)),
                SelectorOperator::NotIn => found.is_none_or(|value| !requirement.values.contains(value)),
                SelectorOperator::Exists => found.is_some(),
                SelectorOperator::DoesNotExist => found.is_none(),
            }
        };
        pairs && self.match_expressions.iter().all(holds)
    }
}
