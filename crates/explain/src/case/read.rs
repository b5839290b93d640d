//! A case's file as values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::request::{Protocol, Request, Security};
use crate::walk::Failure;

/// Why a file is not a case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct CaseError {
    pub file: String,
    pub reason: String,
}

impl CaseError {
    pub(super) fn new(file: &str, reason: impl std::fmt::Display) -> Self {
        Self { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// What a result may name, and what [`crate::walk::Outcome::names`] calls it.
pub(super) const MATCHED: [(&str, &str); 6] = [
    ("listener_matched", "listener"),
    ("filter_chain_matched", "filter_chain"),
    ("route_config_matched", "route_config"),
    ("virtual_host_matched", "virtual_host"),
    ("route_matched", "route"),
    ("cluster_matched", "cluster"),
];

#[derive(Debug)]
pub struct Case {
    pub file: String,
    pub name: String,
    pub expected: Expected,
    pub skip_validation: bool,
    pub calls: Vec<Call>,
    pub(super) document: Value,
}

/// What a case expects besides its calls.
#[derive(Debug)]
pub enum Expected {
    Nothing,
    /// By domain: the clusters of the virtual host that has it. `None`: anything goes.
    VirtualHosts {
        route: String,
        hosts: Option<BTreeMap<String, Option<Vec<String>>>>,
    },
    InboundClusters(BTreeMap<String, InboundCluster>),
    /// Each as it stands in the file.
    Assertions(Vec<Value>),
}

/// `None`: no load assignment, no metadata.
#[derive(Debug, PartialEq, Eq)]
pub struct InboundCluster {
    pub endpoints: Option<Vec<String>>,
    pub services: Option<Vec<String>>,
}

#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub request: Request,
    pub(super) error: Option<Failure>,
    /// By the names of [`MATCHED`].
    pub(super) matched: BTreeMap<String, String>,
    /// What is not named must be empty.
    pub(super) strict: bool,
    pub(super) custom: Vec<String>,
}

/// Reads a case.
pub fn read(path: &Path) -> Result<Case, CaseError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| CaseError::new(&file, error))?;
    Case::parse(&file, &text)
}

impl Case {
    /// Reads a case from its text; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, CaseError> {
        let wrong = |reason: String| CaseError::new(file, reason);
        let document: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if !document.is_object() || document["kind"].as_str().is_none() {
            return Err(wrong("not a case: it has no `kind` (traffic, virtual_hosts, inbound_clusters)".into()));
        }
        let calls = document["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |(index, value)| call(value).map_err(|reason| wrong(format!("calls[{index}]: {reason}")));
        Ok(Self {
            file: file.to_owned(),
            name: text_of(&document["name"]),
            expected: expected(&document).map_err(wrong)?,
            skip_validation: document["skip_validation"] == true,
            calls: calls.iter().enumerate().map(read).collect::<Result<_, _>>()?,
            document,
        })
    }
}

pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array().map(|list| list.iter().map(text_of).collect())
}

fn expected(document: &Value) -> Result<Expected, String> {
    match document["kind"].as_str().unwrap_or_default() {
        "traffic" => Ok(Expected::Nothing),
        "virtual_hosts" => {
            let hosts = document["expect_virtual_hosts"].as_object();
            let hosts = hosts.map(|map| map.iter().map(|(domain, value)| (domain.clone(), strings(value))).collect());
            Ok(Expected::VirtualHosts { route: text_of(&document["route_name"]), hosts })
        }
        "inbound_clusters" => {
            let cluster = |value: &Value| InboundCluster {
                endpoints: strings(&value["endpoints"]),
                services: strings(&value["telemetry_services"]),
            };
            let clusters =
                document["expect_inbound_clusters"].as_object().ok_or("expect_inbound_clusters: required")?;
            Ok(Expected::InboundClusters(clusters.iter().map(|(name, value)| (name.clone(), cluster(value))).collect()))
        }
        "listener_assertions" => {
            Ok(Expected::Assertions(document["expect_assertions"].as_array().cloned().unwrap_or_default()))
        }
        other => {
            Err(format!("kind: {other:?} is not one of traffic, virtual_hosts, inbound_clusters, listener_assertions"))
        }
    }
}

fn call(value: &Value) -> Result<Call, String> {
    let result = &value["result"];
    let error = match result["error"].as_str() {
        Some(code) => Some(Failure::of_code(code).ok_or_else(|| format!("result.error: {code:?} is no error's name"))?),
        None => None,
    };
    let named = MATCHED.iter().filter_map(|(key, _)| Some(((*key).to_owned(), text_of(result.get(key)?))));
    Ok(Call {
        name: text_of(&value["name"]),
        request: request(&value["call"])?,
        error,
        matched: named.collect(),
        strict: result["strict_match"] == true,
        custom: strings(&value["call"]["custom_listener_validations"]).unwrap_or_default(),
    })
}

fn request(call: &Value) -> Result<Request, String> {
    let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let address: IpAddr = match call["address"].as_str() {
        Some(address) => address.parse().map_err(|error| format!("call.address: {address:?}: {error}"))?,
        None => IpAddr::from([1, 3, 3, 7]),
    };
    let port = call["port"].as_u64().unwrap_or_default();
    let port = u16::try_from(port).map_err(|_| format!("call.port: {port} is no port"))?;
    let security = match call["tls"].as_str() {
        None | Some("plaintext" | "") => Security::Plaintext,
        Some("tls") => Security::Tls,
        Some("mtls") => Security::Mtls,
        Some(other) => return Err(format!("call.tls: {other:?} is not one of plaintext, tls, mtls")),
    };
    let alpn = call["alpn"].as_str().filter(|alpn| !alpn.is_empty()).map(str::to_owned);
    if alpn.is_some() && security == Security::Plaintext {
        return Err("call.alpn: there is none without TLS".into());
    }
    let host = text("host_header");
    let sni = match (text("sni"), security) {
        (sni, Security::Tls) if sni.is_empty() => host.clone(),
        (sni, _) => sni,
    };
    let default = Request::to(SocketAddr::new(address, port));
    Ok(Request {
        inbound: call["call_mode"] == "inbound",
        protocol: match call["protocol"].as_str() {
            Some("http") => Protocol::Http1,
            Some("http2") => Protocol::Http2,
            _ => Protocol::Tcp,
        },
        security,
        alpn,
        sni,
        host,
        path: call["path"].as_str().map_or(default.path, str::to_owned),
        method: call["method"].as_str().map_or(default.method, str::to_owned),
        headers: headers(&call["headers"]),
        mtls_secret: call["mtls_secret_config_name"].as_str().map_or(default.mtls_secret, str::to_owned),
        ..default
    })
}

fn headers(value: &Value) -> Vec<(String, String)> {
    let named = value.as_object().into_iter().flatten();
    let values = |value: &Value| strings(value).unwrap_or_else(|| vec![text_of(value)]);
    named.flat_map(|(name, value)| values(value).into_iter().map(|value| (name.clone(), value))).collect()
}
