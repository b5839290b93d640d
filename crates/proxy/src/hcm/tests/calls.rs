//! Filters that ask services of their own: over the worker's clusters, with the beginning of the request's body.

use super::*;

const AUTHZ: &str = r#"
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              clear_route_cache: true
              with_request_body: {max_request_bytes: 8, allow_partial_message: true}
              http_service:
                server_uri: {uri: http://authz, cluster: authz, timeout: 0.5s}
                authorization_response: {allowed_upstream_headers: {patterns: [{exact: x-who}]}}
          - name: envoy.filters.http.router"#;

fn listener(routes: &str) -> String {
    LISTENER.replace("ROUTES", routes).replacen("\n          - name: envoy.filters.http.router", AUTHZ, 1)
}

fn post(body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

local_test! {
async fn a_service_sees_the_beginning_of_a_body_and_the_host_gets_all_of_it() {
    let (authz, asked) = super::host(|_| status(200)).await;
    let (port, seen) = super::host(|_| ok("fine")).await;
    let clusters = cluster("c", &[port], "") + &cluster("authz", &[authz], "");
    let running = start_listener(&listener("{match: {prefix: /}, route: {cluster: c}}"), &clusters).await;
    let mut client = connect(&running).await;
    for round in 0..2 {
        let answer = ask(&mut client, &post("a body of some length")).await;
        assert!(answer.ends_with("fine"), "{answer}");
        assert!(asked.requests.borrow()[round].ends_with("\r\n\r\na body o"), "{}", asked.requests.borrow()[round]);
        assert!(asked.requests.borrow()[round].contains("x-envoy-auth-partial-body: true"));
        assert!(seen.requests.borrow()[round].ends_with("\r\n\r\na body of some length"));
    }
    assert_eq!(asked.connections.get(), 1, "calls share the worker's connections");
}
}

local_test! {
async fn a_retry_sends_what_a_filter_has_read_again() {
    let (authz, _) = super::host(|_| status(200)).await;
    let (port, seen) = super::host(|n| if n == 0 { status(503) } else { ok("fine") }).await;
    let clusters = cluster("c", &[port], "") + &cluster("authz", &[authz], "");
    let route = "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx}}}";
    let running = start_listener(&listener(route), &clusters).await;
    let answer = ask(&mut connect(&running).await, &post("a body of some length")).await;
    assert!(answer.ends_with("fine"), "{answer}");
    assert!(seen.requests.borrow().iter().all(|request| request.ends_with("\r\n\r\na body of some length")));
    assert_eq!(seen.requests.borrow().len(), 2);
}
}

local_test! {
async fn what_a_service_adds_may_choose_another_route() {
    let granted = "HTTP/1.1 200 OK\r\nx-who: me\r\ncontent-length: 0\r\n\r\n";
    let (authz, _) = super::host(move |_| Some(granted.to_owned())).await;
    let ((one, _), (two, _)) = (super::host(|_| ok("one")).await, super::host(|_| ok("two")).await);
    let clusters = cluster("one", &[one], "") + &cluster("two", &[two], "") + &cluster("authz", &[authz], "");
    let routes = "{match: {prefix: /, headers: [{name: x-who, string_match: {exact: me}}]}, route: {cluster: two}}, \
                  {match: {prefix: /}, route: {cluster: one}}";
    let running = start_listener(&listener(routes), &clusters).await;
    assert!(ask(&mut connect(&running).await, GET).await.ends_with("two"));
}
}

local_test! {
async fn a_service_that_does_not_answer_in_time_or_at_all_refuses() {
    // Takes requests and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing = super::host(|_| None).await.0;
    let (port, seen) = super::host(|_| ok("fine")).await;
    for authz in [silent.local_addr().unwrap().port(), closing] {
        let clusters = cluster("c", &[port], "") + &cluster("authz", &[authz], "");
        let running = start_listener(&listener("{match: {prefix: /}, route: {cluster: c}}"), &clusters).await;
        let answer = ask(&mut connect(&running).await, GET).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    assert!(seen.requests.borrow().is_empty());
}
}
