//! One attempt: a host, a connection, the request out, the response head in.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use meltemi_filters::StreamInfo;
use meltemi_http::{ClientStream, Frame, Method, Protocol, RequestHead, ResponseHead, ServerStream};
use meltemi_upstream::{
    ActiveRequest, Cluster, Endpoint, OverrideHost, Permit, PickContext, Resource, RoutingPriority, TrafficStats,
};
use tokio::time::Instant;

use super::{
    connect::{self, Destination},
    failure::Failure,
    headers,
    mirror::Mirrors,
    preface::Preface,
    retry::Retries,
    target::Target,
    timers::Timers,
};
use crate::hcm::Exchange;

/// How an attempt ended.
pub(super) enum Attempted {
    Response(Box<Answer>),
    Failed(Failure),
    DownstreamGone,
    /// The client's request broke a rule after its head, by these details.
    DownstreamBroke(&'static str),
}

/// A response that has begun.
pub(super) struct Answer {
    pub head: ResponseHead,
    pub upstream: ClientStream,
    pub endpoint: Arc<Endpoint>,
    pub active: Active,
    pub before: Wire,
}

/// Bytes that an HTTP/1 connection had received and sent before the exchange.
#[derive(Clone, Copy)]
pub(super) struct Wire(Option<(u64, u64)>);

impl Wire {
    fn of(upstream: &ClientStream) -> Self {
        Self(upstream.wire_bytes())
    }

    /// Counts what the exchange has moved since.
    pub fn note(self, upstream: &ClientStream, info: &mut StreamInfo, traffic: &TrafficStats) {
        let (Some(before), Some(now)) = (self.0, upstream.wire_bytes()) else { return };
        info.upstream.wire_bytes_received = now.0 - before.0;
        info.upstream.wire_bytes_sent = now.1 - before.1;
        traffic.upstream_cx_rx_bytes_total().add(info.upstream.wire_bytes_received);
        traffic.upstream_cx_tx_bytes_total().add(info.upstream.wire_bytes_sent);
    }
}

/// What is counted while a request is with a host.
pub(crate) struct Active {
    cluster: Arc<Cluster>,
    _request: ActiveRequest,
    _permit: Permit,
    /// Only where the cluster wants to know how long it took.
    started: Option<std::time::Instant>,
}

impl Active {
    /// `None`: the cluster has as many requests as it may.
    pub fn begin(cluster: &Arc<Cluster>, priority: RoutingPriority, endpoint: &Arc<Endpoint>) -> Option<Self> {
        let traffic = &cluster.stats.traffic;
        let Some(permit) = cluster.breakers.acquire(priority, Resource::Request) else {
            traffic.upstream_rq_active_overflow().inc();
            return None;
        };
        traffic.upstream_rq_total().inc();
        traffic.upstream_rq_active().inc();
        Some(Self {
            cluster: Arc::clone(cluster),
            _request: endpoint.begin_request(),
            _permit: permit,
            started: cluster.times_answers().then(std::time::Instant::now),
        })
    }

