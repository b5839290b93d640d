//! Header names without allocation: those that a mesh sees on every request, found by a hash in place of one comparison after
//! another.

use http::{HeaderName, header};

macro_rules! names {
    (ours { $($ours:ident = $ours_text:literal,)* } registered { $($registered:ident = $registered_text:literal,)* }) => {
        $(pub const $ours: HeaderName = HeaderName::from_static($ours_text);)*

        const TEXTS: &[&str] = &[$($ours_text,)* $($registered_text,)*];
        static NAMES: [HeaderName; TEXTS.len()] = [$($ours,)* $(header::$registered,)*];
    };
}

names! {
ours {
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
registered {
    ACCEPT = "accept",
    ACCEPT_CHARSET = "accept-charset",
    ACCEPT_ENCODING = "accept-encoding",
    ACCEPT_LANGUAGE = "accept-language",
    ACCEPT_RANGES = "accept-ranges",
    ACCESS_CONTROL_ALLOW_CREDENTIALS = "access-control-allow-credentials",
    ACCESS_CONTROL_ALLOW_HEADERS = "access-control-allow-headers",
    ACCESS_CONTROL_ALLOW_METHODS = "access-control-allow-methods",
    ACCESS_CONTROL_ALLOW_ORIGIN = "access-control-allow-origin",
    ACCESS_CONTROL_EXPOSE_HEADERS = "access-control-expose-headers",
    ACCESS_CONTROL_MAX_AGE = "access-control-max-age",
    ACCESS_CONTROL_REQUEST_HEADERS = "access-control-request-headers",
    ACCESS_CONTROL_REQUEST_METHOD = "access-control-request-method",
    AGE = "age",
    ALLOW = "allow",
    AUTHORIZATION = "authorization",
    CACHE_CONTROL = "cache-control",
    CONNECTION = "connection",
    CONTENT_DISPOSITION = "content-disposition",
    CONTENT_ENCODING = "content-encoding",
    CONTENT_LANGUAGE = "content-language",
    CONTENT_LENGTH = "content-length",
    CONTENT_LOCATION = "content-location",
    CONTENT_RANGE = "content-range",
    CONTENT_SECURITY_POLICY = "content-security-policy",
    CONTENT_TYPE = "content-type",
    COOKIE = "cookie",
    DATE = "date",
    DNT = "dnt",
    ETAG = "etag",
    EXPECT = "expect",
    EXPIRES = "expires",
    FORWARDED = "forwarded",
    FROM = "from",
    HOST = "host",
    IF_MATCH = "if-match",
    IF_MODIFIED_SINCE = "if-modified-since",
    IF_NONE_MATCH = "if-none-match",
    IF_RANGE = "if-range",
    IF_UNMODIFIED_SINCE = "if-unmodified-since",
    LAST_MODIFIED = "last-modified",
    LINK = "link",
    LOCATION = "location",
    MAX_FORWARDS = "max-forwards",
    ORIGIN = "origin",
    PRAGMA = "pragma",
    PROXY_AUTHENTICATE = "proxy-authenticate",
    PROXY_AUTHORIZATION = "proxy-authorization",
    RANGE = "range",
    REFERER = "referer",
    REFERRER_POLICY = "referrer-policy",
    RETRY_AFTER = "retry-after",
    SEC_WEBSOCKET_ACCEPT = "sec-websocket-accept",
    SEC_WEBSOCKET_EXTENSIONS = "sec-websocket-extensions",
    SEC_WEBSOCKET_KEY = "sec-websocket-key",
    SEC_WEBSOCKET_PROTOCOL = "sec-websocket-protocol",
    SEC_WEBSOCKET_VERSION = "sec-websocket-version",
    SERVER = "server",
    SET_COOKIE = "set-cookie",
    STRICT_TRANSPORT_SECURITY = "strict-transport-security",
    TE = "te",
    TRAILER = "trailer",
    TRANSFER_ENCODING = "transfer-encoding",
    UPGRADE = "upgrade",
    UPGRADE_INSECURE_REQUESTS = "upgrade-insecure-requests",
    USER_AGENT = "user-agent",
    VARY = "vary",
    VIA = "via",
    WARNING = "warning",
    WWW_AUTHENTICATE = "www-authenticate",
    X_CONTENT_TYPE_OPTIONS = "x-content-type-options",
    X_FRAME_OPTIONS = "x-frame-options",
    X_XSS_PROTECTION = "x-xss-protection",
}
}

const SLOTS: usize = 512;

/// For each hash the number of a name and one, or 0; a name whose place is taken has the next.
static PLACES: [u8; SLOTS] = {
    let mut places = [0; SLOTS];
    let mut n = 0;
    while n < TEXTS.len() {
        let mut slot = slot(TEXTS[n].as_bytes());
        while places[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        n += 1;
        places[slot] = n as u8;
    }
    places
};

/// The same in either case: a letter differs by one bit.
const fn slot(name: &[u8]) -> usize {
    let Some(last) = name.last() else { return 0 };
    let (first, middle, last) = (name[0] | 0x20, name[name.len() / 2] | 0x20, *last | 0x20);
    (name.len() + 7 * last as usize + 37 * middle as usize + 101 * first as usize) % SLOTS
}

/// A byte that may be in a token (RFC 9110 5.6.2), such as a method.
pub(crate) fn is_token(byte: u8) -> bool {
    static TOKEN: [bool; 256] = {
        let mut token = [false; 256];
        let mut byte = b'!';
        while byte <= b'~' {
            token[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
            byte += 1;
        }
        token
    };
    TOKEN[usize::from(byte)]
}

/// A name from the wire, or `None` if it is not a token.
pub fn parse(bytes: &[u8]) -> Option<HeaderName> {
    match known(bytes) {
        Some(name) => Some(name.clone()),
        None => HeaderName::from_bytes(bytes).ok(),
    }
}

fn known(name: &[u8]) -> Option<&'static HeaderName> {
    let mut slot = slot(name);
    loop {
        let place = usize::from(PLACES[slot]).checked_sub(1)?;
        let text = TEXTS[place].as_bytes();
        if text == name || text.eq_ignore_ascii_case(name) {
            return Some(&NAMES[place]);
        }
        slot = (slot + 1) % SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_equals_the_general_parse_in_any_case() {
        for (text, name) in TEXTS.iter().zip(&NAMES) {
            assert_eq!(name.as_str(), *text);
            assert_eq!(known(text.as_bytes()), Some(name));
        }
        for text in
            TEXTS.iter().chain(&["x-unknown", "a", "x-unknown-1234567890-1234567890-1234567890-1234567890-1234567890"])
        {
            let general = HeaderName::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(parse(text.as_bytes()), Some(general.clone()));
            assert_eq!(parse(text.to_ascii_uppercase().as_bytes()), Some(general));
        }
    }

    #[test]
    fn a_token_is_what_the_general_parse_takes() {
        for byte in 0..=255 {
            assert_eq!(is_token(byte), HeaderName::from_bytes(&[byte]).is_ok(), "{byte}");
            assert_eq!(parse(&[b'x', byte]), HeaderName::from_bytes(&[b'x', byte]).ok(), "{byte}");
        }
        assert_eq!(parse(b""), None);
    }
}
