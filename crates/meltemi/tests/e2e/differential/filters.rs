//! HTTP filters, mirroring, timeouts and local replies.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, cluster, manager};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const PROBES: usize = 40;
const ORIGINS: &[&str] = &["http://good.example", "https://x.good.example", "null", "http://bad.example"];

fn cors(random: &mut Random) -> Value {
    let mut policy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [
            { "exact": "http://good.example" }, { "suffix": random.pick(&[".good.example", ".other.example"]) }],
    });
    let mut maybe = |key: &str, value: Value| {
        if random.chance(50) {
            policy[key] = value;
        }
    };
    maybe("allow_methods", json!("GET,POST"));
    maybe("allow_headers", json!("x-a,x-b"));
    maybe("expose_headers", json!("x-c"));
    maybe("max_age", json!("100"));
    maybe("allow_credentials", json!(true));
    maybe("allow_private_network_access", json!(true));
    maybe("forward_not_matching_preflights", json!(false));
    policy
}

fn permission(random: &mut Random) -> Value {
    match random.below(9) {
        0 => json!({ "any": true }),
        8 => json!({ "uri_template": { "name": "template", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": random.pick(&["/*", "/**", "/{x}", "/{x=o*}", "/b", "/*/b", "/**/c"]) } } }),
        1 => json!({ "header": { "name": ":method", "string_match": { "exact": "POST" } } }),
        2 => json!({ "url_path": { "path": { "prefix": random.pick(&["/a", "/b", "/"]) } } }),
        3 => json!({ "destination_port": random.pick(&[&80, &4444]) }),
        4 => json!({ "destination_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 + random.below(20) } }),
        5 => json!({ "not_rule": permission(random) }),
        6 => json!({ "and_rules": { "rules": [permission(random), permission(random)] } }),
        _ => json!({ "or_rules": { "rules": [permission(random), permission(random)] } }),
    }
}

fn principal(random: &mut Random) -> Value {
    match random.below(9) {
        0 | 1 => json!({ "any": true }),
        2 => json!({ "header": { "name": "x-one", "string_match": { "exact": "one" } } }),
        3 => json!({ "direct_remote_ip": { "address_prefix": "127.90.0.0", "prefix_len": random.pick(&[&8, &16]) } }),
        4 => json!({ "remote_ip": { "address_prefix": random.pick(&["7.0.0.0", "127.0.0.0"]), "prefix_len": 8 } }),
        5 => json!({ "authenticated": {} }),
        6 => json!({ "not_id": principal(random) }),
        7 => json!({ "and_ids": { "ids": [principal(random), principal(random)] } }),
        _ => json!({ "or_ids": { "ids": [principal(random), principal(random)] } }),
    }
}

fn rules(random: &mut Random) -> Value {
    let mut policies = json!({});
    for number in 0..1 + random.below(2) {
        policies[format!("policy-{number}")] =
            json!({ "permissions": [permission(random)], "principals": [principal(random)] });
    }
    json!({ "action": random.pick(&["ALLOW", "DENY"]), "policies": policies })
}

fn rbac(random: &mut Random) -> Value {
    let mut config = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC" });
    if random.chance(80) {
        config["rules"] = rules(random);
    }
    if random.chance(30) {
        config["shadow_rules"] = rules(random);
    }
    config
}

fn rate_limit(random: &mut Random) -> Value {
    // So few tokens that only the first request has one, or none at all; nothing comes back within the test.
    let mut limit = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": { "max_tokens": random.pick(&[&1, &100_000]), "fill_interval": "3600s" },
        "filter_enabled": { "default_value": { "numerator": random.pick(&[&0, &100]) } },
        "filter_enforced": { "default_value": { "numerator": random.pick(&[&0, &100]) } },
    });
    if random.chance(40) {
        limit["response_headers_to_add"] = json!([{ "header": { "key": "x-limited", "value": "yes" } }]);
    }
    if random.chance(30) {
        limit["status"] = json!({ "code": "ServiceUnavailable" });
    }
    if random.chance(30) {
        limit["rate_limited_as_resource_exhausted"] = json!(true);
    }
    if random.chance(30) {
        limit["request_headers_to_add_when_not_enforced"] =
            json!([{ "header": { "key": "x-would", "value": "limit" } }]);
    }
    limit
}

fn mutation(random: &mut Random) -> Value {
    let one = |random: &mut Random| match random.below(3) {
        0 => json!({ "remove": random.pick(&["x-one", "x-backend-header"]) }),
        1 => {
            json!({ "append": { "header": { "key": "x-mutated", "value": "%REQ(:PATH)%" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } })
        }
        _ => json!({ "append": { "header": { "key": "x-one", "value": "more" } } }),
    };
    json!({ "request_mutations": [one(random)], "response_mutations": [one(random)] })
}

fn local_replies(random: &mut Random) -> Value {
    let filter = |random: &mut Random| match random.below(4) {
        0 => json!({ "response_flag_filter": { "flags": ["NR"] } }),
        1 => json!({ "response_flag_filter": { "flags": ["UF", "UT", "UH"] } }),
        2 => {
            json!({ "status_code_filter": { "comparison": { "op": "GE", "value": { "default_value": 500, "runtime_key": "k" } } } })
        }
        _ => json!({ "header_filter": { "header": { "name": ":path", "string_match": { "prefix": "/a" } } } }),
    };
    let mut mappers = Vec::new();
    for _ in 0..random.below(3) {
        let mut mapper = json!({ "filter": filter(random) });
        if random.chance(60) {
            mapper["status_code"] = json!(random.pick(&[&404, &418, &520]));
        }
        if random.chance(50) {
            mapper["body"] = json!({ "inline_string": "mapped" });
        }
        if random.chance(40) {
            mapper["body_format_override"] = json!({ "text_format_source": { "inline_string": "%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:path=%REQ(:path)%\n" } });
        }
        if random.chance(40) {
            mapper["headers_to_add"] = json!([{ "header": { "key": "x-local", "value": "%RESPONSE_FLAGS%" } }]);
        }
        mappers.push(mapper);
    }
    let mut config = json!({ "mappers": mappers });
    if random.chance(40) {
        config["body_format"] = json!({ "json_format": {
            "text": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "nothing": "%REQ(x-missing)%", "path": "p:%REQ(:PATH)%" } });
    } else if random.chance(30) {
        config["body_format"] = json!({
            "text_format_source": { "inline_string": "<%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%>" }, "content_type": "text/html" });
    }
    config
}

fn per_route(random: &mut Random) -> Value {
    let mut config = json!({});
    if random.chance(60) {
        config["envoy.filters.http.cors"] = cors(random);
    }
    if random.chance(30) {
        config["envoy.filters.http.rbac"] =
            json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute" });
        if random.chance(70) {
            config["envoy.filters.http.rbac"]["rbac"] = rbac(random);
            config["envoy.filters.http.rbac"]["rbac"].as_object_mut().expect("an object").remove("@type");
        }
    }
    if random.chance(30) {
        config["envoy.filters.http.local_ratelimit"] = rate_limit(random);
    }
    if random.chance(30) {
        config["envoy.filters.http.header_mutation"] = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
            "mutations": mutation(random) });
    }
    if random.chance(15) {
        let disabled = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true, "config": {} });
        config["envoy.filters.http.fault"] = disabled;
    }
    config
}

