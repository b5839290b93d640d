//! An HTTP/2 connection: one task that moves its bytes, and one for each exchange.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use meltemi_http::{
    ServerStream,
    h2::{self, Accepted, ServerConnection},
};
use meltemi_net::{Stream, timer::Deadline};
use tokio::time::Instant;

use super::{Context, exchange};

/// A client that never finishes its preface.
const HANDSHAKE: Duration = Duration::from_secs(10);

struct Active(Rc<Cell<usize>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(super) async fn serve(context: Rc<Context>, stream: Stream) {
    let plan = &context.http.plan;
    let options = h2::Options {
        max_concurrent_streams: plan.http2.max_concurrent_streams,
        initial_stream_window: plan.http2.initial_stream_window,
        initial_connection_window: plan.http2.initial_connection_window,
        max_header_bytes: plan.max_request_headers_bytes,
        allow_connect: plan.http2.allow_connect,
        ..h2::Options::default()
    };
    let Ok(Ok(mut connection)) = tokio::time::timeout(HANDSHAKE, ServerConnection::handshake(stream, &options)).await
    else {
        return;
    };
    let active = Rc::new(Cell::new(0usize));
    let oldest = plan.max_connection_duration.map(|limit| Instant::now() + limit);
    let mut deadline = Deadline::new();
    let mut drained = false;
    let mut requests = 0u32;
    while let Some(accepted) =
        next_request(&context, &mut connection, &mut deadline, (&active, oldest, &mut drained)).await
    {
        requests += 1;
        if plan.max_requests_per_connection > 0 && requests >= plan.max_requests_per_connection && !drained {
            drained = true;
            connection.drain();
        }
        active.set(active.get() + 1);
        let guard = Active(Rc::clone(&active));
        let context = Rc::clone(&context);
        tokio::task::spawn_local(async move {
            let _guard = guard;
            let Accepted { head, stream } = accepted;
            let mut stream = ServerStream::H2(Box::new(stream));
            let mut deadline = Deadline::new();
            exchange::run(&context, &mut stream, &mut deadline, head).await;
        });
    }
}

/// The next request; `None` once the connection is over or has been idle for too long.
async fn next_request(
    context: &Context,
    connection: &mut ServerConnection,
    deadline: &mut Deadline,
    (active, oldest, drained): (&Rc<Cell<usize>>, Option<Instant>, &mut bool),
) -> Option<Accepted> {
    let idle = context.http.plan.idle_timeout;
    let mut idle_since = None;
    poll_fn(|cx| {
        context.handle.register(cx);
        if context.handle.is_draining() && !*drained {
            *drained = true;
            connection.drain();
        }
        match connection.poll_accept(cx) {
            Poll::Ready(Ok(Some(accepted))) => return Poll::Ready(Some(accepted)),
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        if active.get() > 0 {
            idle_since = None;
            deadline.set(oldest);
        } else if idle_since.is_none() {
            let now = Instant::now();
            idle_since = Some(now);
            let due = idle.and_then(|idle| now.checked_add(idle));
            deadline.set(due.into_iter().chain(oldest).min());
        }
        if deadline.poll(cx).is_ready() && !*drained {
            *drained = true;
            connection.drain();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}
