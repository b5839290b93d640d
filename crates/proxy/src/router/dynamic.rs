//! Where a request to a dynamic forward proxy cluster goes: to the host that it names.
//!
//! Waits for the name to be resolved. Where the connection manager has the filter of the cluster's cache a failure is answered
//! as the filter's, else as that of a cluster without hosts, as in Envoy.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_plan::route::find::without_port;
use meltemi_upstream::{Cluster, DnsCache, Transport, Unresolved};

use crate::hcm::Exchange;

/// The address of the request's host.
pub(super) async fn resolve(
    exchange: &Exchange<'_>,
    cluster: &Cluster,
    cache: &Arc<DnsCache>,
) -> Result<SocketAddr, Box<LocalReply>> {
    let secure = matches!(cluster.transports.first(), Some(Transport::Tls(_)));
    let (host, port) = host_and_port(&exchange.request.authority, if secure { 443 } else { 80 });
    let filter = exchange.info.upstream.resolves;
    if host.is_empty() && filter {
        return Err(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "Empty host header", "empty_host_header")));
    }
    cache.address(host, port).await.map_err(|unresolved| {
        let reply = reply(&unresolved);
        if filter {
            return Box::new(reply);
        }
        let reply =
            LocalReply { body: "no healthy upstream".into(), flags: ResponseFlags::NO_HEALTHY_UPSTREAM, ..reply };
        Box::new(reply)
    })
}

/// A name or address, without brackets, and its port.
fn host_and_port(authority: &str, default: u16) -> (&str, u16) {
    let host = without_port(authority);
    let port = authority[host.len()..].strip_prefix(':').and_then(|port| port.parse().ok());
    (host.trim_matches(['[', ']']), port.unwrap_or(default))
}

/// Envoy's answers.
fn reply(unresolved: &Unresolved) -> LocalReply {
    let new = |body: &'static str, details: String| LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details);
    match unresolved {
        Unresolved::Full => new("DNS cache overflow", "dns_cache_overflow".to_owned()),
        Unresolved::Pending => new(
            "Dynamic forward proxy pending request overflow",
            "dynamic_forward_proxy_pending_request_overflow".to_owned(),
        ),
        Unresolved::Failed(reason) => {
            let details = format!("dns_resolution_failure{{{}}}", reason.replace(char::is_whitespace, "_"));
            new("DNS resolution failure", details).with_flags(ResponseFlags::DNS_FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for (authority, expected) in [
            ("a.example", ("a.example", 80)),
            ("a.example:8080", ("a.example", 8080)),
            ("10.0.0.1:81", ("10.0.0.1", 81)),
            ("[::1]:81", ("::1", 81)),
            ("[::1]", ("::1", 80)),
            ("", ("", 80)),
        ] {
            assert_eq!(host_and_port(authority, 80), expected, "{authority}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_answered_as_by_envoy() {
        let failed = reply(&Unresolved::Failed("no such name".into()));
        assert_eq!((failed.status, &*failed.body), (StatusCode::SERVICE_UNAVAILABLE, "DNS resolution failure"));
        assert_eq!(failed.details, "dns_resolution_failure{no_such_name}");
        assert_eq!(failed.flags, ResponseFlags::DNS_FAILURE);
        for (unresolved, details) in [
            (Unresolved::Full, "dns_cache_overflow"),
            (Unresolved::Pending, "dynamic_forward_proxy_pending_request_overflow"),
        ] {
            let reply = reply(&unresolved);
            assert_eq!((&*reply.details, reply.flags), (details, ResponseFlags::NONE));
        }
    }
}
