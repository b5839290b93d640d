use std::sync::Arc;
use std::time::{Duration, Instant};

use meltemi_http::{ResponseHead, StatusCode, name};
use meltemi_matchers::{StringMatcher, StringPattern};
use meltemi_plan::filter as plan;
use meltemi_plan::filter::{CorsPolicy, FaultAbort, FaultAbortBy, FaultDelay, FaultDelayBy, PeerMetadata, PeerMethod};
use meltemi_plan::header::{AppendAction, HeaderAdd};
use meltemi_plan::{FilterOverride, Format, Fraction, HeaderKey, HttpFilter, HttpFilterConfig, Rbac, RbacAction};

use super::grpc::GrpcCounter;
use crate::bucket::TokenBucket;
use crate::testing;
use crate::{ChainScope, Context, Direction, FilterChain, Flow, ResponseFlags, StreamInfo};

fn chain(context: &Arc<Context>, filters: Vec<(&str, HttpFilterConfig)>) -> Arc<FilterChain> {
    let filters: Vec<_> =
        filters.into_iter().map(|(name, config)| HttpFilter { name: name.into(), disabled: false, config }).collect();
    FilterChain::new(&filters, &ChainScope { stat_prefix: "s".into(), direction: Direction::Inbound }, context)
}

fn status(flow: &Flow) -> Option<u16> {
    match flow {
        Flow::Continue => None,
        Flow::Reply(reply) => Some(reply.status.as_u16()),
        Flow::Reroute | Flow::Body(_) => panic!("asks for more"),
    }
}

fn fault(delay: Option<FaultDelay>, abort: Option<FaultAbort>, max_active: Option<u32>) -> plan::Fault {
    plan::Fault { delay, abort, upstream_cluster: None, headers: vec![], downstream_nodes: vec![], max_active }
}

fn abort(by: FaultAbortBy) -> Option<FaultAbort> {
    Some(FaultAbort { fraction: Fraction::ALWAYS, by, body: "fault filter abort".into() })
}

#[tokio::test]
async fn faults() {
    let context = testing::context();
    let run = async |config: plan::Fault, headers: &[(&str, &str)]| {
        let chain = chain(&context, vec![("f", HttpFilterConfig::Fault(Arc::new(config)))]);
        let mut info = testing::info();
        let flow = chain.stream().on_request(&mut testing::request(headers), &mut info, testing::ALONE).await;
        (status(&flow), info.flags, info.response_code_details.map(|d| d.to_string()))
    };
    let injected = (Some(503), ResponseFlags::FAULT_INJECTED, Some("fault_filter_abort".to_owned()));
    assert_eq!(run(fault(None, abort(FaultAbortBy::Http(503)), None), &[]).await, injected);
    let nothing = (None, ResponseFlags::NONE, None);
    assert_eq!(run(fault(None, abort(FaultAbortBy::Http(503)), Some(0)), &[]).await, nothing);
    let by_header = || fault(None, abort(FaultAbortBy::Header), None);
    assert_eq!(run(by_header(), &[]).await, nothing);
    assert_eq!(run(by_header(), &[("x-envoy-fault-abort-request", "503")]).await, injected);
    assert_eq!(run(by_header(), &[("x-envoy-fault-abort-request", "99")]).await, nothing);
    let lowered = [("x-envoy-fault-abort-request", "503"), ("x-envoy-fault-abort-request-percentage", "0")];
    assert_eq!(run(by_header(), &lowered).await, nothing);
    let delay = FaultDelay { fraction: Fraction::ALWAYS, by: FaultDelayBy::Fixed(Duration::from_millis(30)) };
    let start = Instant::now();
    let delayed = run(fault(Some(delay.clone()), None, None), &[]).await;
    assert_eq!(delayed, (None, ResponseFlags::DELAY_INJECTED, None));
    assert!(start.elapsed() >= Duration::from_millis(30));
    let both = run(fault(Some(delay), abort(FaultAbortBy::Grpc(14)), None), &[]).await;
    assert_eq!((both.0, both.1), (Some(200), ResponseFlags::DELAY_INJECTED | ResponseFlags::FAULT_INJECTED));
    assert_eq!(context.registry.total("envoy_http_fault_aborts_injected", &[]), 0, "groups end with their chain");
}

#[tokio::test]
async fn an_abort_without_a_body_of_its_own_says_what_it_is() {
    for (own, expected) in [("", "fault filter abort"), ("busy", "busy")] {
        let mut config = fault(None, abort(FaultAbortBy::Http(418)), None);
        config.abort.as_mut().unwrap().body = own.into();
        let chain = chain(&testing::context(), vec![("f", HttpFilterConfig::Fault(Arc::new(config)))]);
        let flow = chain.stream().on_request(&mut testing::request(&[]), &mut testing::info(), testing::ALONE).await;
        let Flow::Reply(reply) = flow else { panic!("not aborted") };
        assert_eq!(reply.body, expected);
    }
}

