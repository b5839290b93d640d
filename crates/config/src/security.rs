//! `security.istio.io`: PeerAuthentication, RequestAuthentication, AuthorizationPolicy, and the two ways a policy says
//! whom it is for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::{Str, enumeration, message};

message! {
    /// `matchLabels`; empty selects all in the namespace.
    struct LabelSelector {
        match_labels: BTreeMap<Str, Str>,
    }

    struct PolicyTargetReference {
        group: Str,
        kind: Str,
        name: Str,
        namespace: Str,
    }

    /// `security.istio.io` PeerAuthentication.
    struct PeerAuthentication {
        selector: Option<LabelSelector>,
        mtls: Option<MutualTls>,
        /// By workload port. None are written by leaving it out.
        #[serde(deserialize_with = "crate::wire::not_empty")]
        port_level_mtls: BTreeMap<u32, MutualTls>,
    }

    struct MutualTls {
        mode: MutualTlsMode,
    }

    /// `security.istio.io` RequestAuthentication.
    struct RequestAuthentication {
        selector: Option<LabelSelector>,
        /// Deprecated; `target_refs` with one entry.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }

    struct JwtRule {
        issuer: Str,
        audiences: Vec<Str>,
        jwks_uri: Str,
        jwks: Str,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<Str>,
        from_cookies: Vec<Str>,
        output_payload_to_header: Str,
        output_claim_to_headers: Vec<ClaimToHeader>,
        forward_original_token: bool,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        space_delimited_claims: Vec<Str>,
    }

    struct JwtHeader {
        name: Str,
        prefix: Str,
    }

    struct ClaimToHeader {
        header: Str,
        claim: Str,
    }

    /// `security.istio.io` AuthorizationPolicy.
    struct AuthorizationPolicy {
        selector: Option<LabelSelector>,
        /// Deprecated; `target_refs` with one entry.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        rules: Vec<AuthorizationRule>,
        action: AuthorizationAction,
        provider: Option<ExtensionProviderRef>,
    }

    struct ExtensionProviderRef {
        name: Str,
    }

    /// `None` is absent; an empty list was written and is an error.
    struct AuthorizationRule {
        from: Option<Vec<RuleFrom>>,
        to: Option<Vec<RuleTo>>,
        when: Option<Vec<Condition>>,
    }

    struct RuleFrom {
        source: Option<Source>,
    }

    struct RuleTo {
        operation: Option<Operation>,
    }

    /// An empty list says no more than an absent one.
    struct Source {
        principals: Option<Vec<Str>>,
        not_principals: Option<Vec<Str>>,
        request_principals: Option<Vec<Str>>,
        not_request_principals: Option<Vec<Str>>,
        namespaces: Option<Vec<Str>>,
        not_namespaces: Option<Vec<Str>>,
        service_accounts: Option<Vec<Str>>,
        not_service_accounts: Option<Vec<Str>>,
        ip_blocks: Option<Vec<Str>>,
        not_ip_blocks: Option<Vec<Str>>,
        remote_ip_blocks: Option<Vec<Str>>,
        not_remote_ip_blocks: Option<Vec<Str>>,
        trust_domains: Option<Vec<Str>>,
        not_trust_domains: Option<Vec<Str>>,
    }

    /// An empty list says no more than an absent one.
    struct Operation {
        hosts: Option<Vec<Str>>,
        not_hosts: Option<Vec<Str>>,
        ports: Option<Vec<Str>>,
        not_ports: Option<Vec<Str>>,
        methods: Option<Vec<Str>>,
        not_methods: Option<Vec<Str>>,
        paths: Option<Vec<Str>>,
        not_paths: Option<Vec<Str>>,
    }

    struct Condition {
        key: Str,
        values: Option<Vec<Str>>,
        not_values: Option<Vec<Str>>,
    }
}

enumeration! {
    enum MutualTlsMode {
        #[default]
        Unset = "UNSET",
        Disable = "DISABLE",
        Permissive = "PERMISSIVE",
        Strict = "STRICT",
    }

    enum AuthorizationAction {
        #[default]
        Allow = "ALLOW",
        Deny = "DENY",
        Audit = "AUDIT",
        Custom = "CUSTOM",
    }
}
