//! The port for webhooks: what the API server asks before it stores a pod.
//!
//! Owns the connections and the injector, which is made anew when its ConfigMap or folder or the mesh configuration changes.
//! A configuration that is wrong is said to be so, and what was in force stays.

mod source;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use meltemi_config::kube::KubeNode;
use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::ProxyConfigResource;
use meltemi_config::{Key, Kind, Meta};
use meltemi_model::Shared as SharedMesh;
use meltemi_store::ConfigSet;
use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Counter, Registry};
use meltemi_webhook::inject::{Cluster, InjectError, Injector, InjectorConfig, Node, Settings, values};
use meltemi_webhook::server::{Answered, Asked, MAX_BODY_BYTES, inject, validate};
use meltemi_webhook::validate::{self as validation, admit_and_count};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::State;
use crate::options::WebhookOptions;
use crate::secure::{SecureListener, SecureStream};
pub(crate) use source::Source;

/// Connections at once: an API server keeps a few.
const MAX_CONNECTIONS: usize = 512;
/// For a request's head, and as long for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    listener: SecureListener,
    state: Arc<State>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let verdicts = Verdicts { registry: state.stats.registry.clone(), counters: Mutex::default() };
    let router = router(Arc::new(Webhooks { state, verdicts, current: Mutex::default() }));
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut incoming = pin!(listener.incoming());
    loop {
        let accepted = tokio::select! {
            accepted = incoming.next() => accepted,
            Some(_) = connections.join_next() => continue,
            () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => None,
        };
        let Some(accepted) = accepted else { break };
        let Ok(stream) = accepted else { continue };
        let Ok(permit) = limit.clone().try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "webhooks: a connection too many");
            continue;
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        connections.spawn(async move {
            connection(stream, router, stopped).await;
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: SecureStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "webhooks: connection");
    }
}

fn router(webhooks: Arc<Webhooks>) -> Router {
    Router::new()
        .route("/ready", get(|| async { "" }))
        .route("/validate", post(answer_validate))
        .route("/inject", post(answer_inject))
        .route("/inject/{*parameters}", post(answer_inject))
        .with_state(webhooks)
}

async fn answer_inject(Shared(webhooks): Shared<Arc<Webhooks>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let stats = &webhooks.state.stats.injection;
    match read(body).await {
        Ok(body) => {
            let asked = Asked { content_type: content_type(&parts.headers), body: &body };
            response(inject(asked, stats, |request| {
                let injector = webhooks.injector()?;
                let cluster = Known(webhooks.state.config.load_full());
                let platform = webhooks.state.options.webhook.platform;
                injector.review(request, parts.uri.path(), platform, &cluster)
            }))
        }
        Err(refused) => {
            stats.unread();
            response(refused)
        }
    }
}

async fn answer_validate(Shared(webhooks): Shared<Arc<Webhooks>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match read(body).await {
        Ok(body) => {
            let asked = Asked { content_type: content_type(&parts.headers), body: &body };
            let verdicts = &webhooks.verdicts;
            response(validate(asked, |request| admit_and_count(request, &|outcome| verdicts.count(outcome))))
        }
        Err(refused) => response(refused),
    }
}

/// Counters of validation, made when they first count. There are as many as kinds have versions and ways to fail.
struct Verdicts {
    registry: Registry,
    counters: Mutex<BTreeMap<[&'static str; 4], Counter>>,
}

impl Verdicts {
    fn count(&self, outcome: &validation::Outcome) {
        let reason = outcome.failure.map_or("", |failure| failure.as_str());
        let new = || {
            let mut labels =
                vec![("group", outcome.group), ("resource", outcome.resource), ("version", outcome.version)];
            let name = match outcome.failure {
                None => "galley_validation_passed",
                Some(failure) => {
                    labels.push(("reason", failure.as_str()));
                    "galley_validation_failed"
                }
            };
            self.registry.counter(name, Labels::new(labels))
        };
        let key = [outcome.group, outcome.version, outcome.resource, reason];
        self.counters.lock().entry(key).or_insert_with(new).inc();
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, Answered> {
    let too_long = || Err(Answered::text(413, &format!("limit is {MAX_BODY_BYTES}")));
    // What says so beforehand need not come.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return too_long();
    }
    match tokio::time::timeout(READ_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => too_long(),
        Err(_) => Err(Answered::text(408, "the body took too long")),
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

fn response(answered: Answered) -> Response {
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, answered.content_type)], answered.body).into_response()
}

struct Webhooks {
    state: Arc<State>,
    verdicts: Verdicts,
    current: Mutex<Option<Current>>,
}

/// An injector, and what it was made of.
struct Current {
    source: Source,
    mesh: SharedMesh<MeshConfig>,
    injector: Option<Arc<Injector>>,
    /// Why what it was to be made of could not be.
    problem: Option<String>,
}

impl Webhooks {
    /// The injector in force. Two small files are looked at for each pod, and no more as long as they do not change.
    fn injector(&self) -> Result<Arc<Injector>, InjectError> {
        let mesh = self.state.pusher.snapshot().mesh.clone();
        let source = source_of(&self.state);
        let mut current = self.current.lock();
        let source = match source {
            Ok(source) => source,
            Err(problem) => return self.in_spite_of(&problem, current.as_ref()),
        };
        let is_current = current.as_ref().is_some_and(|current| current.source == source && current.mesh == mesh);
        if !is_current {
            let before = current.take().and_then(|current| current.injector);
            *current = Some(self.make(source, mesh, before));
        }
        let current = current.as_ref();
        current.and_then(|current| current.injector.clone()).ok_or_else(|| {
            let problem = current.and_then(|current| current.problem.clone());
            InjectError::NoInjector(problem.unwrap_or_default())
        })
    }

