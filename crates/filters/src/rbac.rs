//! Role-based access control, evaluated over a connection and, for HTTP, a request.

use std::net::IpAddr;

use meltemi_http::RequestHead;
use meltemi_net::Address;
use meltemi_plan::rbac::{MetadataMatcher, Permission, Principal, RbacPolicy};
use meltemi_plan::{HeaderKey, HeaderLookup, HeaderMatcher, Rbac, RbacAction};

use crate::info::StreamInfo;
use crate::lookup::RequestFields;

/// What rules said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'a str>,
}

impl Verdict<'_> {
    /// As rules in shadow tell it, for those behind them and for logs.
    pub fn as_metadata(&self, prefix: &str) -> serde_json::Map<String, serde_json::Value> {
        let result = if self.allowed { "allowed" } else { "denied" };
        let policy = self.policy.map(|policy| (format!("{prefix}shadow_effective_policy_id"), policy.into()));
        policy.into_iter().chain([(format!("{prefix}shadow_engine_result"), result.into())]).collect()
    }

    /// As Envoy's log has it: `shadow denied, matched policy ns[a]-policy[b]-rule[0]`.
    fn in_words(&self, rules: &str) -> String {
        let result = if self.allowed { "allowed" } else { "denied" };
        format!("{rules} {result}, matched policy {}", self.policy.unwrap_or("none"))
    }
}

/// What rules in force say, told to who looks at it (logger `rbac`).
pub fn enforce<'a>(rules: &'a Rbac, request: Option<&RequestHead>, info: &StreamInfo) -> Verdict<'a> {
    let verdict = evaluate(rules, request, info);
    tracing::debug!("{}", verdict.in_words("enforced"));
    verdict
}

/// What rules in shadow, those of a dry run, would say; told likewise.
pub fn try_out<'a>(rules: &'a Rbac, request: Option<&RequestHead>, info: &StreamInfo) -> Verdict<'a> {
    let verdict = evaluate(rules, request, info);
    tracing::debug!("{}", verdict.in_words("shadow"));
    verdict
}

/// Evaluates rules. Without a request, what asks for one does not match.
pub fn evaluate<'a>(rules: &'a Rbac, request: Option<&RequestHead>, info: &StreamInfo) -> Verdict<'a> {
    let facts = Facts { request, info };
    let matched = rules.policies.iter().find(|policy| facts.matches(policy)).map(|p| &*p.name);
    let allowed = match rules.action {
        RbacAction::Allow => matched.is_some(),
        RbacAction::Deny => matched.is_none(),
        RbacAction::Log => true,
    };
    Verdict { allowed, policy: matched }
}

/// `rbac_access_denied_matched_policy[name]`, the detail of a denial.
pub fn denial(policy: Option<&str>) -> String {
    let name = policy.unwrap_or("none");
    let clean: String = name.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
    format!("rbac_access_denied_matched_policy[{clean}]")
}

struct Facts<'a> {
    request: Option<&'a RequestHead>,
    info: &'a StreamInfo,
}

impl Facts<'_> {
    fn matches(&self, policy: &RbacPolicy) -> bool {
        policy.permissions.iter().any(|p| self.permitted(p)) && policy.principals.iter().any(|p| self.is(p))
    }

    fn permitted(&self, permission: &Permission) -> bool {
        let local = || self.info.connection.local.socket();
        match permission {
            Permission::And(all) => all.iter().all(|p| self.permitted(p)),
            Permission::Or(any) => any.iter().any(|p| self.permitted(p)),
            Permission::Not(one) => !self.permitted(one),
            Permission::Any => true,
            Permission::Header(matcher) => self.header(matcher),
            Permission::Path(matcher) => self.request.is_some_and(|r| matcher.matches(r.path_only())),
            Permission::DestinationIp(range) => local().is_some_and(|a| range.contains(&a.ip())),
            Permission::DestinationPort(port) => local().is_some_and(|a| a.port() == *port),
            Permission::DestinationPortRange { start, end } => {
                local().is_some_and(|a| (*start..*end).contains(&u32::from(a.port())))
            }
            Permission::Metadata(matcher) => self.metadata(matcher),
            Permission::Template(template) => self.request.is_some_and(|r| template.matches(r.path_only())),
            Permission::ServerName(matcher) => {
                matcher.matches(self.info.connection.requested_server_name.as_deref().unwrap_or_default())
            }
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        match principal {
            Principal::And(all) => all.iter().all(|p| self.is(p)),
            Principal::Or(any) => any.iter().any(|p| self.is(p)),
            Principal::Not(one) => !self.is(one),
            Principal::Any => true,
            Principal::Authenticated(matcher) => self.authenticated(matcher.as_ref()),
            Principal::DirectRemoteIp(range) => {
                ip(&self.info.connection.direct_remote).is_some_and(|a| range.contains(&a))
            }
            Principal::RemoteIp(range) => ip(&self.info.remote).is_some_and(|a| range.contains(&a)),
            Principal::Header(matcher) => self.header(matcher),
            Principal::Path(matcher) => self.request.is_some_and(|r| matcher.matches(r.path_only())),
            Principal::Metadata(matcher) => self.metadata(matcher),
            Principal::FilterState { key, matcher } => self.state(key).is_some_and(|value| matcher.matches(&value)),
        }
    }

    /// Each of a field's values by itself (CVE-2026-26308): joined they would be one that no rule knows.
    fn header(&self, matcher: &HeaderMatcher) -> bool {
        let Some(head) = self.request else { return false };
        let fields = |name| head.headers.iter().filter(move |(own, _)| *own == name).map(|(_, value)| value.as_bytes());
        match &matcher.key {
            HeaderKey::Name(name) if fields(name).nth(1).is_some() => matcher.matches_one_of(fields(name)),
            _ => matcher.matches(&RequestFields(head) as &dyn HeaderLookup),
        }
    }

    /// Any URI SAN, any DNS SAN, or the subject: a certificate may be known by each of its names.
    fn authenticated(&self, matcher: Option<&meltemi_matchers::StringMatcher>) -> bool {
        let Some(peer) = self.info.connection.tls.as_ref().and_then(|tls| tls.peer.as_deref()) else { return false };
        let names = || peer.uri_sans.iter().chain(&peer.dns_sans).chain([&peer.subject]);
        matcher.is_none_or(|matcher| names().any(|name| matcher.matches(name.as_str())))
    }

    fn metadata(&self, matcher: &MetadataMatcher) -> bool {
        matcher.value.matches(self.info.found(&matcher.filter, &matcher.path)) != matcher.invert
    }

    /// `io.istio.peer_principal` is how Istio names a verified peer.
    fn state(&self, key: &str) -> Option<String> {
        match key {
            "io.istio.peer_principal" => self.info.connection.tls.as_ref()?.peer.as_ref()?.spiffe().map(str::to_owned),
            _ => self.info.state(key).map(str::to_owned),
        }
    }
}

fn ip(address: &Address) -> Option<IpAddr> {
    address.socket().map(|a| a.ip())
}

#[cfg(test)]
mod tests;
