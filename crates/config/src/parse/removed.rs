//! Fields that an older Istio had and that are gone: accepted with a warning that says what became of them.

const HEADERS: &str = "removed from Istio; use `headers.request` and `headers.response`";
const MIXER: &str = "removed from Istio together with Mixer; it has no effect";

static REMOVED: &[(&str, &str, &str)] = &[
    ("HttpRoute", "appendHeaders", HEADERS),
    ("HttpRoute", "appendRequestHeaders", HEADERS),
    ("HttpRoute", "removeRequestHeaders", HEADERS),
    ("HttpRoute", "appendResponseHeaders", HEADERS),
    ("HttpRoute", "removeResponseHeaders", HEADERS),
    ("HttpRoute", "websocketUpgrade", "no longer needed: WebSocket upgrades are always allowed"),
    ("HttpRouteDestination", "appendRequestHeaders", HEADERS),
    ("HttpRouteDestination", "removeRequestHeaders", HEADERS),
    ("HttpRouteDestination", "appendResponseHeaders", HEADERS),
    ("HttpRouteDestination", "removeResponseHeaders", HEADERS),
    ("ServerTlsSettings", "sdsConfig", "removed from Istio; use `credentialName`"),
    ("OutlierDetection", "http", "removed from Istio; write its fields in `outlierDetection` itself"),
    ("MeshConfig", "mixerCheckServer", MIXER),
    ("MeshConfig", "mixerReportServer", MIXER),
    ("MeshConfig", "mixerAddress", MIXER),
    ("MeshConfig", "disablePolicyChecks", MIXER),
    ("MeshConfig", "disableMixerHttpReports", MIXER),
    ("MeshConfig", "policyCheckFailOpen", MIXER),
    ("MeshConfig", "sidecarToTelemetrySessionAffinity", MIXER),
    ("MeshConfig", "enableClientSidePolicyCheck", MIXER),
    ("MeshConfig", "disableReportBatch", MIXER),
    ("MeshConfig", "reportBatchMaxEntries", MIXER),
    ("MeshConfig", "reportBatchMaxTime", MIXER),
    ("MeshConfig", "authPolicy", "removed from Istio; use PeerAuthentication"),
    ("MeshConfig", "rdsRefreshDelay", "removed from Istio; routes are pushed"),
    ("MeshConfig", "sdsUdsPath", "removed from Istio; certificates always come over SDS"),
    ("MeshConfig", "sdsRefreshDelay", "removed from Istio; certificates always come over SDS"),
    ("MeshConfig", "enableSdsTokenMount", "removed from Istio; certificates always come over SDS"),
    ("MeshConfig", "sdsUseK8sSaJwt", "removed from Istio; certificates always come over SDS"),
    ("MeshConfig", "thriftConfig", "removed from Istio; it has no effect"),
    ("MeshConfig", "terminationDrainDuration", "moved to `defaultConfig.terminationDrainDuration`"),
    ("MeshConfig", "concurrency", "moved to `defaultConfig.concurrency`"),
    ("ProxyConfig", "parentShutdownDuration", "removed from Istio; it has no effect"),
    ("ProxyConfig", "connectTimeout", "moved to MeshConfig's `connectTimeout`"),
];

/// What became of a field of this struct.
pub(super) fn note(of: &str, field: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(s, f, _)| *s == of && *f == field).map(|(_, _, note)| *note)
}
