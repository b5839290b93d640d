use std::time::{Duration, UNIX_EPOCH};

use meltemi_http::{Protocol, ResponseHead, StatusCode};

use super::*;
use crate::testing;
use crate::{ResponseFlags, StreamInfo};

/// Istio's default text format, as `meshConfig.accessLogFile` alone gives it.
const ISTIO_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

fn finished() -> StreamInfo {
    let mut info = testing::info();
    info.start_time = UNIX_EPOCH + Duration::from_millis(1_795_253_405_123);
    info.protocol = Some(Protocol::Http11);
    info.response_code = Some(200);
    info.set_details("via_upstream");
    info.bytes_received = 5;
    info.bytes_sent = 1234;
    info.duration = Some(Duration::from_millis(17));
    info.route = Some(testing::route(vec![]));
    info.upstream.cluster =
        Some(testing::cluster("outbound|9080||reviews.books.svc.cluster.local", serde_json::json!({})));
    info.upstream.host = Some("10.0.0.2:9080".parse::<std::net::SocketAddr>().unwrap().into());
    info.upstream.local = Some("10.0.0.1:50000".parse::<std::net::SocketAddr>().unwrap().into());
    info
}

fn render(format: &str, info: &StreamInfo) -> String {
    let request = testing::request(&[
        ("user-agent", "curl/8"),
        ("x-request-id", "abc"),
        ("x-repeated", "a"),
        ("x-repeated", "b"),
    ]);
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers = testing::headers(&[("x-envoy-upstream-service-time", "15")]);
    let trailers = testing::headers(&[("grpc-status", "0")]);
    let scope =
        Scope { request: Some(&request), response: Some(&response), trailers: Some(&trailers), ..Scope::new(info) };
    text(&Format::parse(format).unwrap(), &scope, Missing::Dash)
}

#[test]
fn istios_default_text_format() {
    assert_eq!(
        render(ISTIO_TEXT, &finished()),
        "[2026-11-21T09:30:05.123Z] \"GET /reviews/0?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 5 1234 17 15 \"-\" \"curl/8\" \
         \"abc\" \"reviews:9080\" \"10.0.0.2:9080\" outbound|9080||reviews.books.svc.cluster.local 10.0.0.1:50000 \
         10.0.0.1:9080 10.0.0.9:40000 outbound_.9080_._.reviews default\n"
    );
}

#[test]
fn an_address_is_printed_as_display_has_it() {
    let mut info = finished();
    for n in 0..=255 {
        let address = std::net::SocketAddr::from(([n, 255 - n, 0, n], 8000));
        info.remote = address.into();
        assert_eq!(render("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", &info), address.ip().to_string());
        assert_eq!(render("%DOWNSTREAM_REMOTE_ADDRESS%", &info), address.to_string());
    }
}

#[test]
fn a_refused_request_shows_dashes() {
    let mut info = testing::info();
    info.flags = ResponseFlags::NO_ROUTE | ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
    info.set_details("route not found");
    let line = render("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% %ROUTE_NAME%", &info);
    assert_eq!(line, "0 NR,DC route_not_found - -");
    assert_eq!(render("%RESPONSE_FLAGS_LONG%", &info), "NoRouteFound,DownstreamConnectionTermination");
}

