//! Header names without allocation: `http` knows the registered ones, this module the ones that a mesh sees on every request.

use http::HeaderName;

macro_rules! names {
    ($($constant:ident = $text:literal,)*) => {
        $(pub const $constant: HeaderName = HeaderName::from_static($text);)*

        fn known(lower: &str) -> Option<HeaderName> {
            match lower {
                $($text => Some($constant),)*
                _ => None,
            }
        }

        #[cfg(test)]
        const ALL: &[&str] = &[$($text),*];
    };
}

names! {
    B3 = "b3",
    GRPC_MESSAGE = "grpc-message",
    GRPC_STATUS = "grpc-status",
    GRPC_TIMEOUT = "grpc-timeout",
    KEEP_ALIVE = "keep-alive",
    PROXY_CONNECTION = "proxy-connection",
    TRACEPARENT = "traceparent",
    TRACESTATE = "tracestate",
    X_B3_FLAGS = "x-b3-flags",
    X_B3_PARENT_SPAN_ID = "x-b3-parentspanid",
    X_B3_SAMPLED = "x-b3-sampled",
    X_B3_SPAN_ID = "x-b3-spanid",
    X_B3_TRACE_ID = "x-b3-traceid",
    X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count",
    X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation",
    X_ENVOY_DEGRADED = "x-envoy-degraded",
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster",
    X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node",
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms",
    X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address",
    X_ENVOY_FORCE_TRACE = "x-envoy-force-trace",
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout",
    X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL = "x-envoy-immediate-health-check-fail",
    X_ENVOY_INTERNAL = "x-envoy-internal",
    X_ENVOY_IP_TAGS = "x-envoy-ip-tags",
    X_ENVOY_MAX_RETRIES = "x-envoy-max-retries",
    X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host",
    X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path",
    X_ENVOY_ORIGINAL_URL = "x-envoy-original-url",
    X_ENVOY_OVERLOADED = "x-envoy-overloaded",
    X_ENVOY_PEER_METADATA = "x-envoy-peer-metadata",
    X_ENVOY_PEER_METADATA_ID = "x-envoy-peer-metadata-id",
    X_ENVOY_RATELIMITED = "x-envoy-ratelimited",
    X_ENVOY_RETRIABLE_HEADER_NAMES = "x-envoy-retriable-header-names",
    X_ENVOY_RETRIABLE_STATUS_CODES = "x-envoy-retriable-status-codes",
    X_ENVOY_RETRY_GRPC_ON = "x-envoy-retry-grpc-on",
    X_ENVOY_RETRY_ON = "x-envoy-retry-on",
    X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name",
    X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary",
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS = "x-envoy-upstream-rq-per-try-timeout-ms",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE = "x-envoy-upstream-rq-timeout-alt-response",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS = "x-envoy-upstream-rq-timeout-ms",
    X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time",
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms",
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_REQUEST_ID = "x-request-id",
}

/// A name from the wire, or `None` if it is not a token.
pub fn parse(bytes: &[u8]) -> Option<HeaderName> {
    if matches!(bytes.first(), Some(b'x' | b'X' | b'b' | b'B' | b'g' | b'G' | b't' | b'T')) && bytes.len() <= 64 {
        let mut lower = [0; 64];
        let lower = &mut lower[..bytes.len()];
        for (to, from) in lower.iter_mut().zip(bytes) {
            *to = from.to_ascii_lowercase();
        }
        if let Some(name) = std::str::from_utf8(lower).ok().and_then(known) {
            return Some(name);
        }
    }
    HeaderName::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_equals_the_general_parse_in_any_case() {
        for text in ALL.iter().chain(&["host", "x-unknown", "content-length"]) {
            let general = HeaderName::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(parse(text.as_bytes()), Some(general.clone()));
            assert_eq!(parse(text.to_ascii_uppercase().as_bytes()), Some(general));
        }
        assert_eq!(parse(b"x bad"), None);
        assert_eq!(parse(b""), None);
    }
}