    /// The host has answered.
    pub fn answered(&self, endpoint: &Endpoint) {
        if let Some(started) = self.started {
            self.cluster.answered(endpoint, started, std::time::Instant::now());
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.cluster.stats.traffic.upstream_rq_active().dec();
    }
}

/// The request side of an exchange, across attempts.
pub(super) struct Sending {
    /// All of the request has been received.
    done: bool,
    /// Frames seen so far, while this attempt has yet to send them or another may need them.
    replay: Option<Vec<Frame>>,
    /// Another attempt may be made.
    keep: bool,
    replayed_bytes: usize,
    buffer: usize,
    tunnel: bool,
    /// The host took the upgrade.
    upgraded: bool,
    mirrors: Mirrors,
    /// Some bytes of the request went to a host in this attempt.
    pub sent_any: bool,
}

impl Sending {
    pub fn new(exchange: &mut Exchange<'_>, keep: bool, buffer: Option<u64>, mirrors: Mirrors) -> Self {
        let request = &exchange.request;
        let tunnel = request.upgrade.is_some() || request.method == Method::CONNECT;
        let keep = keep && !tunnel;
        let early = exchange.early.take().unwrap_or_default();
        early.frames.iter().for_each(|frame| mirrors.frame(frame));
        Self {
            done: exchange.stream.request_ended() && !tunnel,
            replayed_bytes: early.byte_size(),
            replay: (keep || !early.frames.is_empty()).then_some(early.frames),
            keep,
            buffer: buffer.map_or(DEFAULT_BUFFER, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            tunnel,
            upgraded: false,
            mirrors,
            sent_any: false,
        }
    }

    pub fn request_done(&self) -> bool {
        self.done
    }

    /// The request can be sent once more.
    pub fn can_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// No further attempt will be made.
    pub fn forget(&mut self) {
        self.replay = None;
    }

    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// The host took the upgrade: what the client sends from here on is the tunnel's.
    pub fn upgraded(&mut self) {
        self.done = false;
        self.upgraded = true;
    }

    /// The host did not take the upgrade: nothing follows the request.
    pub fn declined(&mut self) {
        self.done = true;
        self.tunnel = false;
    }

    /// The client has ended its side of an upgraded stream.
    pub fn tunnel_ended(&self) -> bool {
        self.upgraded && self.done
    }

    fn remember(&mut self, frame: &Frame) {
        let Some(replay) = &mut self.replay else { return };
        if let Frame::Data(data) = frame {
            self.replayed_bytes += data.len();
        }
        if self.replayed_bytes > self.buffer {
            self.replay = None;
        } else {
            replay.push(frame.clone());
        }
    }

    /// Moves request frames as far as both sides allow. An error is the downstream's.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut ServerStream,
        up: &mut ClientStream,
        received: &mut u64,
    ) -> Poll<Result<(), meltemi_http::Error>> {
        // A host that does not take the upgrade would take what comes before its answer for a request (CVE-2026-73548).
        if self.tunnel && !self.upgraded {
            self.done = true;
        }
        while !self.done {
            if up.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            match down.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Some(frame))) => {
                    if let Frame::Data(data) = &frame {
                        *received += data.len() as u64;
                    }
                    self.remember(&frame);
                    self.mirrors.frame(&frame);
                    self.sent_any = true;
                    up.send_frame(frame);
                    self.done = down.request_ended();
                }
                Poll::Ready(Ok(None)) => self.done = true,
            }
            if self.done {
                up.finish();
                self.mirrors.finish();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Request bytes kept for a retry by default; Envoy's connection buffer limit.
const DEFAULT_BUFFER: usize = 1024 * 1024;

pub(super) async fn run(
    exchange: &mut Exchange<'_>,
    target: &Target,
    (sending, timers): (&mut Sending, &mut Timers),
    retries: &mut Retries,
    now: Instant,
) -> Attempted {
    let worker = Rc::clone(&exchange.context.worker);
    if let Some(tracer) = &exchange.context.http.tracer {
        tracer.abandon_attempt(&mut exchange.info);
    }
    // A retry goes wherever it is told to.
    let first = exchange.info.upstream.attempts <= 1;
    let picked = worker.pick(
        &target.cluster,
        &PickContext {
            hash: target.hash,
            original_dst: target.original_dst,
            override_host: first.then(|| wanted(&exchange.info)).flatten(),
            metadata: target.metadata_match.as_ref(),
            previous: retries.tried(),
            leave_priorities: retries.leave_priorities(),
            reselect: retries.reselect(),
        },
    );
    let Ok(endpoint) = picked else { return Attempted::Failed(Failure::NoHealthyHost) };
    retries.attempts(endpoint.id);
    exchange.info.upstream.host = Some(endpoint.address.clone());
    exchange.info.upstream.hostname = Some(Arc::clone(&endpoint.hostname));
    exchange.info.upstream.metadata = endpoint.metadata.clone();
    headers::auto_host(exchange, &endpoint);
    if let Some(tracer) = &exchange.context.http.tracer {
        tracer.begin_attempt(&mut exchange.request, &mut exchange.info);
    }
    timers.begin_try(now);
    let begun = match stream(exchange, target, &endpoint, timers, now).await {
        Ok(stream) => Active::begin(&target.cluster, target.priority, &endpoint).map(|active| (stream, active)),
        Err(Attempted::Failed(Failure::Overflow)) => None,
        Err(attempted) => return attempted,
    };
    let Some(((mut upstream, now), active)) = begun else {
        // No host has had to do with it.
        exchange.info.upstream.host = None;
        return Attempted::Failed(Failure::Overflow);
    };
    describe(exchange, &upstream);
    let before = Wire::of(&upstream);
    match converse(exchange, sending, timers, &mut upstream, now).await {
        Ok(head) => {
            timers.response_began();
            Attempted::Response(Box::new(Answer { head, upstream, endpoint, active, before }))
        }
        Err(Attempted::Failed(failure)) => {
            before.note(&upstream, &mut exchange.info, &target.cluster.stats.traffic);
            if let Some(outcome) = failure.outcome() {
                target.cluster.report(&endpoint, outcome);
            }
            Attempted::Failed(failure)
        }
        Err(other) => other,
    }
}

/// The host that the client's session has.
fn wanted(info: &StreamInfo) -> Option<OverrideHost<'_>> {
    let wanted = info.upstream.session.as_ref()?.wanted()?;
    Some(OverrideHost { address: wanted.address.as_ref(), strict: wanted.strict })
}

/// A stream to the endpoint and the time it is by then: waits for a connection if need be, while the client stays and time remains.
async fn stream(
    exchange: &mut Exchange<'_>,
    target: &Target,
    endpoint: &Arc<Endpoint>,
    timers: &Timers,
    now: Instant,
) -> Result<(ClientStream, Instant), Attempted> {
    let worker = Rc::clone(&exchange.context.worker);
    let mode = connect::mode(&target.cluster.plan, exchange.request.protocol);
    let alpn = exchange.info.upstream.alpn.as_deref();
    let (tls, transport) =
        connect::tls_context(&worker, &target.cluster, endpoint, mode, (alpn, &exchange.request.authority));
    let destination = Destination {
        cluster: Arc::clone(&target.cluster),
        endpoint: Arc::clone(endpoint),
        priority: target.priority,
        mode,
        tls,
        preface: Preface::of(&target.cluster, endpoint, Some(&exchange.info.connection)),
        transport,
    };
    let (pool, ready) = destination.try_stream(&worker);
    if let Some(stream) = ready {
        return Ok((stream, now));
    }
    // Boxed: only a request that opens a connection pays for its state.
    let mut opening = Box::pin(destination.wait_for_stream(&pool));
    exchange.deadline.set(timers.due());
    let (down, deadline) = (&mut *exchange.stream, &mut *exchange.deadline);
    poll_fn(|cx| {
        if let Poll::Ready(result) = opening.as_mut().poll(cx) {
            return Poll::Ready(result.map(|stream| (stream, Instant::now())).map_err(Attempted::Failed));
        }
        if down.request_ended() && down.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Attempted::DownstreamGone));
        }
        if deadline.poll(cx).is_ready()
            && let Some(expired) = timers.expired(Instant::now())
        {
            return Poll::Ready(Err(Attempted::Failed(Failure::Expired(expired))));
        }
        Poll::Pending
    })
    .await
}