fn route(random: &mut Random, prefix: &str) -> Value {
    let target = random.pick(&["filters-one", "filters-one", "filters-refused", "filters-empty", "filters-two"]);
    let mut action = json!({ "cluster": target, "timeout": random.pick(&["0s", "0.300s", "15s"]) });
    if random.chance(40) {
        let mut mirror = json!({ "cluster": "filters-mirror" });
        if random.chance(30) {
            mirror["disable_shadow_host_suffix_append"] = json!(true);
        }
        if random.chance(20) {
            mirror["runtime_fraction"] = json!({ "default_value": { "numerator": random.pick(&[&0, &100]) } });
        }
        if random.chance(20) {
            mirror["host_rewrite_literal"] = json!("mirror.example");
        }
        action["request_mirror_policies"] = json!([mirror]);
    }
    if random.chance(30) {
        action["retry_policy"] = json!({ "retry_on": "5xx,reset", "num_retries": 1, "per_try_timeout": random.pick(&["0.100s", "5s"]),
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" } });
    }
    if random.chance(20) {
        action["idle_timeout"] = json!("0.200s");
    }
    let mut route = json!({ "name": prefix, "match": { "prefix": prefix }, "route": action, "typed_per_filter_config": per_route(random) });
    if random.chance(15) {
        route.as_object_mut().expect("an object").remove("route");
        route["direct_response"] = json!({ "status": random.pick(&[&200, &301, &404, &503]) });
    }
    if random.chance(30) {
        route["metadata"] = json!({ "filter_metadata": { "one": { "two": random.pick(&["three", "four"]) } } });
    }
    route
}

fn filters(random: &mut Random) -> Value {
    let mut before =
        vec![("cors", json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors" }))];
    if random.chance(40) {
        before.push(("rbac", rbac(random)));
    }
    before.push(("fault", manager::fault(random.chance(20).then(|| random.chance(30)))));
    before.push(("local_ratelimit", json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "off" })));
    before.push((
        "header_mutation",
        json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": if random.chance(30) { mutation(random) } else { json!({}) } }),
    ));
    if random.chance(30) {
        let at = random.below(before.len());
        let last = before.len() - 1;
        before.swap(at, last);
    }
    manager::filters(before)
}

fn request(random: &mut Random) -> String {
    let method = random.pick(&["GET", "GET", "POST", "OPTIONS", "OPTIONS", "HEAD"]);
    let path = random.pick(&["/a", "/b?x=1", "/c", "/other"]);
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: filters.example\r\nx-test-id: @ID@\r\n");
    if random.chance(60) {
        text += &format!("origin: {}\r\n", random.pick(ORIGINS));
    }
    if method == "OPTIONS" && random.chance(70) {
        text += "access-control-request-method: POST\r\n";
    }
    for line in [
        "x-one: one",
        "x-forwarded-for: 7.1.1.1",
        "access-control-request-private-network: true",
        "content-type: application/grpc",
    ] {
        if random.chance(15) {
            text += &format!("{line}\r\n");
        }
    }
    match random.below(10) {
        0 => text += "x-want: delay=450\r\n",
        1 => text += "x-want: status=503\r\n",
        2 => text += "x-want: reset\r\n",
        3 => text += "x-want: fail=1\r\n",
        _ => {}
    }
    if method == "POST" { text + "content-length: 5\r\n\r\nhello" } else { text + "\r\n" }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let routes: Vec<Value> = ["/a", "/b", "/c"].iter().map(|prefix| route(random, prefix)).collect();
    let mut host = json!({ "name": "all", "domains": ["*"], "routes": routes });
    if random.chance(30) {
        host["typed_per_filter_config"] = per_route(random);
        // Policies of a route and of its host are not merged field by field.
        host["typed_per_filter_config"].as_object_mut().expect("an object").remove("envoy.filters.http.cors");
    }
    let mut settings = json!({ "use_remote_address": random.chance(30) });
    if random.chance(60) {
        settings["local_reply_config"] = local_replies(random);
    }
    let manager = manager::manager(json!([host]), filters(random), settings);
    let listener = plan.listener(manager::listener(manager));
    let backends = &plan.setup.backends;
    let clusters = [
        cluster(
            "filters-one",
            &[backends.plain[0]],
            json!({ "metadata": { "filter_metadata": { "one": { "two": [1, true] } } } }),
        ),
        cluster("filters-two", &[backends.plain[1]], json!({ "alt_stat_name": "second" })),
        cluster("filters-mirror", &[backends.plain[2]], json!({})),
        cluster("filters-refused", &[backends.refused], json!({})),
        cluster("filters-empty", &[], json!({})),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..PROBES {
        let action = Action::Http1 { bytes: request(random), answers: 1 };
        plan.probe(Probe::new("filters", listener, Ipv4Addr::LOCALHOST, action), random.below(2) as u8);
    }
}
