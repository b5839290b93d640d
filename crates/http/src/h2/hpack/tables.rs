//! The static table (RFC 7541 Appendix A), both ways.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::Field;
use crate::{ByteStr, Scheme};

const fn named(name: HeaderName) -> Field {
    Field::Header(name, HeaderValue::from_static(""))
}

/// Index 1 is the first. An entry without a value has an empty one.
pub(super) static STATIC: [Field; 61] = [
    Field::Authority(ByteStr::from_static("")),
    Field::Method(Method::GET),
    Field::Method(Method::POST),
    Field::Path(ByteStr::from_static("/")),
    Field::Path(ByteStr::from_static("/index.html")),
    Field::Scheme(Scheme::Http),
    Field::Scheme(Scheme::Https),
    Field::Status(StatusCode::OK),
    Field::Status(StatusCode::NO_CONTENT),
    Field::Status(StatusCode::PARTIAL_CONTENT),
    Field::Status(StatusCode::NOT_MODIFIED),
    Field::Status(StatusCode::BAD_REQUEST),
    Field::Status(StatusCode::NOT_FOUND),
    Field::Status(StatusCode::INTERNAL_SERVER_ERROR),
    named(header::ACCEPT_CHARSET),
    Field::Header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate")),
    named(header::ACCEPT_LANGUAGE),
    named(header::ACCEPT_RANGES),
    named(header::ACCEPT),
    named(header::ACCESS_CONTROL_ALLOW_ORIGIN),
    named(header::AGE),
    named(header::ALLOW),
    named(header::AUTHORIZATION),
    named(header::CACHE_CONTROL),
    named(header::CONTENT_DISPOSITION),
    named(header::CONTENT_ENCODING),
    named(header::CONTENT_LANGUAGE),
    named(header::CONTENT_LENGTH),
    named(header::CONTENT_LOCATION),
    named(header::CONTENT_RANGE),
    named(header::CONTENT_TYPE),
    named(header::COOKIE),
    named(header::DATE),
    named(header::ETAG),
    named(header::EXPECT),
    named(header::EXPIRES),
    named(header::FROM),
    named(header::HOST),
    named(header::IF_MATCH),
    named(header::IF_MODIFIED_SINCE),
    named(header::IF_NONE_MATCH),
    named(header::IF_RANGE),
    named(header::IF_UNMODIFIED_SINCE),
    named(header::LAST_MODIFIED),
    named(header::LINK),
    named(header::LOCATION),
    named(header::MAX_FORWARDS),
    named(header::PROXY_AUTHENTICATE),
    named(header::PROXY_AUTHORIZATION),
    named(header::RANGE),
    named(header::REFERER),
    named(header::REFRESH),
    named(header::RETRY_AFTER),
    named(header::SERVER),
    named(header::SET_COOKIE),
    named(header::STRICT_TRANSPORT_SECURITY),
    named(header::TRANSFER_ENCODING),
    named(header::USER_AGENT),
    named(header::VARY),
    named(header::VIA),
    named(header::WWW_AUTHENTICATE),
];

/// The entries that are regular fields, in order; the first has index 15.
const NAMES: [&str; 47] = [
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];
const FIRST_NAME: u8 = 15;
const SLOTS: usize = 128;

/// Where a name would be in `BY_NAME`. The factors were searched for: no two names of the table meet.
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    (n * 7 + name[0] as usize * 47 + name[n - 1] as usize * 30 + name[n / 2] as usize) % SLOTS
}

static BY_NAME: [u8; SLOTS] = {
    let mut table = [0; SLOTS];
    let mut n = 0;
    while n < NAMES.len() {
        let slot = slot(NAMES[n].as_bytes());
        assert!(table[slot] == 0, "two names in one slot");
        table[slot] = n as u8 + FIRST_NAME;
        n += 1;
    }
    table
};

/// The index of a regular field's name; 0 if the table has none.
pub(in crate::h2) fn static_name(name: &[u8]) -> u8 {
    if name.is_empty() {
        return 0;
    }
    let index = BY_NAME[slot(name)];
    if index != 0 && NAMES[usize::from(index - FIRST_NAME)].as_bytes() == name { index } else { 0 }
}
