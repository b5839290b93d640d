//! What an authorization service is told of a connection and a request.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use meltemi_http::{HeaderValue, RequestHead};
use meltemi_net::Address;
use meltemi_proto::envoy::config::core::v3::{
    self as core, HeaderMap, HeaderValue as ProtoHeader, Metadata, SocketAddress, address, socket_address,
};
use meltemi_proto::envoy::service::auth::v3::AttributeContext;
use meltemi_proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use meltemi_proto::prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use serde_json::{Map, Value as Json};

use crate::info::{StreamInfo, TlsInfo};

/// What is told of the connection beyond its addresses and identities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    pub certificate: bool,
    pub tls_session: bool,
}

/// All but the request.
pub(crate) fn peers(
    how: Peers,
    namespaces: &[std::sync::Arc<str>],
    service: Option<&HeaderValue>,
    info: &StreamInfo,
) -> AttributeContext {
    let connection = &info.connection;
    let tls = connection.tls.as_ref();
    let certificate = tls.filter(|_| how.certificate).and_then(|tls| tls.peer.as_ref());
    let source = Peer {
        address: Some(address(&connection.remote)),
        service: service.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
        principal: tls.map(peer_principal).unwrap_or_default(),
        certificate: certificate.map(|peer| encoded_pem(&peer.der)).unwrap_or_default(),
        ..Peer::default()
    };
    let destination = Peer {
        address: Some(address(&connection.local)),
        principal: tls.map(own_principal).unwrap_or_default(),
        ..Peer::default()
    };
    let known = |namespace: &std::sync::Arc<str>| {
        let fields = info.found::<&str>(namespace, &[])?.as_object()?;
        Some((namespace.to_string(), structure(fields)))
    };
    let metadata = Metadata { filter_metadata: namespaces.iter().filter_map(known).collect(), ..Metadata::default() };
    let sni = || tls.and_then(|tls| tls.sni.as_deref()).unwrap_or_default().to_owned();
    AttributeContext {
        source: Some(source),
        destination: Some(destination),
        metadata_context: Some(metadata),
        tls_session: (how.tls_session && tls.is_some()).then(|| TlsSession { sni: sni() }),
        ..AttributeContext::default()
    }
}

/// Which headers are told.
pub(crate) struct Told<'a> {
    pub sees: &'a dyn Fn(&str) -> bool,
    /// Beside those of the request.
    pub more: &'a [(&'a str, &'a str)],
}

/// The request, with the headers that may be seen.
pub(crate) fn request(head: &RequestHead, info: &StreamInfo, Told { sees, more }: Told<'_>, raw: bool) -> Request {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    let pseudo = [
        (":authority", head.authority.as_bytes()),
        (":method", head.method.as_str().as_bytes()),
        (":path", head.path.as_bytes()),
        (":scheme", head.scheme.as_str().as_bytes()),
    ];
    let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let told = more.iter().map(|(name, value)| (*name, value.as_bytes()));
    for (name, value) in pseudo.into_iter().chain(fields).filter(|(name, _)| sees(name)).chain(told) {
        match headers.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => {
                known.push(b',');
                known.extend_from_slice(value);
            }
            None => headers.push((name.to_owned(), value.to_vec())),
        }
    }
    let (headers, header_map) =
        if raw { (BTreeMap::new(), Some(raw_headers(headers))) } else { (texts(headers), None) };
    let since = info.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let http = HttpRequest {
        id: rand::random::<u64>().to_string(),
        method: head.method.as_str().to_owned(),
        path: head.path.as_str().to_owned(),
        host: head.authority.as_str().to_owned(),
        scheme: head.scheme.as_str().to_owned(),
        size: i64::try_from(info.bytes_received).unwrap_or(i64::MAX),
        protocol: info.protocol.map(|protocol| protocol.as_str().to_owned()).unwrap_or_default(),
        headers,
        header_map,
        ..HttpRequest::default()
    };
    Request { time: Some(timestamp(since)), http: Some(http) }
}

