//! RequestAuthentications as Envoy's `jwt_authn` filter: a token that comes must be valid, and none need come.
//!
//! Owns the filter and where each rule's keys come from. Keys that nobody has yet are replaced by a key set that verifies
//! nothing, so that one issuer that cannot be reached neither opens a door nor closes another's.

mod key_set;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use meltemi_config::security::JwtRule;
use meltemi_config::wire::Str;
use meltemi_model::{KeyFetch, KeySource};
use meltemi_proto::envoy::config::core::v3::{HttpUri, http_uri};
use meltemi_proto::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use meltemi_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use meltemi_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use meltemi_proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
    JwtRequirementOrList, RemoteJwks, RequirementRule, requirement_rule,
};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::listener::http_filter;
use crate::view::View;
use crate::{names, wire};

/// The filter's name, under which it leaves a verified token in the request's metadata.
pub const FILTER: &str = "envoy.filters.http.jwt_authn";

/// Where in that metadata the claims are.
pub const PAYLOAD: &str = "payload";

/// How long a proxy may take to fetch keys, where the rule does not say.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a proxy uses keys that it fetched itself.
const CACHE_DURATION: Duration = Duration::from_secs(300);

/// Claims that list words with spaces between them, whatever the rule says.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// Everything that a proxy's filter depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Authentication {
    /// By issuer.
    rules: Vec<Rule>,
    /// A gateway's routes may depend on claims.
    clear_route_cache: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rule {
    rule: JwtRule,
    keys: Keys,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Keys {
    Here(Str),
    /// The proxy fetches them, from this cluster.
    Remote(Arc<str>),
    /// Nobody has them yet.
    Unknown,
}

impl Authentication {
    pub fn of(view: &View<'_>) -> Self {
        let policies = view.snapshot.request_authentications(&view.snapshot.workload(view.node));
        let rules = policies.iter().flat_map(|policy| policy.spec.jwt_rules.iter());
        let mut rules: Vec<_> = rules.map(|rule| Rule { rule: rule.clone(), keys: keys(view, rule) }).collect();
        rules.sort_by(|a, b| a.rule.issuer.cmp(&b.rule.issuer));
        Self { rules, clear_route_cache: !view.node.is_sidecar() }
    }

    /// Clusters from which the proxy fetches keys.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().filter_map(|rule| match &rule.keys {
            Keys::Remote(cluster) => Some(cluster),
            Keys::Here(_) | Keys::Unknown => None,
        })
    }

    pub fn http_filter(&self) -> Option<HttpFilter> {
        if self.rules.is_empty() {
            return None;
        }
        let named = || self.rules.iter().enumerate().map(|(index, rule)| (format!("origins-{index}"), rule));
        let names: Vec<String> = named().map(|(name, _)| name).collect();
        let config = JwtAuthentication {
            providers: named().map(|(name, rule)| (name, self.provider(rule))).collect(),
            rules: vec![RequirementRule {
                r#match: Some(RouteMatch {
                    path_specifier: Some(PathSpecifier::Prefix("/".into())),
                    ..RouteMatch::default()
                }),
                requirement_type: Some(requirement_rule::RequirementType::Requires(requirement(&names))),
            }],
            bypass_cors_preflight: true,
            ..JwtAuthentication::default()
        };
        Some(http_filter(FILTER, &config))
    }

    fn provider(&self, Rule { rule, keys }: &Rule) -> JwtProvider {
        let strings = |list: &[Str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let header = |header: &meltemi_config::security::JwtHeader| JwtHeader {
            name: header.name.to_string(),
            value_prefix: header.prefix.to_string(),
        };
        let claim = |output: &meltemi_config::security::ClaimToHeader| JwtClaimToHeader {
            header_name: output.header.to_string(),
            claim_name: output.claim.to_string(),
            ..JwtClaimToHeader::default()
        };
        JwtProvider {
            issuer: rule.issuer.to_string(),
            audiences: strings(&rule.audiences),
            forward: rule.forward_original_token,
            from_headers: rule.from_headers.iter().map(header).collect(),
            from_params: strings(&rule.from_params),
            from_cookies: strings(&rule.from_cookies),
            forward_payload_header: rule.output_payload_to_header.to_string(),
            payload_in_metadata: PAYLOAD.into(),
            normalize_payload_in_metadata: Some(NormalizePayload {
                space_delimited_claims: space_delimited(&rule.space_delimited_claims),
            }),
            claim_to_headers: rule.output_claim_to_headers.iter().map(claim).collect(),
            clear_route_cache: self.clear_route_cache,
            jwks_source_specifier: Some(source(rule, keys)),
            ..JwtProvider::default()
        }
    }
}

fn space_delimited(own: &[Str]) -> Vec<String> {
    let all: BTreeSet<&str> = own.iter().map(|claim| &**claim).chain(SPACE_DELIMITED).collect();
    all.into_iter().map(str::to_owned).collect()
}

fn source(rule: &JwtRule, keys: &Keys) -> JwksSourceSpecifier {
    match keys {
        Keys::Here(keys) => JwksSourceSpecifier::LocalJwks(wire::inline_string(key_set::sound(keys))),
        Keys::Unknown => JwksSourceSpecifier::LocalJwks(wire::inline_string(key_set::none())),
        Keys::Remote(cluster) => JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(HttpUri {
                uri: rule.jwks_uri.to_string(),
                timeout: Some(wire::duration(rule.timeout.unwrap_or(FETCH_TIMEOUT))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster.to_string())),
            }),
            cache_duration: Some(wire::duration(CACHE_DURATION)),
            ..RemoteJwks::default()
        }),
    }
}

fn keys(view: &View<'_>, rule: &JwtRule) -> Keys {
    let Some(own) = KeySource::of(rule) else { return Keys::Here(rule.jwks.clone()) };
    let mode = view.snapshot.options.key_fetch;
    if mode != KeyFetch::ControlPlane
        && let Some((host, port)) = server_of(&rule.jwks_uri)
    {
        match view.find_service(host) {
            Some(service) => return Keys::Remote(names::outbound(port, "", &service).into()),
            // A ServiceEntry may still come.
            None if mode == KeyFetch::Proxy => return Keys::Remote(names::outbound(port, "", host).into()),
            None => {}
        }
    }
    view.snapshot.key_sets.get(&own).map_or(Keys::Unknown, |keys| Keys::Here(keys.clone()))
}

/// Host and port of an HTTP URL.
fn server_of(url: &str) -> Option<(&str, u32)> {
    let (default, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (80, rest),
        (None, rest) => (443, rest?),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    Some(names::host_and_port(server).unwrap_or((server, default))).filter(|(host, _)| !host.is_empty())
}

/// A token of any of them, or of each either a valid one or none: issuers may look for theirs in the same place.
fn requirement(names: &[String]) -> JwtRequirement {
    let provider = |name: &String| of(RequiresType::ProviderName(name.clone()));
    let optional = |name: &String| any(vec![provider(name), of(RequiresType::AllowMissing(()))]);
    match names {
        [only] => optional(only),
        _ => {
            let each = JwtRequirementAndList { requirements: names.iter().map(optional).collect() };
            any(names.iter().map(provider).chain([of(RequiresType::RequiresAll(each))]).collect())
        }
    }
}

fn any(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    of(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn of(requires: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requires) }
}

#[cfg(test)]
mod tests;