    /// What is in force goes on, where there is something.
    fn in_spite_of(&self, problem: &str, current: Option<&Current>) -> Result<Arc<Injector>, InjectError> {
        tracing::error!("{problem}; the injector in force stays");
        let injector = current.and_then(|current| current.injector.clone());
        injector.ok_or_else(|| InjectError::NoInjector(problem.to_owned()))
    }

    fn make(&self, source: Source, mesh: SharedMesh<MeshConfig>, before: Option<Arc<Injector>>) -> Current {
        let made = settings(&self.state.options.webhook, &source, &mesh)
            .and_then(|it| Injector::new(it).map_err(|error| error.to_string()));
        match made {
            Ok(injector) => Current { source, mesh, injector: Some(Arc::new(injector)), problem: None },
            Err(problem) => {
                let options = &self.state.options.webhook;
                let problem = match source {
                    Source::Map(_) => format!("ConfigMap {}: data.{problem}", options.config_map()),
                    Source::Folder { .. } => format!("{}: {problem}", options.folder.display()),
                };
                tracing::error!("{problem}; the injector in force stays");
                Current { source, mesh, injector: before, problem: Some(problem) }
            }
        }
    }
}

/// What an injector is made of, of the source; where that says nothing, the defaults.
pub(crate) fn settings(options: &WebhookOptions, source: &Source, mesh: &MeshConfig) -> Result<Settings, String> {
    Ok(Settings {
        config: config_of(source)?,
        values: installed_values(source)?,
        mesh: mesh.clone(),
        revision: options.revision.clone(),
        environment: options.environment.clone(),
        compliance_policy: options.compliance_policy.clone(),
    })
}

fn source_of(state: &State) -> Result<Source, String> {
    let options = &state.options;
    if let Some(folder) = Source::folder(&options.webhook.folder)? {
        return Ok(folder);
    }
    let key = Key::new(Kind::ConfigMap, &options.namespace, &options.webhook.config_map());
    Ok(Source::Map(state.config.load().get(&key).cloned()))
}

fn config_of(source: &Source) -> Result<InjectorConfig, String> {
    let parsed = source.text("config").map(|text| InjectorConfig::parse(&text));
    Ok(parsed.transpose().map_err(|error| format!("config: {error}"))?.unwrap_or_default())
}

/// The templates of injection by name, as they are configured now.
pub(crate) fn templates(state: &State) -> Result<BTreeMap<String, String>, String> {
    Ok(config_of(&source_of(state)?)?.templates)
}

/// The installation's values, which stand beside the injector's configuration; where they do not, the defaults.
pub(crate) fn installed_values(source: &Source) -> Result<Value, String> {
    let values = source.text("values").map(|text| values::parse(&text).map_err(|error| format!("values: {error}")));
    Ok(values.transpose()?.unwrap_or_else(values::defaults))
}

/// What is known of the cluster by its objects.
pub(crate) struct Known(pub Arc<ConfigSet>);

impl Cluster for Known {
    fn nodes(&self) -> Vec<Node> {
        let nodes = self.0.list::<KubeNode>();
        let nodes = nodes.map(|(meta, node)| (meta, &node.status.node_info.kubelet_version));
        // Of a node that has not reported yet nothing is known.
        let nodes = nodes.filter(|(_, version)| !version.is_empty());
        nodes
            .map(|(meta, version)| Node { name: meta.name.to_string(), kubelet_version: version.to_string() })
            .collect()
    }

    fn namespace_annotations(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let object = self.0.get(&Key::new(Kind::Namespace, "", namespace))?;
        Some(object.meta.annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    fn proxy_configs(&self, root: &str, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        let selects = |config: &ProxyConfigResource| {
            let Some(selector) = &config.selector else { return false };
            selector
                .match_labels
                .iter()
                .all(|(name, value)| labels.get(&**name).is_some_and(|label| **label == **value))
        };
        let everyone = |config: &ProxyConfigResource| {
            config.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty())
        };
        let of_mesh = self.oldest(root, everyone);
        let of_namespace = if namespace == root { None } else { self.oldest(namespace, everyone) };
        let of_workload = self.oldest(namespace, |config| !everyone(config) && selects(config));
        [of_mesh, of_namespace, of_workload].into_iter().flatten().collect()
    }
}

impl Known {
    /// Of the ProxyConfigs of a namespace that are meant, the oldest; as ProxyConfig of the mesh configuration.
    fn oldest(&self, namespace: &str, is_meant: impl Fn(&ProxyConfigResource) -> bool) -> Option<String> {
        let meant = self.0.list_in::<ProxyConfigResource>(namespace).filter(|(_, config)| is_meant(config));
        let age = |meta: &Meta| (meta.creation_timestamp, meta.name.clone());
        let (_, config) = meant.min_by_key(|(meta, _)| age(meta))?;
        let mut overlay = json!({ "proxyMetadata": config.environment_variables });
        if let Some(concurrency) = config.concurrency {
            overlay["concurrency"] = json!(concurrency);
        }
        if let Some(image) = &config.image {
            overlay["image"] = json!(image);
        }
        Some(overlay.to_string())
    }
}
