//! An HTTP/2 connection: one task that moves its bytes, and one for each exchange in progress.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use meltemi_http::Protocol;
use meltemi_http::h2::{self, Accepted, Reason, ServerConnection};
use meltemi_net::{Stream, timer::Deadline};
use meltemi_plan::hcm::Http2Options;
use tokio::time::Instant;

use super::{Context, seats::Seats};

/// A client that never finishes its preface.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection that was idle for so long keeps nothing for the next stream.
const SETTLED: Duration = Duration::from_secs(1);

/// The codec's options for either side of the proxy.
pub(crate) fn options(plan: &Http2Options, max_header_bytes: u32, max_fields: u32) -> h2::Options {
    let keepalive = plan
        .keepalive
        .and_then(|keepalive| Some(h2::Keepalive { interval: keepalive.interval?, timeout: keepalive.timeout }));
    h2::Options {
        max_concurrent_streams: plan.max_concurrent_streams,
        initial_stream_window: plan.initial_stream_window,
        initial_connection_window: plan.initial_connection_window,
        max_header_bytes,
        max_fields,
        allow_connect: plan.allow_connect,
        keepalive,
        ..h2::Options::default()
    }
}

pub(super) async fn serve(context: Rc<Context>, stream: Stream) {
    let plan = &context.http.plan;
    let options = options(&plan.http2, plan.max_request_headers_bytes, plan.max_headers_count);
    let Ok(Ok(mut connection)) = tokio::time::timeout(HANDSHAKE, ServerConnection::handshake(stream, &options)).await
    else {
        return;
    };
    let _counted = context.count(Protocol::Http2);
    let oldest = plan.max_connection_duration.map(|limit| Instant::now() + limit);
    let mut deadline = Deadline::new();
    let mut drained = false;
    let mut requests = 0u32;
    let seats = Seats::new();
    while let Some(accepted) =
        next_request(&context, &mut connection, &mut deadline, (oldest, requests, &mut drained, &seats)).await
    {
        requests += 1;
        if plan.max_requests_per_connection > 0 && requests >= plan.max_requests_per_connection && !drained {
            drained = true;
            connection.drain();
        }
        seats.serve(&context, accepted);
    }
    if let Some(reason) = connection.broken() {
        tracing::debug!(%reason, remote = %context.connection.remote, "HTTP/2 connection ended: the client broke a rule");
        context.http.stats().downstream_cx_protocol_error().inc();
        if reason == Reason::ENHANCE_YOUR_CALM {
            context.http.stats().downstream_cx_http2_flood().inc();
        }
    }
}

/// The next request; `None` once the connection is over or has been idle for too long.
async fn next_request(
    context: &Context,
    connection: &mut ServerConnection,
    deadline: &mut Deadline,
    (oldest, requests, drained, seats): (Option<Instant>, u32, &mut bool, &Seats),
) -> Option<Accepted> {
    let plan = &context.http.plan;
    let mut idle_since = None;
    let mut end = oldest;
    poll_fn(|cx| {
        context.handle.register(cx);
        // Whoever came late is told once it has asked something: before, it would only try here again.
        if context.handle.is_draining() && !*drained && (requests > 0 || !context.handle.is_late()) {
            *drained = true;
            idle_since = None;
            connection.drain();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Ok(Some(accepted))) => return Poll::Ready(Some(accepted)),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if connection.active() > 0 {
                idle_since = None;
                deadline.set(oldest.filter(|_| !*drained));
            } else if idle_since.is_none() {
                let now = Instant::now();
                idle_since = Some(now);
                // A client that is told to go has so long to say that it knows.
                let leaving = *drained || context.handle.is_draining();
                let limit = if leaving { Some(plan.drain_timeout) } else { plan.idle_timeout };
                let due = limit.and_then(|limit| now.checked_add(limit));
                end = due.into_iter().chain(oldest.filter(|_| !*drained)).min();
                let settled = (!seats.is_empty()).then_some(now + SETTLED);
                deadline.set(settled.into_iter().chain(end).min());
            }
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !seats.is_empty() && connection.active() == 0 {
                seats.dismiss();
                deadline.set(end);
                continue;
            }
            if *drained {
                return Poll::Ready(None);
            }
            *drained = true;
            idle_since = None;
            connection.drain();
        }
    })
    .await
}
