//! What the engine reads of a request: the head, and what the proxy knows of its connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use meltemi_filters::{ConnectionInfo, Direction, StreamInfo, TlsInfo};
use meltemi_http::{HeaderName, HeaderValue, Method, RequestHead, Scheme};
use meltemi_plan::{Hcm, HeaderKey, HeaderLookup as _};
use meltemi_tls::PeerInfo;

use crate::request::{Request, Security};
use crate::walk::Outcome;

/// Whoever asks from nowhere in particular.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) fn info(outcome: &Outcome<'_>, request: &Request) -> StreamInfo {
    let remote = request.source.unwrap_or(UNKNOWN);
    let mut connection = ConnectionInfo::new(remote.into(), request.destination.into());
    connection.direction = if request.inbound { Direction::Inbound } else { Direction::Outbound };
    connection.requested_server_name = Some(request.sni.as_str().into()).filter(|_| !request.sni.is_empty());
    connection.tls = request.is_encrypted().then(|| TlsInfo { peer: peer(request), ..TlsInfo::default() });
    let mut info = StreamInfo::new(Rc::new(connection));
    info.route = outcome.route.cloned();
    info.virtual_host = outcome.host.cloned();
    info
}

/// Who the client is for rules about addresses behind trusted proxies, as the connection manager finds it in `x-forwarded-for`;
/// `None`: whoever connects.
pub(super) fn forwarded(request: &Request, manager: &Hcm) -> Option<SocketAddr> {
    let hops = usize::try_from(manager.xff_trusted_hops).unwrap_or(usize::MAX);
    // Where the peer counts as the client, it is the first of the hops.
    let skip = if manager.use_remote_address { hops.checked_sub(1)? } else { hops };
    let list = request.value(&HeaderKey::Name(HeaderName::from_static("x-forwarded-for")))?;
    let entry = std::str::from_utf8(&list).ok()?.rsplit(',').nth(skip)?.trim();
    entry.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| entry.parse()).ok()
}

/// What the client's certificate says; none where it shows none.
fn peer(request: &Request) -> Option<Arc<PeerInfo>> {
    let uri_sans = Some(request.principal.clone()).filter(|principal| !principal.is_empty()).into_iter().collect();
    (request.security == Security::Mtls).then(|| Arc::new(PeerInfo { uri_sans, ..PeerInfo::default() }))
}

pub(super) fn head(request: &Request) -> RequestHead {
    let method = Method::from_bytes(request.method.as_bytes()).unwrap_or_default();
    let mut head = RequestHead::new(method, request.host.as_str(), request.path.as_str());
    head.scheme = if request.is_encrypted() { Scheme::Https } else { Scheme::Http };
    let fields = request.headers.iter().filter_map(|(name, value)| {
        // What is no header never comes.
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    head.headers = fields.collect();
    head
}
