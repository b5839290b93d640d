//! A connection that reaches a proxy, and the request in it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use meltemi_plan::{HeaderKey, HeaderLookup};
use serde_json::{Map, Value};

/// What the client speaks inside its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl Protocol {
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// How the client secures its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plaintext,
    Tls,
    /// TLS with the client certificate of a mesh workload.
    Mtls,
}

#[derive(Debug, Clone)]
pub struct Request {
    /// Captured on its way into the workload: the inbound listener takes it whatever the destination.
    pub inbound: bool,
    /// Original destination.
    pub destination: SocketAddr,
    /// `None` where it does not matter.
    pub source: Option<SocketAddr>,
    pub protocol: Protocol,
    pub security: Security,
    /// What the client offers; `None`: the default of its protocol.
    pub alpn: Option<String>,
    /// Empty: none.
    pub sni: String,
    pub method: String,
    pub host: String,
    /// With its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The SDS secret that makes a chain count as mutual TLS of the mesh.
    pub mtls_secret: String,
    /// Whom the client's certificate names (`spiffe://…`), with mutual TLS; empty: not known.
    pub principal: String,
    /// Claims of a valid token that comes with it; empty: there is none.
    pub claims: Map<String, Value>,
}

impl Request {
    /// A plain `GET /` to an address.
    pub fn to(destination: SocketAddr) -> Self {
        Self {
            inbound: false,
            destination,
            source: None,
            protocol: Protocol::Http1,
            security: Security::Plaintext,
            alpn: None,
            sni: String::new(),
            method: "GET".into(),
            host: String::new(),
            path: "/".into(),
            headers: Vec::new(),
            mtls_secret: "default".into(),
            principal: String::new(),
            claims: Map::new(),
        }
    }

    /// What the client offers by ALPN: what it was told to, else what Istio's clients of that kind do.
    pub fn offered(&self) -> &str {
        if let Some(alpn) = &self.alpn {
            return alpn;
        }
        match (self.security, self.protocol) {
            (Security::Tls, Protocol::Http1) => "http/1.1",
            (Security::Tls, Protocol::Http2) => "h2",
            (Security::Mtls, Protocol::Http1) => "istio-http/1.1",
            (Security::Mtls, Protocol::Http2) => "istio-h2",
            (Security::Mtls, Protocol::Tcp) => "istio",
            (Security::Plaintext, _) | (Security::Tls, Protocol::Tcp) => "",
        }
    }

    pub fn is_encrypted(&self) -> bool {
        self.security != Security::Plaintext
    }

    pub fn ip(&self) -> IpAddr {
        self.destination.ip()
    }

    fn scheme(&self) -> &str {
        if self.is_encrypted() { "https" } else { "http" }
    }
}

impl HeaderLookup for Request {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        let own = |text: &'_ str| Some(Cow::Owned(text.as_bytes().to_vec()));
        let named = match key {
            HeaderKey::Method => return own(&self.method),
            HeaderKey::Path => return own(&self.path),
            HeaderKey::Authority => return own(&self.host),
            HeaderKey::Scheme => return own(self.scheme()),
            HeaderKey::Protocol | HeaderKey::Status => return None,
            HeaderKey::Name(name) => name,
        };
        let values = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(named.as_str()));
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        match values.as_slice() {
            // The proxy adds it before it routes.
            [] if *named == "x-forwarded-proto" => own(self.scheme()),
            [] => None,
            values => own(&values.join(",")),
        }
    }
}
