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
    not_empty(&rule.audiences, "audience", &at.field("audiences"), v);
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
        v.require(
            &headers.index(i).field("name"),
            !header.name.is_empty(),
            "location header name must be non-empty string",
        );
        one_line(&header.name, &headers.index(i).field("name"), v);
        one_line(&header.prefix, &headers.index(i).field("prefix"), v);
    }
    one_line(&rule.output_payload_to_header, &at.field("outputPayloadToHeader"), v);
    not_empty(&rule.from_params, "location query", &at.field("fromParams"), v);
    not_empty(&rule.from_cookies, "cookie name", &at.field("fromCookies"), v);
    not_empty(&rule.space_delimited_claims, "claim", &at.field("spaceDelimitedClaims"), v);
    v.require(&at.field("spaceDelimitedClaims"), rule.space_delimited_claims.len() <= 64, "at most 64 claims");
    let claims = at.field("outputClaimToHeaders");
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = claims.index(i);
        if output.header.is_empty() || output.claim.is_empty() {
            v.error(&at, "outputClaimToHeaders header and claim value must be non-empty string");
        } else {
            v.check(&at.field("header"), names::strict_header_name(&output.header));
        }
    }
    common::duration(rule.timeout, &at.field("timeout"), v);
}

/// What is part of a header; a proxy refuses the whole listener for more.
fn one_line(text: &str, at: &Path<'_>, v: &mut Validation) {
    v.require(at, !text.contains(['\0', '\r', '\n']), "must be one line");
}

fn not_empty(list: &[Str], what: &str, at: &Path<'_>, v: &mut Validation) {
    for (i, item) in list.iter().enumerate() {
        v.require(&at.index(i), !item.is_empty(), format_args!("{what} must be non-empty string"));
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
            v.error(&at.field("provider"), "`provider.name` must not be empty");
        }
        (AuthorizationAction::Custom, _) => {}
        (_, Some(_)) => v.error(
            &at.field("provider"),
            format_args!("`provider` must not be with non CUSTOM action, found {}", spec.action),
        ),
        (_, None) => {}
    }
    let needs_rules = matches!(spec.action, AuthorizationAction::Deny | AuthorizationAction::Custom);
    if needs_rules && spec.rules.is_empty() {
        v.error(&at.field("rules"), format_args!(
                "{} action without `rules` is meaningless as it will never be triggered, add an empty rule `{{}}` if you want it \
                 be triggered for every request",
                spec.action
            ));
    }
    let rules = at.field("rules");
    v.require(&rules, spec.rules.len() <= 512, "at most 512 rules");
    for (i, rule) in spec.rules.iter().enumerate() {
        authorization_rule(rule, spec.action, &rules.index(i), v);
    }
}

fn authorization_rule(rule: &AuthorizationRule, action: AuthorizationAction, at: &Path<'_>, v: &mut Validation) {
    let from_at = at.field("from");
    if let Some(list) = &rule.from {
        v.require(&from_at, !list.is_empty(), "`from` must not be empty");
        for (i, from) in list.iter().enumerate() {
            source(from.source.as_ref(), &from_at.index(i).field("source"), v);
        }
    }
    let to_at = at.field("to");
    if let Some(list) = &rule.to {
        v.require(&to_at, !list.is_empty(), "`to` must not be empty");
        for (i, to) in list.iter().enumerate() {
            operation(to.operation.as_ref(), &to_at.index(i).field("operation"), v);
        }
    }
    let when = at.field("when");
    for (i, condition) in rule.when.iter().flatten().enumerate() {
        one_condition(condition, &when.index(i), v);
    }
    if action == AuthorizationAction::Custom {
        custom_rule(rule, at, v);
    }
    if action == AuthorizationAction::Deny && is_about_http_alone(rule) {
        v.warn(
            at,
            "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP \
             attributes in a DENY rule; it is recommended to explicitly specify the port",
        );
    }
}

/// True if nothing is left of the rule for a connection, which then is denied whatever it is.
fn is_about_http_alone(rule: &AuthorizationRule) -> bool {
    let mut sources = rule.from.iter().flatten().filter_map(|from| from.source.as_ref()).peekable();
    let mut operations = rule.to.iter().flatten().filter_map(|to| to.operation.as_ref()).peekable();
    let conditions = rule.when.as_deref().unwrap_or_default();
    if conditions.iter().any(|condition| &*condition.key == "destination.port") {
        return false;
    }
    if operations.peek().is_some() {
        return !operations.any(|o| o.ports.is_some() || o.not_ports.is_some());
    }
    if sources.peek().is_some() {
        return !sources.any(|s| source_lists(s)[REQUEST_LISTS..].iter().any(|(_, list)| list.is_some()));
    }
    !conditions.is_empty() && conditions.iter().all(|condition| condition.key.starts_with("request."))
}

