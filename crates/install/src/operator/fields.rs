//! The fields of an IstioOperator's `spec`: what becomes of each, in one table.
//!
//! Owns: names, shapes and fates. A field that is not here is unknown. `*` stands for any member of a list or key of a map.

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Flag,
    Text,
    Number,
    /// Text or a number: tags, ports by name, percentages.
    Scalar,
    Map,
    List,
    Any,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It takes effect.
    Used,
    /// It is old, and means the same as another, at this path of the `spec`.
    Moved(&'static str),
    /// It has no effect any more, for this reason.
    Retired(&'static str),
}

pub struct Field {
    pub path: &'static str,
    pub shape: Shape,
    pub fate: Fate,
}

const fn used(path: &'static str, shape: Shape) -> Field {
    Field { path, shape, fate: Fate::Used }
}

const fn moved(path: &'static str, shape: Shape, to: &'static str) -> Field {
    Field { path, shape, fate: Fate::Moved(to) }
}

const fn retired(path: &'static str, shape: Shape, why: &'static str) -> Field {
    Field { path, shape, fate: Fate::Retired(why) }
}

use Shape::{Any, Flag, List, Map, Number, Scalar, Text};

const CITADEL: &str = "the certificate authority is part of the control plane";
const GALLEY: &str = "validation and configuration are part of the control plane";
const MIXER: &str = "Mixer is gone: proxies measure by themselves; see the Telemetry resource";
const POLICY: &str = "Mixer is gone: limits are RateLimitPolicies, access is AuthorizationPolicies";
const ALWAYS_SECURE: &str = "the control plane always speaks mutual TLS on port 15012";
const ALWAYS_SDS: &str = "secrets always reach gateways through SDS";
const SNIFFING: &str = "a port whose name or appProtocol says its protocol is never sniffed; all others are";
const ONE_IMAGE: &str = "there is one image, without a shell";
const ONE_BEHAVIOUR: &str = "this version behaves in one way; release notes say what differs";
const NO_PLUGINS: &str = "proxies measure as the Telemetry resource says, without extensions";
const RUNTIME: &str = "the profile is a field of the container, since Kubernetes 1.30";
const NO_STACKDRIVER: &str = "there is no exporter for it; send traces and metrics by OpenTelemetry";
const NO_AMBIENT: &str = "the node proxy of ambient mode is not installed by this version";
const TAINT: &str = "the daemon of a node takes cni.istio.io/not-ready off it by itself";
const NO_TOKEN_EXCHANGE: &str = "proxies exchange no tokens";

pub const SPEC: &[Field] = &[
    used("profile", Text),
    used("hub", Text),
    used("tag", Scalar),
    used("namespace", Text),
    used("revision", Text),
    retired("compatibilityVersion", Scalar, ONE_BEHAVIOUR),
    retired("installPackagePath", Text, "charts are part of the program"),
    used("meshConfig", Map),
    used("unvalidatedValues", Map),
    retired("components.citadel", Map, CITADEL),
    retired("components.galley", Map, GALLEY),
    retired("components.telemetry", Map, MIXER),
    retired("components.policy", Map, POLICY),
    retired("components.nodeAgent", Map, "each proxy fetches its own certificates"),
    retired("components.sidecarInjector", Map, "injection is part of the control plane"),
    retired("components.proxy", Map, "proxies are what values.global.proxy says"),
    retired("components.ztunnel", Map, NO_AMBIENT),
    retired("components.istiodRemote", Map, "values.global.remotePilotAddress with the profile remote does this"),
    retired("addonComponents", Map, "addons are installed from their own manifests"),
    moved("values.mtls.auto", Flag, "meshConfig.enableAutoMtls"),
    moved("values.outboundTrafficPolicy.mode", Text, "meshConfig.outboundTrafficPolicy.mode"),
    used("values.defaultRevision", Text),
    used("values.revision", Text),
    used("values.revisionTags", List),
    used("values.ownerName", Text),
    moved("values.profile", Text, "profile"),
    retired("values.compatibilityVersion", Scalar, ONE_BEHAVIOUR),
    used("values.meshConfig", Map),
    retired("values.ztunnel", Any, NO_AMBIENT),
    moved("values.istio_cni.enabled", Flag, "components.cni.enabled"),
    retired("values.istio_cni.chained", Flag, "values.cni.chained says it"),
    retired("values.istio_cni.provider", Text, "values.cni.provider says it"),
    retired("values.telemetry", Map, NO_PLUGINS),
    used("values.gatewayClasses", Map),
    retired("values.experimental", Map, "there is no policy of the API server to install"),
    used("values.base.enableCRDTemplates", Flag),
    used("values.base.enableIstioConfigCRDs", Flag),
    used("values.base.excludedCRDs", List),
    used("values.base.validationURL", Text),
    used("values.base.validationCABundle", Text),
    used("values.base.validationFailurePolicy", Text),
    retired("values.base.validateGateway", Flag, "gateways are validated as everything is"),
    used("values.istiodRemote.enabled", Flag),
    used("values.istiodRemote.injectionURL", Text),
    used("values.istiodRemote.injectionPath", Text),
    used("values.istiodRemote.injectionCABundle", Text),
    retired("values.istiodRemote.enabledLocalInjectorIstiod", Flag, "injection is where the control plane is"),
    used("values.sidecarInjectorWebhook.enableNamespacesByDefault", Flag),
    used("values.sidecarInjectorWebhook.reinvocationPolicy", Text),
    used("values.sidecarInjectorWebhook.neverInjectSelector", List),
    used("values.sidecarInjectorWebhook.alwaysInjectSelector", List),
    used("values.sidecarInjectorWebhook.rewriteAppHTTPProbe", Flag),
    used("values.sidecarInjectorWebhook.injectedAnnotations", Map),
    moved("values.sidecarInjectorWebhook.injectionURL", Text, "values.istiodRemote.injectionURL"),
    used("values.sidecarInjectorWebhook.templates", Map),
    used("values.sidecarInjectorWebhook.defaultTemplates", List),
    used("values.gateways.securityContext", Map),
    used("values.gateways.seccompProfile", Map),
    retired("values.gateways.enabled", Flag, "components.ingressGateways and egressGateways say which there are"),
];

/// Below `values.global`.
pub const GLOBAL: &[Field] = &[
    used("istioNamespace", Text),
    used("hub", Text),
    used("tag", Scalar),
    retired("variant", Text, ONE_IMAGE),
    used("imagePullPolicy", Text),
    used("imagePullSecrets", List),
    used("priorityClassName", Text),
    used("platform", Text),
    used("configValidation", Flag),
    used("defaultNodeSelector", Map),
    used("defaultResources", Map),
    used("defaultTolerations", List),
    used("defaultPodDisruptionBudget.enabled", Flag),
    retired("arch", Map, "nodeSelector and affinity of each component say where it runs"),
    used("certSigners", List),
    used("logAsJson", Flag),
    used("logging.level", Text),
    used("meshID", Text),
    used("meshNetworks", Map),
    used("multiCluster.clusterName", Text),
    retired("multiCluster.enabled", Flag, "a cluster belongs to a larger mesh once its name and network are set"),
    retired("multiCluster.globalDomainSuffix", Text, "names of other clusters' services are the services' own"),
    retired("multiCluster.includeEnvoyFilter", Flag, "gateways between networks need no patch"),
    used("network", Text),
    used("podDNSSearchNamespaces", List),
    used("omitSidecarInjectorConfigMap", Flag),
    used("operatorManageWebhooks", Flag),
    used("proxy.autoInject", Text),
    used("proxy.clusterDomain", Text),
    used("proxy.componentLogLevel", Text),
    retired("proxy.enableCoreDump", Flag, "proxies write no core files: their memory holds keys"),
    used("proxy.excludeInboundPorts", Scalar),
    used("proxy.excludeIPRanges", Text),
    used("proxy.excludeOutboundPorts", Scalar),
    used("proxy.image", Text),
    used("proxy.includeInboundPorts", Scalar),
    used("proxy.includeIPRanges", Text),
    used("proxy.includeOutboundPorts", Scalar),
    used("proxy.lifecycle", Map),
    used("proxy.logLevel", Text),
    used("proxy.outlierLogPath", Text),
    used("proxy.privileged", Flag),
    used("proxy.readinessFailureThreshold", Number),
    used("proxy.readinessInitialDelaySeconds", Number),
    used("proxy.readinessPeriodSeconds", Number),
    used("proxy.resources", Map),
    used("proxy.seccompProfile", Map),
    used("proxy.startupProbe.enabled", Flag),
    used("proxy.startupProbe.failureThreshold", Number),
    used("proxy.statusPort", Number),
    used("proxy.tracer", Text),
    retired("proxy.variant", Text, ONE_IMAGE),
    moved("proxy.concurrency", Number, "meshConfig.defaultConfig.concurrency"),
    moved("proxy.accessLogFile", Text, "meshConfig.accessLogFile"),
    moved("proxy.accessLogFormat", Text, "meshConfig.accessLogFormat"),
    moved("proxy.accessLogEncoding", Text, "meshConfig.accessLogEncoding"),
    moved("proxy.protocolDetectionTimeout", Text, "meshConfig.protocolDetectionTimeout"),
    moved("proxy.holdApplicationUntilProxyStarts", Flag, "meshConfig.defaultConfig.holdApplicationUntilProxyStarts"),
    used("proxy_init.image", Text),
    used("proxy_init.resources", Map),
    used("proxy_init.forceApplyIptables", Flag),
    used("sds.token.aud", Text),
    retired("sds.enabled", Flag, ALWAYS_SDS),
    used("tracer.zipkin.address", Text),
    used("tracer.datadog.address", Text),
    retired("tracer.stackdriver", Map, NO_STACKDRIVER),
    retired("tracer.lightstep", Map, "its collector takes OpenTelemetry: use an extension provider"),
    used("remotePilotAddress", Text),
    used("istiod.enableAnalysis", Flag),
    used("pilotCertProvider", Text),
    retired("jwtPolicy", Text, "tokens are always bound to an audience"),
    retired("sts.servicePort", Number, NO_TOKEN_EXCHANGE),
    used("mountMtlsCerts", Flag),
    used("caAddress", Text),
    used("caName", Text),
    used("externalIstiod", Flag),
    used("configCluster", Flag),
    used("ipFamilies", List),
    used("ipFamilyPolicy", Text),
    used("waypoint", Map),
    used("trustBundleName", Text),
    used("nativeNftables", Flag),
    used("networkPolicy.enabled", Flag),
    used("resourceScope", Text),
    retired("agentgateway", Map, "there is one proxy"),
    retired("enableReaderRBAC", Flag, "remote secrets are made for the control plane's own account"),
    retired("readerServiceAccount", Map, "remote secrets are made for the control plane's own account"),
    retired("controlPlaneSecurityEnabled", Flag, ALWAYS_SECURE),
    retired("k8sIngress", Map, "Ingresses are served by the gateway that meshConfig.ingressSelector names"),
    retired("useMCP", Flag, GALLEY),
    retired("policyCheckFailOpen", Flag, POLICY),
    retired("disablePolicyChecks", Flag, POLICY),
    retired("mtls.enabled", Flag, "a PeerAuthentication in the root namespace says it"),
    moved("mtls.auto", Flag, "meshConfig.enableAutoMtls"),
    moved("outboundTrafficPolicy.mode", Text, "meshConfig.outboundTrafficPolicy.mode"),
    moved("localityLbSetting", Map, "meshConfig.localityLbSetting"),
    moved("enableTracing", Flag, "meshConfig.enableTracing"),
    moved("trustDomain", Text, "meshConfig.trustDomain"),
    retired("meshExpansion.enabled", Flag, "a Gateway for port 15012 opens the mesh to machines"),
];

/// Below `values.pilot`.
pub const PILOT: &[Field] = &[
    moved("enabled", Flag, "components.pilot.enabled"),
    used("autoscaleEnabled", Flag),
    used("autoscaleMin", Number),
    used("autoscaleMax", Number),
    used("autoscaleBehavior", Map),
    used("replicaCount", Number),
    used("image", Text),
    used("hub", Text),
    used("tag", Scalar),
    retired("variant", Text, ONE_IMAGE),
    used("traceSampling", Number),
    used("resources", Map),
    used("cpu.targetAverageUtilization", Number),
    used("memory.targetAverageUtilization", Number),
    used("nodeSelector", Map),
    used("affinity", Map),
    used("tolerations", List),
    used("topologySpreadConstraints", List),
    used("keepaliveMaxServerConnectionAge", Text),
    used("deploymentLabels", Map),
    used("deploymentAnnotations", Map),
    used("podLabels", Map),
    used("podAnnotations", Map),
    used("serviceAnnotations", Map),
    used("serviceAccountAnnotations", Map),
    used("configMap", Flag),
    used("env", Map),
    used("envVarFrom", List),
    used("extraContainerArgs", List),
    used("volumes", List),
    used("volumeMounts", List),
    used("rollingMaxSurge", Scalar),
    used("rollingMaxUnavailable", Scalar),
    used("jwksResolverExtraRootCA", Text),
    used("seccompProfile", Map),
    used("ipFamilies", List),
    used("ipFamilyPolicy", Text),
    used("trafficDistribution", Text),
    moved("cni.enabled", Flag, "components.cni.enabled"),
    used("cni.provider", Text),
    retired("cni.chained", Flag, "values.cni.chained says it"),
    moved("taint.enabled", Flag, "values.cni.taint.enabled"),
    retired("taint.namespace", Text, TAINT),
    retired("taint.name", Text, TAINT),
    retired("trustedZtunnelNamespace", Text, NO_AMBIENT),
    retired("trustedZtunnelName", Text, NO_AMBIENT),
    used("crlConfigMapName", Text),
    retired("enableProtocolSniffing", Flag, SNIFFING),
    retired("enableProtocolSniffingForOutbound", Flag, SNIFFING),
    retired("enableProtocolSniffingForInbound", Flag, SNIFFING),
    retired("sidecar", Flag, "the control plane has no sidecar"),
    retired("policy.enabled", Flag, POLICY),
    moved("ingress.ingressService", Text, "meshConfig.ingressService"),
    moved("ingress.ingressControllerMode", Text, "meshConfig.ingressControllerMode"),
    moved("ingress.ingressClass", Text, "meshConfig.ingressClass"),
];

/// Below `values.cni`.
pub const CNI: &[Field] = &[
    moved("enabled", Flag, "components.cni.enabled"),
    used("hub", Text),
    used("tag", Scalar),
    retired("variant", Text, ONE_IMAGE),
    used("image", Text),
    used("pullPolicy", Text),
    used("cniBinDir", Text),
    used("cniConfDir", Text),
    used("cniConfFileName", Text),
    retired("cniNetnsDir", Text, "namespaces of pods are entered where the runtime says they are, or through /proc"),
    used("excludeNamespaces", List),
    used("affinity", Map),
    used("tolerations", List),
    used("env", Map),
    used("daemonSetLabels", Map),
    used("podAnnotations", Map),
    used("podLabels", Map),
    retired("psp_cluster_role", Text, "pod security policies are gone from Kubernetes"),
    moved("logLevel", Text, "values.cni.logging.level"),
    used("logging.level", Text),
    used("repair.enabled", Flag),
    used("repair.labelPods", Flag),
    used("repair.repairPods", Flag),
    used("repair.deletePods", Flag),
    used("repair.brokenPodLabelKey", Text),
    used("repair.brokenPodLabelValue", Text),
    used("repair.initContainerName", Text),
    retired("repair.hub", Text, ONE_IMAGE),
    retired("repair.tag", Scalar, ONE_IMAGE),
    retired("repair.image", Text, ONE_IMAGE),
    retired("repair.createEvents", Text, "each repair is an event"),
    used("chained", Flag),
    used("taint.enabled", Flag),
    used("resource_quotas.enabled", Flag),
    used("resource_quotas.pods", Number),
    used("resources", Map),
    retired("privileged", Flag, "it has the capabilities that it needs, and no more"),
    used("seccompProfile", Map),
    used("seLinuxOptions", Map),
    retired("ambient", Map, NO_AMBIENT),
    used("provider", Text),
    used("rollingMaxUnavailable", Scalar),
    used("istioOwnedCNIConfig", Flag),
    used("istioOwnedCNIConfigFileName", Text),
    retired("useAppArmorAnnotation", Flag, RUNTIME),
];

/// Below `values.gateways.NAME`.
pub const GATEWAY: &[Field] = &[
    used("enabled", Flag),
    used("name", Text),
    used("labels", Map),
    used("autoscaleEnabled", Flag),
    used("autoscaleMin", Number),
    used("autoscaleMax", Number),
    used("replicaCount", Number),
    used("cpu.targetAverageUtilization", Number),
    used("memory.targetAverageUtilization", Number),
    retired("customService", Flag, "the service is made; overlays change or remove it"),
    used("env", Map),
    used("loadBalancerIP", Text),
    used("loadBalancerSourceRanges", List),
    used("externalTrafficPolicy", Text),
    used("nodeSelector", Map),
    used("tolerations", List),
    used("affinity", Map),
    used("podAnnotations", Map),
    retired("podAntiAffinityLabelSelector", List, "affinity says it"),
    retired("podAntiAffinityTermLabelSelector", List, "affinity says it"),
    used("ports", List),
    retired("ingressPorts", List, "ports has them all"),
    retired("meshExpansionPorts", List, "ports has them all"),
    used("resources", Map),
    used("secretVolumes", List),
    used("configVolumes", List),
    used("additionalContainers", List),
    used("serviceAnnotations", Map),
    used("type", Text),
    used("rollingMaxSurge", Scalar),
    used("rollingMaxUnavailable", Scalar),
    used("runAsRoot", Flag),
    used("injectionTemplate", Text),
    used("serviceAccount.annotations", Map),
    used("ipFamilies", List),
    used("ipFamilyPolicy", Text),
    retired("sds", Map, ALWAYS_SDS),
    retired("zvpn", Map, "names of other clusters' services are the services' own"),
];

/// Below a component.
pub const COMPONENT: &[Field] =
    &[used("enabled", Flag), used("namespace", Text), used("hub", Text), used("tag", Scalar)];

/// Below a gateway of `components`, besides.
pub const GATEWAY_COMPONENT: &[Field] = &[used("name", Text), used("label", Map)];

/// Below a component's `k8s`.
pub const KUBERNETES: &[Field] = &[
    used("affinity", Map),
    used("env", List),
    used("hpaSpec", Map),
    used("imagePullPolicy", Text),
    used("nodeSelector", Map),
    used("podDisruptionBudget", Map),
    used("podAnnotations", Map),
    used("priorityClassName", Text),
    used("readinessProbe", Map),
    used("replicaCount", Number),
    used("resources", Map),
    used("service", Map),
    used("strategy", Map),
    used("tolerations", List),
    used("serviceAnnotations", Map),
    used("securityContext", Map),
    used("volumes", List),
    used("volumeMounts", List),
    used("overlays", List),
];

/// A place of the `spec` under which the fields of a table lie.
pub struct Section {
    pub at: &'static str,
    pub fields: &'static [Field],
}

const fn section(at: &'static str, fields: &'static [Field]) -> Section {
    Section { at, fields }
}

pub const SECTIONS: &[Section] = &[
    section("", SPEC),
    section("values.global", GLOBAL),
    section("values.pilot", PILOT),
    section("values.cni", CNI),
    section("values.gateways.istio-ingressgateway", GATEWAY),
    section("values.gateways.istio-egressgateway", GATEWAY),
    section("components.base", COMPONENT),
    section("components.base.k8s", KUBERNETES),
    section("components.pilot", COMPONENT),
    section("components.pilot.k8s", KUBERNETES),
    section("components.cni", COMPONENT),
    section("components.cni.k8s", KUBERNETES),
    section("components.ingressGateways.*", COMPONENT),
    section("components.ingressGateways.*", GATEWAY_COMPONENT),
    section("components.ingressGateways.*.k8s", KUBERNETES),
    section("components.egressGateways.*", COMPONENT),
    section("components.egressGateways.*", GATEWAY_COMPONENT),
    section("components.egressGateways.*.k8s", KUBERNETES),
];