fn describe(exchange: &mut Exchange<'_>, upstream: &ClientStream) {
    let facts = upstream.facts();
    let info = &mut exchange.info.upstream;
    info.local = Some(facts.local.clone());
    info.protocol = Some(facts.protocol);
    info.connection_id = Some(facts.id);
    info.tls = connect::tls_of(upstream);
}

/// Sends the request and waits for the final response head.
async fn converse(
    exchange: &mut Exchange<'_>,
    sending: &mut Sending,
    timers: &mut Timers,
    upstream: &mut ClientStream,
    now: Instant,
) -> Result<ResponseHead, Attempted> {
    begin(&exchange.request, sending, upstream);
    let sent = Some(now.into_std());
    exchange.info.upstream.timing.first_byte_sent = sent;
    exchange.info.upstream.timing.last_byte_sent = sent.filter(|_| sending.done);
    exchange.deadline.set(timers.due());
    let Exchange { stream: down, deadline, info, context, .. } = exchange;
    let proxy_continue = context.http.plan.proxy_100_continue;
    let mut was_done = sending.done;
    poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = sending.poll(cx, down, upstream, &mut info.bytes_received) {
            return Poll::Ready(Err(downstream_failed(&error)));
        }
        if sending.done && !was_done {
            was_done = true;
            timers.request_sent(Instant::now());
            if !sending.tunnel {
                let now = Some(std::time::Instant::now());
                info.last_downstream_byte_received = now;
                info.upstream.timing.last_byte_sent = now;
            }
            deadline.set(timers.due());
        }
        // A host may answer and close before it has read everything: its answer counts, so reading goes on.
        let write_failed = matches!(upstream.poll_flush(cx), Poll::Ready(Err(_)));
        if let Poll::Ready(result) = poll_final_head(cx, upstream, down, proxy_continue) {
            return Poll::Ready(result);
        }
        if write_failed && sending.done {
            sending.sent_any = true;
        }
        if down.poll_flush(cx).is_ready() && sending.done && down.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Attempted::DownstreamGone));
        }
        expire(cx, deadline, timers).map(Err)
    })
    .await
}

