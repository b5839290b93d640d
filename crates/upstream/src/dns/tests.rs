use super::*;

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn families() {
    let found = ["10.0.0.1:80", "[::1]:80", "10.0.0.2:80", "10.0.0.1:80"];
    let check = |family, found: &[&str], expected: &[&str]| {
        assert_eq!(choose(addresses(found).into_iter(), family), addresses(expected), "{family:?}");
    };
    check(DnsFamily::V4Only, &found, &["10.0.0.1:80", "10.0.0.2:80"]);
    check(DnsFamily::V6Only, &found, &["[::1]:80"]);
    check(DnsFamily::Auto, &found, &["[::1]:80"]);
    check(DnsFamily::Auto, &["10.0.0.1:80"], &["10.0.0.1:80"]);
    check(DnsFamily::V4Preferred, &found, &["10.0.0.1:80", "10.0.0.2:80"]);
    check(DnsFamily::V4Preferred, &["[::1]:80"], &["[::1]:80"]);
    check(DnsFamily::All, &found, &["10.0.0.1:80", "[::1]:80", "10.0.0.2:80"]);
}

#[test]
fn delays() {
    let settings = DnsSettings {
        refresh_rate: Duration::from_secs(5),
        jitter: Duration::from_secs(1),
        failure_base: Duration::from_secs(2),
        failure_max: Duration::from_secs(6),
        respect_ttl: false,
        family: DnsFamily::Auto,
        resolvers: vec![],
        use_tcp: false,
        no_search_domain: false,
    };
    let check = |failures, low, high| {
        for _ in 0..200 {
            let delay = delay(&settings, failures);
            assert!((Duration::from_secs(low)..=Duration::from_secs(high)).contains(&delay), "{failures}: {delay:?}");
        }
    };
    check(0, 5, 6);
    check(1, 2, 4);
    check(2, 2, 6);
    check(60, 2, 6);
}

#[tokio::test]
async fn localhost_resolves_and_nonsense_does_not() {
    let found = resolve(&("localhost".into(), 80), DnsFamily::V4Preferred, DEADLINE).await.unwrap();
    assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{found:?}");
    assert!(resolve(&("no such name.invalid".into(), 80), DnsFamily::All, DEADLINE).await.is_err());
}
