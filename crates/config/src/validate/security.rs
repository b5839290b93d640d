//! PeerAuthentication, RequestAuthentication, AuthorizationPolicy.

use super::{Validation, common};
use crate::names;
use crate::path::Path;
use crate::security::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, JwtRule, Operation, PeerAuthentication,
    RequestAuthentication, Source,
};
use crate::wire::Str;

pub(super) fn peer_authentication(spec: &PeerAuthentication, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    let ports = at.field("portLevelMtls");
    let selected = spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() {
        v.require(&ports, selected, "portLevelMtls requires selector");
    }
    for port in spec.port_level_mtls.keys() {
        v.check(&ports.field(&port.to_string()), names::port(*port));
    }
}

pub(super) fn request_authentication(spec: &RequestAuthentication, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), spec.target_ref.as_ref(), &spec.target_refs, at, v);
    let rules = at.field("jwtRules");
    v.require(&rules, spec.jwt_rules.len() <= 4096, "at most 4096 rules");
    for (i, rule) in spec.jwt_rules.iter().enumerate() {
        jwt_rule(rule, &rules.index(i), v);
    }
}

fn jwt_rule(rule: &JwtRule, at: &Path<'_>, v: &mut Validation) {
    if rule.issuer.is_empty() {
        let issuer = at.field("issuer");
        v.require(&issuer, !rule.jwks_uri.is_empty(), "issuer or jwksUri must be non-empty string");
    }
    not_empty(&rule.audiences, &at.field("audiences"), v);
    if !rule.jwks_uri.is_empty() {
        v.check(&at.field("jwksUri"), http_url(&rule.jwks_uri));
        v.require(at, rule.jwks.is_empty(), "only one of jwks or jwksUri can be set");
    }
    if !rule.jwks.is_empty() {
        match key_set(&rule.jwks) {
            Ok(keys) => private_keys(&keys, &at.field("jwks"), v),
            Err(error) => v.error(&at.field("jwks"), error),
        }
    }
    let headers = at.field("fromHeaders");
    for (i, header) in rule.from_headers.iter().enumerate() {
        v.require(&headers.index(i).field("name"), !header.name.is_empty(), "location header name must be set");
        one_line(&header.name, &headers.index(i).field("name"), v);
        one_line(&header.prefix, &headers.index(i).field("prefix"), v);
    }
    one_line(&rule.output_payload_to_header, &at.field("outputPayloadToHeader"), v);
    not_empty(&rule.from_params, &at.field("fromParams"), v);
    not_empty(&rule.from_cookies, &at.field("fromCookies"), v);
    not_empty(&rule.space_delimited_claims, &at.field("spaceDelimitedClaims"), v);
    v.require(&at.field("spaceDelimitedClaims"), rule.space_delimited_claims.len() <= 64, "at most 64 claims");
    let claims = at.field("outputClaimToHeaders");
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = claims.index(i);
        v.check(&at.field("header"), names::strict_header_name(&output.header));
        v.require(&at.field("claim"), !output.claim.is_empty(), "claim must be set");
    }
    common::duration(rule.timeout, &at.field("timeout"), v);
}

/// What is part of a header; a proxy refuses the whole listener for more.
fn one_line(text: &str, at: &Path<'_>, v: &mut Validation) {
    v.require(at, !text.contains(['\0', '\r', '\n']), "must be one line");
}

fn not_empty(list: &[Str], at: &Path<'_>, v: &mut Validation) {
    for (i, item) in list.iter().enumerate() {
        v.require(&at.index(i), !item.is_empty(), "must not be empty");
    }
}

fn http_url(text: &str) -> Result<(), String> {
    let url: http::Uri = text.parse().map_err(|_| format!("{text:?} is not a URL"))?;
    let host = url.authority().is_some_and(|a| !a.host().is_empty());
    // `Uri` drops a port that is no number instead of refusing it.
    let port = url.authority().is_none_or(|a| {
        let after = a.as_str().rsplit_once('@').map_or(a.as_str(), |(_, h)| h);
        let number = after.rsplit_once(':').filter(|_| !after.ends_with(']')).map(|(_, p)| p);
        number.is_none_or(|p| p.parse::<u16>().is_ok())
    });
    match url.scheme_str() {
        Some("http" | "https") if host && port && text.len() <= 2048 => Ok(()),
        _ => Err("url must have scheme http:// or https:// and a host".into()),
    }
}

