//! The proxy's own engine over filters: compiled by the plan, asked by [`meltemi_filters::rbac`].

use std::rc::Rc;
use std::sync::Arc;

use meltemi_filters::{ConnectionInfo, StreamInfo, TlsInfo, rbac};
use meltemi_http::{HeaderName, HeaderValue, Method, RequestHead};
use meltemi_plan::filter::{HttpFilterConfig, RbacFilter};
use meltemi_plan::rbac::MetadataMatcher;
use meltemi_plan::{NetworkFilter, Rbac};
use meltemi_proto::json as proto_json;
use meltemi_tls::PeerInfo;
use serde_json::{Value, json};

use super::call::Call;
use super::{Step, Verdict};
use crate::sent::{chains, manager};

const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const TCP_RBAC: &str = "envoy.filters.network.rbac";

/// Filters as our proxy has them.
pub struct Engine {
    stages: Vec<Stage>,
    is_http: bool,
}

enum Stage {
    Rbac(RbacFilter),
    /// Which calls an external authorizer is asked about; `None`: all.
    Ask(Option<MetadataMatcher>),
}

impl Engine {
    /// Fails with the reason why our proxy does not take these filters.
    pub fn of(filters: &[Value], is_http: bool) -> Result<Self, String> {
        let listener = proto_json::from_value(&listener(filters, is_http));
        let listener = listener.map_err(|error| format!("it is no listener: {error}"))?;
        let listener = meltemi_plan::listener(&listener).map_err(|error| format!("our proxy refuses it: {error}"))?;
        let mut stages = Vec::new();
        for chain in chains(&listener) {
            stages.extend(chain.filters.iter().filter_map(of_network));
            let of_requests = manager(chain).into_iter().flat_map(|manager| &manager.http_filters);
            stages.extend(of_requests.filter_map(|filter| of_http(&filter.config)));
        }
        Ok(Self { stages, is_http })
    }

    /// What the filters say of a call, up to the first that denies it.
    pub fn decide(&self, call: &Call) -> Vec<Step> {
        let head = self.is_http.then(|| head(call));
        let mut info = info(call);
        let mut steps = Vec::new();
        for stage in &self.stages {
            match stage {
                Stage::Rbac(filter) => steps.extend(self.rbac(filter, head.as_ref(), &mut info)),
                Stage::Ask(chosen) => steps.push(Step::Asked(chosen.as_ref().is_none_or(|matcher| {
                    matcher.value.matches(info.found(&matcher.filter, &matcher.path)) != matcher.invert
                }))),
            }
            if steps.last().is_some_and(Step::is_denial) {
                break;
            }
        }
        steps
    }

    fn rbac(&self, filter: &RbacFilter, head: Option<&RequestHead>, info: &mut StreamInfo) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(shadow) = &filter.shadow_rules {
            let found = rbac::evaluate(shadow, head, info);
            let metadata = found.as_metadata(&filter.shadow_rules_stat_prefix);
            steps.push(Step::Shadow(verdict(shadow, head, info)));
            info.find_out(if self.is_http { HTTP_RBAC } else { TCP_RBAC }, metadata);
        }
        if let Some(rules) = &filter.rules {
            steps.push(Step::Rules(verdict(rules, head, info)));
        }
        steps
    }
}

fn verdict(rules: &Rbac, head: Option<&RequestHead>, info: &StreamInfo) -> Verdict {
    let found = rbac::evaluate(rules, head, info);
    Verdict { allowed: found.allowed, policy: found.policy.map(str::to_owned) }
}

fn of_network(filter: &NetworkFilter) -> Option<Stage> {
    match filter {
        NetworkFilter::Rbac(own) => Some(Stage::Rbac(own.rules.clone())),
        NetworkFilter::ExtAuthz(own) => Some(Stage::Ask(own.enabled_metadata.clone())),
        _ => None,
    }
}

fn of_http(config: &HttpFilterConfig) -> Option<Stage> {
    match config {
        HttpFilterConfig::Rbac(own) => Some(Stage::Rbac(RbacFilter::clone(own))),
        HttpFilterConfig::ExtAuthz(own) => Some(Stage::Ask(own.enabled_metadata.clone())),
        _ => None,
    }
}

/// A listener with nothing but these filters.
fn listener(filters: &[Value], is_http: bool) -> Value {
    const KIND: &str = "type.googleapis.com/envoy.extensions.filters";
    let typed = |kind: &str, mut config: Value| {
        config["@type"] = format!("{KIND}.{kind}").into();
        json!({"name": kind, "typed_config": config})
    };
    let ended = |last: Value| Value::from([filters, &[last]].concat());
    let chain = if is_http {
        let filters = ended(typed("http.router.v3.Router", json!({})));
        let manager = json!({"stat_prefix": "s", "route_config": {"name": "r"}, "http_filters": filters});
        json!([typed("network.http_connection_manager.v3.HttpConnectionManager", manager)])
    } else {
        ended(typed("network.tcp_proxy.v3.TcpProxy", json!({"stat_prefix": "s", "cluster": "c"})))
    };
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
    json!({"name": "l", "address": address, "filter_chains": [{"filters": chain}]})
}

fn head(call: &Call) -> RequestHead {
    let method = Method::from_bytes(call.method.as_bytes()).unwrap_or_default();
    let mut head = RequestHead::new(method, call.host.as_str(), call.path.as_str());
    let field = |(name, value): &(String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    head.headers = call.headers.iter().filter_map(field).collect();
    head
}

fn info(call: &Call) -> StreamInfo {
    let from = std::net::SocketAddr::new(call.source, 40_000);
    let mut connection = ConnectionInfo::new(from.into(), call.destination.into());
    connection.requested_server_name = Some(call.server_name.as_str().into()).filter(|_| !call.server_name.is_empty());
    connection.tls = call.certificate.as_ref().map(|certificate| {
        let peer = PeerInfo {
            uri_sans: certificate.uri_sans.clone(),
            dns_sans: certificate.dns_sans.clone(),
            subject: certificate.subject.clone(),
            ..PeerInfo::default()
        };
        TlsInfo { peer: Some(Arc::new(peer)), ..TlsInfo::default() }
    });
    let mut info = StreamInfo::new(Rc::new(connection));
    info.remote = std::net::SocketAddr::new(call.remote, 40_000).into();
    for (filter, found) in &call.found {
        info.find_out(filter, found.as_object().cloned().unwrap_or_default());
    }
    info
}
