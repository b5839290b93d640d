//! Rate limits: `meltemi.io` RateLimitPolicy, our own kind, and the configuration document of a rate limit server, in the format
//! of Envoy's reference server.

mod server;

use std::collections::BTreeMap;
use std::time::Duration;

pub use server::{LimitBlock, LimitDescriptor, RateLimitConfiguration, RateLimitUnit, Replaced};

use crate::networking::StringMatch;
use crate::security::{LabelSelector, PolicyTargetReference};
use crate::wire::{Str, enumeration, message};

message! {
    /// `meltemi.io` RateLimitPolicy: how many requests a workload or a gateway takes.
    struct RateLimitPolicy {
        /// The workloads. None: all of the namespace; in the root namespace, of the mesh.
        selector: Option<LabelSelector>,
        /// Gateways of the Gateway API, in the place of a selector.
        target_refs: Vec<PolicyTargetReference>,
        rules: Vec<RateLimitRule>,
    }

    /// One limit. A request counts against every rule that matches it.
    struct RateLimitRule {
        /// Of counts and of a server's metrics. Empty: the rule's place in the list.
        name: Str,
        /// None: every request.
        #[serde(rename = "match")]
        matches: Option<RateLimitMatch>,
        limit: Option<RateLimit>,
        /// A count for each combination of these. Empty: one count. A request that lacks one of them is not counted.
        by: Vec<RateLimitKey>,
        scope: RateLimitScope,
        /// Who counts where the scope is `GLOBAL`.
        provider: Option<RateLimitProvider>,
        /// What a request too many gets.
        response: Option<RateLimitResponse>,
        /// Counts, and refuses nothing.
        dry_run: bool,
    }

    /// All of what is set must match; of a list, one. `prefix*`, `*suffix` and `*` as in AuthorizationPolicy.
    struct RateLimitMatch {
        hosts: Vec<Str>,
        methods: Vec<Str>,
        /// Without the query.
        paths: Vec<Str>,
        /// As in a VirtualService.
        headers: BTreeMap<Str, StringMatch>,
    }

    struct RateLimit {
        requests: u32,
        /// One of `unit` and `interval`.
        unit: Option<RateLimitUnit>,
        #[serde(with = "crate::wire::duration")]
        interval: Option<Duration>,
        /// How many may come at once after a pause; default `requests`. Only of `LOCAL`.
        burst: Option<u32>,
    }

    /// Exactly one.
    struct RateLimitKey {
        /// The value of this request header.
        header: Str,
        /// A claim of the verified token: `sub`, or `[realm][group]`.
        claim: Str,
        /// Without the query.
        path: bool,
        method: bool,
        host: bool,
        /// The client's, where proxies before this one are trusted.
        remote_address: bool,
        /// The SPIFFE id that the client's certificate proves.
        source_principal: bool,
        /// Always this: for the documents of a server that is not ours.
        value: Str,
    }

    struct RateLimitProvider {
        /// `host:port` of a service of the mesh that speaks Envoy's rate limit protocol.
        address: Str,
        /// Of the server's documents; default `meltemi`.
        domain: Str,
        /// Default 20 ms.
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        /// Whether requests pass when it does not answer; default true.
        fail_open: Option<bool>,
    }

    struct RateLimitResponse {
        /// Default 429.
        status: u32,
        headers: BTreeMap<Str, Str>,
    }
}

enumeration! {
    /// Who shares a count.
    enum RateLimitScope {
        /// Each proxy has its own.
        #[default]
        Local = "LOCAL",
        /// All proxies that ask the same provider.
        Global = "GLOBAL",
    }
}

/// Where a key's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RateLimitSource<'a> {
    Header(&'a Str),
    Claim(&'a Str),
    Path,
    Method,
    Host,
    RemoteAddress,
    SourcePrincipal,
    Value(&'a Str),
}

impl RateLimitKey {
    /// All sources that are set.
    pub fn sources(&self) -> impl Iterator<Item = RateLimitSource<'_>> {
        use RateLimitSource::{Claim, Header, Host, Method, Path, RemoteAddress, SourcePrincipal, Value};
        let texts = [(&self.header, Header as fn(_) -> _), (&self.claim, Claim), (&self.value, Value)];
        let texts = texts.into_iter().filter(|(text, _)| !text.is_empty()).map(|(text, of)| of(text));
        let flags = [
            (self.path, Path),
            (self.method, Method),
            (self.host, Host),
            (self.remote_address, RemoteAddress),
            (self.source_principal, SourcePrincipal),
        ];
        texts.chain(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, source)| source))
    }

    /// The source of a valid key.
    pub fn source(&self) -> Option<RateLimitSource<'_>> {
        self.sources().next()
    }
}

/// The names of a claim: `sub` is one, `[realm][group]` are two.
pub fn claim_path(claim: &str) -> Option<Vec<&str>> {
    let Some(inner) = claim.strip_prefix('[') else {
        return (!claim.is_empty() && !claim.contains(['[', ']'])).then(|| vec![claim]);
    };
    let names: Vec<_> = inner.strip_suffix(']')?.split("][").collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}
