//! What a cluster counts, as Envoy counts it.

use super::*;

local_test! {
async fn a_cluster_counts_what_clients_got_and_apart_what_was_tried_again() {
    let (port, _) = host(|n| if n == 0 { status(503) } else { ok("x") }).await;
    let route = "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, num_retries: 2, \
                 retry_back_off: {base_interval: 0.001s}}}}";
    let running = start(route, &cluster("c", &[port], "")).await;
    assert!(ask(&mut connect(&running).await, GET).await.starts_with("HTTP/1.1 200 "));
    let names = ["upstream_rq_completed", "upstream_rq_200", "upstream_rq_503", "retry.upstream_rq_5xx", "upstream_rq_retry_success"];
    assert_eq!(names.map(|name| running.counted(name)), [1, 1, 0, 1, 1]);
    assert!(running.counted("upstream_cx_rx_bytes_total") > 70 && running.counted("upstream_cx_tx_bytes_total") > 100);
}
}

local_test! {
async fn replies_in_a_hosts_stead_count_as_the_clusters() {
    let (port, _) = host(|_| None).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    assert!(ask(&mut connect(&running).await, GET).await.starts_with("HTTP/1.1 503 "));
    let names = ["upstream_rq_503", "upstream_rq_5xx", "upstream_cx_destroy_remote_with_active_rq", "upstream_cx_http1_total"];
    assert_eq!(names.map(|name| running.counted(name)), [1, 1, 1, 1]);
}
}

local_test! {
async fn timeouts_count_by_their_kind() {
    let (port, _) = host(|_| Some(String::new())).await;
    let running = start("{match: {prefix: /}, route: {cluster: c, timeout: 0.05s}}", &cluster("c", &[port], "")).await;
    assert!(ask(&mut connect(&running).await, GET).await.starts_with("HTTP/1.1 504 "));
    let names = ["upstream_rq_timeout", "upstream_rq_504", "upstream_rq_tx_reset", "upstream_rq_per_try_timeout"];
    assert_eq!(names.map(|name| running.counted(name)), [1, 1, 1, 0]);
}
}

local_test! {
async fn a_request_that_waits_for_a_connection_is_not_yet_one_of_the_clusters() {
    let (port, seen) = host(|n| if n == 0 { Some(String::new()) } else { ok("x") }).await;
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1, max_requests: 1}]},";
    let routes = "{match: {path: /hasty}, route: {cluster: c, timeout: 0.1s}}, {match: {prefix: /}, route: {cluster: c}}";
    let running = start(routes, &cluster("c", &[port], limits)).await;
    let (mut first, mut second) = (connect(&running).await, connect(&running).await);
    first.write_all(GET.replace("/x", "/hasty").as_bytes()).await.unwrap();
    while seen.requests.borrow().is_empty() {
        tokio::task::yield_now().await;
    }
    // Its turn comes when the first has run out of time, which closes its connection.
    assert!(ask(&mut second, GET).await.ends_with("x"));
}
}

local_test! {
async fn a_chunk_that_is_none_is_a_400_and_not_a_closed_connection() {
    let (port, _) = host(|_| ok("x")).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n";
    let answer = ask(&mut connect(&running).await, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("Bad Request"), "{answer}");
}
}
