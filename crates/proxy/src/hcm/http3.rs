//! An HTTP/3 connection: one task that takes its requests, and one for each exchange in progress.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use meltemi_http::{
    Protocol, ServerStream,
    h3::{Pending, ServerConnection},
};
use meltemi_net::timer::Deadline;
use tokio::time::Instant;

use super::{Context, exchange};

/// Between the GOAWAY that says that the connection will end and the one that refuses requests: what the client sent before it
/// heard is still served. Longer where a round trip takes long.
const NOTICE: Duration = Duration::from_millis(500);
/// Between that GOAWAY and the end of a connection without requests, so that it arrives. Longer where a round trip takes long.
const FAREWELL: Duration = Duration::from_millis(100);

/// How far a connection is in going away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client knows; requests are refused from then on.
    Announced(Instant),
    /// The connection ends with its last request, but not before then.
    Refusing(Instant),
}

struct Life {
    oldest: Option<Instant>,
    requests: u32,
    leaving: Leaving,
    idle_since: Option<Instant>,
}

pub(crate) async fn serve(context: Rc<Context>, mut connection: ServerConnection) {
    let _counted = context.count(Protocol::Http3);
    let plan = &context.http.plan;
    let mut deadline = Deadline::new();
    let mut life = Life {
        oldest: plan.max_connection_duration.map(|limit| Instant::now() + limit),
        requests: 0,
        leaving: Leaving::No,
        idle_since: None,
    };
    while let Some(pending) = next_request(&context, &mut connection, &mut deadline, &mut life).await {
        life.requests += 1;
        if plan.max_requests_per_connection > 0 && life.requests >= plan.max_requests_per_connection {
            life.leave(&mut connection);
        }
        tokio::task::spawn_local(serve_request(Rc::clone(&context), pending));
    }
}

impl Life {
    fn leave(&mut self, connection: &mut ServerConnection) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced(Instant::now() + NOTICE.max(3 * connection.round_trip()));
            self.idle_since = None;
            connection.announce_drain();
        }
    }

    /// When something is to happen if no request comes, and whether it is the end of an idle connection.
    fn due(&mut self, context: &Context, active: usize) -> Option<Instant> {
        let plan = &context.http.plan;
        if active > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
        let patience = if self.leaving == Leaving::No { plan.idle_timeout } else { Some(plan.drain_timeout) };
        let idle = self.idle_since.zip(patience).and_then(|(since, patience)| since.checked_add(patience));
        let other = match self.leaving {
            Leaving::No => self.oldest,
            Leaving::Announced(until) => Some(until),
            Leaving::Refusing(until) => return (active == 0).then_some(until),
        };
        idle.into_iter().chain(other).min()
    }
}

/// The next request; `None` once the connection is over or has been idle for too long.
async fn next_request(
    context: &Context,
    connection: &mut ServerConnection,
    deadline: &mut Deadline,
    life: &mut Life,
) -> Option<Pending> {
    poll_fn(|cx| {
        context.handle.register(cx);
        // Whoever came late is told once it has asked something: before, it would only try here again.
        if context.handle.is_draining() && (life.requests > 0 || !context.handle.is_late()) {
            life.leave(connection);
        }
        loop {
            if let Poll::Ready(next) = connection.poll_accept(cx) {
                return Poll::Ready(next);
            }
            let active = connection.active();
            deadline.set(life.due(context, active));
            if deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            match life.leaving {
                Leaving::No => life.leave(connection),
                Leaving::Announced(_) => {
                    life.leaving = Leaving::Refusing(Instant::now() + FAREWELL.max(3 * connection.round_trip()));
                    connection.refuse_further();
                }
                // All that was asked is answered, and nothing more is taken.
                Leaving::Refusing(_) => return Poll::Ready(None),
            }
        }
    })
    .await
}

async fn serve_request(context: Rc<Context>, pending: Pending) {
    let plan = &context.http.plan;
    let limit = plan.request_headers_timeout.or(plan.stream_idle_timeout).or(plan.idle_timeout);
    let head = match limit {
        Some(limit) => tokio::time::timeout(limit, pending.head()).await.ok(),
        None => Some(pending.head().await),
    };
    let Some(Ok((head, stream))) = head else { return };
    let mut stream = ServerStream::H3(Box::new(stream));
    exchange::run(&context, &mut stream, &mut Deadline::new(), head).await;
    if let ServerStream::H3(stream) = &mut stream {
        poll_fn(|cx| stream.poll_delivered(cx)).await;
    }
}