#[tokio::test]
async fn an_active_fault_counts_until_its_stream_ends() {
    let context = testing::context();
    let config = fault(None, abort(FaultAbortBy::Http(418)), Some(1));
    let chain = chain(&context, vec![("f", HttpFilterConfig::Fault(Arc::new(config)))]);
    let mut first = chain.stream();
    let run = async |stream: &mut crate::StreamFilters| {
        status(&stream.on_request(&mut testing::request(&[]), &mut testing::info(), testing::ALONE).await)
    };
    assert_eq!(run(&mut first).await, Some(418));
    assert_eq!(run(&mut chain.stream()).await, None);
    assert_eq!(context.registry.total("envoy_http_fault_faults_overflow", &[]), 1);
    drop(first);
    assert_eq!(run(&mut chain.stream()).await, Some(418));
}

fn cors(enabled: Fraction) -> FilterOverride {
    FilterOverride::Cors(Arc::new(CorsPolicy {
        allow_origins: vec![StringMatcher {
            pattern: StringPattern::Exact("https://a.test".into()),
            ignore_case: false,
        }],
        allow_methods: "GET,POST".into(),
        allow_headers: "x-a".into(),
        expose_headers: "x-b".into(),
        max_age: "60".into(),
        allow_credentials: true,
        allow_private_network_access: false,
        forward_not_matching_preflights: true,
        enabled,
        shadow: Fraction::NEVER,
    }))
}

#[tokio::test]
async fn cors_preflights_and_responses() {
    let context = testing::context();
    let chain = chain(&context, vec![("cors", HttpFilterConfig::Cors)]);
    let run = async |method: &str, headers: &[(&str, &str)], policy: FilterOverride| {
        let mut info = testing::info();
        info.route = Some(testing::route(vec![("cors", policy)]));
        let mut head = testing::request(headers);
        head.method = method.parse().unwrap();
        let mut stream = chain.stream();
        let flow = stream.on_request(&mut head, &mut info, testing::ALONE).await;
        let mut response = ResponseHead::new(StatusCode::OK);
        if let Flow::Reply(reply) = &flow {
            response.headers = reply.headers.clone();
        }
        stream.on_response(&head, &mut response, &mut info);
        let mut names: Vec<String> =
            response.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        names.sort();
        (status(&flow), names)
    };
    let marked = [
        "access-control-allow-credentials: true",
        "access-control-allow-origin: https://a.test",
        "access-control-expose-headers: x-b",
    ]
    .map(str::to_owned);
    let origin = ("origin", "https://a.test");
    let asks = ("access-control-request-method", "POST");
    assert_eq!(run("GET", &[origin], cors(Fraction::ALWAYS)).await, (None, marked.to_vec()));
    assert_eq!(run("GET", &[], cors(Fraction::ALWAYS)).await, (None, vec![]));
    assert_eq!(run("GET", &[origin], cors(Fraction::NEVER)).await, (None, vec![]));
    assert_eq!(run("GET", &[("origin", "https://b.test")], cors(Fraction::ALWAYS)).await, (None, vec![]));
    assert_eq!(run("OPTIONS", &[origin], cors(Fraction::ALWAYS)).await.0, None);
    let (status, headers) = run("OPTIONS", &[origin, asks], cors(Fraction::ALWAYS)).await;
    assert_eq!((status, headers.len()), (Some(200), 6), "{headers:?}");
    assert!(headers.contains(&"access-control-allow-methods: GET,POST".to_owned()));
    // A stranger's preflight that is not forwarded is told everything but that it may.
    let FilterOverride::Cors(policy) = cors(Fraction::ALWAYS) else { panic!("a policy") };
    let strict = CorsPolicy { forward_not_matching_preflights: false, ..(*policy).clone() };
    let stranger = [("origin", "https://b.test"), asks];
    let (status, headers) = run("OPTIONS", &stranger, FilterOverride::Cors(Arc::new(strict))).await;
    assert_eq!(status, Some(200));
    assert!(headers.contains(&"access-control-allow-methods: GET,POST".to_owned()), "{headers:?}");
    assert!(headers.contains(&"access-control-allow-credentials: true".to_owned()), "{headers:?}");
    assert!(!headers.iter().any(|header| header.starts_with("access-control-allow-origin")), "{headers:?}");
    // What is asked for, where anything is allowed.
    let any = CorsPolicy { allow_methods: "*".into(), allow_headers: "*".into(), ..(*policy).clone() };
    let asks = [origin, asks, ("access-control-request-headers", "x-1, x-2")];
    let (_, headers) = run("OPTIONS", &asks, FilterOverride::Cors(Arc::new(any))).await;
    assert!(headers.contains(&"access-control-allow-methods: POST".to_owned()), "{headers:?}");
    assert!(headers.contains(&"access-control-allow-headers: x-1, x-2".to_owned()), "{headers:?}");
}

