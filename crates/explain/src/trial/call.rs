//! A request as plain values, or a connection that carries none: what policies may ask about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Map, Value, json};

/// Under which the token filter leaves a verified token, and the key of its claims.
const TOKENS: &str = "envoy.filters.http.jwt_authn";
const CLAIMS: &str = "payload";

/// Hosts, addresses and ports that hardly a policy names.
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)), 50_000);

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Otherwise it is a connection, of which nothing about HTTP is known.
    pub is_http: bool,
    /// `None`: it is not known who the client is.
    pub certificate: Option<Certificate>,
    /// The peer of the socket.
    pub source: IpAddr,
    /// The client behind trusted proxies.
    pub remote: IpAddr,
    pub destination: SocketAddr,
    /// Empty: none.
    pub server_name: String,
    pub method: String,
    /// Empty: none.
    pub host: String,
    /// With its query.
    pub path: String,
    /// Names in lower case; one may be there more than once.
    pub headers: Vec<(String, String)>,
    /// What filters have found out: by filter, then by key.
    pub found: Map<String, Value>,
}

/// What the client's verified certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub subject: String,
}

impl Certificate {
    pub fn of_uri(uri: impl Into<String>) -> Self {
        Self { uri_sans: vec![uri.into()], ..Self::default() }
    }

    /// The first SPIFFE ID.
    pub fn spiffe(&self) -> Option<&str> {
        self.uri_sans.iter().map(String::as_str).find(|uri| uri.starts_with("spiffe://"))
    }
}

impl Call {
    /// Of nobody in particular, to nowhere in particular.
    pub fn plain(is_http: bool) -> Self {
        Self {
            is_http,
            certificate: None,
            source: SOMEBODY,
            remote: SOMEBODY,
            destination: SOMEWHERE,
            server_name: String::new(),
            method: "GET".into(),
            host: "unnamed.example".into(),
            path: "/".into(),
            headers: Vec::new(),
            found: Map::new(),
        }
    }

    /// Sets what a filter has found out; `None` takes it away.
    pub fn find(&mut self, filter: &str, path: &[&str], value: Option<Value>) {
        let whole: Vec<&str> = [&[filter], path].concat();
        put(&mut self.found, &whole, value);
    }

    /// Sets a claim of a verified token; `None` takes it away.
    pub fn claim(&mut self, path: &[String], value: Option<Value>) {
        let path: Vec<&str> = std::iter::once(CLAIMS).chain(path.iter().map(String::as_str)).collect();
        self.find(TOKENS, &path, value);
    }

    /// As a person reads it; what a connection does not have is left out.
    pub fn json(&self) -> Value {
        let mut json = json!({
            "source_ip": self.source,
            "remote_ip": self.remote,
            "destination": self.destination,
            "server_name": self.server_name,
            "certificate": self.certificate.as_ref().map(|certificate| json!({
                "uri_sans": certificate.uri_sans,
                "dns_sans": certificate.dns_sans,
                "subject": certificate.subject,
            })),
            "found": self.found,
        });
        if self.is_http {
            json["method"] = self.method.as_str().into();
            json["host"] = self.host.as_str().into();
            json["path"] = self.path.as_str().into();
            json["headers"] = self.headers.iter().map(|(name, value)| json!([name, value])).collect();
        }
        json
    }
}

fn put(into: &mut Map<String, Value>, path: &[&str], value: Option<Value>) {
    match (path, value) {
        ([], _) => {}
        ([last], None) => drop(into.remove(*last)),
        ([last], Some(value)) => drop(into.insert((*last).to_owned(), value)),
        ([first, rest @ ..], value) => {
            let inner = into.entry(*first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
