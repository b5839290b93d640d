use super::*;

pub fn all() -> Vec<(&'static str, Value, Verdict)> {
    [
        hosts(),
        matches(),
        actions(),
        headers(),
        managers(),
        filters(),
        chains(),
        clusters(),
        dynamic_forward(),
        balancing(),
        health(),
    ]
    .concat()
}

type Cases = Vec<(&'static str, Value, Verdict)>;

fn hosts() -> Cases {
    vec![
        ("no routes", with_hcm(""), Accept),
        (
            "duplicate domain",
            with_hosts("- { name: a, domains: [a.com] }\n- { name: b, domains: [A.com] }", ""),
            Refuse("appears twice"),
        ),
        (
            "two catch-alls",
            with_hosts("- { name: a, domains: [\"*\"] }\n- { name: b, domains: [\"*\"] }", ""),
            Refuse("appears twice"),
        ),
        ("wildcard domains", with_hosts("- { name: a, domains: [\"*.a.com\", \"a.*\", \"*-x.a.com\"] }", ""), Accept),
        ("no domain", with_hosts("- { name: a, domains: [] }", ""), Refuse("domains")),
        ("no host name", with_hosts("- { name: \"\", domains: [a] }", ""), Refuse("name")),
        ("require tls", with_hosts("- { name: a, domains: [a], require_tls: EXTERNAL_ONLY }", ""), Accept),
        (
            "host options",
            with_hosts(
                "- { name: a, domains: [a], include_request_attempt_count: true, retry_policy: { retry_on: 5xx }, virtual_clusters: [{ name: c, headers: [{ name: \":path\", string_match: { prefix: /x } }] }] }",
                "",
            ),
            Accept,
        ),
        (
            "hedging",
            with_hosts("- { name: a, domains: [a], hedge_policy: { hedge_on_per_try_timeout: true } }", ""),
            Unsupported("hedging"),
        ),
    ]
}

fn matches() -> Cases {
    vec![
        ("prefix", with_match("prefix: /a"), Accept),
        ("path", with_match("path: /a\ncase_sensitive: false"), Accept),
        ("regex", with_match("safe_regex: { regex: \"/a/[0-9]+\" }"), Accept),
        ("empty regex", with_match("safe_regex: { regex: \"\" }"), Refuse("regex")),
        ("bad regex", with_match("safe_regex: { regex: \"(\" }"), Refuse("safe_regex")),
        ("separated prefix", with_match("path_separated_prefix: /a/b"), Accept),
        (
            "separated prefix with a slash at the end",
            with_match("path_separated_prefix: /a/"),
            Refuse("path_separated_prefix"),
        ),
        (
            "separated prefix with a query",
            with_match("path_separated_prefix: \"/a?b\""),
            Refuse("path_separated_prefix"),
        ),
        ("connect", with_match("connect_matcher: {}"), Accept),
        ("no path", with_match("case_sensitive: true"), Refuse("path_specifier")),
        ("grpc", with_match("prefix: /\ngrpc: {}"), Accept),
        ("tls context", with_match("prefix: /\ntls_context: { presented: true, validated: false }"), Accept),
        ("runtime fraction", with_match("prefix: /\nruntime_fraction: { default_value: { numerator: 5 } }"), Accept),
        (
            "query parameters",
            with_match(
                "prefix: /\nquery_parameters: [{ name: a, string_match: { exact: b } }, { name: c, present_match: true }]",
            ),
            Accept,
        ),
        ("query parameter without a name", with_match("prefix: /\nquery_parameters: [{ name: \"\" }]"), Refuse("name")),
        (
            "header kinds",
            with_match(
                "prefix: /\nheaders: [{ name: a, string_match: { exact: b, ignore_case: true } }, { name: b, present_match: false }, { name: c, range_match: { start: 1, end: 5 } }, { name: d, string_match: { safe_regex: { regex: x } }, invert_match: true, treat_missing_header_as_empty: true }]",
            ),
            Accept,
        ),
        (
            "empty prefix of a header",
            with_match("prefix: /\nheaders: [{ name: a, string_match: { prefix: \"\" } }]"),
            Refuse("prefix"),
        ),
        (
            "header without a name",
            with_match("prefix: /\nheaders: [{ name: \"\", present_match: true }]"),
            Refuse("name"),
        ),
        (
            "header name with a space",
            with_match("prefix: /\nheaders: [{ name: \"a b\", present_match: true }]"),
            NEVER_MATCHES,
        ),
        (
            "metadata",
            with_match(
                "prefix: /\ndynamic_metadata: [{ filter: f, path: [{ key: k }], value: { string_match: { exact: v } } }]",
            ),
            Accept,
        ),
    ]
}

/// Envoy takes a header name that no message can have; we say so.
const NEVER_MATCHES: Verdict = Unsupported("not a header name");

fn actions() -> Cases {
    vec![
        (
            "timeouts",
            with_action(
                "timeout: 0s\nidle_timeout: 5s\nmax_stream_duration: { max_stream_duration: 3s, grpc_timeout_header_max: 0s }",
            ),
            Accept,
        ),
        ("negative timeout", with_action("timeout: -1s"), Refuse("timeout")),
        ("prefix rewrite", with_action("prefix_rewrite: /b"), Accept),
        (
            "two rewrites",
            with_action("prefix_rewrite: /b\nregex_rewrite: { pattern: { regex: a }, substitution: b }"),
            Refuse("prefix_rewrite"),
        ),
        (
            "regex rewrite",
            with_action("regex_rewrite: { pattern: { regex: \"^/(.*)$\" }, substitution: \"/x/\\\\1\" }"),
            Accept,
        ),
        (
            "regex rewrite of a missing group",
            with_action("regex_rewrite: { pattern: { regex: a }, substitution: \"\\\\1\" }"),
            Unsupported("substitution"),
        ),
        ("host rewrites", with_action("host_rewrite_literal: h\nappend_x_forwarded_host: true"), Accept),
        (
            "retry",
            with_action(
                "retry_policy: { retry_on: \"5xx,reset,nonsense\", num_retries: 3, per_try_timeout: 1s, retry_host_predicate: [{ name: envoy.retry_host_predicates.previous_hosts, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } }], host_selection_retry_max_attempts: 5 }",
            ),
            Accept,
        ),
        (
            "back-off upside down",
            with_action("retry_policy: { retry_on: 5xx, retry_back_off: { base_interval: 2s, max_interval: 1s } }"),
            Refuse("max_interval"),
        ),
        (
            "retry priority",
            with_action(
                "retry_policy: { retry_on: 5xx, retry_priority: { name: p, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 2 } } }",
            ),
            Accept,
        ),
        (
            "hash policies",
            with_action(
                "hash_policy: [{ header: { header_name: h }, terminal: true }, { cookie: { name: c, ttl: 0s, path: / } }, { connection_properties: { source_ip: true } }, { query_parameter: { name: q } }]",
            ),
            Accept,
        ),
        ("cookie without a name", with_action("hash_policy: [{ cookie: { name: \"\" } }]"), Refuse("name")),
        (
            "mirror",
            with_action(
                "request_mirror_policies: [{ cluster: one, runtime_fraction: { default_value: { numerator: 50 } }, disable_shadow_host_suffix_append: true }]",
            ),
            Accept,
        ),
        ("upgrade", with_action("upgrade_configs: [{ upgrade_type: websocket, enabled: false }]"), Accept),
        (
            "connect config of websocket",
            with_action("upgrade_configs: [{ upgrade_type: websocket, connect_config: {} }]"),
            Refuse("connect_config"),
        ),
        (
            "duplicate upgrade",
            with_action("upgrade_configs: [{ upgrade_type: websocket }, { upgrade_type: WEBSOCKET }]"),
            Refuse("upgrade"),
        ),
        (
            "internal redirect",
            with_action("internal_redirect_policy: { max_internal_redirects: 2, redirect_response_codes: [302, 307] }"),
            Unsupported("internal redirects"),
        ),
        ("priority", with_action("priority: HIGH\ncluster_not_found_response_code: NOT_FOUND"), Accept),
        ("rate limits", with_action("rate_limits: [{ stage: 1, actions: [{ remote_address: {} }] }]"), Accept),
        (
            "rate limits that count answers",
            with_action("rate_limits: [{ actions: [{ remote_address: {} }], apply_on_stream_done: true }]"),
            Unsupported("apply_on_stream_done"),
        ),
        (
            "unknown cluster",
            with_routes("- match: { prefix: / }\n  route: { cluster: nobody }"),
            Refuse("virtual host \"v\": route 0: unknown cluster \"nobody\""),
        ),
        (
            "unknown weighted cluster",
            with_routes(
                "- match: { prefix: / }\n  route: { weighted_clusters: { clusters: [{ name: one, weight: 1 }, { name: nobody, weight: 1 }] } }",
            ),
            Refuse("unknown cluster \"nobody\""),
        ),
        (
            "unknown mirror",
            with_action("request_mirror_policies: [{ cluster: nobody }]"),
            Refuse("unknown cluster \"nobody\""),
        ),
        ("unknown cluster that CDS may bring", with_ads(true), Refuse("unknown cluster \"nobody\"")),
        ("unknown cluster, not validated", unvalidated(), Accept),
        (
            "weighted",
            with_routes(
                "- match: { prefix: / }\n  route: { weighted_clusters: { clusters: [{ name: one, weight: 90 }, { name: one, weight: 10 }] } }",
            ),
            Accept,
        ),
        (
            "weights of zero",
            with_routes(
                "- match: { prefix: / }\n  route: { weighted_clusters: { clusters: [{ name: one, weight: 0 }] } }",
            ),
            Refuse("weights"),
        ),
        (
            "weighted without a name",
            with_routes("- match: { prefix: / }\n  route: { weighted_clusters: { clusters: [{ weight: 1 }] } }"),
            Refuse("name"),
        ),
        (
            "redirect",
            with_routes(
                "- match: { prefix: / }\n  redirect: { https_redirect: true, port_redirect: 8443, response_code: PERMANENT_REDIRECT, strip_query: true, prefix_rewrite: /x }",
            ),
            Accept,
        ),
        (
            "direct response",
            with_routes("- match: { prefix: / }\n  direct_response: { status: 200, body: { inline_string: hi } }"),
            Accept,
        ),
        ("status of 99", with_routes("- match: { prefix: / }\n  direct_response: { status: 99 }"), Refuse("status")),
        (
            "body too long",
            with_routes(&format!(
                "- match: {{ prefix: / }}\n  direct_response: {{ status: 200, body: {{ inline_string: {} }} }}",
                "x".repeat(4097)
            )),
            Refuse("4097 bytes"),
        ),
        ("no action", with_routes("- match: { prefix: / }"), Refuse("action")),
        (
            "filter override of an unknown type",
            with_routes(
                "- match: { prefix: / }\n  route: { cluster: one }\n  typed_per_filter_config: { x: { \"@type\": type.googleapis.com/google.protobuf.Duration, value: 1s } }",
            ),
            Refuse("Duration"),
        ),
    ]
}

fn headers() -> Cases {
    let add = |key: &str, value: &str| {
        with_routes(&format!(
            "- match: {{ prefix: / }}\n  route: {{ cluster: one }}\n  request_headers_to_add: [{{ header: {{ key: \"{key}\", value: \"{value}\" }} }}]"
        ))
    };
    let remove = |key: &str| {
        with_routes(&format!(
            "- match: {{ prefix: / }}\n  route: {{ cluster: one }}\n  request_headers_to_remove: [\"{key}\"]"
        ))
    };
    vec![
        ("add", add("x", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:path)% 100%%"), Accept),
        ("add with an unknown command", add("x", "%NO_SUCH%"), Refuse("NO_SUCH")),
        ("add with an open command", add("x", "%REQ(a"), Refuse("malformed")),
        ("add with a lone percent sign", add("x", "50% off"), Refuse("malformed")),
        ("add of :authority", add(":authority", "a"), Refuse(":authority")),
        ("add of host", add("Host", "a"), Refuse("host")),
        ("start time", add("x", "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%"), Accept),
        ("peer", add("x", "%DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_LOCAL_ADDRESS% %PROTOCOL% %RESPONSE_FLAGS%"), Accept),
        ("metadata", add("x", "%METADATA(ROUTE:a:b)% %DYNAMIC_METADATA(a:b)% %UPSTREAM_METADATA(a:b)%"), Accept),
        ("limit", add("x", "%REQ(USER-AGENT?X):10%"), Accept),
        ("remove", remove("x-a"), Accept),
        ("remove of :path", remove(":path"), Refuse("may not be removed")),
        ("remove of Host", remove("Host"), Refuse("may not be removed")),
    ]
}

fn managers() -> Cases {
    let log = |format: &str| {
        with_hcm(&format!(
            "access_log:\n- name: f\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n    path: /dev/null\n    log_format: {format}"
        ))
    };
    vec![
        (
            "options",
            with_hcm(
                "use_remote_address: true\nxff_num_trusted_hops: 1\nnormalize_path: true\nmerge_slashes: true\nserver_name: me\nvia: v\nstream_idle_timeout: 0s\nupgrade_configs: [{ upgrade_type: websocket }]\npath_with_escaped_slashes_action: REJECT_REQUEST\nforward_client_cert_details: SANITIZE_SET\nset_current_client_cert_details: { subject: true, uri: true }",
            ),
            Accept,
        ),
        (
            "both ways to strip the port",
            with_hcm("strip_matching_host_port: true\nstrip_any_host_port: true"),
            Refuse("strip_any_host_port"),
        ),
        ("header limit of zero", with_hcm("max_request_headers_kb: 0"), Refuse("max_request_headers_kb")),
        ("header limit too large", with_hcm("max_request_headers_kb: 9000"), Refuse("max_request_headers_kb")),
        (
            "small window",
            with_hcm("http2_protocol_options: { initial_stream_window_size: 1000 }"),
            Refuse("initial_stream_window_size"),
        ),
        (
            "no streams",
            with_hcm("http2_protocol_options: { max_concurrent_streams: 0 }"),
            Refuse("max_concurrent_streams"),
        ),
        (
            "http1 options",
            with_hcm(
                "http_protocol_options: { accept_http_10: true, default_host_for_http_10: h, enable_trailers: true }",
            ),
            Accept,
        ),
        (
            "names as they came",
            with_hcm(
                "http_protocol_options: { header_key_format: { stateful_formatter: { name: p, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig } } } }",
            ),
            Accept,
        ),
        (
            "header case",
            with_hcm("http_protocol_options: { header_key_format: { proper_case_words: {} } }"),
            Unsupported("header_key_format"),
        ),
        (
            "relative URLs only",
            with_hcm("http_protocol_options: { allow_absolute_url: false }"),
            Unsupported("absolute"),
        ),
        ("request timeout", with_hcm("request_timeout: 3s"), Unsupported("request_timeout")),
        ("no request timeout", with_hcm("request_timeout: 0s"), Accept),
        (
            "filters of an upgrade",
            with_hcm(
                "upgrade_configs: [{ upgrade_type: websocket, filters: [{ name: envoy.filters.http.router, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }] }]",
            ),
            Unsupported("upgrade_configs[0].filters"),
        ),
        (
            "keepalive of HTTP/2",
            with_hcm("http2_protocol_options: { connection_keepalive: { interval: 30s, timeout: 5s } }"),
            Accept,
        ),
        (
            "chunked length",
            with_hcm("http_protocol_options: { allow_chunked_length: true }"),
            Unsupported("allow_chunked_length"),
        ),
        ("percent above 100", with_hcm("tracing: { random_sampling: { value: 101 } }"), Refuse("random_sampling")),
        (
            "custom tags",
            with_hcm(
                "tracing: { custom_tags: [{ tag: a, literal: { value: v } }, { tag: b, request_header: { name: h } }, { tag: c, environment: { name: E } }] }",
            ),
            Accept,
        ),
        (
            "text log",
            log(
                "{ text_format_source: { inline_string: \"%REQ(X)% %DURATION% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%\\n\" } }",
            ),
            Accept,
        ),
        ("json log", log("{ json_format: { a: \"%RESPONSE_CODE%\", b: { c: [\"%PROTOCOL%\", 1, true] } } }"), Accept),
        ("log with an unknown command", log("{ text_format_source: { inline_string: \"%NOPE%\" } }"), Refuse("NOPE")),
        (
            "log with a bad duration",
            log("{ text_format_source: { inline_string: \"%COMMON_DURATION(A:B:ms)%\" } }"),
            Unsupported("COMMON_DURATION"),
        ),
        (
            "log filters",
            with_hcm(
                "access_log:\n- name: f\n  filter: { and_filter: { filters: [{ status_code_filter: { comparison: { op: GE, value: { default_value: 500, runtime_key: k } } } }, { response_flag_filter: { flags: [UH, NR] } }] } }\n  typed_config: { \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog }",
            ),
            Accept,
        ),
        (
            "log filter with one part",
            with_hcm(
                "access_log:\n- name: f\n  filter: { and_filter: { filters: [{ not_health_check_filter: {} }] } }\n  typed_config: { \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog }",
            ),
            Refuse("at least two"),
        ),
        (
            "log filter with an unknown flag",
            with_hcm(
                "access_log:\n- name: f\n  filter: { response_flag_filter: { flags: [ZZ] } }\n  typed_config: { \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog }",
            ),
            Refuse("ZZ"),
        ),
        (
            "local reply",
            with_hcm(
                "local_reply_config: { mappers: [{ filter: { status_code_filter: { comparison: { op: EQ, value: { default_value: 404, runtime_key: k } } } }, status_code: 410, body: { inline_string: gone } }], body_format: { json_format: { m: \"%LOCAL_REPLY_BODY%\" } } }",
            ),
            Accept,
        ),
        (
            "mapper without a filter",
            with_hcm("local_reply_config: { mappers: [{ status_code: 410 }] }"),
            Refuse("filter"),
        ),
    ]
}

fn filters() -> Cases {
    let typed = |name: &str, kind: &str, fields: &str| {
        with_filter(&format!("{{ name: {name}, typed_config: {{ \"@type\": type.googleapis.com/{kind}{fields} }} }}"))
    };
    let fault = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    let limit = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let mut two_routers = with_hcm("");
    let chain = &mut two_routers["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        ["http_filters"];
    let router = chain[0].clone();
    chain.as_array_mut().unwrap().push(router);
    let mut none = with_hcm("");
    none["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"] =
        yaml("[]");
    vec![
        ("two routers", two_routers, Refuse("router")),
        // Envoy takes the chain and never answers.
        ("no filters", none, Unsupported("router")),
        (
            "fault",
            typed(
                "fault",
                fault,
                ", delay: { fixed_delay: 1s, percentage: { numerator: 10 } }, abort: { http_status: 503, percentage: { numerator: 1, denominator: MILLION } }",
            ),
            Accept,
        ),
        ("abort with 99", typed("fault", fault, ", abort: { http_status: 99 }"), Refuse("http_status")),
        ("delay of zero", typed("fault", fault, ", delay: { fixed_delay: 0s }"), Refuse("fixed_delay")),
        ("cors", typed("cors", "envoy.extensions.filters.http.cors.v3.Cors", ""), Accept),
        (
            "rbac",
            typed(
                "rbac",
                "envoy.extensions.filters.http.rbac.v3.RBAC",
                ", rules: { action: DENY, policies: { p: { permissions: [{ any: true }, { not_rule: { header: { name: a, present_match: true } } }], principals: [{ authenticated: { principal_name: { exact: spiffe://x } } }] } } }",
            ),
            Accept,
        ),
        (
            "rbac without principals",
            typed(
                "rbac",
                "envoy.extensions.filters.http.rbac.v3.RBAC",
                ", rules: { policies: { p: { permissions: [{ any: true }] } } }",
            ),
            Refuse("principals"),
        ),
        (
            "rbac with any: false",
            typed(
                "rbac",
                "envoy.extensions.filters.http.rbac.v3.RBAC",
                ", rules: { policies: { p: { permissions: [{ any: false }], principals: [{ any: true }] } } }",
            ),
            Refuse("any"),
        ),
        (
            "jwt",
            typed(
                "jwt",
                "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                ", providers: { p: { issuer: i, remote_jwks: { http_uri: { uri: 'https://i/keys', cluster: one, timeout: 1s }, async_fetch: { fast_listener: true } }, claim_to_headers: [{ header_name: x-a, claim_name: a }], payload_in_metadata: payload } }, rules: [{ match: { prefix: / }, requires: { requires_any: { requirements: [{ provider_name: p }, { allow_missing: {} }] } } }]",
            ),
            Accept,
        ),
        (
            "jwt of an unknown provider",
            typed(
                "jwt",
                "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                ", rules: [{ match: { prefix: / }, requires: { provider_name: q } }]",
            ),
            Refuse("provider_name"),
        ),
        (
            "external authorization",
            typed(
                "authz",
                "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                ", transport_api_version: V3, grpc_service: { envoy_grpc: { cluster_name: one }, timeout: 1s }, with_request_body: { max_request_bytes: 10, allow_partial_message: true }, status_on_error: { code: ServiceUnavailable }, failure_mode_allow: true",
            ),
            Accept,
        ),
        (
            "external authorization of a body of no bytes",
            typed(
                "authz",
                "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                ", transport_api_version: V3, grpc_service: { envoy_grpc: { cluster_name: one } }, with_request_body: { max_request_bytes: 0 }",
            ),
            Refuse("max_request_bytes"),
        ),
        (
            "global rate limit",
            typed(
                "limit",
                "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                ", domain: d, rate_limit_service: { transport_api_version: V3, grpc_service: { envoy_grpc: { cluster_name: one } } }, enable_x_ratelimit_headers: DRAFT_VERSION_03",
            ),
            Accept,
        ),
        (
            "global rate limit without domain",
            typed(
                "limit",
                "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                ", rate_limit_service: { transport_api_version: V3, grpc_service: { envoy_grpc: { cluster_name: one } } }",
            ),
            Refuse("domain"),
        ),
        (
            "rbac with a path template",
            typed(
                "rbac",
                "envoy.extensions.filters.http.rbac.v3.RBAC",
                ", rules: { policies: { p: { permissions: [{ uri_template: { name: t, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/a/{b}/**' } } }], principals: [{ any: true }] } } }",
            ),
            Accept,
        ),
        (
            "rbac with a template that is none",
            typed(
                "rbac",
                "envoy.extensions.filters.http.rbac.v3.RBAC",
                ", rules: { policies: { p: { permissions: [{ uri_template: { name: t, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/a/**/*' } } }], principals: [{ any: true }] } } }",
            ),
            Refuse("path_template"),
        ),
        (
            "local rate limit",
            typed(
                "l",
                limit,
                ", stat_prefix: l, token_bucket: { max_tokens: 10, tokens_per_fill: 10, fill_interval: 1s }",
            ),
            Accept,
        ),
        (
            "local rate limit too quick",
            typed("l", limit, ", stat_prefix: l, token_bucket: { max_tokens: 10, fill_interval: 0.001s }"),
            EnvoyStricter,
        ),
        ("local rate limit without a prefix", typed("l", limit, ""), Refuse("stat_prefix")),
        (
            "header mutation",
            typed(
                "h",
                "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                ", mutations: { request_mutations: [{ remove: a }, { append: { header: { key: b, value: \"%REQ(c)%\" } } }] }",
            ),
            Accept,
        ),
        (
            "lua",
            typed("lua", "envoy.extensions.filters.http.lua.v3.Lua", ", default_source_code: { inline_string: \"\" }"),
            Unsupported("Lua"),
        ),
        ("without a config", with_filter("{ name: x }"), Refuse("typed_config")),
        (
            "typed struct",
            with_filter(
                "{ name: fault, typed_config: { \"@type\": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, value: { abort: { http_status: 503, percentage: { numerator: 1 } } } } }",
            ),
            Accept,
        ),
    ]
}

/// A chain with this filter, given by its type and fields, in front of its TCP proxy.
fn before_tcp_proxy(config: &str) -> Value {
    let mut document = with_chains(&["{}"]);
    let filters = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    let filter = format!("{{ name: first, typed_config: {{ \"@type\": type.googleapis.com/{config} }} }}");
    filters.as_array_mut().unwrap().insert(0, yaml(&filter));
    document
}

/// A TCP proxy that opens tunnels as this says.
fn with_tunnel(config: &str) -> Value {
    let mut document = with_chains(&["{}"]);
    let filter = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
    filter["typed_config"]["tunneling_config"] = yaml(config);
    document
}

fn chains() -> Cases {
    vec![
        ("tunnel", with_tunnel("{ hostname: a:1 }"), Accept),
        ("tunnel by post", with_tunnel("{ hostname: a, use_post: true, post_path: /x }"), Accept),
        ("tunnel without a host", with_tunnel("{ use_post: true }"), Refuse("hostname")),
        ("tunnel's path without post", with_tunnel("{ hostname: a:1, post_path: /x }"), Refuse("post_path")),
        (
            "tunnel's method",
            with_tunnel("{ hostname: a:1, headers_to_add: [{ header: { key: \":method\", value: GET } }] }"),
            Refuse("headers_to_add"),
        ),
        ("one chain", with_chains(&["{}"]), Accept),
        (
            "limit on connections",
            before_tcp_proxy(
                "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit, stat_prefix: l, token_bucket: { max_tokens: 1, fill_interval: 1s }",
            ),
            Unsupported("LocalRateLimit"),
        ),
        (
            "cluster by SNI",
            before_tcp_proxy("envoy.extensions.filters.network.sni_cluster.v3.SniCluster"),
            Unsupported("SniCluster"),
        ),
        (
            "filter state",
            before_tcp_proxy(
                "envoy.extensions.filters.network.set_filter_state.v3.Config, on_new_connection: [{ object_key: envoy.tcp_proxy.cluster, format_string: { text_format_source: { inline_string: one } } }]",
            ),
            Unsupported("set_filter_state"),
        ),
        (
            "equal matches",
            with_chains(&["{ destination_port: 80 }", "{ destination_port: 80 }"]),
            Refuse("same filter_chain_match"),
        ),
        (
            "overlapping lists",
            with_chains(&["{ server_names: [a, b] }", "{ server_names: [b, c] }"]),
            Refuse("same filter_chain_match"),
        ),
        (
            "different matches",
            with_chains(&[
                "{ destination_port: 80 }",
                "{ prefix_ranges: [{ address_prefix: 10.0.0.0, prefix_len: 8 }] }",
                "{ server_names: [\"*.a.com\"], transport_protocol: tls, application_protocols: [h2] }",
                "{ source_type: EXTERNAL, source_ports: [1, 2] }",
            ]),
            Accept,
        ),
        ("partial wildcard", with_chains(&["{ server_names: [\"a*.com\"] }"]), Refuse("partial wildcards")),
        ("bare wildcard", with_chains(&["{ server_names: [\"*\"] }"]), Refuse("partial wildcards")),
        ("port too large", with_chains(&["{ destination_port: 70000 }"]), Refuse("port")),
        (
            "bad prefix",
            with_chains(&["{ prefix_ranges: [{ address_prefix: nonsense, prefix_len: 8 }] }"]),
            Refuse("not an IP address"),
        ),
        ("suffix", with_chains(&["{ address_suffix: \"1\" }"]), Refuse("address_suffix")),
        (
            "at a name",
            bootstrap(
                "- name: l
  address: { socket_address: { address: localhost, port_value: 0 } }
  filter_chains:
  - filters:
    - name: t
      typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: one }",
                ONE_CLUSTER,
            ),
            Refuse("localhost is not an IP address"),
        ),
        (
            "no chains",
            bootstrap("- { name: l, address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }", ONE_CLUSTER),
            Refuse("filter_chains"),
        ),
    ]
}

fn clusters() -> Cases {
    vec![
        ("static", with_cluster(ENDPOINT), Accept),
        ("static by name", with_cluster(&ENDPOINT.replace("127.0.0.1", "example.com")), Refuse("not an IP address")),
        (
            "strict dns",
            with_cluster(&format!("type: STRICT_DNS\n{}", ENDPOINT.replace("127.0.0.1", "localhost"))),
            Accept,
        ),
        (
            "logical dns with two",
            with_cluster(
                "type: LOGICAL_DNS\nload_assignment: { cluster_name: one, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: a, port_value: 1 } } } }, { endpoint: { address: { socket_address: { address: b, port_value: 1 } } } }] }] }",
            ),
            Refuse("single endpoint"),
        ),
        ("logical dns with none", with_cluster("type: LOGICAL_DNS"), Refuse("single endpoint")),
        ("two of one name", bootstrap("", &[ONE_CLUSTER, ONE_CLUSTER].concat().replace("][", ", ")), Refuse("duplicate")),
        ("a control plane without a node", with_ads(false), Refuse("node")),
        (
            "hosts' own limits",
            with_cluster(&format!(
                "circuit_breakers: {{ per_host_thresholds: [{{ max_connections: 1 }}] }}\n{ENDPOINT}"
            )),
            Unsupported("per_host_thresholds"),
        ),
        (
            "more addresses of an endpoint",
            with_cluster(&ENDPOINT.replace(
                "endpoint: { address",
                "endpoint: { additional_addresses: [{ address: { socket_address: { address: 127.0.0.2, port_value: 1 } } }], address",
            )),
            Unsupported("additional_addresses"),
        ),
        (
            "proxy protocol",
            with_cluster(&format!(
                "transport_socket: {{ name: p, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, transport_socket: {{ name: envoy.transport_sockets.raw_buffer, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }} }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "proxy protocol without a socket",
            with_cluster(&format!(
                "transport_socket: {{ name: p, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {{ version: V2 }} }} }}\n{ENDPOINT}"
            )),
            Refuse("transport_socket"),
        ),
        (
            "socket options",
            with_cluster(&format!(
                "upstream_bind_config: {{ source_address: {{ address: 127.0.0.1, port_value: 0 }}, socket_options: [{{ level: 1, name: 2, int_value: 3 }}] }}\n{ENDPOINT}"
            )),
            Unsupported("socket_options"),
        ),
        ("original dst", with_cluster("type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED"), Accept),
        ("original dst with round robin", with_cluster("type: ORIGINAL_DST"), Refuse("CLUSTER_PROVIDED")),
        (
            "static with cluster provided",
            with_cluster(&format!("lb_policy: CLUSTER_PROVIDED\n{ENDPOINT}")),
            Refuse("CLUSTER_PROVIDED"),
        ),
        (
            "no connect time",
            bootstrap("", &format!("- {{ name: one, connect_timeout: 0s, {ENDPOINT} }}")),
            Refuse("connect_timeout"),
        ),
        (
            "http2",
            with_cluster(&format!(
                "typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ http2_protocol_options: {{}} }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "no protocol",
            with_cluster(&format!(
                "typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions }} }}\n{ENDPOINT}"
            )),
            Refuse("upstream_protocol_options"),
        ),
        (
            "breakers",
            with_cluster(&format!(
                "circuit_breakers: {{ thresholds: [{{ max_connections: 1, retry_budget: {{ budget_percent: {{ value: 25 }}, min_retry_concurrency: 1 }} }}, {{ priority: HIGH, max_requests: 5 }}] }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "budget above 100",
            with_cluster(&format!(
                "circuit_breakers: {{ thresholds: [{{ retry_budget: {{ budget_percent: {{ value: 125 }} }} }}] }}\n{ENDPOINT}"
            )),
            Refuse("percentage"),
        ),
        (
            "outlier detection",
            with_cluster(&format!(
                "outlier_detection: {{ consecutive_5xx: 3, interval: 1s, base_ejection_time: 1s, max_ejection_percent: 50, enforcing_success_rate: 0 }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "ejection above 100",
            with_cluster(&format!("outlier_detection: {{ max_ejection_percent: 101 }}\n{ENDPOINT}")),
            Refuse("max_ejection_percent"),
        ),
        (
            "transport matches",
            with_cluster(&format!(
                "transport_socket_matches: [{{ name: a, match: {{ k: v }}, transport_socket: {{ name: envoy.transport_sockets.raw_buffer, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }} }} }}]\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "tls",
            with_cluster(&format!(
                "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: a.com, common_tls_context: {{ alpn_protocols: [h2] }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "curves",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ tls_params: {{ ecdh_curves: [X25519, P-256, P-384, X25519MLKEM768] }} }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "a curve that nobody knows",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ tls_params: {{ ecdh_curves: [P-256, P-1] }} }} }} }}\n{ENDPOINT}"
            )),
            Refuse("ecdh_curves[1]"),
        ),
        (
            "a curve that the provider lacks",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ tls_params: {{ ecdh_curves: [P-521] }} }} }} }}\n{ENDPOINT}"
            )),
            Unsupported("P-521"),
        ),
        (
            "pinned keys",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ validation_context: {{ verify_certificate_spki: [NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=] }} }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "a pin that is no hash",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{ validation_context: {{ verify_certificate_spki: [NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A] }} }} }} }}\n{ENDPOINT}"
            )),
            Refuse("verify_certificate_spki"),
        ),
        (
            "long sni",
            with_cluster(&format!(
                "transport_socket: {{ name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: {} }} }}\n{ENDPOINT}",
                "a".repeat(256)
            )),
            Refuse("sni"),
        ),
        (
            "weight of zero",
            with_cluster(&ENDPOINT.replace("lb_endpoints: [{ ", "lb_endpoints: [{ load_balancing_weight: 0, ")),
            Refuse("load_balancing_weight"),
        ),
        (
            "priority",
            with_cluster(&ENDPOINT.replace("endpoints: [{ lb", "endpoints: [{ priority: 129, lb")),
            Refuse("priority"),
        ),
        (
            "no cluster name in the assignment",
            with_cluster(&ENDPOINT.replace("cluster_name: one", "cluster_name: \"\"")),
            Refuse("cluster_name"),
        ),
    ]
}

/// A dynamic forward proxy cluster with these fields of its own type and of the cluster.
fn with_dynamic_forward(config: &str, fields: &str) -> Value {
    with_cluster(&format!(
        "cluster_type: {{ name: envoy.clusters.dynamic_forward_proxy, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig, {config} }} }}\n{fields}"
    ))
}

fn dynamic_forward() -> Cases {
    const CACHE: &str = "dns_cache_config: { name: c }";
    const PROVIDED: &str = "lb_policy: CLUSTER_PROVIDED";
    let http = |auto: &str| {
        format!(
            "{PROVIDED}\ntyped_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {auto}explicit_http_config: {{ http2_protocol_options: {{}} }} }} }}"
        )
    };
    let filter = |config: &str| {
        with_filter(&format!(
            "{{ name: d, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig, {config} }} }}"
        ))
    };
    let auto = "upstream_http_protocol_options: { auto_sni: true, auto_san_validation: true }, ";
    vec![
        ("dynamic forward", with_dynamic_forward(CACHE, PROVIDED), Accept),
        ("dynamic forward that balances", with_dynamic_forward(CACHE, ""), Refuse("CLUSTER_PROVIDED")),
        ("dynamic forward of unchecked names", with_dynamic_forward(CACHE, &http("")), Refuse("auto_sni")),
        (
            "dynamic forward where names do not matter",
            with_dynamic_forward(&format!("allow_insecure_cluster_options: true, {CACHE}"), &http("")),
            Accept,
        ),
        ("dynamic forward of checked names", with_dynamic_forward(CACHE, &http(auto)), Accept),
        (
            "dynamic forward by clusters",
            with_dynamic_forward("sub_clusters_config: { lb_policy: ROUND_ROBIN }", PROVIDED),
            Unsupported("sub_clusters_config"),
        ),
        (
            "a DNS cache's settings",
            with_dynamic_forward(
                "dns_cache_config: { name: c, dns_lookup_family: V4_ONLY, dns_refresh_rate: 10s, host_ttl: 60s, max_hosts: 5, dns_failure_refresh_rate: { base_interval: 1s, max_interval: 5s }, dns_cache_circuit_breaker: { max_pending_requests: 3 }, dns_query_timeout: 2s }",
                PROVIDED,
            ),
            Accept,
        ),
        (
            "a DNS cache of nothing",
            with_dynamic_forward("dns_cache_config: { name: c, max_hosts: 0 }", PROVIDED),
            Refuse("max_hosts"),
        ),
        ("a DNS cache without a name", with_dynamic_forward("dns_cache_config: {}", PROVIDED), Refuse("name")),
        (
            "names resolved beforehand",
            with_dynamic_forward(
                "dns_cache_config: { name: c, preresolve_hostnames: [{ address: localhost, port_value: 80 }] }",
                PROVIDED,
            ),
            Unsupported("preresolve_hostnames"),
        ),
        ("dynamic forward filter", filter(CACHE), Accept),
        (
            "dynamic forward by SNI",
            before_tcp_proxy(
                "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig, port_value: 443, dns_cache_config: { name: c }",
            ),
            Accept,
        ),
    ]
}

fn balancing() -> Cases {
    let cluster = |fields: &str| with_cluster(&format!("{fields}\n{ENDPOINT}"));
    vec![
        ("least request", cluster("lb_policy: LEAST_REQUEST\nleast_request_lb_config: { choice_count: 3 }"), Accept),
        (
            "choice of one",
            cluster("lb_policy: LEAST_REQUEST\nleast_request_lb_config: { choice_count: 1 }"),
            Refuse("choice_count"),
        ),
        (
            "ring",
            cluster(
                "lb_policy: RING_HASH\nring_hash_lb_config: { minimum_ring_size: 10, maximum_ring_size: 20, hash_function: MURMUR_HASH_2 }",
            ),
            Accept,
        ),
        (
            "ring upside down",
            cluster("lb_policy: RING_HASH\nring_hash_lb_config: { minimum_ring_size: 20, maximum_ring_size: 10 }"),
            Refuse("ring_size"),
        ),
        ("maglev", cluster("lb_policy: MAGLEV\nmaglev_lb_config: { table_size: 1021 }"), Accept),
        ("maglev not prime", cluster("lb_policy: MAGLEV\nmaglev_lb_config: { table_size: 1000 }"), Refuse("prime")),
        (
            "extension",
            cluster(
                "load_balancing_policy: { policies: [{ typed_extension_config: { name: x, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin } } }] }",
            ),
            Accept,
        ),
        (
            "extension ring",
            cluster(
                "load_balancing_policy: { policies: [{ typed_extension_config: { name: x, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash, hash_function: XX_HASH, minimum_ring_size: 64 } } }] }",
            ),
            Accept,
        ),
        (
            "bounded loads",
            cluster(
                "lb_policy: RING_HASH\ncommon_lb_config: { consistent_hashing_lb_config: { hash_balance_factor: 150 } }",
            ),
            Unsupported("hash_balance_factor"),
        ),
        ("zone-aware", cluster("common_lb_config: { zone_aware_lb_config: { min_cluster_size: 3 } }"), Accept),
        (
            "fail on panic",
            cluster("common_lb_config: { zone_aware_lb_config: { fail_traffic_on_panic: true } }"),
            Accept,
        ),
        ("no policy", cluster("load_balancing_policy: { policies: [] }"), Refuse("policies")),
        (
            "subsets",
            cluster("lb_subset_config: { fallback_policy: ANY_ENDPOINT, subset_selectors: [{ keys: [version] }] }"),
            Accept,
        ),
        (
            "locality weighted",
            cluster("common_lb_config: { locality_weighted_lb_config: {}, healthy_panic_threshold: { value: 0 } }"),
            Accept,
        ),
        (
            "slow start",
            cluster(
                "round_robin_lb_config: { slow_start_config: { slow_start_window: 10s, aggression: { default_value: 2, runtime_key: k } } }",
            ),
            Accept,
        ),
    ]
}

fn health() -> Cases {
    let check = |fields: &str| with_cluster(&format!("health_checks: [{{ {fields} }}]\n{ENDPOINT}"));
    let base = "timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1";
    vec![
        (
            "http",
            check(&format!(
                "{base}, http_health_check: {{ path: /h, expected_statuses: [{{ start: 200, end: 300 }}] }}"
            )),
            Accept,
        ),
        (
            "tcp",
            check(&format!(
                "{base}, tcp_health_check: {{ send: {{ text: \"00ff\" }}, receive: [{{ text: \"01\" }}] }}"
            )),
            Accept,
        ),
        (
            "tcp not hexadecimal",
            check(&format!("{base}, tcp_health_check: {{ send: {{ text: xyz }} }}")),
            Refuse("hexadecimal"),
        ),
        (
            "grpc",
            with_cluster(&format!(
                "health_checks: [{{ {base}, grpc_health_check: {{}} }}]\ntyped_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ http2_protocol_options: {{}} }} }} }}\n{ENDPOINT}"
            )),
            Accept,
        ),
        (
            "no threshold",
            check("timeout: 1s, interval: 1s, healthy_threshold: 1, tcp_health_check: {}"),
            Refuse("unhealthy_threshold"),
        ),
        (
            "no interval",
            check("timeout: 1s, unhealthy_threshold: 2, healthy_threshold: 1, tcp_health_check: {}"),
            Refuse("interval"),
        ),
        ("no checker", check(base), Refuse("health_checker")),
        (
            "statuses of 99",
            check(&format!(
                "{base}, http_health_check: {{ path: /h, expected_statuses: [{{ start: 99, end: 300 }}] }}"
            )),
            Refuse("expected_statuses"),
        ),
        ("no path", check(&format!("{base}, http_health_check: {{ path: \"\" }}")), Refuse("path")),
    ]
}

/// A control plane that is one of the static clusters, with a route to a cluster that it may bring; or nobody who asks.
fn with_ads(node: bool) -> Value {
    let mut document =
        if node { with_routes("- match: { prefix: / }\n  route: { cluster: nobody }") } else { with_hcm("") };
    document["dynamic_resources"] = yaml(
        "{ ads_config: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: one } }] },
           cds_config: { ads: {}, resource_api_version: V3 } }",
    );
    if !node {
        document["node"] = yaml("{ id: node }");
    }
    document
}

fn unvalidated() -> Value {
    let mut document = with_routes("- match: { prefix: / }\n  route: { cluster: nobody }");
    let filter = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
    filter["typed_config"]["route_config"]["validate_clusters"] = false.into();
    document
}
