//! An HTTP/1 connection: exchanges one after the other, in one task.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use meltemi_http::{Error, Protocol, RequestHead, ServerStream, h1};
use meltemi_net::{Stream, timer::Deadline};
use meltemi_plan::hcm::HeaderCase;
use tokio::time::Instant;

use super::{Context, exchange, reply};

enum Event {
    Request(RequestHead),
    /// The peer broke the protocol and is told so.
    Refused(h1::Violation),
    Closed,
    Idle,
    HeadersTimeout,
    /// The head began and did not end.
    StreamIdle,
}

/// Envoy's `delayed_close_timeout`.
const DELAYED_CLOSE: Duration = Duration::from_secs(1);

pub(super) async fn serve(context: Rc<Context>, stream: Stream) {
    let _counted = context.count(Protocol::Http11);
    let plan = Rc::clone(&context.http);
    let plan = &plan.plan;
    let limits = h1::Limits {
        head_bytes: plan.max_request_headers_bytes as usize,
        fields: plan.max_headers_count as usize,
        trailers: plan.http1.enable_trailers,
        http10: plan.http1.accept_http_10,
        spelling: plan.http1.header_case == HeaderCase::Preserve,
        ..h1::Limits::default()
    };
    let mut stream = ServerStream::H1(Box::new(h1::Server::new(stream, limits)));
    let mut deadline = Deadline::new();
    let opened = Instant::now();
    let oldest = plan.max_connection_duration.map(|limit| opened + limit);
    let mut requests = 0u32;
    loop {
        let ServerStream::H1(server) = &mut stream else { return };
        match next_event(&context, server, &mut deadline, oldest).await {
            Event::Request(head) => {
                requests += 1;
                let last = plan.max_requests_per_connection > 0 && requests >= plan.max_requests_per_connection;
                if last || oldest.is_some_and(|oldest| Instant::now() >= oldest) {
                    server.close_after_response();
                }
                // Boxed: an idle connection holds nothing of an exchange. The box comes first, so that the future is made in it:
                // `Box::pin` would make it on the stack and copy its 2.6 KB.
                let place = Box::new_uninit();
                Box::into_pin(Box::write(place, exchange::run(&context, &mut stream, &mut deadline, head))).await;
            }
            Event::Refused(violation) => Box::pin(reply::refuse(&context, &mut stream, violation)).await,
            Event::HeadersTimeout => Box::pin(reply::headers_timeout(&context, &mut stream)).await,
            Event::StreamIdle => Box::pin(reply::stream_idle(&context, &mut stream)).await,
            Event::Closed | Event::Idle => return,
        }
        let ServerStream::H1(server) = &mut stream else { return };
        if server.end_exchange() == h1::Next::Close {
            return close(server, plan.delayed_close_timeout.unwrap_or(DELAYED_CLOSE), &mut deadline).await;
        }
    }
}

async fn next_event(
    context: &Context,
    server: &mut h1::Server,
    deadline: &mut Deadline,
    oldest: Option<Instant>,
) -> Event {
    let plan = &context.http.plan;
    let mut armed = false;
    let mut began = false;
    let mut draining = false;
    poll_fn(|cx| {
        match server.poll_request(cx) {
            Poll::Ready(Ok(Some(head))) => return Poll::Ready(Event::Request(head)),
            Poll::Ready(Ok(None)) => return Poll::Ready(Event::Closed),
            Poll::Ready(Err(Error::Violation(violation))) => return Poll::Ready(Event::Refused(violation)),
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Closed),
            Poll::Pending => {}
        }
        context.handle.register(cx);
        let partial = server.has_partial_request();
        if context.handle.is_draining() && !partial && !draining {
            // A request may be on its way: its answer will say that the connection closes. Only silence ends it sooner.
            draining = true;
            armed = true;
            deadline.set(Some(Instant::now() + plan.drain_timeout));
        }
        if partial && !began {
            began = true;
            armed = false;
        }
        if !armed {
            armed = true;
            let now = Instant::now();
            // Of a head that does not end there is no request yet, but a stream, as Envoy has it.
            let head = plan.request_headers_timeout.or(plan.stream_idle_timeout).or(plan.idle_timeout);
            let limit = if partial { head } else { plan.idle_timeout };
            let due = limit.and_then(|limit| now.checked_add(limit));
            deadline.set(match oldest {
                Some(oldest) if !partial => Some(due.map_or(oldest, |due| due.min(oldest))),
                _ => due,
            });
        }
        deadline.poll(cx).map(|()| match (partial, plan.request_headers_timeout, plan.stream_idle_timeout) {
            (true, Some(_), _) => Event::HeadersTimeout,
            (true, None, Some(_)) => Event::StreamIdle,
            _ => Event::Idle,
        })
    })
    .await
}

/// Sends FIN and lets the peer read the response before the socket goes.
async fn close(server: &mut h1::Server, limit: Duration, deadline: &mut Deadline) {
    server.shutdown();
    deadline.set(Some(Instant::now() + limit));
    poll_fn(|cx| {
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match server.poll_flush(cx) {
            Poll::Ready(Ok(())) => server.poll_drain(cx),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}
