//! A connection within a request: CONNECT or POST to a host, over HTTP/1 or HTTP/2 as its cluster says (`tunneling_config`).
//!
//! The HTTP connection is the pool's: HTTP/2 carries many tunnels on one. No byte of the downstream is read before the host has
//! agreed. Envoy waits for that without end; here it is [`HEAD_WAIT`] at most.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use meltemi_filters::{Scope, StreamInfo, format, headers};
use meltemi_http::{ClientStream, Method, Protocol, RequestHead, ResponseHead, Scheme, pool::ConnectError};
use meltemi_net::{Copied, CopyEnd, Stream, timer::Deadline};
use meltemi_plan::tcp_proxy::Tunnel as Plan;
use meltemi_upstream::{ActiveRequest, Cluster, Endpoint, Outcome, Permit, Resource, RoutingPriority};
use tokio::time::Instant;

use crate::{
    relay::{Broken, Relay},
    router::{self, Destination, Failure, Preface},
    worker::Worker,
};

const HEAD_WAIT: Duration = Duration::from_secs(60);

/// A tunnel that the host has agreed to.
pub(super) struct Tunnel {
    pub stream: ClientStream,
    _active: Active,
}

/// What is counted while a tunnel lasts.
struct Active {
    cluster: Arc<Cluster>,
    _request: ActiveRequest,
    _permit: Permit,
}

impl Active {
    fn begin(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Option<Self> {
        let traffic = &cluster.stats.traffic;
        let Some(permit) = cluster.breakers.acquire(RoutingPriority::Default, Resource::Request) else {
            traffic.upstream_rq_active_overflow().inc();
            return None;
        };
        traffic.upstream_rq_total().inc();
        traffic.upstream_rq_active().inc();
        Some(Self { cluster: Arc::clone(cluster), _request: endpoint.begin_request(), _permit: permit })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.cluster.stats.traffic.upstream_rq_active().dec();
    }
}

/// Asks a host for a tunnel.
pub(super) async fn open(
    worker: &Rc<Worker>,
    plan: &Plan,
    (cluster, endpoint): (&Arc<Cluster>, &Arc<Endpoint>),
    info: &StreamInfo,
) -> Result<Tunnel, Failure> {
    let mode = router::mode(&cluster.plan, Protocol::Http11);
    let (tls, transport) = router::tls_context(worker, cluster, endpoint, mode, (None, ""));
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let active = Active::begin(cluster, endpoint).ok_or(Failure::Overflow)?;
    let priority = RoutingPriority::Default;
    let preface = Preface::of(cluster, endpoint, Some(&info.connection));
    let (to, endpoint) = (Arc::clone(cluster), Arc::clone(endpoint));
    let destination = Destination { cluster: to, endpoint, priority, mode, tls, preface, transport };
    let (pool, existing) = destination.try_stream(worker);
    let mut stream = match existing {
        Some(stream) => stream,
        None => destination.wait_for_stream(&pool).await?,
    };
    stream.send_head(&request(plan, scheme, info), false);
    match tokio::time::timeout(HEAD_WAIT, agreed(&mut stream)).await {
        Ok(Ok(())) => Ok(Tunnel { stream, _active: active }),
        Ok(Err(refusal)) => {
            tracing::debug!(cluster = %cluster.plan.name, %refusal, "no tunnel");
            cluster.report(&destination.endpoint, Outcome::ConnectFailed);
            Err(Failure::Connect(ConnectError::Transport(refusal)))
        }
        Err(_) => {
            cluster.report(&destination.endpoint, Outcome::ConnectTimeout);
            Err(Failure::Connect(ConnectError::Timeout))
        }
    }
}

fn request(plan: &Plan, scheme: Scheme, info: &StreamInfo) -> RequestHead {
    let scope = Scope::new(info);
    let hostname = format::text(&plan.hostname, &scope, format::Missing::Empty);
    let (method, path) = match &plan.post_path {
        None => (Method::CONNECT, ""),
        Some(path) => (Method::POST, &**path),
    };
    let mut head = RequestHead { scheme, ..RequestHead::new(method, hostname, path) };
    headers::add_to(&plan.headers, &mut head.headers, &scope);
    head
}

/// Waits for the host's answer; why it is none, if it is not.
async fn agreed(stream: &mut ClientStream) -> Result<(), String> {
    let head = poll_fn(|cx| {
        loop {
            if let Poll::Ready(Err(error)) = stream.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            let head = ready!(stream.poll_response(cx))?;
            if !head.status.is_informational() {
                return Poll::Ready(Ok(head));
            }
        }
    });
    let head = head.await.map_err(|error| format!("no answer to the request for a tunnel: {error}"))?;
    if agrees(stream, &head) {
        Ok(())
    } else {
        Err(format!("the host answered {} to the request for a tunnel", head.status))
    }
}

/// As in Envoy, any 2xx of HTTP/1 but only 200 of HTTP/2, and nothing that ends at once.
fn agrees(stream: &ClientStream, head: &ResponseHead) -> bool {
    let status = match stream.protocol() {
        Protocol::Http10 | Protocol::Http11 => head.status.is_success(),
        Protocol::Http2 | Protocol::Http3 => head.status == http::StatusCode::OK,
    };
    status && !stream.response_ended()
}

/// Relays until the end, as [`meltemi_net::copy_bidirectional`] does between two connections.
pub(super) async fn copy(
    near: &mut Stream,
    far: &mut ClientStream,
    idle: Option<Duration>,
    copied: &Copied,
) -> CopyEnd {
    let mut relay = Relay::new(copied);
    let mut deadline = Deadline::new();
    deadline.set_after(Instant::now(), idle);
    poll_fn(|cx| {
        let before = relay.moved();
        if let Poll::Ready(end) = relay.poll(cx, far, near) {
            return Poll::Ready(end.map_or_else(ended, |()| CopyEnd::Finished));
        }
        if relay.moved() != before {
            deadline.set_after(Instant::now(), idle);
        }
        deadline.poll(cx).map(|()| CopyEnd::Idle)
    })
    .await
}

fn ended(broken: Broken) -> CopyEnd {
    use meltemi_http::ResetReason;
    use std::io::{Error, ErrorKind};
    match broken {
        Broken::Bytes(error) => CopyEnd::A(error),
        Broken::Frames(error) => CopyEnd::B(match error.reset_reason() {
            ResetReason::Remote | ResetReason::Refused => Error::new(ErrorKind::ConnectionReset, error),
            ResetReason::ConnectionClosed | ResetReason::Protocol | ResetReason::Local => Error::other(error),
        }),
    }
}