#[test]
fn operators() {
    let mut info = finished();
    info.is_grpc = true;
    info.grpc_status = Some(14);
    info.upstream.attempts = 2;
    let start = info.start;
    info.upstream.timing.first_byte_received = Some(start + Duration::from_millis(12));
    info.last_downstream_byte_sent = Some(start + Duration::from_millis(16));
    let check = |format: &str, expected: &str| assert_eq!(render(format, &info), expected, "{format}");
    // Of a repeated field Envoy prints the first value.
    check("%REQ(X-Repeated)%", "a");
    check("%UPSTREAM_HOST_NAME%", "10.0.0.2:9080");
    check("%UPSTREAM_HOST_NAME_WITHOUT_PORT%", "10.0.0.2");
    check("%UPSTREAM_CONNECTION_ID%", "0");
    check("%REQUEST_HEADERS_BYTES%", "115");
    check("%REQ(NOPE?USER-AGENT)%", "curl/8");
    check("%REQ(NOPE)%", "-");
    check("%REQ(USER-AGENT):4%", "curl");
    check("%RESP(:STATUS)%", "200");
    check("%TRAILER(GRPC-STATUS)%", "0");
    check("%GRPC_STATUS%", "Unavailable");
    check("%GRPC_STATUS(SNAKE_STRING)%", "UNAVAILABLE");
    check("%GRPC_STATUS_NUMBER%", "14");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.9");
    check("%DOWNSTREAM_LOCAL_PORT%", "9080");
    check("%RESPONSE_DURATION%", "12");
    check("%RESPONSE_TX_DURATION%", "4");
    check("%REQUEST_DURATION%", "-");
    check("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "2");
    check("%START_TIME(%s)%", "1795253405");
    check("%START_TIME(%Y/%m/%d %H:%M:%S.%3f)%", "2026/11/21 09:30:05.123");
    check("%START_TIME(%3s)%", "1795253405123");
    check("100%%", "100%");
    check("%DOWNSTREAM_TLS_VERSION%", "-");
    check("%FILTER_STATE(nope)%", "-");
    check("a %PROTOCOL% b", "a HTTP/1.1 b");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%", "10.0.0.0/16");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)%", "0.0.0.0/0");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(32)%", "10.0.0.9/32");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64)%", "10.0.0.9/32");
    check("%BYTES_RETRANSMITTED% %PACKETS_RETRANSMITTED%", "0 0");
    check("%CUSTOM_FLAGS% %UPSTREAM_DETECTED_CLOSE_TYPE%", " -");
    check("%DOWNSTREAM_PEER_EMAIL_SAN%", "-");
    check("%QUERY_PARAM(x)% %QUERY_PARAMS%", "1 x=1");
    check("%REQUESTED_SERVER_NAME(SNI_FIRST)%", "outbound_.9080_._.reviews");
    check("%REQUESTED_SERVER_NAME(HOST_FIRST)%", "reviews:9080");
    check("%REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)%", "-");
    check("%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"nope\"}, \"PROTOCOL\"]}):4%", "HTTP");
    check("%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"user-agent\", \"max_length\": 2}]})%", "cu");
    check("%COALESCE({\"operators\": [\"CUSTOM_FLAGS\"]})%", "-");
}

#[test]
fn the_query_is_printed_as_it_came_or_decoded() {
    let info = finished();
    let mut request = testing::request(&[]);
    request.path = "/a?b=%2Fc%20d&e=%25%zz%4".into();
    let scope = Scope { request: Some(&request), ..Scope::new(&info) };
    let check = |format: &str, expected: &str| {
        assert_eq!(text(&Format::parse(format).unwrap(), &scope, Missing::Dash), expected, "{format}");
    };
    check("%QUERY_PARAMS(ORIG)%", "b=%2Fc%20d&e=%25%zz%4");
    // As Envoy 1.40 prints it.
    check("%QUERY_PARAMS(DECODED)%", "b=/c%20d&e=%zz4");
    check("%QUERY_PARAM(b)%", "/c d");
    check("%QUERY_PARAM(e)%", "%%zz%4");
}