/// Sends the head, and what of the body there is from an attempt before.
fn begin(request: &RequestHead, sending: &mut Sending, upstream: &mut ClientStream) {
    let replayed = sending.replay.as_deref().unwrap_or_default();
    let ended = sending.done && !sending.tunnel;
    let end = ended && replayed.is_empty();
    upstream.send_head(request, end);
    sending.sent_any = true;
    for frame in replayed {
        upstream.send_frame(frame.clone());
    }
    if ended && !end {
        upstream.finish();
    }
    if !sending.keep {
        sending.forget();
    }
}

/// Passes on early hints, and 100 Continue where the listener asks for that, until the final head is there.
fn poll_final_head(
    cx: &mut Context<'_>,
    upstream: &mut ClientStream,
    down: &mut ServerStream,
    proxy_continue: bool,
) -> Poll<Result<ResponseHead, Attempted>> {
    loop {
        let head = match ready!(upstream.poll_response(cx)) {
            Ok(head) if is_interim(&head) => head,
            Ok(head) => return Poll::Ready(Ok(head)),
            Err(error) => return Poll::Ready(Err(Attempted::Failed(Failure::Reset(error.reset_reason())))),
        };
        let forward = match head.status {
            StatusCode::CONTINUE => proxy_continue,
            status => status == StatusCode::EARLY_HINTS,
        };
        if forward {
            down.send_interim(head.status, &head.headers);
        }
    }
}

fn is_interim(head: &ResponseHead) -> bool {
    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS
}

fn expire(cx: &mut Context<'_>, deadline: &mut meltemi_net::timer::Deadline, timers: &Timers) -> Poll<Attempted> {
    loop {
        if deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        match timers.expired(Instant::now()) {
            Some(expired) => return Poll::Ready(Attempted::Failed(Failure::Expired(expired))),
            None => deadline.set(timers.due()),
        }
    }
}

fn downstream_failed(error: &meltemi_http::Error) -> Attempted {
    match error {
        meltemi_http::Error::Violation(violation) => Attempted::DownstreamBroke(violation.rule().details),
        _ => Attempted::DownstreamGone,
    }
}

/// The protocol of the exchange's own side decides how an upgrade's answer looks.
pub(super) fn is_upgrade_answer(exchange: &Exchange<'_>, answer: &Answer) -> bool {
    let request = &exchange.request;
    if request.upgrade.is_some() {
        let accepted = match answer.upstream.protocol() {
            Protocol::Http2 => answer.head.status.is_success(),
            Protocol::Http10 | Protocol::Http11 | Protocol::Http3 => {
                answer.head.status == StatusCode::SWITCHING_PROTOCOLS
            }
        };
        return accepted;
    }
    request.method == Method::CONNECT && answer.head.status.is_success()
}
