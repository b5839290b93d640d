//! What happens to every request head before a route is chosen.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderValue, StatusCode, header};
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_http::{ByteStr, Headers, Method, Protocol, RequestHead, Scheme, name};
use meltemi_net::Address;
use meltemi_plan::{
    Hcm,
    hcm::{ClientCertDetails, ForwardClientCert, StripPort, UnderscoreAction},
};
use meltemi_telemetry::trace::TraceReason;
use meltemi_tls::PeerInfo;

use super::{
    Context,
    path::{self, Normalized},
};

/// What was decided about a request on the way in.
pub(super) struct Admitted {
    /// The client, as far as forwarding headers are believed.
    pub remote: Address,
    /// From inside, by address.
    pub internal: bool,
}

type Refusal = Box<LocalReply>;

fn refuse(status: StatusCode, details: &'static str) -> Refusal {
    Box::new(LocalReply::new(status, "", details))
}

/// Checks and completes a request head as Envoy's connection manager does.
pub(super) fn admit(context: &Context, head: &mut RequestHead, random: u64) -> Result<Admitted, Refusal> {
    let plan = &*context.http.plan;
    check_protocol(plan, head)?;
    underscores(plan, &mut head.headers)?;
    check_target(plan, head)?;
    strip_port(context, plan, head);
    let admitted = forwarding(context, plan, head);
    request_id(plan, &admitted, head, random);
    client_certificate(context, plan, head);
    if let Some(via) = &context.http.via {
        append_list(&mut head.headers, header::VIA, via, ", ");
    }
    Ok(admitted)
}

fn check_protocol(plan: &Hcm, head: &mut RequestHead) -> Result<(), Refusal> {
    if head.protocol == Protocol::Http10 {
        if !plan.http1.accept_http_10 {
            let reply = LocalReply::new(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", "low_version")
                .with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
            return Err(Box::new(reply));
        }
        if head.authority.is_empty() && !plan.http1.default_host_for_http_10.is_empty() {
            head.authority = ByteStr::from(&*plan.http1.default_host_for_http_10);
        }
    }
    // An HTTP/1.1 request without Host was refused by the codec; an empty one is a name like any other.
    if head.authority.is_empty() && head.protocol != Protocol::Http11 {
        return Err(refuse(StatusCode::BAD_REQUEST, "missing_host_header"));
    }
    Ok(())
}

fn underscores(plan: &Hcm, headers: &mut Headers) -> Result<(), Refusal> {
    let has = |name: &http::HeaderName| name.as_str().as_bytes().contains(&b'_');
    match plan.headers_with_underscores {
        UnderscoreAction::Allow => {}
        UnderscoreAction::Reject => {
            if headers.iter().any(|(name, _)| has(name)) {
                let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.unexpected_underscore")
                    .with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                return Err(Box::new(reply));
            }
        }
        UnderscoreAction::Drop => headers.retain(|name, _| !has(name)),
    }
    Ok(())
}

fn check_target(plan: &Hcm, head: &mut RequestHead) -> Result<(), Refusal> {
    if head.method == Method::CONNECT && head.path.is_empty() {
        return Ok(());
    }
    if !head.path.as_bytes().starts_with(b"/") {
        return Err(refuse(StatusCode::NOT_FOUND, "absolute_path_rejected"));
    }
    if head.path.as_bytes().contains(&b'#') {
        return Err(refuse(StatusCode::BAD_REQUEST, "path_normalization_failed"));
    }
    match path::normalize(&head.path, plan.normalize_path, plan.merge_slashes, plan.escaped_slashes) {
        Normalized::Same => Ok(()),
        Normalized::Changed(path) => {
            head.path = path;
            Ok(())
        }
        Normalized::Rejected => Err(refuse(StatusCode::BAD_REQUEST, "path_normalization_failed")),
        Normalized::Redirect(path) => {
            let mut reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "", "path_normalization_redirect");
            if let Ok(value) = HeaderValue::from_maybe_shared(path.to_bytes()) {
                reply.headers.append(header::LOCATION, value);
            }
            Err(Box::new(reply))
        }
    }
}