/// The keys of a set, or a key alone.
fn key_set(text: &str) -> Result<Vec<serde_json::Value>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("jwks parse error: {e}"))?;
    match value.get("keys").and_then(|k| k.as_array()) {
        Some(keys) => Ok(keys.clone()),
        None if value.get("kty").is_some() => Ok(vec![value]),
        None => Err("jwks parse error: neither a list of keys nor a key".into()),
    }
    .and_then(|keys| keys.iter().enumerate().try_for_each(whole_key).map(|()| keys))
}

/// What a key of each type needs (RFC 7518, 6; RFC 8037, 2).
fn whole_key((i, key): (usize, &serde_json::Value)) -> Result<(), String> {
    let kind = key.get("kty").and_then(|kind| kind.as_str()).unwrap_or_default();
    let needed: &[&str] = match kind {
        "RSA" => &["n", "e"],
        "EC" => &["crv", "x", "y"],
        "OKP" => &["crv", "x"],
        "oct" => &["k"],
        other => return Err(format!("jwks parse error: key {i}: the type {other:?} is not known")),
    };
    match needed.iter().find(|name| !key.get(**name).is_some_and(serde_json::Value::is_string)) {
        Some(name) => Err(format!("jwks parse error: key {i}: {kind} needs {name:?}")),
        None => Ok(()),
    }
}

fn private_keys(keys: &[serde_json::Value], at: &Path<'_>, v: &mut Validation) {
    for (i, key) in keys.iter().enumerate() {
        if key.get("d").is_some() || key.get("kty").is_some_and(|kind| kind == "oct") {
            v.warn(
                at,
                format_args!(
                    "jwks key at index {i} contains private key material; only public keys are used for verification"
                ),
            );
        }
    }
}

pub(super) fn authorization_policy(spec: &AuthorizationPolicy, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), spec.target_ref.as_ref(), &spec.target_refs, at, v);
    let provider = spec.provider.as_ref().map(|p| &*p.name);
    match (spec.action, provider) {
        (AuthorizationAction::Custom, None | Some("")) => {
            v.error(&at.field("provider"), "action CUSTOM needs provider.name");
        }
        (AuthorizationAction::Custom, _) => {}
        (_, Some(_)) => v.error(&at.field("provider"), "provider is only for action CUSTOM"),
        (_, None) => {}
    }
    let needs_rules = matches!(spec.action, AuthorizationAction::Deny | AuthorizationAction::Custom);
    if needs_rules && spec.rules.is_empty() {
        v.error(&at.field("rules"), format_args!("action {} without rules matches nothing", spec.action));
    }
    let rules = at.field("rules");
    v.require(&rules, spec.rules.len() <= 512, "at most 512 rules");
    for (i, rule) in spec.rules.iter().enumerate() {
        authorization_rule(rule, spec.action, &rules.index(i), v);
    }
}

fn authorization_rule(rule: &AuthorizationRule, action: AuthorizationAction, at: &Path<'_>, v: &mut Validation) {
    let mut l7 = false;
    let mut ports = false;
    if let Some(list) = &rule.from {
        let at = at.field("from");
        v.require(&at, !list.is_empty(), "`from` cannot be empty");
        for (i, from) in list.iter().enumerate() {
            let at = at.index(i);
            source(from.source.as_ref(), &at.field("source"), &mut l7, v);
        }
    }
    if let Some(list) = &rule.to {
        let at = at.field("to");
        v.require(&at, !list.is_empty(), "`to` cannot be empty");
        for (i, to) in list.iter().enumerate() {
            let at = at.index(i);
            operation(to.operation.as_ref(), &at.field("operation"), &mut l7, v);
            ports |= to.operation.as_ref().is_some_and(|o| o.ports.is_some() || o.not_ports.is_some());
        }
    }
    let when = at.field("when");
    for (i, condition) in rule.when.iter().flatten().enumerate() {
        l7 |= condition.key.starts_with("request.");
        ports |= &*condition.key == "destination.port";
        one_condition(condition, &when.index(i), v);
    }
    if action == AuthorizationAction::Custom {
        custom_rule(rule, at, v);
    }
    if l7 && !ports && action == AuthorizationAction::Deny {
        v.warn(at, "a DENY rule with HTTP attributes and without ports denies all TCP traffic as well");
    }
}

