//! The cases as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meltemi_proto::envoy::config::listener::v3::FilterChain;
use meltemi_translate::simulation::{Call, Failure, Outcome, Protocol, Security, downstream_tls};
use serde_json::{Map, Value};

pub struct Case {
    pub file: String,
    pub name: String,
    pub document: Value,
    pub expected: Expected,
    pub calls: Vec<Expectation>,
}

pub enum Expected {
    Calls,
    VirtualHosts { route: String, hosts: Option<BTreeMap<String, Option<Vec<String>>>> },
    InboundClusters(BTreeMap<String, InboundCluster>),
    ExternalSecret { listener: String, secret: String, cluster: String },
}

/// `None`: no load assignment, no metadata.
#[derive(Debug, PartialEq, Eq)]
pub struct InboundCluster {
    pub endpoints: Option<Vec<String>>,
    pub services: Option<Vec<String>>,
}

pub struct Expectation {
    pub name: String,
    pub call: Call,
    result: Map<String, Value>,
    custom: bool,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/simulation")
}

/// `None` where the data is not there.
pub fn all() -> Option<Vec<Case>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder().join("cases")).ok()?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    Some(paths.iter().map(|path| read(path)).collect())
}

fn read(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let calls = document["calls"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(expectation).collect();
    Case {
        file: path.file_name().unwrap().to_string_lossy().into_owned(),
        name: text_of(&document["name"]),
        expected: expected(&document),
        calls,
        document,
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn expected(document: &Value) -> Expected {
    let strings = |value: &Value| value.as_array().map(|list| list.iter().map(text_of).collect::<Vec<_>>());
    match document["kind"].as_str().unwrap() {
        "traffic" => Expected::Calls,
        "inbound_clusters" => {
            let cluster = |value: &Value| InboundCluster {
                endpoints: strings(&value["endpoints"]),
                services: strings(&value["telemetry_services"]),
            };
            let clusters = document["expect_inbound_clusters"].as_object().unwrap();
            Expected::InboundClusters(clusters.iter().map(|(name, value)| (name.clone(), cluster(value))).collect())
        }
        "virtual_hosts" => {
            let hosts = document["expect_virtual_hosts"].as_object();
            let hosts = hosts.map(|map| map.iter().map(|(domain, value)| (domain.clone(), strings(value))).collect());
            Expected::VirtualHosts { route: text_of(&document["route_name"]), hosts }
        }
        "listener_assertions" => {
            let assertion = document["expect_assertions"].as_array().unwrap().iter();
            let secret = assertion.clone().find(|a| a["assert"] == "sds_secret_config").unwrap();
            Expected::ExternalSecret {
                listener: text_of(&secret["name"]),
                secret: text_of(&secret["secret_name"]),
                cluster: text_of(&secret["api_config_source_grpc_cluster"]),
            }
        }
        other => panic!("unknown kind of case {other}"),
    }
}

fn expectation(value: &Value) -> Expectation {
    let call = &value["call"];
    let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let security = match call["tls"].as_str() {
        Some("tls") => Security::Tls,
        Some("mtls") => Security::Mtls,
        _ => Security::Plaintext,
    };
    let host = text("host_header");
    let sni = match (&*text("sni"), security) {
        ("", Security::Tls) => host.clone(),
        (sni, _) => sni.to_owned(),
    };
    let default = Call::default();
    Expectation {
        name: text_of(&value["name"]),
        call: Call {
            address: call["address"].as_str().map_or(default.address, |address| address.parse().unwrap()),
            port: call["port"].as_u64().unwrap_or_default().try_into().unwrap(),
            path: call["path"].as_str().map_or(default.path, str::to_owned),
            protocol: match call["protocol"].as_str() {
                Some("http") => Protocol::Http1,
                Some("http2") => Protocol::Http2,
                _ => Protocol::Tcp,
            },
            security,
            alpn: call["alpn"].as_str().map(str::to_owned),
            host,
            sni,
            inbound: call["call_mode"] == "inbound",
            mtls_secret: call["mtls_secret_config_name"].as_str().map_or(default.mtls_secret, str::to_owned),
        },
        result: value["result"].as_object().cloned().unwrap_or_default(),
        custom: call["custom_listener_validations"].to_string().contains("downstream_tls_simple_file_cert"),
    }
}

impl Expectation {
    pub fn compare(&self, outcome: &Outcome, chain: Option<&FilterChain>) -> Vec<String> {
        let mut problems = Vec::new();
        let wanted = self.result.get("error").and_then(Value::as_str).map(failure);
        if wanted != outcome.failure {
            problems.push(format!("expected {wanted:?}"));
        }
        let strict = self.result.get("strict_match") == Some(&Value::Bool(true));
        let fields = [
            ("listener_matched", &outcome.listener),
            ("filter_chain_matched", &outcome.filter_chain),
            ("route_matched", &outcome.route),
            ("route_config_matched", &outcome.route_config),
            ("virtual_host_matched", &outcome.virtual_host),
            ("cluster_matched", &outcome.cluster),
        ];
        for (key, found) in fields {
            let wanted = self.result.get(key).map(text_of).or_else(|| strict.then(String::new));
            if let Some(wanted) = wanted.filter(|wanted| wanted != found) {
                problems.push(format!("expected {key} {wanted:?}"));
            }
        }
        if self.custom && !chain.is_some_and(has_simple_file_certificate) {
            problems.push("expected a server certificate from files".into());
        }
        problems
    }
}

fn has_simple_file_certificate(chain: &FilterChain) -> bool {
    let Some(tls) = downstream_tls(chain) else { return false };
    let secrets = tls.common_tls_context.map(|common| common.tls_certificate_sds_secret_configs).unwrap_or_default();
    let named = secrets.first().is_some_and(|secret| secret.name == "file-cert:httpbin.pem~httpbinkey.pem");
    named && tls.require_client_certificate != Some(true)
}

fn failure(name: &str) -> Failure {
    match name {
        "ErrNoListener" => Failure::NoListener,
        "ErrNoFilterChain" => Failure::NoFilterChain,
        "ErrMultipleFilterChain" => Failure::MultipleFilterChains,
        "ErrTLSError" => Failure::Tls,
        "ErrMTLSError" => Failure::Mtls,
        "ErrProtocolError" => Failure::Protocol,
        "ErrNoVirtualHost" => Failure::NoVirtualHost,
        "ErrTLSRedirect" => Failure::TlsRedirect,
        "ErrNoRoute" => Failure::NoRoute,
        other => panic!("unknown error {other}"),
    }
}