#[tokio::test]
async fn rbac_denies_with_the_policys_name() {
    use meltemi_plan::rbac::{Permission, Principal, RbacPolicy};
    let context = testing::context();
    let policy = |permission| RbacPolicy {
        name: "ns[books]-policy[p q]-rule[0]".into(),
        permissions: vec![permission],
        principals: vec![Principal::Any],
    };
    let run = async |action, permission| {
        let rules = Rbac { action, policies: vec![policy(permission)] };
        let config = plan::RbacFilter {
            rules: Some(rules),
            shadow_rules: None,
            rules_stat_prefix: "".into(),
            shadow_rules_stat_prefix: "".into(),
        };
        let chain = chain(&context, vec![("rbac", HttpFilterConfig::Rbac(Arc::new(config)))]);
        let mut info = testing::info();
        let flow = chain.stream().on_request(&mut testing::request(&[]), &mut info, testing::ALONE).await;
        (status(&flow), info.response_code_details.map(|d| d.to_string()))
    };
    let port = Permission::DestinationPort(9080);
    let other = Permission::DestinationPort(1);
    assert_eq!(run(RbacAction::Allow, port.clone()).await, (None, None));
    let none = "rbac_access_denied_matched_policy[none]".to_owned();
    assert_eq!(run(RbacAction::Allow, other.clone()).await, (Some(403), Some(none)));
    let named = "rbac_access_denied_matched_policy[ns[books]-policy[p_q]-rule[0]]".to_owned();
    assert_eq!(run(RbacAction::Deny, port.clone()).await, (Some(403), Some(named)));
    assert_eq!(run(RbacAction::Deny, other).await, (None, None));
    assert_eq!(run(RbacAction::Log, port).await, (None, None));
}

#[tokio::test]
async fn peers_introduce_themselves_and_applications_do_not_see_it() {
    let context = testing::context();
    let headers = PeerMethod::IstioHeaders { skip_external_clusters: false };
    let inbound = PeerMetadata {
        downstream_discovery: vec![headers],
        upstream_discovery: vec![],
        downstream_propagation: vec![headers],
        upstream_propagation: vec![],
    };
    let chain = chain(&context, vec![("mx", HttpFilterConfig::PeerMetadata(Arc::new(inbound)))]);
    let run = async |fields: &[(&str, &str)]| {
        let mut info = testing::info();
        let mut head = testing::request(fields);
        let mut stream = chain.stream();
        assert!(matches!(stream.on_request(&mut head, &mut info, testing::ALONE).await, Flow::Continue));
        let mut response = ResponseHead::new(StatusCode::OK);
        stream.on_response(&head, &mut response, &mut info);
        assert!(head.headers.is_empty(), "stripped");
        (info.peer.map(|p| p.workload.to_string()), response.headers.contains(&name::X_ENVOY_PEER_METADATA))
    };
    let own = context.node.header.to_string();
    let sent = [("x-envoy-peer-metadata-id", "id"), ("x-envoy-peer-metadata", own.as_str())];
    assert_eq!(run(&sent).await, (Some("productpage-v1".to_owned()), true));
    assert_eq!(run(&sent[1..]).await, (Some("productpage-v1".to_owned()), false));
    assert_eq!(run(&[("x-envoy-peer-metadata", "nonsense")]).await, (None, false));
    assert_eq!(run(&[]).await, (None, false));
}

#[tokio::test]
async fn an_override_switches_a_filter_off_and_another_on() {
    let context = testing::context();
    let config = fault(None, abort(FaultAbortBy::Http(503)), None);
    let filter = HttpFilterConfig::Fault(Arc::new(config));
    let filters = [HttpFilter { name: "f".into(), disabled: true, config: filter }];
    let chain = FilterChain::new(&filters, &ChainScope::default(), &context);
    let run = async |overrides| {
        let mut info = testing::info();
        info.route = Some(testing::route(overrides));
        status(&chain.stream().on_request(&mut testing::request(&[]), &mut info, testing::ALONE).await)
    };
    assert_eq!(run(vec![]).await, None);
    assert_eq!(run(vec![("f", FilterOverride::Enabled)]).await, Some(503));
    assert_eq!(run(vec![("f", FilterOverride::Disabled)]).await, None);
    let own = fault(None, abort(FaultAbortBy::Http(418)), None);
    assert_eq!(run(vec![("f", FilterOverride::Fault(Arc::new(own)))]).await, Some(418));
}

