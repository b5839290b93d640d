//! CONNECT terminated here: its payload is relayed to the host as plain bytes (Envoy's `connect_config`).

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_http::{Frame, Method, ResponseHead, ServerStream, pool::Connected};
use meltemi_net::{Stream, buffers};
use meltemi_plan::route::Forward;
use meltemi_upstream::{PickContext, Resource};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{Failure, attempt, connect, target::Target};
use crate::hcm::Exchange;

/// This request asks for a tunnel, and the route ends it here.
pub(super) fn terminates(exchange: &Exchange<'_>, forward: &Forward) -> bool {
    let kind = match &exchange.request.upgrade {
        Some(kind) => kind.as_str(),
        None if exchange.request.method == Method::CONNECT => "connect",
        None => return false,
    };
    forward.upgrades.iter().any(|upgrade| upgrade.terminate_connect && upgrade.kind.eq_ignore_ascii_case(kind))
}

pub(super) async fn serve(exchange: &mut Exchange<'_>, target: &Target) -> Result<(), Box<LocalReply>> {
    exchange.info.upstream.attempts = 1;
    let worker = Rc::clone(&exchange.context.worker);
    let context = PickContext {
        hash: target.hash,
        original_dst: target.original_dst,
        metadata: target.metadata_match.as_ref(),
        ..PickContext::default()
    };
    let fail = |failure: Failure| {
        failure.count(&target.cluster.stats.traffic);
        Box::new(failure.reply(false))
    };
    let endpoint = worker.pick(&target.cluster, &context).map_err(|_| fail(Failure::NoHealthyHost))?;
    let traffic = &target.cluster.stats.traffic;
    // Each tunnel has a connection of its own, for as long as it lasts: there is none to wait for.
    let Some(permit) = target.cluster.breakers.acquire(target.priority, Resource::Connection) else {
        traffic.upstream_cx_overflow().inc();
        return Err(fail(Failure::Overflow));
    };
    let _active = attempt::Active::begin(target, &endpoint).ok_or_else(|| fail(Failure::Overflow))?;
    exchange.info.upstream.host = Some(endpoint.address.clone());
    let mode = meltemi_http::pool::Mode::Http1;
    let authority = exchange.request.authority.clone();
    let (tls, _) = connect::tls_context(&worker, &target.cluster, &endpoint, mode, (None, &authority));
    let opened = connect::connect(Arc::clone(&target.cluster), endpoint, tls, permit).await;
    let Connected { stream: mut far, guard: _counted, .. } = opened.map_err(|error| fail(Failure::Connect(error)))?;
    traffic.response(StatusCode::OK.as_u16());
    exchange.info.upstream.local = Some(far.local_addr());
    exchange.info.upstream.timing.first_byte_received = Some(std::time::Instant::now());
    exchange.info.set_details("via_upstream");
    let mut head = ResponseHead::new(StatusCode::OK);
    exchange.apply_response_rules(&mut head);
    exchange.filters.on_response(&exchange.request, &mut head, &mut exchange.info);
    exchange.complete(&mut head);
    exchange.stream.send_head(&head, false);
    exchange.sent(head);
    let idle = exchange.context.http.plan.stream_idle_timeout;
    let mut relay = Relay::default();
    exchange.deadline.set_after(Instant::now(), idle);
    let (down, deadline) = (&mut *exchange.stream, &mut *exchange.deadline);
    let broken = poll_fn(|cx| {
        let before = relay.moved();
        if let Poll::Ready(clean) = relay.poll(cx, down, &mut far) {
            return Poll::Ready((!clean).then_some(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION));
        }
        if relay.moved() != before {
            deadline.set_after(Instant::now(), idle);
        }
        deadline.poll(cx).map(|()| Some(ResponseFlags::STREAM_IDLE_TIMEOUT))
    })
    .await;
    exchange.info.bytes_received += relay.up;
    exchange.info.bytes_sent += relay.down;
    traffic.upstream_cx_tx_bytes_total().add(relay.up);
    traffic.upstream_cx_rx_bytes_total().add(relay.down);
    if let Some(flag) = broken {
        exchange.info.flags |= flag;
        if flag == ResponseFlags::STREAM_IDLE_TIMEOUT {
            exchange.info.response_code_details = Some("stream_idle_timeout".into());
        }
        exchange.stream.abort();
    }
    Ok(())
}

/// Both directions of a tunnel.
#[derive(Default)]
struct Relay {
    pending: Bytes,
    buffer: BytesMut,
    up: u64,
    down: u64,
    up_ended: bool,
    up_closed: bool,
    down_ended: bool,
}

impl Relay {
    fn moved(&self) -> (u64, u64) {
        (self.up, self.down)
    }

    /// Ready with whether both ends closed in order.
    fn poll(&mut self, cx: &mut Context<'_>, down: &mut ServerStream, far: &mut Stream) -> Poll<bool> {
        if matches!(self.poll_up(cx, down, far), Poll::Ready(false)) {
            return Poll::Ready(false);
        }
        if matches!(self.poll_down(cx, down, far), Poll::Ready(false)) {
            return Poll::Ready(false);
        }
        match down.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Ready(Ok(())) if self.up_closed && self.down_ended => Poll::Ready(true),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>, down: &mut ServerStream, far: &mut Stream) -> Poll<bool> {
        while !self.up_closed {
            if !self.pending.is_empty() {
                match ready!(Pin::new(&mut *far).poll_write(cx, &self.pending)) {
                    Ok(n) if n > 0 => {
                        self.pending.advance(n);
                        self.up += n as u64;
                    }
                    Ok(_) | Err(_) => return Poll::Ready(false),
                }
            } else if self.up_ended {
                if ready!(Pin::new(&mut *far).poll_shutdown(cx)).is_err() {
                    return Poll::Ready(false);
                }
                self.up_closed = true;
            } else {
                match down.poll_frame(cx) {
                    Poll::Ready(Ok(Some(Frame::Data(data)))) => self.pending = data,
                    Poll::Ready(Ok(Some(Frame::Trailers(_)) | None)) => self.up_ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return Pin::new(&mut *far).poll_flush(cx).map(|result| result.is_ok()),
                }
            }
        }
        Poll::Ready(true)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>, down: &mut ServerStream, far: &mut Stream) -> Poll<bool> {
        while !self.down_ended {
            if ready!(down.poll_ready(cx)).is_err() {
                return Poll::Ready(false);
            }
            match ready!(buffers::poll_fill(far, cx, &mut self.buffer, buffers::SMALL)) {
                Ok(0) => {
                    down.finish();
                    self.down_ended = true;
                }
                Ok(n) => {
                    self.down += n as u64;
                    down.send_frame(Frame::Data(self.buffer.split().freeze()));
                }
                Err(_) => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }
}
