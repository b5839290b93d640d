use super::*;
use crate::header::HeaderLookup;
use serde_json::{Value, json};
use std::borrow::Cow;

struct Headers(Vec<(&'static str, &'static str)>);

impl HeaderLookup for Headers {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        let values: Vec<&str> =
            self.0.iter().filter(|(name, _)| *name == key.as_str()).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| values.join(",").into_bytes().into())
    }
}

fn plan(document: Value) -> RouteConfiguration {
    crate::route_configuration(&meltemi_proto::json::from_value(&document).unwrap()).unwrap()
}

/// Routes that forward to clusters `0`, `1`, ... in order.
fn routes(matches: Value) -> RouteConfiguration {
    let routes: Vec<Value> = matches
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, found)| json!({ "name": index.to_string(), "match": found, "route": { "cluster": "c" } }))
        .collect();
    plan(json!({ "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": routes }] }))
}

fn request<'a>(path: &'a str, headers: &'a Headers) -> RouteRequest<'a> {
    RouteRequest {
        host: "a.com",
        path,
        headers,
        random: 0,
        is_connect: false,
        tls_presented: false,
        tls_validated: false,
        metadata: None,
    }
}

fn name(plan: &RouteConfiguration, request: &RouteRequest<'_>) -> Option<String> {
    plan.find(request).map(|(_, route)| route.name.to_string())
}

fn by_path(plan: &RouteConfiguration, path: &str) -> Option<String> {
    name(plan, &request(path, &Headers(vec![])))
}

#[test]
fn the_first_route_whose_path_matches_wins() {
    let plan = routes(json!([
        { "path": "/exact" },
        { "path": "/CASE", "case_sensitive": false },
        { "path_separated_prefix": "/api" },
        { "safe_regex": { "regex": "/r/[0-9]+" } },
        { "prefix": "/Pre", "case_sensitive": false },
        { "prefix": "/last" },
    ]));
    let cases = [
        ("/exact", "0"),
        ("/exact?q=1", "0"),
        ("/exact#f", "0"),
        ("/case", "1"),
        ("/api", "2"),
        ("/api/x?y", "2"),
        ("/api?y", "2"),
        ("/r/12", "3"),
        ("/r/12?x=y", "3"),
        ("/pRefix", "4"),
        ("/last", "5"),
    ];
    for (path, expected) in cases {
        assert_eq!(by_path(&plan, path).as_deref(), Some(expected), "{path}");
    }
    for path in ["/exact/", "/EXACT", "/apix", "/r/12a", "/", "", "/las"] {
        assert_eq!(by_path(&plan, path), None, "{path}");
    }
}

#[test]
fn a_host_is_chosen_before_its_routes() {
    let host = |name: &str, domains: &[&str]| json!({ "name": name, "domains": domains, "routes": [{ "name": name, "match": { "prefix": "/x" }, "route": { "cluster": "c" } }] });
    let mut document = json!({ "virtual_hosts": [host("any", &["*"]), host("wild", &["*.b.com"]), host("exact", &["a.b.com", "a.b.com:8080"])] });
    let find = |plan: &RouteConfiguration, host: &str, path: &str| {
        let headers = Headers(vec![]);
        name(plan, &RouteRequest { host, ..request(path, &headers) })
    };
    let built = plan(document.clone());
    assert_eq!(find(&built, "A.b.com", "/x").as_deref(), Some("exact"));
    assert_eq!(find(&built, "a.b.com:8080", "/x").as_deref(), Some("exact"));
    assert_eq!(find(&built, "a.b.com:81", "/x").as_deref(), Some("any"));
    assert_eq!(find(&built, "z.b.com", "/x").as_deref(), Some("wild"));
    assert_eq!(find(&built, "a.b.com", "/y"), None, "no fall back to another host");
    document["ignore_port_in_host_matching"] = true.into();
    let built = plan(document);
    assert_eq!(find(&built, "z.b.com:81", "/x").as_deref(), Some("wild"));
}