fn strip_port(context: &Context, plan: &Hcm, head: &mut RequestHead) {
    if plan.strip_port != StripPort::No && head.method != Method::CONNECT {
        let bare = meltemi_plan::route::find::without_port(&head.authority);
        if bare.len() < head.authority.len() {
            let port = head.authority[bare.len() + 1..].parse::<u16>().ok();
            let own = context.connection.local.socket().map(|a| a.port());
            if plan.strip_port == StripPort::Any || port == own {
                head.authority = ByteStr::from(bare);
            }
        }
    }
    if plan.strip_trailing_host_dot {
        // Before a port, too.
        let (host, port) = head.authority.split_at(meltemi_plan::route::find::without_port(&head.authority).len());
        if let Some(bare) = host.strip_suffix('.') {
            head.authority = ByteStr::from(&*format!("{bare}{port}"));
        }
    }
}

/// `x-forwarded-for`, `x-forwarded-proto`, and which headers a stranger may bring.
fn forwarding(context: &Context, plan: &Hcm, head: &mut RequestHead) -> Admitted {
    let connection = &context.connection;
    let headers = &mut head.headers;
    headers.remove(&name::X_ENVOY_INTERNAL);
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    let (remote, single) = if plan.use_remote_address {
        let single = !headers.contains(&name::X_FORWARDED_FOR);
        let hops = plan.xff_trusted_hops as usize;
        let remote = match hops {
            0 => Some(connection.remote.clone()),
            hops => forwarded_address(headers, hops - 1).map(|(a, _)| a).or(Some(connection.remote.clone())),
        };
        if !plan.skip_xff_append
            && let Some(value) = ip_value(&connection.remote)
        {
            append_list(headers, name::X_FORWARDED_FOR, &value, ",");
        }
        if hops == 0 || !headers.contains(&name::X_FORWARDED_PROTO) {
            headers.insert(name::X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        }
        (remote, single)
    } else {
        match forwarded_address(headers, plan.xff_trusted_hops as usize) {
            Some((address, single)) => (Some(address), single),
            None => (None, false),
        }
    };
    if !headers.contains(&name::X_FORWARDED_PROTO) {
        headers.append(name::X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    // HTTP/2 has a scheme of its own, which stays.
    let forwarded = || head.protocol.is_http1().then(|| headers.get_str(&name::X_FORWARDED_PROTO)).flatten();
    if let Some(text) = plan.scheme_overwrite.as_deref().or_else(forwarded) {
        head.scheme = if text.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http };
    }
    if plan.scheme_overwrite.is_some() {
        headers.insert(name::X_FORWARDED_PROTO, HeaderValue::from_static(head.scheme.as_str()));
    }
    let is_internal = |ip: IpAddr| plan.internal_addresses.ranges.contains(ip);
    let internal = single
        && match &remote {
            Some(Address::Socket(address)) => is_internal(address.ip()),
            Some(Address::Unix(_)) => plan.internal_addresses.unix_sockets,
            Some(Address::Unnamed) | None => false,
        };
    let edge = plan.use_remote_address && !internal;
    if internal {
        headers.append(name::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else {
        remove_internal(headers, edge);
        if edge && let Some(value) = remote.as_ref().and_then(ip_value) {
            headers.insert(name::X_ENVOY_EXTERNAL_ADDRESS, value);
        }
    }
    if plan.append_x_forwarded_port
        && !headers.contains(&name::X_FORWARDED_PORT)
        && let Some(address) = connection.local.socket()
    {
        headers.append(name::X_FORWARDED_PORT, HeaderValue::from(address.port()));
    }
    Admitted { remote: remote.unwrap_or_else(|| connection.remote.clone()), internal }
}

/// Headers that steer this proxy and are not a stranger's to set.
fn remove_internal(headers: &mut Headers, edge: bool) {
    headers.retain(|name, _| {
        if !name.as_str().starts_with("x-envoy-") {
            return true;
        }
        let always = [
            name::X_ENVOY_RETRIABLE_STATUS_CODES,
            name::X_ENVOY_RETRIABLE_HEADER_NAMES,
            name::X_ENVOY_RETRY_ON,
            name::X_ENVOY_RETRY_GRPC_ON,
            name::X_ENVOY_MAX_RETRIES,
            name::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
            name::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
            name::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
            name::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
            name::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
            name::X_ENVOY_FORCE_TRACE,
            name::X_ENVOY_IP_TAGS,
            name::X_ENVOY_ORIGINAL_URL,
            name::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
        ];
        let at_edge = [
            name::X_ENVOY_DECORATOR_OPERATION,
            name::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
            name::X_ENVOY_DOWNSTREAM_SERVICE_NODE,
            name::X_ENVOY_ORIGINAL_PATH,
        ];
        let theirs = always.contains(name) || (edge && at_edge.contains(name));
        !theirs
    });
}

/// The address `skip` places from the right of `x-forwarded-for`, and whether it is the only one.
fn forwarded_address(headers: &Headers, skip: usize) -> Option<(Address, bool)> {
    let list = headers.joined(&name::X_FORWARDED_FOR)?;
    let list = std::str::from_utf8(&list).ok()?;
    let entry = list.rsplit(',').nth(skip)?.trim();
    let address =
        entry.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| entry.parse::<SocketAddr>()).ok()?;
    Some((Address::Socket(address), !list.contains(',')))
}

fn ip_value(address: &Address) -> Option<HeaderValue> {
    let ip = address.socket()?.ip();
    HeaderValue::from_str(&ip.to_string()).ok()
}

/// Adds to a comma-separated list, in one field as Envoy does.
pub(super) fn append_list(headers: &mut Headers, name: http::HeaderName, value: &HeaderValue, between: &str) {
    let joined = headers.joined(&name).map(|before| [&before[..], between.as_bytes(), value.as_bytes()].concat());
    let value = match joined {
        Some(joined) => HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)).ok(),
        None => Some(value.clone()),
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

fn request_id(plan: &Hcm, admitted: &Admitted, head: &mut RequestHead, random: u64) {
    if !plan.generate_request_id {
        return;
    }
    let edge = plan.use_remote_address && !admitted.internal;
    let replace = edge && !plan.preserve_external_request_id;
    if replace || !head.headers.contains(&name::X_REQUEST_ID) {
        head.headers.insert(name::X_REQUEST_ID, uuid(random));
    }
}

/// The two digits of each byte.
static HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < hex.len() {
        hex[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    hex
};

/// A version 4 UUID: the stream's random number and its mix; both halves come from a good generator or a bijection of it.
fn uuid(random: u64) -> HeaderValue {
    let mut x = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut bytes = (u128::from(random) << 64 | u128::from(x ^ (x >> 31))).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut rest = bytes.iter();
    for group in [0..8, 9..13, 14..18, 19..23, 24..36] {
        for (pair, byte) in text[group].as_chunks_mut::<2>().0.iter_mut().zip(&mut rest) {
            *pair = HEX[usize::from(*byte)];
        }
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
}

/// Writes the trace decision into the version digit of the request id, as Envoy's UUID extension does.
pub(super) fn pack_trace_reason(headers: &mut Headers, reason: TraceReason) {
    const DIGIT: usize = 14;
    let Some(id) = headers.get(&name::X_REQUEST_ID).filter(|id| id.len() == 36) else { return };
    let mut text = id.as_bytes().to_vec();
    text[DIGIT] = match reason {
        TraceReason::NotTraced => b'4',
        TraceReason::Sampled => b'9',
        TraceReason::Forced => b'a',
        TraceReason::Client => b'b',
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(name::X_REQUEST_ID, value);
    }
}

/// `x-forwarded-client-cert`.
fn client_certificate(context: &Context, plan: &Hcm, head: &mut RequestHead) {
    let mode = plan.forward_client_cert;
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let peer = context.connection.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    let Some(peer) = peer else {
        // Without a verified peer nobody vouches for what the header says.
        head.headers.remove(&name::X_FORWARDED_CLIENT_CERT);
        return;
    };
    if mode == ForwardClientCert::ForwardOnly {
        return;
    }
    if matches!(mode, ForwardClientCert::Sanitize | ForwardClientCert::SanitizeSet) {
        head.headers.remove(&name::X_FORWARDED_CLIENT_CERT);
    }
    if !matches!(mode, ForwardClientCert::SanitizeSet | ForwardClientCert::AppendForward) {
        return;
    }
    let local = context.connection.tls.as_ref().map_or(&[][..], |tls| &tls.local_uri_sans);
    if let Ok(value) = HeaderValue::from_str(&client_certificate_element(local, peer, plan.client_cert_details)) {
        append_list(&mut head.headers, name::X_FORWARDED_CLIENT_CERT, &value, ",");
    }
}

/// This hop's element of `x-forwarded-client-cert`: `By` is who we are, the rest is the peer.
fn client_certificate_element(local: &[String], peer: &PeerInfo, details: ClientCertDetails) -> String {
    let mut parts: Vec<String> = local.iter().map(|uri| format!("By={uri}")).collect();
    parts.push(format!("Hash={}", peer.sha256_hex()));
    if details.cert {
        parts.push(format!("Cert=\"{}\"", peer.url_encoded_pem()));
    }
    if details.chain {
        parts.push(format!("Chain=\"{}\"", peer.url_encoded_chain()));
    }
    if details.subject {
        // Escaped already, as RFC 2253 has it.
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.uri {
        // Envoy writes the key even when there is no URI.
        match peer.uri_sans.as_slice() {
            [] => parts.push("URI=".to_owned()),
            uris => parts.extend(uris.iter().map(|uri| format!("URI={uri}"))),
        }
    }
    if details.dns {
        parts.extend(peer.dns_sans.iter().map(|dns| format!("DNS={dns}")));
    }
    parts.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_version_4_and_differ() {
        let ids: Vec<String> = (0..100).map(|n| uuid(n).to_str().unwrap().to_owned()).collect();
        for id in &ids {
            let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
            assert_eq!((id.len(), dashes), (36, vec![8, 13, 18, 23]));
            assert_eq!(&id[14..15], "4");
            assert!("89ab".contains(&id[19..20]));
        }
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn forwarded_addresses_count_from_the_right() {
        let mut headers = Headers::new();
        assert!(forwarded_address(&headers, 0).is_none());
        append_list(&mut headers, name::X_FORWARDED_FOR, &HeaderValue::from_static("1.1.1.1"), ",");
        let at = |headers: &Headers, n| forwarded_address(headers, n).map(|(a, single)| (a.to_string(), single));
        assert_eq!(at(&headers, 0), Some(("1.1.1.1:0".to_owned(), true)));
        append_list(&mut headers, name::X_FORWARDED_FOR, &HeaderValue::from_static("2.2.2.2"), ",");
        assert_eq!(headers.get_str(&name::X_FORWARDED_FOR), Some("1.1.1.1,2.2.2.2"));
        assert_eq!(at(&headers, 0), Some(("2.2.2.2:0".to_owned(), false)));
        assert_eq!(at(&headers, 1), Some(("1.1.1.1:0".to_owned(), false)));
        assert_eq!(at(&headers, 2), None);
    }

    #[test]
    fn a_client_certificate_element_begins_with_who_we_are() {
        let peer = PeerInfo {
            subject: "O=Test\\, Inc,CN=\\\"x\\\"".to_owned(),
            uri_sans: vec!["spiffe://td/ns/a/sa/client".to_owned()],
            dns_sans: vec!["client.test".to_owned()],
            ..PeerInfo::default()
        };
        let hash = peer.sha256_hex();
        let local = ["spiffe://td/ns/a/sa/server".to_owned()];
        let details = ClientCertDetails { subject: true, uri: true, ..ClientCertDetails::default() };
        let expected = format!(
            "By=spiffe://td/ns/a/sa/server;Hash={hash};Subject=\"O=Test\\, Inc,CN=\\\"x\\\"\";URI=spiffe://td/ns/a/sa/client"
        );
        assert_eq!(client_certificate_element(&local, &peer, details), expected);
        let details = ClientCertDetails { cert: true, chain: true, ..ClientCertDetails::default() };
        let shown = PeerInfo {
            der: [0xfb, 0xff].as_slice().into(),
            issuers: vec![[1, 2, 3].as_slice().into()],
            ..PeerInfo::default()
        };
        let pem = |body: &str| format!("-----BEGIN%20CERTIFICATE-----%0A{body}%0A-----END%20CERTIFICATE-----%0A");
        let (leaf, issuer) = (pem("%2B%2F8%3D"), pem("AQID"));
        let expected = format!("Hash={};Cert=\"{leaf}\";Chain=\"{leaf}{issuer}\"", shown.sha256_hex());
        assert_eq!(client_certificate_element(&[], &shown, details), expected);
        let nothing = client_certificate_element(&[], &PeerInfo::default(), ClientCertDetails::default());
        assert_eq!(nothing, format!("Hash={}", PeerInfo::default().sha256_hex()));
    }
}
