//! Why something did not fit, with what the request has instead.

use meltemi_plan::listener::ChainMismatch;
use meltemi_plan::route::find::Mismatch;
use meltemi_plan::{FilterChain, HeaderKey, HeaderLookup, HeaderMatcher};

use super::words;
use crate::request::Request;
use crate::walk::Facts;

/// `it wants header end-user "tester", the request has none`.
pub(super) fn route(mismatch: Mismatch<'_>, request: &Request) -> String {
    match mismatch {
        Mismatch::Path(rule) => format!("it wants {}, this is {:?}", words::path(rule), request.path),
        Mismatch::Fraction(fraction) => format!("it takes {} of all requests", words::fraction(fraction)),
        Mismatch::Header(header) => format!("it wants {}, {}", words::header(header), has(header, request)),
        Mismatch::Grpc => "it wants gRPC".to_owned(),
        Mismatch::Query(query) => match &query.value {
            Some(value) => format!("it wants query parameter {} {}", query.name, words::string(value)),
            None if query.absent => format!("it wants no query parameter {}", query.name),
            None => format!("it wants a query parameter {}", query.name),
        },
        Mismatch::Cookie(cookie) => format!("it wants cookie {} {}", cookie.name, words::string(&cookie.value)),
        Mismatch::TlsPresented(wanted) | Mismatch::TlsValidated(wanted) => {
            format!("it wants {} client certificate", if wanted { "a" } else { "no" })
        }
        Mismatch::Metadata(matcher) => {
            let path: Vec<&str> = matcher.path.iter().map(|part| &**part).collect();
            format!("it wants {} of {}, which filters set (such as claims of a token)", path.join("."), matcher.filter)
        }
    }
}

fn has(header: &HeaderMatcher, request: &Request) -> String {
    match request.value(&header.key) {
        Some(value) => format!("the request has {:?}", String::from_utf8_lossy(&value)),
        None if header.key == HeaderKey::Protocol => "the request has no protocol".to_owned(),
        None => "the request has none".to_owned(),
    }
}

/// Why a filter chain does not take a connection.
pub(super) fn chain(chain: &FilterChain, facts: &Facts, request: &Request) -> String {
    let wanted = &chain.criteria;
    let list = |list: &[std::sync::Arc<str>]| list.iter().map(|text| &**text).collect::<Vec<_>>().join(" or ");
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    match facts.read(request, |facts| wanted.mismatch(facts)) {
        None => "another one asks for more of what the connection has".to_owned(),
        Some(ChainMismatch::DestinationPort) => {
            format!("it wants port {}", wanted.destination_port.unwrap_or_default())
        }
        Some(ChainMismatch::DestinationPrefix) => {
            let prefixes: Vec<String> = wanted.prefixes.iter().map(ToString::to_string).collect();
            format!("it wants destination {}", prefixes.join(" or "))
        }
        Some(ChainMismatch::ServerName) => {
            format!("it wants SNI {}, the connection has {}", list(&wanted.server_names), or_none(&facts.server_name))
        }
        Some(ChainMismatch::TransportProtocol) if &*wanted.transport_protocol == "tls" => "it wants TLS".to_owned(),
        Some(ChainMismatch::TransportProtocol) => "it wants no TLS".to_owned(),
        Some(ChainMismatch::ApplicationProtocol) => format!(
            "it wants ALPN {}, the connection has {}",
            list(&wanted.application_protocols),
            or_none(&facts.application_protocol)
        ),
        Some(
            ChainMismatch::DirectSource | ChainMismatch::SourceType | ChainMismatch::Source | ChainMismatch::SourcePort,
        ) => "it wants another source".to_owned(),
    }
}