/// An external provider is asked before the peer's identity is checked: rules about it cannot choose the requests.
fn custom_rule(rule: &AuthorizationRule, at: &Path<'_>, v: &mut Validation) {
    let from = at.field("from");
    for (i, source) in rule.from.iter().flatten().enumerate().filter_map(|(i, f)| Some((i, f.source.as_ref()?))) {
        let at = from.index(i);
        for (field, set) in [
            ("principals", source.principals.is_some()),
            ("notPrincipals", source.not_principals.is_some()),
            ("requestPrincipals", source.request_principals.is_some()),
            ("notRequestPrincipals", source.not_request_principals.is_some()),
            ("namespaces", source.namespaces.is_some()),
            ("notNamespaces", source.not_namespaces.is_some()),
            ("serviceAccounts", source.service_accounts.is_some()),
            ("notServiceAccounts", source.not_service_accounts.is_some()),
            ("trustDomains", source.trust_domains.is_some()),
            ("notTrustDomains", source.not_trust_domains.is_some()),
        ] {
            v.require(&at.field("source").field(field), !set, "not supported with action CUSTOM");
        }
    }
    let when = at.field("when");
    for (i, condition) in rule.when.iter().flatten().enumerate() {
        let key = &*condition.key;
        let identity =
            matches!(key, "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal");
        let refused = identity || key.starts_with("request.auth.");
        v.require(&when.index(i).field("key"), !refused, "not supported with action CUSTOM");
    }
}

/// A list of a source or operation: its name, its content, whether it is about HTTP.
type Attribute<'a> = (&'static str, &'a Option<Vec<Str>>, bool);

/// Checks the lists; true if at least one was written.
fn attributes(lists: &[Attribute<'_>], l7: &mut bool, at: &Path<'_>, v: &mut Validation) -> bool {
    for (field, list, http) in lists {
        let Some(list) = list else { continue };
        let at = at.field(field);
        v.require(&at, !list.is_empty(), "the list cannot be empty");
        not_empty(list, &at, v);
        *l7 |= http;
    }
    lists.iter().any(|(_, list, _)| list.is_some())
}

fn source(source: Option<&Source>, at: &Path<'_>, l7: &mut bool, v: &mut Validation) {
    let Some(s) = source else {
        v.error(at, "source is required");
        return;
    };
    let lists = [
        ("principals", &s.principals, false),
        ("notPrincipals", &s.not_principals, false),
        ("requestPrincipals", &s.request_principals, true),
        ("notRequestPrincipals", &s.not_request_principals, true),
        ("namespaces", &s.namespaces, false),
        ("notNamespaces", &s.not_namespaces, false),
        ("serviceAccounts", &s.service_accounts, false),
        ("notServiceAccounts", &s.not_service_accounts, false),
        ("ipBlocks", &s.ip_blocks, false),
        ("notIpBlocks", &s.not_ip_blocks, false),
        ("remoteIpBlocks", &s.remote_ip_blocks, false),
        ("notRemoteIpBlocks", &s.not_remote_ip_blocks, false),
        ("trustDomains", &s.trust_domains, false),
        ("notTrustDomains", &s.not_trust_domains, false),
    ];
    let written = attributes(&lists, l7, at, v);
    v.require(at, written, "source cannot be empty");
    for (field, list, _) in &lists[8..12] {
        let at = at.field(field);
        for (i, block) in list.iter().flatten().enumerate() {
            v.check(&at.index(i), names::ip_or_cidr(block));
        }
    }
    let accounts = s.service_accounts.is_some() || s.not_service_accounts.is_some();
    let others =
        s.principals.is_some() || s.not_principals.is_some() || s.namespaces.is_some() || s.not_namespaces.is_some();
    v.require(at, !(accounts && others), "cannot set serviceAccounts with namespaces or principals");
    for (field, list, _) in &lists[6..8] {
        let at = at.field(field);
        v.require(&at, list.as_ref().is_none_or(|l| l.len() <= 16), "at most 16 service accounts");
        for (i, account) in list.iter().flatten().enumerate() {
            v.check(&at.index(i), service_account(account));
        }
    }
    for (field, list, _) in &lists[12..] {
        let at = at.field(field);
        for (i, domain) in list.iter().flatten().enumerate() {
            v.check(&at.index(i), wildcard(domain));
            v.require(&at.index(i), !domain.contains('/'), format_args!("{domain:?}: a trust domain has no slash"));
        }
    }
}

/// `name` or `namespace/name`.
fn service_account(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let well_formed = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty()) && !text.contains('*');
    if well_formed && text.len() <= 320 { Ok(()) } else { Err(format!("{text:?} is not namespace/name or name")) }
}