#[test]
fn unique_ids_are_uuids_of_their_own() {
    let (one, other) = (render("%UNIQUE_ID%", &finished()), render("%UNIQUE_ID%", &finished()));
    assert_ne!(one, other);
    let parts: Vec<&str> = one.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{one}");
    assert!(one.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
}

#[test]
fn json_keeps_types_and_escapes() {
    let info = finished();
    let request = testing::request(&[("user-agent", "a\"b\\c")]);
    let scope = Scope { request: Some(&request), ..Scope::new(&info) };
    let format = |text: &str| JsonFormat::Format(Format::parse(text).unwrap());
    let object = JsonFormat::Object(vec![
        ("code".into(), format("%RESPONSE_CODE%")),
        ("agent".into(), format("%REQ(USER-AGENT)%")),
        ("missing".into(), format("%REQ(NOPE)%")),
        ("joined".into(), format("%RESPONSE_CODE%-%REQ(NOPE)%")),
        ("fixed".into(), JsonFormat::Literal(serde_json::json!({ "a": [1, true] }))),
        ("list".into(), JsonFormat::List(vec![format("%DURATION%"), format("x")])),
    ]);
    let render = |omit| {
        let mut out = Vec::new();
        write_json(&object, &scope, omit, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        render(false),
        r#"{"code":200,"agent":"a\"b\\c","missing":null,"joined":"200--","fixed":{"a":[1,true]},"list":[17,"x"]}"#
    );
    assert_eq!(
        render(true),
        r#"{"code":200,"agent":"a\"b\\c","joined":"200-","fixed":{"a":[1,true]},"list":[17,"x"]}"#
    );
    let mut odd = Vec::new();
    json::write_string(b"\x01\xff\n", &mut odd);
    assert_eq!(String::from_utf8(odd).unwrap(), "\"\\u0001\u{fffd}\\n\"");
}

use meltemi_plan::JsonFormat;

#[test]
fn a_remote_address_is_that_of_a_connection() {
    let mut info = finished();
    assert_eq!(render("%UPSTREAM_REMOTE_ADDRESS%", &info), "10.0.0.2:9080");
    info.upstream.local = None;
    assert_eq!(render("%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_HOST%", &info), "- 10.0.0.2:9080");
}

#[test]
fn a_grpc_status_follows_from_an_answer_that_has_none() {
    let mut info = finished();
    info.response_code = Some(503);
    assert_eq!(render("%GRPC_STATUS%", &info), "-", "not a gRPC request");
    info.is_grpc = true;
    assert_eq!(render("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", &info), "Unavailable 14");
    info.grpc_status = Some(5);
    assert_eq!(render("%GRPC_STATUS_NUMBER%", &info), "5");
}

/// Of `openssl req -x509 -newkey ed25519 -subj /CN=a -days 36500`.
const CERTIFICATE: &str = "MIIBLjCB4aADAgECAhRESwqZKjdCB5Yj79tUCIHouMi5AjAFBgMrZXAwDDEKMAgGA1UEAwwBYTAgFw0yNjExMjcwODQ4MDla\
    GA8yMTI2MTEwMzA4NDgwOVowDDEKMAgGA1UEAwwBYTAqMAUGAytlcAMhAHgegyLV2MvGPKJbagiHxkUgIsPenOtKX2DTuNJP\
    ykJGo1MwUTAdBgNVHQ4EFgQU7np7CPHgLH8yODRd7vLQ0EehfY8wHwYDVR0jBBgwFoAU7np7CPHgLH8yODRd7vLQ0EehfY8w\
    DwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQBMC4XWFaGbLwdL0PSpp4v3rKPxsw2vNDjDvHvmIHBPB5UX6bU+cc6lLpE+Oygg\
    zRvv5XFsMfOKePTc56QKxbkE";

#[test]
fn a_peers_certificate_is_printed_with_its_dates() {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.decode(CERTIFICATE).unwrap();
    let peer = meltemi_tls::PeerInfo::from_certificate(&der).unwrap();
    let mut info = finished();
    info.upstream.tls = Some(crate::info::TlsInfo { peer: Some(std::sync::Arc::new(peer)), ..Default::default() });
    let check = |format: &str, expected: &str| assert_eq!(render(format, &info), expected, "{format}");
    check("%UPSTREAM_PEER_CERT_V_START%", "2026-11-27T08:48:09.000Z");
    check("%UPSTREAM_PEER_CERT_V_END(%Y)%", "2126");
    check("%DOWNSTREAM_PEER_CERT_V_END%", "-");
    let pem = render("%UPSTREAM_PEER_CERT%", &info);
    let body = pem.strip_prefix("-----BEGIN%20CERTIFICATE-----%0A").unwrap();
    let body = body.strip_suffix("%0A-----END%20CERTIFICATE-----%0A").unwrap();
    assert!(body.split("%0A").all(|line| !line.is_empty() && !line.contains(['+', '/', '='])), "{body}");
    let decoded = body.replace("%0A", "").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    assert_eq!(decoded, CERTIFICATE);
}
