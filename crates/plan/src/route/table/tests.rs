use super::*;
use crate::route::RouteConfiguration;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::borrow::Cow;

struct Headers(Vec<(String, String)>);

impl HeaderLookup for Headers {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        let found = self.0.iter().find(|(name, _)| name == key.as_str())?;
        Some(Cow::Borrowed(found.1.as_bytes()))
    }
}

fn plan(matches: &[Value]) -> RouteConfiguration {
    let route =
        |(at, found): (usize, &Value)| json!({ "name": at.to_string(), "match": found, "route": { "cluster": "c" } });
    let routes: Vec<Value> = matches.iter().enumerate().map(route).collect();
    let document = json!({ "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": routes }] });
    crate::route_configuration(&meltemi_proto::json::from_value(&document).unwrap()).unwrap()
}

fn request<'a>(path: &'a str, headers: &'a Headers) -> RouteRequest<'a> {
    RouteRequest {
        host: "a.example",
        path,
        headers,
        random: 0,
        is_connect: false,
        tls_presented: false,
        tls_validated: false,
        metadata: None,
    }
}

fn found(plan: &RouteConfiguration, request: &RouteRequest<'_>) -> Option<String> {
    plan.find(request).map(|(_, route)| route.name.to_string())
}

fn looked_at(plan: &RouteConfiguration, request: &RouteRequest<'_>) -> usize {
    let index = plan.virtual_hosts[0].routes.index.as_ref().expect("an index");
    index.candidates(request, request.path).iter().map(|list| list.len()).sum()
}

#[test]
fn of_a_thousand_paths_few_are_looked_at() {
    let mut matches: Vec<Value> = (0..1000).map(|n| json!({ "prefix": format!("/api/v1/resource-{n:04}/") })).collect();
    matches.extend((0..100).map(|n| json!({ "path": format!("/exact-{n}") })));
    matches.push(json!({ "safe_regex": { "regex": "/never" } }));
    matches.push(json!({ "prefix": "/" }));
    let plan = plan(&matches);
    let headers = Headers(Vec::new());
    for (path, expected) in [("/api/v1/resource-0999/x", "999"), ("/exact-99", "1099"), ("/exact-9x", "1101")] {
        let request = request(path, &headers);
        assert_eq!(found(&plan, &request).as_deref(), Some(expected), "{path}");
        assert!(looked_at(&plan, &request) <= 3, "{path}: {}", looked_at(&plan, &request));
    }
}

#[test]
fn of_a_thousand_header_values_few_are_looked_at() {
    let exact = |name: &str, value: String| json!({ "name": name, "string_match": { "exact": value } });
    let mut matches: Vec<Value> = (0..1000)
        .map(|n| json!({ "prefix": "/", "headers": [exact(":method", "GET".to_owned()), exact("x-tenant", format!("t{n}"))] }))
        .collect();
    matches.push(json!({ "prefix": "/", "headers": [{ "name": "x-tenant", "string_match": { "prefix": "t" } }] }));
    let plan = plan(&matches);
    let of = |tenant: &str| Headers(vec![(":method".into(), "GET".into()), ("x-tenant".into(), tenant.into())]);
    for (tenant, expected) in [("t999", Some("999")), ("t1000", Some("1000")), ("u", None)] {
        let headers = of(tenant);
        let request = request("/", &headers);
        assert_eq!(found(&plan, &request).as_deref(), expected, "{tenant}");
        assert!(looked_at(&plan, &request) <= 2, "{tenant}");
    }
}

fn literal() -> impl Strategy<Value = String> {
    "/[abA/]{0,3}"
}

fn matching() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        (literal(), any::<bool>()).prop_map(|(text, cased)| json!({ "prefix": text, "case_sensitive": cased })),
        (literal(), any::<bool>()).prop_map(|(text, cased)| json!({ "path": text, "case_sensitive": cased })),
        "/[abA]{1,3}".prop_map(|text| json!({ "path_separated_prefix": text })),
        Just(json!({ "safe_regex": { "regex": "/a.*" } })),
        Just(json!({ "connect_matcher": {} })),
    ];
    let test = prop_oneof![
        ("[a-z]", any::<bool>())
            .prop_map(|(text, fold)| json!({ "string_match": { "exact": text, "ignore_case": fold } })),
        "[a-z]".prop_map(|text| json!({ "string_match": { "exact": text }, "invert_match": true })),
        Just(json!({ "string_match": { "exact": "" }, "treat_missing_header_as_empty": true })),
        "[a-z]".prop_map(|text| json!({ "string_match": { "exact": text } })),
    ];
    let header = (prop_oneof![Just("x"), Just("y")], test).prop_map(|(name, mut test)| {
        test["name"] = json!(name);
        test
    });
    (path, prop::collection::vec(header, 0..3)).prop_map(|(mut found, headers)| {
        found["headers"] = json!(headers);
        found
    })
}

proptest! {
    // Each builds a plan.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_index_finds_what_a_look_at_each_route_finds(
        matches in prop::collection::vec(matching(), WORTH_AN_INDEX..80),
        path in prop_oneof![literal(), Just(String::new())],
        headers in prop::collection::vec((prop_oneof![Just("x".to_owned()), Just("y".to_owned())], "[a-zA]?"), 0..2),
        is_connect in any::<bool>(),
    ) {
        let plan = plan(&matches);
        let headers = Headers(headers);
        let request = RouteRequest { is_connect, ..request(&path, &headers) };
        let routes = &plan.virtual_hosts[0].routes;
        let expected = routes.iter().find(|route| route.matcher.matches(&request, &path));
        prop_assert_eq!(found(&plan, &request), expected.map(|route| route.name.to_string()));
    }
}