/// At most one `*`, at the start or at the end.
fn wildcard(text: &str) -> Result<(), String> {
    match text.find('*') {
        Some(at) if at != text.len() - 1 && at != 0 || text.matches('*').count() > 1 => {
            Err(format!("{text:?}: one * may stand at the start or at the end"))
        }
        _ => Ok(()),
    }
}

fn operation(operation: Option<&Operation>, at: &Path<'_>, l7: &mut bool, v: &mut Validation) {
    let Some(o) = operation else {
        v.error(at, "operation is required");
        return;
    };
    let lists = [
        ("hosts", &o.hosts, true),
        ("notHosts", &o.not_hosts, true),
        ("methods", &o.methods, true),
        ("notMethods", &o.not_methods, true),
        ("paths", &o.paths, true),
        ("notPaths", &o.not_paths, true),
        ("ports", &o.ports, false),
        ("notPorts", &o.not_ports, false),
    ];
    let written = attributes(&lists, l7, at, v);
    v.require(at, written, "operation cannot be empty");
    for (field, list, _) in &lists[6..] {
        let at = at.field(field);
        for (i, port) in list.iter().flatten().enumerate() {
            let number = port.parse::<u16>().is_ok_and(|p| p > 0);
            v.require(&at.index(i), number, format_args!("{port:?} is not a port"));
        }
    }
    for (field, list, _) in &lists[4..6] {
        let at = at.field(field);
        for (i, path) in list.iter().flatten().enumerate() {
            v.check(&at.index(i), path_template(path));
        }
    }
}

/// A path may have `{*}` for one segment and `{**}` for the rest; then no other wildcard, and only what a path of RFC 3986 has.
fn path_template(path: &str) -> Result<(), String> {
    if !path.contains(['{', '}']) {
        return Ok(());
    }
    let wrong = |why: &str| Err(format!("invalid path template {path:?}: {why}"));
    let mut rest_taken = false;
    let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    for segment in path.trim_matches('/').split('/') {
        if rest_taken && matches!(segment, "{*}" | "{**}") {
            return wrong("{**} must be the last template");
        }
        match segment {
            "{*}" => {}
            "{**}" => rest_taken = true,
            s if s.contains(['{', '}']) => return wrong("{*} and {**} must be whole segments"),
            s if s.contains('*') => return wrong("* cannot be combined with {*} or {**}"),
            "" => return wrong("a segment is empty"),
            s if !s.bytes().all(is_literal) => return wrong("a segment has a character that no path can have"),
            _ => {}
        }
    }
    Ok(())
}

fn one_condition(condition: &Condition, at: &Path<'_>, v: &mut Validation) {
    let key = &*condition.key;
    v.require(&at.field("key"), !key.is_empty(), "key cannot be empty");
    v.require(&at.field("key"), is_condition_key(key), format_args!("unknown attribute {key:?}"));
    let written = condition.values.is_some() || condition.not_values.is_some();
    v.require(at, written, "at least one of values and notValues must be set");
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let at = at.field(field);
        for (i, value) in list.iter().flatten().enumerate() {
            let at = at.index(i);
            v.require(&at, !value.is_empty(), "must not be empty");
            match key {
                "source.ip" | "remote.ip" | "destination.ip" => v.check(&at, names::ip_or_cidr(value)),
                "source.serviceAccount" => v.check(&at, service_account(value)),
                "source.trustDomain" => v.check(&at, wildcard(value)),
                "destination.port" => {
                    let number = value.parse::<u16>().is_ok_and(|p| p > 0);
                    v.require(&at, number, format_args!("{value:?} is not a port"));
                }
                _ => {}
            }
        }
    }
}

fn is_condition_key(key: &str) -> bool {
    const PLAIN: [&str; 12] = [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "source.trustDomain",
    ];
    let indexed = |prefix: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']'))
    };
    PLAIN.contains(&key)
        || indexed("request.headers")
        || indexed("request.auth.claims")
        || key
            .strip_prefix("experimental.envoy.filters.")
            .and_then(|rest| rest.strip_suffix(']')?.split_once('['))
            .is_some_and(|(filter, key)| !filter.is_empty() && !key.is_empty())
}
