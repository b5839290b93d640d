//! `istio.alpn`: what a TLS connection to an upstream offers, by the HTTP version that will be spoken.

use std::sync::Arc;

use meltemi_http::Protocol;
use meltemi_plan::filter::IstioAlpn;

/// Protocol names on the wire, resolved once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AlpnOverrides {
    http10: Option<Arc<[Vec<u8>]>>,
    http11: Option<Arc<[Vec<u8>]>>,
    http2: Option<Arc<[Vec<u8>]>>,
}

impl AlpnOverrides {
    pub fn new(config: &IstioAlpn) -> Self {
        let list = |names: &[Arc<str>]| {
            (!names.is_empty()).then(|| names.iter().map(|n| n.as_bytes().to_vec()).collect::<Arc<[Vec<u8>]>>())
        };
        Self { http10: list(&config.http10), http11: list(&config.http11), http2: list(&config.http2) }
    }

    /// What to offer when the upstream connection will speak `protocol`.
    pub fn offered(&self, protocol: Protocol) -> Option<&Arc<[Vec<u8>]>> {
        match protocol {
            Protocol::Http10 => self.http10.as_ref(),
            Protocol::Http11 => self.http11.as_ref(),
            Protocol::Http2 => self.http2.as_ref(),
            Protocol::Http3 => None,
        }
    }
}