fn timestamp(since: std::time::Duration) -> Timestamp {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default() }
}

fn texts(headers: Vec<(String, Vec<u8>)>) -> BTreeMap<String, String> {
    headers.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect()
}

fn raw_headers(headers: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let header =
        |(key, value): (String, Vec<u8>)| ProtoHeader { key, raw_value: value.into(), ..ProtoHeader::default() };
    HeaderMap { headers: headers.into_iter().map(header).collect() }
}

fn address(of: &Address) -> core::Address {
    let kind = match of {
        Address::Socket(socket) => address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(socket.port()))),
            ..SocketAddress::default()
        }),
        Address::Unix(_) | Address::Unnamed => {
            address::Address::Pipe(core::Pipe { path: of.to_string(), ..core::Pipe::default() })
        }
    };
    core::Address { address: Some(kind) }
}

/// A URI SAN, else a DNS SAN, else the subject.
fn peer_principal(tls: &TlsInfo) -> String {
    let Some(peer) = &tls.peer else { return String::new() };
    peer.uri_sans.first().or(peer.dns_sans.first()).unwrap_or(&peer.subject).clone()
}

fn own_principal(tls: &TlsInfo) -> String {
    let subject = || tls.local_subject.as_deref().unwrap_or_default().to_owned();
    tls.local_uri_sans.first().cloned().unwrap_or_else(subject)
}

/// PEM, as a URL would have it.
fn encoded_pem(der: &[u8]) -> String {
    let mut out = String::new();
    meltemi_tls::url_encoded_pem(&mut out, der);
    out
}

pub(crate) fn structure(fields: &Map<String, Json>) -> Struct {
    Struct { fields: fields.iter().map(|(key, value)| (key.clone(), proto(value))).collect() }
}

fn proto(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(proto).collect() }),
        Json::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}

pub(crate) fn json_map(value: &Struct) -> Map<String, Json> {
    value.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json(value: &Value) -> Json {
    /// Below it every whole number has a value of its own.
    const EXACT: f64 = 9e15;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < EXACT => {
            format!("{number:.0}").parse::<i64>().map_or(Json::Null, Json::from)
        }
        Some(Kind::NumberValue(number)) => Json::from(*number),
        Some(Kind::StringValue(text)) => Json::from(text.as_str()),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => Json::Object(json_map(fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_service_sees_the_headers_it_may_see() {
        let mut head = testing::request(&[("x-one", "1"), ("x-one", "2"), ("x-secret", "s")]);
        head.path = "/a?b".into();
        let info = testing::info();
        let sees = |name: &str| name != "x-secret";
        let told = request(&head, &info, Told { sees: &sees, more: &[("x-more", "m")] }, false).http.unwrap();
        assert_eq!((told.headers["x-one"].as_str(), told.headers[":path"].as_str()), ("1,2", "/a?b"));
        assert_eq!((told.headers["x-more"].as_str(), told.size), ("m", 0));
        assert!(!told.headers.contains_key("x-secret"));
        let raw = request(&head, &info, Told { sees: &sees, more: &[] }, true).http.unwrap();
        assert!(raw.headers.is_empty());
        assert!(raw.header_map.unwrap().headers.iter().any(|header| header.key == "x-one"));
    }

    #[test]
    fn metadata_is_the_same_both_ways() {
        let fields = serde_json::json!({ "a": [1, true, null, "x"], "b": { "c": 1.5 }, "d": -3 });
        let Json::Object(fields) = fields else { panic!() };
        assert_eq!(json_map(&structure(&fields)), fields);
    }

    #[test]
    fn a_certificate_is_encoded_for_a_url() {
        let text = encoded_pem(&[0xff; 60]);
        assert!(text.starts_with("-----BEGIN%20CERTIFICATE-----%0A%2F%2F"), "{text}");
        assert_eq!(text.matches("%0A").count(), 4);
    }
}
