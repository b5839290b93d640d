//! The beginning of a request's body, read before the request goes anywhere, because a filter asked for it.

use std::{future::poll_fn, task::Poll, time::Duration};

use http::{Method, StatusCode};
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_http::{Error, Frame};
use tokio::time::Instant;

use super::Exchange;
use crate::router;

/// Why there is no more of a body.
pub(super) enum Broken {
    /// The client left.
    Gone,
    Reply(Box<LocalReply>),
}

/// Reads until there are so many bytes or the body has ended. What follows an upgrade or a CONNECT is no body.
pub(super) async fn read(exchange: &mut Exchange<'_>, most: usize) -> Result<(), Broken> {
    let mut early = exchange.early.take().unwrap_or_default();
    let tunnel = exchange.request.upgrade.is_some() || exchange.request.method == Method::CONNECT;
    early.complete = tunnel || exchange.stream.request_ended();
    while !early.complete && early.byte_size() < most {
        match frame(exchange).await? {
            Some(frame) => {
                if let Frame::Data(data) = &frame {
                    exchange.info.bytes_received += data.len() as u64;
                }
                early.frames.push(frame);
                early.complete = exchange.stream.request_ended();
            }
            None => early.complete = true,
        }
    }
    if early.complete {
        exchange.info.last_downstream_byte_received.get_or_insert_with(std::time::Instant::now);
    }
    exchange.early = Some(early);
    Ok(())
}

async fn frame(exchange: &mut Exchange<'_>) -> Result<Option<Frame>, Broken> {
    let idle = exchange.context.http.plan.stream_idle_timeout.filter(|limit| !limit.is_zero());
    exchange.deadline.set(after(idle));
    let (stream, deadline) = (&mut *exchange.stream, &mut *exchange.deadline);
    let next = poll_fn(|cx| {
        // The client may be waiting for a 100 Continue that has yet to go out.
        let _ = stream.poll_flush(cx);
        if let Poll::Ready(frame) = stream.poll_frame(cx) {
            return Poll::Ready(Some(frame));
        }
        deadline.poll(cx).map(|()| None)
    })
    .await;
    match next {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(Error::Violation(violation))) => {
            Err(Broken::Reply(router::broken(exchange, violation.rule().details)))
        }
        Some(Err(_)) => Err(Broken::Gone),
        None => Err(Broken::Reply(timeout())),
    }
}

fn after(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

fn timeout() -> Box<LocalReply> {
    let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, "stream timeout", "stream_idle_timeout");
    Box::new(reply.with_flags(ResponseFlags::STREAM_IDLE_TIMEOUT))
}
