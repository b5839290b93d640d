//! Whether the application beside the proxy serves, asked as `readinessProbe` of its ProxyConfig says, and told to
//! discovery, as pilot-agent does it for workloads that Kubernetes does not probe.
//!
//! Owns the probing and a stream of its own to discovery that carries nothing but reports (`istio.v1.HealthInformation`):
//! one when the health changes, and the last one again on each new stream. One connection and at most one child process
//! at a time.

mod probe;

use crate::identity::WorkloadSecret;
use crate::status::ProxyState;
use crate::upstream::{ControlPlane, agent_stream};
use meltemi_base::Backoff;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::service::discovery::v3::DiscoveryRequest;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use meltemi_proto::google::rpc::Status as RpcStatus;
use meltemi_xds::types::HEALTH_INFORMATION;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

pub use probe::{ExecProbe, GrpcProbe, HttpHeader, HttpProbe, Prober, TcpProbe};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// A stream that lived this long makes the next failure the first.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// What a report of bad health says, as istio-agent has it: HTTP's 500.
const UNHEALTHY: i32 = 500;

/// Istio's ReadinessProbe; times are in seconds. Zero is Istio's default: a timeout of 1, a period of 10, and thresholds
/// of 1.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReadinessProbe {
    pub initial_delay_seconds: u32,
    pub timeout_seconds: u32,
    pub period_seconds: u32,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub http_get: Option<HttpProbe>,
    pub tcp_socket: Option<TcpProbe>,
    pub exec: Option<ExecProbe>,
    pub grpc: Option<GrpcProbe>,
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

impl ReadinessProbe {
    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(or(self.timeout_seconds, 1).into())
    }

    fn period(&self) -> Duration {
        Duration::from_secs(or(self.period_seconds, 10).into())
    }
}

/// The reason where it is bad.
pub type Health = Result<(), String>;

/// Turns single answers into health: so many of a kind in a row.
struct Judge {
    success: u32,
    failure: u32,
    row: u32,
    last: Option<bool>,
    told: Option<bool>,
}

impl Judge {
    fn new(probe: &ReadinessProbe) -> Self {
        let (success, failure) = (or(probe.success_threshold, 1), or(probe.failure_threshold, 1));
        Self { success, failure, row: 0, last: None, told: None }
    }

    /// Whether this answer makes the health another one.
    fn take(&mut self, healthy: bool) -> bool {
        self.row = if self.last == Some(healthy) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(healthy);
        let changed = self.row >= if healthy { self.success } else { self.failure } && self.told != Some(healthy);
        if changed {
            self.told = Some(healthy);
        }
        changed
    }
}

/// Probes for ever. The proxy itself must be ready, too.
pub async fn watch(
    probe: ReadinessProbe,
    prober: Prober,
    proxy: Arc<dyn ProxyState>,
    health: watch::Sender<Option<Health>>,
) {
    tokio::time::sleep(Duration::from_secs(probe.initial_delay_seconds.into())).await;
    let mut ticks = tokio::time::interval(probe.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judge = Judge::new(&probe);
    loop {
        ticks.tick().await;
        let answer = match proxy.ready().await {
            Ok(()) => prober.ask().await,
            Err(reason) => Err(format!("the proxy is not ready: {reason}")),
        };
        if judge.take(answer.is_ok()) {
            tracing::info!(healthy = answer.is_ok(), reason = answer.as_ref().err(), "health of the application");
            health.send_replace(Some(answer));
        }
    }
}

/// Tells discovery for ever.
pub async fn report(
    control_plane: Arc<ControlPlane>,
    secret: watch::Receiver<Option<Arc<WorkloadSecret>>>,
    node: Node,
    mut health: watch::Receiver<Option<Health>>,
) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        // An error means that nobody probes any more, and nothing new will come.
        if health.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let begun = Instant::now();
        let current = secret.borrow().clone();
        let Err(reason) = stream(&control_plane, current.as_deref(), &node, &mut health).await;
        if begun.elapsed() > SETTLED_AFTER {
            backoff.reset();
        }
        let wait = backoff.next();
        tracing::debug!(reason, retry_in = ?wait, "reports of health");
        tokio::time::sleep(wait).await;
    }
}

/// One stream; why it ended.
async fn stream(
    control_plane: &ControlPlane,
    secret: Option<&WorkloadSecret>,
    node: &Node,
    health: &mut watch::Receiver<Option<Health>>,
) -> Result<std::convert::Infallible, String> {
    let channel = control_plane.discovery_channel(secret).await.map_err(|e| e.to_string())?;
    let (sender, requests) = mpsc::channel(1);
    let first = health.borrow_and_update().clone();
    let first = DiscoveryRequest { node: Some(agent_stream(node.clone())), ..request(first) };
    let request_of_stream =
        control_plane.authorize(tonic::Request::new(ReceiverStream::new(requests))).map_err(|e| e.to_string())?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    // Queued before the call, which may only be answered once there is something to answer.
    sender.try_send(first).map_err(|e| e.to_string())?;
    let answers = client.stream_aggregated_resources(request_of_stream).await;
    let mut answers = answers.map_err(|status| status.message().to_owned())?.into_inner();
    loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(_)) => {}
                Ok(None) => return Err("discovery ended the stream".to_owned()),
                Err(status) => return Err(status.message().to_owned()),
            },
            changed = health.changed() => {
                changed.map_err(|e| e.to_string())?;
                let next = request(health.borrow_and_update().clone());
                sender.send(next).await.map_err(|e| e.to_string())?;
            }
        }
    }
}

/// A report; no reason means good health.
fn request(health: Option<Health>) -> DiscoveryRequest {
    let reason = health.and_then(Result::err);
    let error_detail = reason.map(|message| RpcStatus { code: UNHEALTHY, message, details: Vec::new() });
    DiscoveryRequest { type_url: HEALTH_INFORMATION.to_owned(), error_detail, ..DiscoveryRequest::default() }
}

#[cfg(test)]
mod tests;
