//! Envoy's RBAC, evaluated field by field from its JSON: slow, and without a look at how we make it.

use std::net::IpAddr;

use meltemi_matchers::FullRegex;
use serde_json::Value;

use super::meaning::Request;

/// Whether the filters let the request through: each of DENY and ALLOW in turn.
pub fn allows(filters: &[Value], request: &Request) -> bool {
    filters.iter().all(|filter| {
        let rules = &filter["typed_config"]["rules"];
        let policies = rules["policies"].as_object().into_iter().flat_map(|policies| policies.values());
        let matched = policies.into_iter().any(|policy| {
            let list = |key: &str| policy[key].as_array().cloned().unwrap_or_default();
            list("permissions").iter().any(|one| permission(one, request))
                && list("principals").iter().any(|one| principal(one, request))
        });
        match rules["action"].as_str() {
            Some("DENY") => !matched,
            None => matched,
            Some(other) => panic!("{other}"),
        }
    })
}

/// The one field that is set.
fn only(value: &Value) -> (&str, &Value) {
    let fields = value.as_object().unwrap();
    assert_eq!(fields.len(), 1, "{value}");
    fields.iter().next().map(|(key, inner)| (key.as_str(), inner)).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn permission(value: &Value, request: &Request) -> bool {
    match only(value) {
        ("any", _) => true,
        ("and_rules", all) => list(all, "rules").iter().all(|one| permission(one, request)),
        ("or_rules", any) => list(any, "rules").iter().any(|one| permission(one, request)),
        ("not_rule", inner) => !permission(inner, request),
        ("destination_port", port) => *port == request.port,
        ("requested_server_name", name) => text(name, request.sni),
        ("header", matcher) => header(matcher, request),
        ("url_path", path) => text(&path["path"], http(request).path),
        (other, _) => panic!("{other}"),
    }
}

fn principal(value: &Value, request: &Request) -> bool {
    match only(value) {
        ("any", _) => true,
        ("and_ids", all) => list(all, "ids").iter().all(|one| principal(one, request)),
        ("or_ids", any) => list(any, "ids").iter().any(|one| principal(one, request)),
        ("not_id", inner) => !principal(inner, request),
        ("authenticated", name) => request
            .identity
            .as_ref()
            .is_some_and(|identity| text(&name["principal_name"], &format!("spiffe://{}", identity.name()))),
        ("direct_remote_ip", range) => contains(range, request.peer),
        ("remote_ip", range) => contains(range, request.remote),
        ("header", matcher) => header(matcher, request),
        ("metadata", metadata) => claim(metadata, request),
        (other, _) => panic!("{other}"),
    }
}

/// Nothing of HTTP may be asked of a connection.
fn http(request: &Request) -> &Request {
    assert!(request.http);
    request
}

fn text(matcher: &Value, found: &str) -> bool {
    let fold = |text: &str| if matcher["ignore_case"] == true { text.to_lowercase() } else { text.to_owned() };
    let found = fold(found);
    let pattern = |key: &str| matcher[key].as_str().map(&fold);
    if let Some(exact) = pattern("exact") {
        return found == exact;
    }
    if let Some(prefix) = pattern("prefix") {
        assert!(!prefix.is_empty());
        return found.starts_with(&prefix);
    }
    if let Some(suffix) = pattern("suffix") {
        assert!(!suffix.is_empty());
        return found.ends_with(&suffix);
    }
    let regex = matcher["safe_regex"]["regex"].as_str().unwrap();
    FullRegex::new(regex).unwrap().matches(found.as_bytes())
}

fn header(matcher: &Value, request: &Request) -> bool {
    let found = match matcher["name"].as_str().unwrap() {
        ":authority" => Some(http(request).host),
        ":method" => Some(http(request).method),
        "x-a" => http(request).header,
        other => panic!("{other}"),
    };
    match &matcher["string_match"] {
        Value::Null => matcher["present_match"] == true && found.is_some(),
        wanted => found.is_some_and(|found| text(wanted, found)),
    }
}

fn contains(range: &Value, address: IpAddr) -> bool {
    let (prefix, length) = (range["address_prefix"].as_str().unwrap(), range["prefix_len"].as_u64().unwrap());
    format!("{prefix}/{length}").parse::<ipnet::IpNet>().unwrap().contains(&address)
}

fn claim(metadata: &Value, request: &Request) -> bool {
    assert_eq!(metadata["filter"], "envoy.filters.http.jwt_authn");
    let mut found = &http(request).token;
    let path = list(metadata, "path");
    assert_eq!(path[0]["key"], "payload");
    for segment in &path[1..] {
        found = &found[segment["key"].as_str().unwrap()];
    }
    value(&metadata["value"], found)
}

fn value(matcher: &Value, found: &Value) -> bool {
    match only(matcher) {
        ("string_match", wanted) => found.as_str().is_some_and(|found| text(wanted, found)),
        ("list_match", wanted) => {
            found.as_array().is_some_and(|found| found.iter().any(|one| value(&wanted["one_of"], one)))
        }
        ("or_match", any) => list(any, "value_matchers").iter().any(|one| value(one, found)),
        (other, _) => panic!("{other}"),
    }
}
