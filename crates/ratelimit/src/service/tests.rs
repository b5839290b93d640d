use meltemi_config::parse_rate_limit_configuration;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{Entry, RateLimitOverride};
use meltemi_proto::envoy::r#type::v3::RateLimitUnit as WireUnit;

use super::*;
use crate::counters::{Backend, Credential, RedisOptions};

const DOCUMENT: &str = "
domain: shop
descriptors:
- key: user
  rate_limit: {unit: minute, requests_per_unit: 3}
- key: user
  value: free
  rate_limit: {unlimited: true}
- key: tier
  rate_limit: {name: tier, unit: minute, requests_per_unit: 1}
- key: gold
  rate_limit: {unit: minute, requests_per_unit: 5, replaces: [{name: tier}]}
- key: path
  value: /files/*
  share_threshold: true
  rate_limit: {unit: hour, requests_per_unit: 2}
";

fn service_with(backend: Backend, manners: Manners) -> (Service, Arc<Stats>) {
    let document = parse_rate_limit_configuration("limits.yaml", DOCUMENT).expect("valid").value;
    let stats = Arc::new(Stats::new());
    let limits = Arc::new(ArcSwap::from_pointee(Limits::new(&[document], &stats)));
    let counters = Arc::new(Counters::start(backend, &stats.registry));
    (Service::new(limits, counters, stats.clone(), manners, || 0), stats)
}

fn service() -> (Service, Arc<Stats>) {
    service_with(Backend::Memory { keys: 1024 }, Manners::default())
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() }
}

fn request(descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest { domain: "shop".into(), descriptors, hits_addend: 0 }
}

/// The overall code and what remains of each descriptor.
async fn decide(service: &Service, request: &RateLimitRequest, now: u64) -> (i32, Vec<u32>) {
    let response = service.decide(request, now).await.expect("an answer");
    (response.overall_code, response.statuses.iter().map(|status| status.limit_remaining).collect())
}

const OK: i32 = Code::Ok as i32;
const OVER: i32 = Code::OverLimit as i32;

#[tokio::test]
async fn a_window_has_as_many_requests_as_its_limit_and_the_next_begins_anew() {
    let (service, stats) = service();
    let ann = request(vec![descriptor(&[("user", "ann")])]);
    for (now, expected) in [(120, (OK, 2)), (130, (OK, 1)), (179, (OK, 0)), (179, (OVER, 0)), (180, (OK, 2))] {
        let (code, remaining) = decide(&service, &ann, now).await;
        assert_eq!((code, remaining[0]), expected, "at {now}");
    }
    let bob = request(vec![descriptor(&[("user", "bob")])]);
    assert_eq!(decide(&service, &bob, 179).await, (OK, vec![2]), "a count of its own");
    let labels = [("domain", "shop"), ("key1", "user")];
    assert_eq!(stats.registry.total("ratelimit_service_rate_limit_total_hits", &labels), 6);
    assert_eq!(stats.registry.total("ratelimit_service_rate_limit_over_limit", &labels), 1);
    assert_eq!(stats.registry.total("ratelimit_service_rate_limit_within_limit", &labels), 5);
}

#[tokio::test]
async fn what_no_limit_is_for_is_allowed() {
    let (service, stats) = service();
    let free = request(vec![descriptor(&[("user", "free")]), descriptor(&[("nobody", "")])]);
    for _ in 0..10 {
        assert_eq!(decide(&service, &free, 0).await, (OK, vec![u32::MAX, 0]));
    }
    let elsewhere = RateLimitRequest { domain: "elsewhere".into(), ..free };
    assert_eq!(decide(&service, &elsewhere, 0).await, (OK, vec![0, 0]));
    assert_eq!(stats.domain_not_found.value(), 1);
}

#[tokio::test]
async fn hits_come_from_the_descriptor_then_from_the_request() {
    let (service, _) = service();
    let mut two = request(vec![descriptor(&[("user", "ann")])]);
    two.hits_addend = 2;
    assert_eq!(decide(&service, &two, 0).await, (OK, vec![1]));
    two.descriptors[0].hits_addend = Some(0);
    assert_eq!(decide(&service, &two, 0).await, (OK, vec![1]), "only looked at");
    two.descriptors[0].hits_addend = Some(5);
    assert_eq!(decide(&service, &two, 0).await, (OVER, vec![0]));
}

#[tokio::test]
async fn a_limit_that_is_replaced_neither_counts_nor_refuses() {
    let (service, _) = service();
    let both = request(vec![descriptor(&[("tier", "a")]), descriptor(&[("gold", "a")])]);
    for remaining in (0..5).rev() {
        assert_eq!(decide(&service, &both, 0).await, (OK, vec![0, remaining]));
    }
    assert_eq!(decide(&service, &both, 0).await.0, OVER);
    let tier = request(vec![descriptor(&[("tier", "a")])]);
    assert_eq!(decide(&service, &tier, 0).await, (OK, vec![0]), "the first hit of its own");
}

#[tokio::test]
async fn values_of_a_shared_pattern_are_counted_together() {
    let (service, _) = service();
    let file = |name: &str| request(vec![descriptor(&[("path", name)])]);
    assert_eq!(decide(&service, &file("/files/a"), 0).await, (OK, vec![1]));
    assert_eq!(decide(&service, &file("/files/b"), 0).await, (OK, vec![0]));
    assert_eq!(decide(&service, &file("/files/c"), 0).await, (OVER, vec![0]));
}

#[tokio::test]
async fn a_request_may_bring_its_own_limit() {
    let (service, _) = service();
    let mut own = descriptor(&[("user", "free")]);
    own.limit = Some(RateLimitOverride { requests_per_unit: 1, unit: WireUnit::Hour as i32 });
    let asked = request(vec![own.clone()]);
    assert_eq!(decide(&service, &asked, 0).await, (OK, vec![0]));
    assert_eq!(decide(&service, &asked, 3599).await, (OVER, vec![0]));
    own.limit = Some(RateLimitOverride { requests_per_unit: 1, unit: WireUnit::Unknown as i32 });
    let status = service.decide(&request(vec![own]), 0).await.expect_err("no unit");
    assert_eq!(status.message(), "descriptors[0].limit.unit: 0 is no unit");
}

#[tokio::test]
async fn requests_that_ask_nothing_are_refused() {
    let (service, stats) = service();
    let mut back = descriptor(&[("user", "ann")]);
    back.is_negative_hits = true;
    let nameless = RateLimitRequest { domain: String::new(), ..request(vec![descriptor(&[])]) };
    for (request, message) in [
        (nameless, "rate limit domain must not be empty"),
        (request(Vec::new()), "rate limit descriptor list must not be empty"),
        (request(vec![back]), "descriptors[0].is_negative_hits: hits are never taken back"),
    ] {
        let status = service.decide(&request, 0).await.expect_err(message);
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, message));
    }
    assert_eq!(stats.service_errors.value(), 3);
}

#[tokio::test]
async fn a_server_in_shadow_mode_refuses_nothing() {
    let manners = Manners { shadow: true, ..Manners::default() };
    let (service, stats) = service_with(Backend::Memory { keys: 64 }, manners);
    let ann = request(vec![descriptor(&[("user", "ann")])]);
    for _ in 0..5 {
        assert_eq!(decide(&service, &ann, 0).await.0, OK);
    }
    assert_eq!(stats.global_shadow_mode.value(), 2);
}

#[tokio::test]
async fn without_redis_it_answers_as_it_was_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let ann = request(vec![descriptor(&[("user", "ann")])]);
    for (on_failure, expected) in
        [(OnFailure::Error, None), (OnFailure::Allow, Some(OK)), (OnFailure::Deny, Some(OVER))]
    {
        let timeout = std::time::Duration::from_secs(1);
        let options = RedisOptions { address: address.clone(), credential: Some(Credential::new("x")), timeout };
        let (service, stats) = service_with(Backend::Redis(options), Manners { on_failure, ..Manners::default() });
        let answer = service.decide(&ann, 0).await;
        assert_eq!(answer.as_ref().map(|response| response.overall_code).ok(), expected, "{on_failure:?}");
        if let Err(status) = answer {
            assert_eq!(status.code(), tonic::Code::Unavailable);
        }
        assert_eq!(stats.redis_errors.value(), 1);
    }
}

#[test]
fn keys_are_those_of_the_reference_server() {
    let limits =
        Limits::new(&[parse_rate_limit_configuration("limits.yaml", DOCUMENT).expect("valid").value], &Stats::new());
    let key = |entries: &[(&str, &str)], now| {
        let (request, descriptor) = (request(Vec::new()), descriptor(entries));
        let found = limits.find("shop", &descriptor).flatten().expect("a limit");
        hit(&request, &descriptor, &found, found.limit.window.expect("a window"), now).key
    };
    assert_eq!(key(&[("user", "ann")], 125), "shop_user_ann_120");
    assert_eq!(key(&[("path", "/files/a")], 7300), "shop_path_/files/*_7200");
}
