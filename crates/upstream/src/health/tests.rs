use meltemi_plan::cluster::{HealthCheckKind, HttpHealthCheck};
use meltemi_plan::{ClusterKind, HeaderRules};
use meltemi_telemetry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::probe::{contains_in_order, grpc_request, judge, judge_grpc, parse_status};
use super::*;
use crate::cluster::Transport;
use crate::testing;

fn http() -> HttpHealthCheck {
    HttpHealthCheck {
        host: "h".into(),
        path: "/healthz".into(),
        method: http::Method::GET,
        headers: HeaderRules::default(),
        http2: false,
        expected: vec![],
        retriable: vec![(429, 430)],
        receive: vec![],
    }
}

fn check(kind: HealthCheckKind) -> HealthCheck {
    let quick = Duration::from_millis(10);
    HealthCheck {
        timeout: Duration::from_secs(5),
        interval: quick,
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 0,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        alt_port: None,
        no_traffic_interval: quick,
        no_traffic_healthy_interval: quick,
        unhealthy_interval: quick,
        unhealthy_edge_interval: quick,
        healthy_edge_interval: quick,
        kind,
    }
}

#[test]
fn thresholds() {
    let bad = || Answer::Network("x".into());
    let run = |healthy: bool, answers: &[Answer]| {
        let check = check(HealthCheckKind::Http(http()));
        let mut verdict = Verdict::new(healthy);
        answers
            .iter()
            .map(|a| {
                verdict.answered(a, &check);
                verdict.healthy
            })
            .collect::<Vec<_>>()
    };
    // The first answer decides; later ones need their thresholds.
    assert_eq!(run(false, &[Answer::Healthy]), [true]);
    assert_eq!(run(false, &[bad(), Answer::Healthy, Answer::Healthy]), [false, false, true]);
    assert_eq!(run(false, &[bad(), Answer::Healthy, bad(), Answer::Healthy]), [false; 4]);
    assert_eq!(run(true, &[Answer::Healthy, bad(), bad(), bad()]), [true, true, true, false]);
    assert_eq!(run(true, &[Answer::Healthy, Answer::Retriable("429".into())]), [true, true]);
    assert_eq!(run(true, &[Answer::Healthy, Answer::Unhealthy("503".into())]), [true, false]);
}

#[test]
fn statuses() {
    let check = |head: &str, expected| assert_eq!(parse_status(head), expected, "{head:?}");
    check("HTTP/1.1 200 OK\r\n", Some(200));
    check("HTTP/1.0 503\r\n", Some(503));
    check("HTTP/1.1 2000 OK\r\n", None);
    check("HTTP/1.1 20\r\n", None);
    check("HTTP/2 200 OK\r\n", None);
    check("SSH-2.0", None);
    assert_eq!(judge(&http(), 200, false), Answer::Healthy);
    assert_eq!(judge(&http(), 200, true), Answer::Degraded);
    assert!(matches!(judge(&http(), 429, false), Answer::Retriable(_)));
    assert!(matches!(judge(&http(), 204, false), Answer::Unhealthy(_)));
    let any_2xx = HttpHealthCheck { expected: vec![(200, 300)], ..http() };
    assert_eq!(judge(&any_2xx, 204, false), Answer::Healthy);
}

#[test]
fn grpc_messages() {
    assert_eq!(&grpc_request("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(&grpc_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    assert_eq!(judge_grpc(200, &[0, 0, 0, 0, 2, 8, 1]), Answer::Healthy);
    assert!(matches!(judge_grpc(200, &[0, 0, 0, 0, 2, 8, 2]), Answer::Unhealthy(_)));
    assert!(matches!(judge_grpc(200, &[0, 0, 0, 0, 0]), Answer::Unhealthy(_)));
    assert!(matches!(judge_grpc(503, &[]), Answer::Unhealthy(_)));
}

#[test]
fn patterns_in_order() {
    let check = |text: &str, patterns: &[&'static str], expected| {
        let patterns: Vec<_> = patterns.iter().map(|p| bytes::Bytes::from_static(p.as_bytes())).collect();
        assert_eq!(contains_in_order(text.as_bytes(), &patterns), expected, "{text} {patterns:?}");
    };
    check("", &[], true);
    check("+PONG", &["PONG"], true);
    check("ab", &["a", "b"], true);
    check("ab", &["b", "a"], false);
    check("a", &["a", "a"], false);
}

/// Answers every connection with `answers`' current text.
async fn server(status: Arc<std::sync::atomic::AtomicU16>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let status = status.load(std::sync::atomic::Ordering::Relaxed);
            let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_cluster_warms_and_follows_its_checks() {
    let status = Arc::new(std::sync::atomic::AtomicU16::new(200));
    let address = server(status.clone()).await;
    let mut assignment = testing::hosts(&[1]);
    assignment.localities[0].endpoints[0].address = meltemi_plan::Address::Socket(address);
    let mut plan = testing::plan(ClusterKind::Static, testing::round_robin(), Some(assignment));
    testing::settings(&mut plan).health_checks.push(check(HealthCheckKind::Http(http())));
    let registry = Registry::new();
    let cluster = crate::Cluster::new(Arc::new(plan), vec![Transport::Plain], &registry, None);
    assert!(!cluster.is_warm());
    let background = crate::Background::default();
    cluster.start(&background);
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, testing::warmed(&cluster, &background)).await.unwrap();
    assert_eq!(cluster.set().healthy, 1);
    status.store(503, std::sync::atomic::Ordering::Relaxed);
    let until = |healthy: usize| {
        let cluster = cluster.clone();
        tokio::time::timeout(limit, async move {
            while cluster.set().healthy != healthy {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    until(0).await.unwrap();
    assert_eq!(cluster.hosts()[0].state.health_text(), "/failed_active_hc");
    status.store(200, std::sync::atomic::Ordering::Relaxed);
    until(1).await.unwrap();
    assert!(registry.total("envoy_cluster_health_check_failure", &[]) >= 1);
}