#[test]
fn header_rules() {
    let add = |name: &str, value: &str, action, keep_empty| HeaderAdd {
        key: match name {
            ":authority" => HeaderKey::Authority,
            name => HeaderKey::Name(name.parse().unwrap()),
        },
        value: Format::parse(value).unwrap(),
        action,
        keep_empty,
    };
    let info = testing::info();
    let run = |rule: HeaderAdd| {
        let mut head = testing::request(&[("x-a", "1")]);
        crate::headers::add_to_request(&[rule], &mut head, &info);
        let fields: Vec<String> = head.headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        format!("{} {}", head.authority, fields.join(","))
    };
    use AppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd};
    let check = |rule, expected: &str| assert_eq!(run(rule), expected);
    check(add("x-a", "2", AppendIfExistsOrAdd, false), "reviews:9080 x-a=1,x-a=2");
    check(add("x-a", "2", AddIfAbsent, false), "reviews:9080 x-a=1");
    check(add("x-b", "2", AddIfAbsent, false), "reviews:9080 x-a=1,x-b=2");
    check(add("x-a", "2", OverwriteIfExistsOrAdd, false), "reviews:9080 x-a=2");
    check(add("x-b", "2", OverwriteIfExists, false), "reviews:9080 x-a=1");
    check(
        add("x-b", "%REQ(X-A)%-%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", AddIfAbsent, false),
        "reviews:9080 x-a=1,x-b=1-10.0.0.9",
    );
    check(add("x-b", "%REQ(NOPE)%", AddIfAbsent, false), "reviews:9080 x-a=1");
    check(add("x-b", "%REQ(NOPE)%", AddIfAbsent, true), "reviews:9080 x-a=1,x-b=");
    check(add("host", "h", OverwriteIfExistsOrAdd, false), "h x-a=1");
    check(add(":authority", "h", AddIfAbsent, false), "reviews:9080 x-a=1");
}

#[test]
fn token_buckets() {
    let config = plan::TokenBucket { max_tokens: 3, tokens_per_fill: 2, fill_interval: Duration::from_secs(1) };
    let start = Instant::now();
    let bucket = TokenBucket::new(config, start);
    let taken = |millis| (0..10).filter(|_| bucket.take(start + Duration::from_millis(millis))).count();
    assert_eq!([0, 999, 1000, 1999, 60_000].map(taken), [3, 0, 2, 0, 3]);
}

#[test]
fn grpc_messages_are_counted_at_any_split() {
    let mut body = Vec::new();
    for length in [0u8, 3, 1] {
        body.extend_from_slice(&[0, 0, 0, 0, length]);
        body.extend(std::iter::repeat_n(7, length.into()));
    }
    for size in 1..=body.len() {
        let mut counter = GrpcCounter::default();
        assert_eq!(body.chunks(size).map(|chunk| counter.count(chunk)).sum::<u64>(), 3, "chunks of {size}");
    }
}

#[test]
fn alpn_overrides_by_protocol() {
    let config = plan::IstioAlpn {
        http10: vec![],
        http11: vec!["istio-http/1.1".into(), "istio".into()],
        http2: vec!["istio-h2".into()],
    };
    let overrides = crate::AlpnOverrides::new(&config);
    let offered = |protocol| overrides.offered(protocol).map(|list| list.len());
    use meltemi_http::Protocol::{Http2, Http10, Http11};
    assert_eq!([Http10, Http11, Http2].map(offered), [None, Some(2), Some(1)]);
}

#[test]
fn the_most_specific_override_is_found() {
    let mut info: StreamInfo = testing::info();
    assert!(info.filter_override("f").is_none());
    info.route = Some(testing::route(vec![("f", FilterOverride::Disabled)]));
    assert!(matches!(info.filter_override("f"), Some(FilterOverride::Disabled)));
    assert!(info.filter_override("g").is_none());
}

#[test]
fn workers_share_a_chain_while_it_lives() {
    let context = testing::context();
    let fault = HttpFilterConfig::Fault(Arc::new(fault(None, None, None)));
    let filters = |config| vec![HttpFilter { name: "f".into(), disabled: false, config }];
    let scope = ChainScope::default();
    let first = FilterChain::new(&filters(fault.clone()), &scope, &context);
    assert!(Arc::ptr_eq(&first, &FilterChain::new(&filters(fault.clone()), &scope, &context)));
    let other = ChainScope { stat_prefix: "other".into(), ..scope.clone() };
    assert!(!Arc::ptr_eq(&first, &FilterChain::new(&filters(fault), &other, &context)));
    assert!(!Arc::ptr_eq(&first, &FilterChain::new(&filters(HttpFilterConfig::Cors), &scope, &context)));
}
