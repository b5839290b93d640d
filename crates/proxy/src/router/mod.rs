//! The router: from a matched route to a host's response, with retries, timeouts and mirrors.
//!
//! Owns attempts: cluster, host, connection, sending, waiting, deciding whether to try again; then moving the bodies both ways.
//! All in the task of the exchange, by polling: nothing is spawned or boxed for a request. Must never read configuration other
//! than the exchange's one world.

mod attempt;
mod connect;
mod dynamic;
mod failure;
mod headers;
mod mirror;
mod preface;
pub mod redirect;
mod respond;
mod retry;
mod target;
mod timers;
pub mod transport;
mod tunnel;

use std::sync::Arc;

use http::StatusCode;
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_plan::{Route, VirtualHost, route::Forward};
use tokio::time::Instant;

pub(crate) use attempt::Active;
pub use connect::{Destination, open};
pub(crate) use connect::{mode, tls_context, tls_of};
pub use failure::Failure;
pub(crate) use preface::Preface;
pub(crate) use target::resolve;

use crate::hcm::Exchange;
use attempt::{Attempted, Sending};

/// Forwards a request by its route and answers it; what cannot be answered from a host is a local reply.
pub async fn forward(
    exchange: &mut Exchange<'_>,
    host: &Arc<VirtualHost>,
    route: &Arc<Route>,
    forward: &Forward,
) -> Result<(), Box<LocalReply>> {
    let mut target = target::choose(exchange, forward)?;
    headers::finalize(exchange, host, route, forward);
    // By the name that the host will see.
    if let Some(cache) = target.cluster.dns_cache() {
        target.original_dst = Some(Box::pin(dynamic::resolve(exchange, &target.cluster, cache)).await?);
    }
    let policy = retry::policy(forward, host, &target.cluster.plan);
    let mut retries = retry::Retries::new(policy, exchange);
    let mut timers = timers::Timers::new(exchange, forward, &retries);
    if tunnel::terminates(exchange, forward) {
        headers::timeouts(exchange, &timers, Instant::now());
        return Box::pin(tunnel::serve(exchange, &target)).await;
    }
    let buffer = host.retry_buffer_limit.or(route.retry_buffer_limit);
    let mirrors = mirror::start(exchange, host, forward);
    let mut sending = Sending::new(exchange, retries.are_possible(), buffer, mirrors);
    let mut now = Instant::now();
    timers.start(now, sending.request_done());
    loop {
        exchange.info.upstream.attempts += 1;
        headers::attempt(exchange, host);
        headers::timeouts(exchange, &timers, now);
        match attempt::run(exchange, &target, (&mut sending, &mut timers), &mut retries, now).await {
            Attempted::Response(answer) => {
                if let Some(wait) = retries.after_response(exchange, &target, &answer, &sending) {
                    answer.before.note(&answer.upstream, &mut exchange.info, &target.cluster.stats.traffic);
                    drop(answer);
                    if !pause(exchange, wait).await {
                        return gone(exchange);
                    }
                    now = Instant::now();
                    continue;
                }
                return respond::send(exchange, host, &target, *answer, (&mut sending, &mut timers)).await;
            }
            Attempted::Failed(failure) => {
                if let Some(wait) = retries.after_failure(exchange, &target, &failure, &sending) {
                    if !pause(exchange, wait).await {
                        return gone(exchange);
                    }
                    now = Instant::now();
                    continue;
                }
                exchange.info.upstream.transport_failure = failure.transport_failure().map(Into::into);
                failure.count(&target.cluster.stats.traffic);
                let retried = exchange.info.upstream.attempts > 1;
                let mut reply = failure.reply(retried);
                if reply.status == StatusCode::GATEWAY_TIMEOUT && !sending.request_done() {
                    // It was the client who kept us waiting.
                    reply.status = StatusCode::REQUEST_TIMEOUT;
                }
                return Err(Box::new(reply));
            }
            Attempted::DownstreamGone => return gone(exchange),
            Attempted::DownstreamBroke(details) => return Err(broken(exchange, details)),
        }
    }
}

/// The client's request turned out to be malformed before a host has answered it.
pub(crate) fn broken(exchange: &mut Exchange<'_>, details: &'static str) -> Box<LocalReply> {
    exchange.stream.close_after_response();
    let mut reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details);
    reply.late_flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
    Box::new(reply)
}

/// The client left before it was answered.
pub(crate) fn gone(exchange: &mut Exchange<'_>) -> Result<(), Box<LocalReply>> {
    exchange.info.flags |= ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
    exchange.info.set_details("downstream_remote_disconnect");
    exchange.stream.abort();
    Ok(())
}

/// Waits before another attempt; false if the client left meanwhile.
async fn pause(exchange: &mut Exchange<'_>, wait: std::time::Duration) -> bool {
    use std::{future::poll_fn, task::Poll};
    exchange.deadline.set(Some(Instant::now() + wait));
    let (stream, deadline) = (&mut *exchange.stream, &mut *exchange.deadline);
    poll_fn(|cx| {
        if stream.request_ended() && stream.poll_closed(cx).is_ready() {
            return Poll::Ready(false);
        }
        deadline.poll(cx).map(|()| true)
    })
    .await
}

/// A reply without body.
fn bare(status: StatusCode, details: &'static str, flags: ResponseFlags) -> Box<LocalReply> {
    Box::new(LocalReply::new(status, "", details).with_flags(flags))
}