#[test]
fn ports_are_cut_from_hosts() {
    for (host, expected) in [
        ("a:80", "a"),
        ("a", "a"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("a:", "a:"),
        ("a:b", "a:b"),
    ] {
        assert_eq!(without_port(host), expected);
    }
}

#[test]
fn headers_are_matched_as_envoy_does() {
    let check = |matcher: Value, headers: &[(&'static str, &'static str)], expected: bool| {
        let plan = routes(json!([{ "prefix": "/", "headers": [matcher.clone()] }]));
        let headers = Headers(headers.to_vec());
        assert_eq!(plan.find(&request("/", &headers)).is_some(), expected, "{matcher} on {:?}", headers.0);
    };
    check(json!({ "name": "a", "string_match": { "exact": "1" } }), &[("a", "1")], true);
    check(json!({ "name": "A", "string_match": { "exact": "1" } }), &[("a", "1")], true);
    check(json!({ "name": "a", "string_match": { "exact": "1,2" } }), &[("a", "1"), ("a", "2")], true);
    check(json!({ "name": "a", "string_match": { "exact": "1" }, "invert_match": true }), &[("a", "2")], true);
    check(json!({ "name": "a", "string_match": { "exact": "1" }, "invert_match": true }), &[], false);
    check(
        json!({ "name": "a", "string_match": { "exact": "1" }, "invert_match": true, "treat_missing_header_as_empty": true }),
        &[],
        true,
    );
    check(json!({ "name": "a" }), &[("a", "")], true);
    check(json!({ "name": "a", "present_match": false }), &[], true);
    check(json!({ "name": "a", "present_match": false }), &[("a", "1")], false);
    check(json!({ "name": "a", "present_match": true, "invert_match": true }), &[], true);
    check(json!({ "name": "a", "range_match": { "start": "-5", "end": "5" } }), &[("a", "-5")], true);
    check(json!({ "name": "a", "range_match": { "start": "0", "end": "5" } }), &[("a", "5")], false);
    check(json!({ "name": "a", "range_match": { "start": "0", "end": "5" } }), &[("a", "x")], false);
    check(json!({ "name": ":method", "string_match": { "exact": "GET" } }), &[(":method", "GET")], true);
    check(json!({ "name": "host", "string_match": { "exact": "h" } }), &[(":authority", "h")], true);
}

#[test]
fn query_cookies_and_grpc() {
    let check = |matcher: Value, path: &str, headers: &[(&'static str, &'static str)], expected: bool| {
        let mut full = matcher.clone();
        full["prefix"] = "/".into();
        let plan = routes(json!([full]));
        let headers = Headers(headers.to_vec());
        assert_eq!(plan.find(&request(path, &headers)).is_some(), expected, "{matcher} on {path}");
    };
    let query = |value: Value| json!({ "query_parameters": [value] });
    check(query(json!({ "name": "a" })), "/?a", &[], true);
    check(query(json!({ "name": "a" })), "/?b=a", &[], false);
    check(query(json!({ "name": "a", "present_match": false })), "/?b", &[], true);
    check(query(json!({ "name": "a", "string_match": { "exact": "x%20y" } })), "/?z=1&a=x%20y", &[], true);
    check(query(json!({ "name": "a", "string_match": { "exact": "x y" } })), "/?z=1&a=x%20y", &[], false);
    check(query(json!({ "name": "a", "string_match": { "exact": "1" } })), "/?a=2&a=1", &[], false);
    let cookies = json!({ "cookies": [{ "name": "c", "string_match": { "exact": "1" } }] });
    check(cookies.clone(), "/", &[("cookie", "b=2; c=1")], true);
    check(cookies.clone(), "/", &[("cookie", "c=\"1\"")], true);
    check(cookies, "/", &[("cookie", "xc=1")], false);
    check(json!({ "grpc": {} }), "/", &[("content-type", "application/grpc+proto")], true);
    check(json!({ "grpc": {} }), "/", &[("content-type", "application/grpc-web")], false);
}

#[test]
fn fractions_follow_the_streams_random_value() {
    let plan = routes(json!([
        { "prefix": "/", "runtime_fraction": { "default_value": { "numerator": 25 } } },
        { "prefix": "/" },
    ]));
    let headers = Headers(vec![]);
    for (random, expected) in [(0, "0"), (24, "0"), (25, "1"), (99, "1"), (100, "0")] {
        assert_eq!(
            name(&plan, &RouteRequest { random, ..request("/", &headers) }).as_deref(),
            Some(expected),
            "{random}"
        );
    }
}

#[test]
fn connect_has_a_matcher_of_its_own() {
    let plan = routes(json!([{ "connect_matcher": {} }, { "prefix": "/" }]));
    let headers = Headers(vec![]);
    assert_eq!(name(&plan, &RouteRequest { is_connect: true, ..request("", &headers) }).as_deref(), Some("0"));
    assert_eq!(by_path(&plan, "/").as_deref(), Some("1"));
}

#[test]
fn path_parameters_are_ignored_when_asked() {
    let mut document = json!({ "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
        { "name": "0", "match": { "path": "/a" }, "route": { "cluster": "c" } }] }] });
    assert_eq!(by_path(&plan(document.clone()), "/a;v=1?x"), None);
    document["ignore_path_parameters_in_path_matching"] = true.into();
    assert_eq!(by_path(&plan(document), "/a;v=1?x").as_deref(), Some("0"));
}

#[test]
fn weights_divide_the_random_values() {
    let plan = plan(
        json!({ "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": {
        "weighted_clusters": { "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 0 }, { "name": "c", "weight": 3 }] } } }] }] }),
    );
    let super::super::ClusterSpec::Weighted(weighted) = &plan.virtual_hosts[0].routes[0].forward().unwrap().cluster
    else {
        panic!("not weighted");
    };
    let picks: Vec<u32> = (0..5).map(|value| weighted.pick(value).weight).collect();
    assert_eq!(picks, [1, 3, 3, 3, 1]);
}

#[test]
fn the_first_condition_that_is_not_met_is_told() {
    let plan = routes(json!([
        { "prefix": "/a" },
        { "prefix": "/", "headers": [{ "name": "x", "string_match": { "exact": "1" } }], "query_parameters": [
            { "name": "q", "present_match": true }] },
        { "prefix": "/", "query_parameters": [{ "name": "p", "present_match": true }, { "name": "q", "present_match": true }] },
        { "prefix": "/", "runtime_fraction": { "default_value": { "numerator": 5 } } },
        { "prefix": "/" },
    ]));
    let headers = Headers(vec![]);
    let request = RouteRequest { random: 7, ..request("/?p=1", &headers) };
    let told: Vec<String> = plan.virtual_hosts[0]
        .routes
        .iter()
        .map(|route| match plan.mismatch(route, &request) {
            Some(Mismatch::Path(_)) => "path".to_owned(),
            Some(Mismatch::Header(header)) => header.key.to_string(),
            Some(Mismatch::Query(query)) => query.name.to_string(),
            Some(Mismatch::Fraction(fraction)) => fraction.numerator.to_string(),
            None => "none".to_owned(),
            Some(other) => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["path", "x", "q", "5", "none"]);
    assert_eq!(name(&plan, &request).as_deref(), Some("4"));
}
