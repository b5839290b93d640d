//! Values for the tests of this crate.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use meltemi_http::{HeaderName, HeaderValue, Headers, Method, RequestHead};
use meltemi_plan::filter::{FilterOverride, PerFilter};
use meltemi_plan::route::{
    ClusterSpec, Forward, ForwardSettings, HostRewrite, PathRewrite, PathRule, RouteMatch, RouteSettings,
};
use meltemi_plan::{Cluster, HeaderRules, HttpFilterConfig, NetworkFilter, Route, RouteAction};
use meltemi_telemetry::Registry;

use crate::{Answer, Around, Call, CallError, Caller, Calling, ConnectionInfo, Context, LocalNode, StreamInfo};

type Answers = dyn Fn(&Call) -> Result<Answer, CallError>;

/// Answers calls by a function, and remembers them.
pub(crate) struct Answering {
    answer: Box<Answers>,
    calls: RefCell<Vec<Call>>,
}

impl Answering {
    pub fn new(answer: impl Fn(&Call) -> Result<Answer, CallError> + 'static) -> Self {
        Self { answer: Box::new(answer), calls: RefCell::default() }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }
}

impl Caller for Answering {
    fn call(&self, call: Call) -> Calling {
        let answer = (self.answer)(&call);
        self.calls.borrow_mut().push(call);
        Box::pin(std::future::ready(answer))
    }
}

/// Whoever knows no cluster.
struct Alone;

impl Caller for Alone {
    fn call(&self, _: Call) -> Calling {
        Box::pin(std::future::ready(Err(CallError::NoCluster)))
    }
}

/// Nothing around a filter.
pub(crate) const ALONE: Around<'static> = Around { caller: &Alone, early: None };

pub(crate) fn context() -> Arc<Context> {
    let metadata = serde_json::json!({
        "NAME": "productpage-1", "NAMESPACE": "books", "CLUSTER_ID": "Kubernetes", "WORKLOAD_NAME": "productpage-v1",
        "LABELS": { "app": "productpage", "version": "v1" },
    });
    let id = "sidecar~10.0.0.1~productpage-1.books~books.svc.cluster.local";
    Context::new(&Registry::new(), LocalNode::new(id, "productpage.books", &metadata))
}

pub(crate) fn info() -> StreamInfo {
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
    let mut connection = ConnectionInfo::new(address("10.0.0.9:40000"), address("10.0.0.1:9080"));
    connection.requested_server_name = Some("outbound_.9080_._.reviews".into());
    StreamInfo::new(Rc::new(connection))
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> Headers {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

pub(crate) fn request(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "reviews:9080", "/reviews/0?x=1");
    head.headers = headers(fields);
    head
}

pub(crate) fn route(overrides: Vec<(&str, FilterOverride)>) -> Arc<Route> {
    let settings = RouteSettings {
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        per_filter: PerFilter(overrides.into_iter().map(|(n, o)| (n.into(), o)).collect()),
        tracing: None,
        retry_buffer_limit: None,
        stat_prefix: "".into(),
    };
    let matcher = RouteMatch {
        path: PathRule::Prefix { prefix: "/".into(), ignore_case: false },
        headers: vec![],
        query: vec![],
        cookies: vec![],
        fraction: None,
        grpc: false,
        tls_presented: None,
        tls_validated: None,
        dynamic_metadata: vec![],
    };
    Arc::new(Route {
        name: "default".into(),
        matcher: matcher.into(),
        action: RouteAction::Forward(Box::new(forward())),
        metadata: None,
        watch: None,
        decorator: None,
        settings: settings.into(),
    })
}

fn forward() -> Forward {
    let settings = ForwardSettings {
        cluster_not_found_status: 503,
        metadata_match: None,
        path_rewrite: PathRewrite::None,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        flush_timeout: None,
        max_stream_duration: None,
        retry_policy: None,
        mirrors: vec![],
        hash_policy: vec![],
        rate_limits: vec![],
        include_host_rate_limits: false,
        high_priority: false,
        upgrades: vec![],
        max_grpc_timeout: None,
        grpc_timeout_offset: None,
    };
    Forward { cluster: ClusterSpec::Named("c".into()), settings: settings.into() }
}

/// From Envoy's JSON, as the plan reads it.
pub(crate) fn cluster(name: &str, metadata: serde_json::Value) -> Arc<Cluster> {
    let json = serde_json::json!({ "name": name, "connectTimeout": "1s", "metadata": { "filterMetadata": metadata } });
    let proto = meltemi_proto::json::from_value(&json).unwrap();
    Arc::new(meltemi_plan::cluster(&proto).unwrap())
}

/// From Envoy's JSON of its typed configuration, as the plan reads it.
pub(crate) fn http_filter(config: serde_json::Value) -> HttpFilterConfig {
    const KIND: &str = "type.googleapis.com/envoy.extensions.filters";
    let router = serde_json::json!({ "@type": format!("{KIND}.http.router.v3.Router") });
    let manager = serde_json::json!({
        "@type": format!("{KIND}.network.http_connection_manager.v3.HttpConnectionManager"),
        "statPrefix": "s", "routeConfig": { "name": "r" },
        "httpFilters": [{ "name": "one", "typedConfig": config }, { "name": "router", "typedConfig": router }] });
    let address = serde_json::json!({ "socketAddress": { "address": "127.0.0.1", "portValue": 1 } });
    let json = serde_json::json!({ "name": "l", "address": address,
        "filterChains": [{ "filters": [{ "name": "http", "typedConfig": manager }] }] });
    let listener = meltemi_plan::listener(&meltemi_proto::json::from_value(&json).unwrap()).unwrap();
    let NetworkFilter::HttpConnectionManager(manager) = &listener.chains[0].filters[0] else { panic!("no manager") };
    manager.http_filters[0].config.clone()
}
