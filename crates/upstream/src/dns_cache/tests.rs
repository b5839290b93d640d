use meltemi_plan::cluster::DnsFamily;

use super::*;

fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        family: DnsFamily::V4Only,
        refresh_rate: Duration::from_secs(60),
        failure_base: Duration::from_secs(60),
        failure_max: Duration::from_secs(60),
        forget_failures: false,
        host_ttl: Duration::from_secs(300),
        max_hosts: 2,
        max_pending: 10,
        query_timeout: Duration::from_secs(5),
    }
}

fn cache(name: &str, change: impl FnOnce(&mut Settings)) -> Arc<DnsCache> {
    let mut settings = settings(name);
    change(&mut settings);
    Arc::new(DnsCache::new(Arc::new(settings), &Registry::new()))
}

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 80).into()
}

/// What a request finds: an address, a reason, to wait (`?`), or no room (`!`).
fn found(cache: &Arc<DnsCache>, host: &str, now: Instant) -> String {
    match cache.find(&key(host, 80), now) {
        Found::Now(answer) => match first(&answer) {
            Ok(address) => address.ip().to_string(),
            Err(Unresolved::Failed(reason)) => reason.to_string(),
            Err(other) => format!("{other:?}"),
        },
        Found::Later(_) => "?".to_owned(),
        Found::Full => "!".to_owned(),
    }
}

/// Questions go into tasks that the runtime never gets to: the test gives the answers itself.
#[tokio::test]
async fn answers_are_served_while_they_are_asked_for_again_and_failures_keep_the_last_good_one() {
    let cache = cache("refresh", |_| {});
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    assert_eq!(found(&cache, "a.example", start), "?");
    assert_eq!(found(&cache, "A.Example", start), "?", "the same name");
    cache.take(&key("a.example", 80), Ok(vec![address(1), address(2)]), start);
    assert_eq!(found(&cache, "a.example", start + 59 * second), "10.0.0.1");
    assert_eq!(found(&cache, "a.example", start + 61 * second), "10.0.0.1", "old, and asked for again");
    let failed = || Err(DnsError::Failed("no such name".to_owned()));
    cache.take(&key("a.example", 80), failed(), start + 62 * second);
    assert_eq!(found(&cache, "a.example", start + 63 * second), "10.0.0.1");
    cache.take(&key("a.example", 80), Ok(vec![address(3)]), start + 64 * second);
    assert_eq!(found(&cache, "a.example", start + 65 * second), "10.0.0.3");
    assert_eq!(found(&cache, "a.example", start + 900 * second), "?", "unused for longer than its time to live");

    assert_eq!(found(&cache, "b.example", start), "?");
    cache.take(&key("b.example", 80), failed(), start);
    assert_eq!(found(&cache, "b.example", start + 59 * second), "no such name");
    assert_eq!(found(&cache, "b.example", start + 61 * second), "?", "the next answer may be better");
}

#[tokio::test]
async fn a_full_cache_makes_room_only_by_names_that_nobody_uses() {
    let cache = cache("full", |_| {});
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    for (name, last) in [("a", 1), ("b", 2)] {
        assert_eq!(found(&cache, name, start), "?");
        cache.take(&key(name, 80), Ok(vec![address(last)]), start);
    }
    assert_eq!(found(&cache, "c", start + second), "!");
    assert_eq!(found(&cache, "a", start + 200 * second), "10.0.0.1");
    assert_eq!(found(&cache, "c", start + 301 * second), "?", "b was unused for 300 s");
    assert_eq!(cache.stats.num_hosts().value(), 2);
    assert_eq!(cache.stats.host_removed().value(), 1);
    assert_eq!(found(&cache, "a", start + 301 * second), "10.0.0.1");
}

#[tokio::test]
async fn a_failure_that_is_not_kept_is_asked_for_at_once() {
    let cache = cache("forgetful", |settings| settings.forget_failures = true);
    let start = Instant::now();
    assert_eq!(found(&cache, "a", start), "?");
    cache.take(&key("a", 80), Err(DnsError::Timeout), start);
    assert_eq!(found(&cache, "a", start), "?");
    assert_eq!(cache.stats.dns_query_attempt().value(), 2);
}

#[tokio::test]
async fn names_are_resolved_and_failures_said() {
    let cache = cache("system", |_| {});
    assert_eq!(cache.address("localhost", 80).await, Ok(([127, 0, 0, 1], 80).into()));
    assert_eq!(cache.address("127.0.0.9", 81).await, Ok(([127, 0, 0, 9], 81).into()));
    assert_eq!(cache.address("c", 80).await, Err(Unresolved::Full));
    assert_eq!(cache.stats.dns_query_success().value(), 2);
}

#[tokio::test]
async fn requests_that_wait_are_bounded() {
    let cache = cache("pending", |settings| settings.max_pending = 0);
    assert_eq!(cache.address("localhost", 80).await, Err(Unresolved::Pending));
    assert_eq!(cache.stats.dns_rq_pending_overflow().value(), 1);
}

#[test]
fn caches_of_one_name_and_like_settings_are_one() {
    let registry = Registry::new();
    let one = shared(&Arc::new(settings("one")), &registry);
    assert!(Arc::ptr_eq(&one, &shared(&Arc::new(settings("one")), &registry)));
    assert!(!Arc::ptr_eq(&one, &shared(&Arc::new(settings("two")), &registry)));
    let other = Settings { max_hosts: 9, ..settings("one") };
    assert!(!Arc::ptr_eq(&one, &shared(&Arc::new(other), &registry)));
}