/// An external provider is asked before the peer's identity is checked: rules about it cannot choose the requests.
fn custom_rule(rule: &AuthorizationRule, at: &Path<'_>, v: &mut Validation) {
    let from = at.field("from");
    for (i, source) in rule.from.iter().flatten().enumerate().filter_map(|(i, f)| Some((i, f.source.as_ref()?))) {
        let at = from.index(i);
        for (field, list) in &source_lists(source)[..IDENTITY_LISTS] {
            let set = list.as_ref().is_some_and(|list| !list.is_empty());
            v.require(
                &at.field("source").field(field),
                !set,
                format_args!("From.{field} is currently not supported with CUSTOM action"),
            );
        }
    }
    let when = at.field("when");
    for (i, condition) in rule.when.iter().flatten().enumerate() {
        let key = &*condition.key;
        let identity =
            matches!(key, "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal");
        let refused = identity || key.starts_with("request.auth.");
        let message = format_args!("{key} is currently not supported with CUSTOM action");
        v.require(&when.index(i).field("key"), !refused, message);
    }
}

/// A list of a source or operation: its name and its content.
type Attribute<'a> = (&'static str, &'a Option<Vec<Str>>);

/// How many of a source's lists, from the first, are about requests alone, and how many are about who asks.
const REQUEST_LISTS: usize = 2;
const IDENTITY_LISTS: usize = 10;

fn source_lists(s: &Source) -> [Attribute<'_>; 14] {
    [
        ("requestPrincipals", &s.request_principals),
        ("notRequestPrincipals", &s.not_request_principals),
        ("principals", &s.principals),
        ("notPrincipals", &s.not_principals),
        ("namespaces", &s.namespaces),
        ("notNamespaces", &s.not_namespaces),
        ("serviceAccounts", &s.service_accounts),
        ("notServiceAccounts", &s.not_service_accounts),
        ("trustDomains", &s.trust_domains),
        ("notTrustDomains", &s.not_trust_domains),
        ("ipBlocks", &s.ip_blocks),
        ("notIpBlocks", &s.not_ip_blocks),
        ("remoteIpBlocks", &s.remote_ip_blocks),
        ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
    ]
}

/// Checks that some list says something, and each value of each.
fn attributes(lists: &[Attribute<'_>], what: &str, at: &Path<'_>, v: &mut Validation) {
    let said = lists.iter().any(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()));
    v.require(at, said, format_args!("`{what}` must not be empty"));
    for (field, list) in lists {
        for (i, value) in list.iter().flatten().enumerate() {
            let at = at.field(field);
            v.check(&at.index(i), attribute_value(field, value));
            if WITH_WILDCARDS.contains(field) {
                literal_star(field, value, &at.index(i), v);
            }
        }
    }
}

/// Lists whose values may begin or end with `*`, and say nothing of one elsewhere.
const WITH_WILDCARDS: [&str; 10] = [
    "requestPrincipals",
    "notRequestPrincipals",
    "principals",
    "notPrincipals",
    "hosts",
    "notHosts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
];

/// Warns of a `*` that looks like a wildcard and, as in Istio, is compared as the character that it is.
fn literal_star(field: &str, value: &str, at: &Path<'_>, v: &mut Validation) {
    let Some(instead) = without_inner_star(field, value) else { return };
    v.warn(
        at,
        format_args!(
            "a * means anything only at the start or else at the end, and the one inside {value:?} only itself; write {instead}"
        ),
    );
}

/// What may be written for a value with a `*` inside; none for a value that has none there.
fn without_inner_star(field: &str, value: &str) -> Option<String> {
    let inner = value.strip_prefix('*').unwrap_or_else(|| value.strip_suffix('*').unwrap_or(value));
    let (first, last) = (inner.find('*')?, inner.rfind('*')?);
    if value.contains(['{', '}']) {
        return None;
    }
    let whole_segments = value.split('/').all(|segment| segment == "*" || !segment.contains('*'));
    if matches!(field, "paths" | "notPaths") && value.starts_with('/') && whole_segments {
        return Some(format!("{:?}, where {{*}} is one segment", value.replace('*', "{*}")));
    }
    let (before, after) = (&inner[..first], &inner[last + 1..]);
    let wider = match (value.starts_with('*'), after.len() < before.len()) {
        (false, shorter) if shorter || value.ends_with('*') => format!("{before}*"),
        _ => format!("*{after}"),
    };
    Some(match field {
        "principals" | "notPrincipals" | "source.principal" if after.starts_with("/sa/") && !value.ends_with('*') => {
            format!("\"*{after}\" for this account of any namespace and trust domain, or a value for each namespace")
        }
        _ if wider == "*" => "a value for each".to_owned(),
        _ => format!("{wider:?}, which takes more, or a value for each"),
    })
}

