//! Flags of debug output, under istiod's variables.

use std::collections::BTreeSet;

#[derive(Debug, Clone, clap::Args)]
pub struct DebugArgs {
    /// Serve debug pages on the HTTP ports; over xDS they always are
    #[arg(long = "debugOnHTTP", env = "ENABLE_DEBUG_ON_HTTP", num_args = 0..=1, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub debug_on_http: bool,
    /// Show callers of other namespaces the proxies of their own only, and nobody anything who does not prove an identity
    #[arg(long = "debugEndpointAuth", env = "ENABLE_DEBUG_ENDPOINT_AUTH", num_args = 0..=1, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub debug_endpoint_auth: bool,
    /// Namespaces whose callers see everything, besides the control plane's and the root namespace, with commas between them
    #[arg(
        long = "debugEndpointAuthAllowedNamespaces",
        env = "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES",
        default_value = "",
        value_delimiter = ','
    )]
    pub debug_endpoint_auth_allowed_namespaces: Vec<String>,
}

/// Who sees debug output, and where.
#[derive(Debug, Clone)]
pub struct DebugOptions {
    pub on_http: bool,
    /// Callers that are not on this machine must prove who they are, and see what is theirs.
    pub authorization: bool,
    /// Namespaces whose callers see everything, besides the control plane's and the root namespace.
    pub namespaces: BTreeSet<String>,
}

impl Default for DebugOptions {
    /// Istio's.
    fn default() -> Self {
        Self { on_http: true, authorization: true, namespaces: BTreeSet::new() }
    }
}

impl DebugArgs {
    pub(super) fn options(self) -> DebugOptions {
        let named = self.debug_endpoint_auth_allowed_namespaces.into_iter();
        let namespaces = named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        DebugOptions {
            on_http: self.debug_on_http,
            authorization: self.debug_endpoint_auth,
            namespaces: namespaces.collect(),
        }
    }
}
