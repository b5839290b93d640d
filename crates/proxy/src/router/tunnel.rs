//! CONNECT terminated here: its payload is relayed to the host as plain bytes (Envoy's `connect_config`).

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use http::StatusCode;
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_http::{
    Method, ResponseHead,
    pool::{Connected, Guard},
};
use meltemi_net::{Copied, Stream};
use meltemi_plan::route::Forward;
use meltemi_upstream::{PickContext, Resource, TrafficStats};
use tokio::time::Instant;

use super::{Failure, Preface, attempt, connect, target::Target};
use crate::{hcm::Exchange, relay::Relay};

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
    let mut tunnel = open(exchange, target).await?;
    answer(exchange);
    let copied = Copied::default();
    let broken = relay(exchange, &mut tunnel.far, &copied).await;
    count(exchange, &target.cluster.stats.traffic, &copied);
    if let Some(flag) = broken {
        exchange.info.flags |= flag;
        if flag == ResponseFlags::STREAM_IDLE_TIMEOUT {
            exchange.info.response_code_details = Some("stream_idle_timeout".into());
        }
        exchange.stream.abort();
    }
    Ok(())
}

/// A connection to the host, and what counts it while it lasts.
struct Tunnel {
    far: Stream,
    _counted: Box<dyn Guard>,
    _active: attempt::Active,
}

async fn open(exchange: &mut Exchange<'_>, target: &Target) -> Result<Tunnel, Box<LocalReply>> {
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
    let active =
        attempt::Active::begin(&target.cluster, target.priority, &endpoint).ok_or_else(|| fail(Failure::Overflow))?;
    exchange.info.upstream.host = Some(endpoint.address.clone());
    let mode = meltemi_http::pool::Mode::Http1;
    let authority = exchange.request.authority.clone();
    let (tls, _) = connect::tls_context(&worker, &target.cluster, &endpoint, mode, (None, &authority));
    let preface = Preface::of(&target.cluster, &endpoint, Some(&exchange.info.connection));
    let opened = connect::connect((Arc::clone(&target.cluster), endpoint), tls, preface, permit).await;
    let Connected { stream: far, guard, .. } = opened.map_err(|error| fail(Failure::Connect(error)))?;
    traffic.response(StatusCode::OK.as_u16());
    exchange.info.upstream.local = Some(far.local_addr());
    Ok(Tunnel { far, _counted: guard, _active: active })
}

/// The tunnel is open, says the proxy.
fn answer(exchange: &mut Exchange<'_>) {
    exchange.info.upstream.timing.first_byte_received = Some(std::time::Instant::now());
    exchange.info.set_details("via_upstream");
    let mut head = ResponseHead::new(StatusCode::OK);
    exchange.apply_response_rules(&mut head);
    exchange.filters.on_response(&exchange.request, &mut head, &mut exchange.info);
    exchange.complete(&mut head);
    exchange.stream.send_head(&head, false);
    exchange.sent(head);
}

/// Until both sides have ended; with the flag of what broke it, if something did.
async fn relay(exchange: &mut Exchange<'_>, far: &mut Stream, copied: &Copied) -> Option<ResponseFlags> {
    let idle = exchange.context.http.plan.stream_idle_timeout;
    let mut relay = Relay::new(copied);
    exchange.deadline.set_after(Instant::now(), idle);
    let (down, deadline) = (&mut *exchange.stream, &mut *exchange.deadline);
    poll_fn(|cx| {
        let before = relay.moved();
        if let Poll::Ready(end) = relay.poll(cx, down, far) {
            return Poll::Ready(end.err().map(|_| ResponseFlags::UPSTREAM_CONNECTION_TERMINATION));
        }
        if relay.moved() != before {
            deadline.set_after(Instant::now(), idle);
        }
        deadline.poll(cx).map(|()| Some(ResponseFlags::STREAM_IDLE_TIMEOUT))
    })
    .await
}

fn count(exchange: &mut Exchange<'_>, traffic: &TrafficStats, copied: &Copied) {
    let (up, down) = (copied.b_to_a.get(), copied.a_to_b.get());
    exchange.info.bytes_received += up;
    exchange.info.bytes_sent += down;
    traffic.upstream_cx_tx_bytes_total().add(up);
    traffic.upstream_cx_rx_bytes_total().add(down);
}