fn attribute_value(field: &str, value: &str) -> Result<(), String> {
    match field {
        _ if value.is_empty() => Err("empty value not allowed".into()),
        "ipBlocks" | "notIpBlocks" | "remoteIpBlocks" | "notRemoteIpBlocks" => names::ip_or_cidr(value),
        "serviceAccounts" | "notServiceAccounts" => service_account(value),
        "trustDomains" | "notTrustDomains" if value.contains('/') => {
            Err(format!("trust domain must not contain '/': {value:?}"))
        }
        "trustDomains" | "notTrustDomains" => wildcard(value),
        "ports" | "notPorts" => port(value),
        "paths" | "notPaths" => path_template(value),
        _ => Ok(()),
    }
}

fn source(source: Option<&Source>, at: &Path<'_>, v: &mut Validation) {
    let Some(s) = source else {
        v.error(at, "`from.source` must not be nil");
        return;
    };
    attributes(&source_lists(s), "from.source", at, v);
    let set = |list: &Option<Vec<Str>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let accounts = set(&s.service_accounts) || set(&s.not_service_accounts);
    let others = [&s.principals, &s.not_principals, &s.namespaces, &s.not_namespaces].into_iter().any(set);
    v.require(at, !(accounts && others), "cannot set serviceAccounts with namespaces or principals");
    for (field, list) in [("serviceAccounts", &s.service_accounts), ("notServiceAccounts", &s.not_service_accounts)] {
        let few = list.as_ref().is_none_or(|list| list.len() <= 16);
        v.require(&at.field(field), few, "may not have more than 16 values");
    }
}

/// A decimal number.
fn port(text: &str) -> Result<(), String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.parse::<u16>().is_ok() { Ok(()) } else { Err(format!("bad port ({text})")) }
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

fn operation(operation: Option<&Operation>, at: &Path<'_>, v: &mut Validation) {
    let Some(o) = operation else {
        v.error(at, "`to.operation` must not be nil");
        return;
    };
    let lists = [
        ("hosts", &o.hosts),
        ("notHosts", &o.not_hosts),
        ("methods", &o.methods),
        ("notMethods", &o.not_methods),
        ("paths", &o.paths),
        ("notPaths", &o.not_paths),
        ("ports", &o.ports),
        ("notPorts", &o.not_ports),
    ];
    attributes(&lists, "to.operation", at, v);
}

/// A path may have `{*}` for one segment and `{**}` for the rest; then no other wildcard, and only what a path of RFC 3986 has.
fn path_template(path: &str) -> Result<(), String> {
    if !path.contains(['{', '}']) {
        return Ok(());
    }
    let wrong = |why: &str| Err(format!("invalid or unsupported path {path}: {why}"));
    let mut rest_taken = false;
    let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    for segment in path.trim_matches('/').split('/') {
        if rest_taken && matches!(segment, "{*}" | "{**}") {
            return wrong("{**} is not the last operator");
        }
        match segment {
            "{*}" => {}
            "{**}" => rest_taken = true,
            s if s.contains(['{', '}']) => return wrong("Contains '{' or '}' beyond a supported path template"),
            s if s.contains('*') => {
                return wrong("Contains a segment with invalid string literal: * beside {*} or {**}");
            }
            "" => return wrong("Contains an empty segment, an invalid string literal"),
            s if !s.bytes().all(is_literal) => return wrong("Contains a segment with invalid string literal"),
            _ => {}
        }
    }
    Ok(())
}

fn one_condition(condition: &Condition, at: &Path<'_>, v: &mut Validation) {
    let key = &*condition.key;
    v.require(&at.field("key"), !key.is_empty(), "`key` must not be empty");
    v.require(&at.field("key"), is_condition_key(key), format_args!("unknown attribute {key:?}"));
    let written = [&condition.values, &condition.not_values].into_iter().flatten().any(|list| !list.is_empty());
    v.require(at, written, format_args!("at least one of `values` or `notValues` must be set for key {key}"));
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let at = at.field(field);
        for (i, value) in list.iter().flatten().enumerate() {
            let at = at.index(i);
            v.require(&at, !value.is_empty(), "empty value not allowed");
            match key {
                "source.ip" | "remote.ip" | "destination.ip" => v.check(&at, names::ip_or_cidr(value)),
                "source.serviceAccount" => v.check(&at, service_account(value)),
                "source.trustDomain" => v.check(&at, wildcard(value)),
                "source.principal" | "connection.sni" => literal_star(key, value, &at, v),
                _ if key.starts_with("request.") => literal_star(key, value, &at, v),
                "destination.port" => v.check(&at, port(value)),
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
