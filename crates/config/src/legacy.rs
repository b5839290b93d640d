//! Groups that Istio had once: what took the place of each of their kinds.
//!
//! Owns the answers. No document of these groups but Mixer's quotas is read.

/// A group, its kinds, and what to write instead.
static REPLACED: &[(&str, &[&str], &str)] = &[
    (
        "authentication.istio.io",
        &["Policy"],
        "write a PeerAuthentication for mutual TLS and a RequestAuthentication for tokens (security.istio.io/v1)",
    ),
    (
        "authentication.istio.io",
        &["MeshPolicy"],
        "write a PeerAuthentication (security.istio.io/v1) in the root namespace",
    ),
    (
        "rbac.istio.io",
        &["ServiceRole", "ServiceRoleBinding", "AuthorizationPolicy"],
        "write an AuthorizationPolicy (security.istio.io/v1): the role is its `to`, the binding its `from`",
    ),
    (
        "rbac.istio.io",
        &["ClusterRbacConfig", "RbacConfig"],
        "an AuthorizationPolicy (security.istio.io/v1) is in force where it stands; one with an empty `spec` refuses all",
    ),
    (
        "config.istio.io",
        &["memquota", "quota", "redisquota", "QuotaSpec", "QuotaSpecBinding"],
        "write a RateLimitPolicy (meltemi.io/v1alpha1)",
    ),
    (
        "config.istio.io",
        &["rule", "handler", "instance", "adapter", "template", "attributemanifest"],
        "write a Telemetry (telemetry.istio.io/v1) for what was reported, an AuthorizationPolicy (security.istio.io/v1) \
         for what was checked, a RateLimitPolicy (meltemi.io/v1alpha1) for quotas",
    ),
    (
        "config.istio.io",
        &[
            "metric",
            "prometheus",
            "logentry",
            "stdio",
            "fluentd",
            "tracespan",
            "zipkin",
            "stackdriver",
            "statsd",
            "reportnothing",
        ],
        "write a Telemetry (telemetry.istio.io/v1), with a provider of MeshConfig's `extensionProviders`",
    ),
    (
        "config.istio.io",
        &["denier", "checknothing", "listchecker", "listentry", "authorization", "rbac", "opa"],
        "write an AuthorizationPolicy (security.istio.io/v1), with action CUSTOM where another service decides",
    ),
    (
        "config.istio.io",
        &["HTTPAPISpec", "HTTPAPISpecBinding"],
        "write a VirtualService (networking.istio.io/v1), whose routes have names",
    ),
];

/// True if Istio had the group once and has it no more.
pub fn is_group(group: &str) -> bool {
    REPLACED.iter().any(|(known, ..)| *known == group)
}

/// What to write in the place of a document that Istio had once.
pub fn replacement(group: &str, kind: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(known, kinds, _)| *known == group && kinds.contains(&kind)).map(|(.., instead)| *instead)
}
