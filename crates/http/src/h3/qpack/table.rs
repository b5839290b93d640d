//! The static table (RFC 9204 Appendix A), both ways.

use std::{collections::HashMap, sync::LazyLock};

use bytes::Bytes;

use crate::h2::hpack::{
    Field,
    decode::{by_name, with_value},
};

/// Index 0 is the first. An entry without a value has an empty one.
const TABLE: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let field = |(name, value): &(&'static str, &'static str)| {
        let named = by_name(name.as_bytes()).unwrap_or(Field::Invalid);
        with_value(named, value.as_bytes(), |_| Bytes::from_static(value.as_bytes()))
    };
    TABLE.iter().map(field).collect()
});

/// The first index of each name.
static NAMES: LazyLock<HashMap<&'static [u8], u8>> = LazyLock::new(|| {
    let mut names = HashMap::with_capacity(TABLE.len());
    for (index, (name, _)) in (0u8..).zip(&TABLE) {
        names.entry(name.as_bytes()).or_insert(index);
    }
    names
});

pub(super) fn field(index: usize) -> Option<&'static Field> {
    FIELDS.get(index)
}

/// The name of an entry, without a value.
pub(super) fn name(index: usize) -> Option<Field> {
    by_name(TABLE.get(index)?.0.as_bytes())
}

pub(super) fn name_len(index: usize) -> usize {
    TABLE.get(index).map_or(0, |(name, _)| name.len())
}

/// An index of the name.
pub(super) fn index_of(name: &[u8]) -> Option<u8> {
    NAMES.get(name).copied()
}

/// The index of a whole field, among those that start at its name's first.
pub(super) fn exact(first: u8, value: &[u8]) -> Option<u8> {
    let (name, _) = TABLE.get(usize::from(first))?;
    let mut entries = (first..).zip(&TABLE[usize::from(first)..]);
    // Entries of a name stand together but for `:status` and `access-control-allow-headers`, whose rest is found all the same.
    entries.find(|(_, (own, known))| own == name && known.as_bytes() == value).map(|(index, _)| index)
}
