//! A host's response to the client: its head completed, then both bodies moved until both have ended.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderValue, StatusCode, header};
use meltemi_filters::{LocalReply, ResponseFlags, StreamFilters, StreamInfo};
use meltemi_http::{ClientStream, Error, Frame, Headers, Protocol, ServerStream, name};
use meltemi_plan::{RouteAction, VirtualHost};
use meltemi_upstream::Outcome;

use super::{
    attempt::{Answer, Sending, is_upgrade_answer},
    target::{self, Target},
    timers::{Expired, Timers},
};
use crate::hcm::{Exchange, StreamParts};

/// How moving the bodies ended.
enum End {
    Done,
    Downstream,
    Upstream(Error),
    Expired(Expired),
}

pub(super) async fn send(
    exchange: &mut Exchange<'_>,
    host: &VirtualHost,
    target: &Target,
    answer: Answer,
    (sending, timers): (&mut Sending, &mut Timers),
) -> Result<(), Box<LocalReply>> {
    sending.forget();
    let upgraded = is_upgrade_answer(exchange, &answer);
    let refused = !upgraded && refused_websocket(exchange, &answer);
    if exchange.request.upgrade.is_some() && !upgraded {
        exchange.stream.close_after_response();
        sending.declined();
    }
    let Answer { mut head, mut upstream, endpoint, active, before } = answer;
    let status = head.status.as_u16();
    let traffic = &target.cluster.stats.traffic;
    traffic.response(status);
    target.cluster.report(&endpoint, Outcome::Status(status_for_health(exchange, &head)));
    active.answered(&endpoint);
    exchange.info.upstream.timing.first_byte_received = Some(Instant::now());
    exchange.info.response_code = Some(status);
    if refused {
        exchange.info.set_details("websocket_handshake_unsuccessful");
        head.headers.remove(&header::CONTENT_LENGTH);
    }
    exchange.info.set_details("via_upstream");
    upstream_headers(exchange, host, &mut head);
    if let Some(RouteAction::Forward(forward)) = exchange.info.route.as_ref().map(|route| &route.action) {
        target::set_cookies(exchange, forward, &mut head.headers);
    }
    if upgraded {
        upgrade_head(exchange, &upstream, &mut head);
        timers.upgraded();
    }
    exchange.apply_response_rules(&mut head);
    exchange.filters.on_response(&exchange.request, &mut head, &mut exchange.info);
    exchange.complete(&mut head);
    note_grpc_status(exchange, &head.headers);
    let end = refused || (!upgraded && upstream.response_ended());
    exchange.stream.send_head(&head, end);
    exchange.sent(head);
    if upgraded {
        sending.upgraded();
    }
    let ended = transfer(exchange, &mut upstream, sending, timers, end).await;
    before.note(&upstream, &mut exchange.info, traffic);
    let now = Instant::now();
    exchange.info.finish_at(now);
    traffic.upstream_rq_time().record_ms(exchange.info.elapsed());
    drop(active);
    finish(exchange, target, ended, now);
    Ok(())
}

/// An answer that is neither the upgrade nor an error is of no use to a WebSocket client but for its head, which may redirect it.
fn refused_websocket(exchange: &Exchange<'_>, answer: &Answer) -> bool {
    let websocket = exchange.request.upgrade.as_ref().is_some_and(|kind| kind.eq_ignore_ascii_case("websocket"));
    websocket && answer.head.status.as_u16() < 400
}

fn status_for_health(exchange: &Exchange<'_>, head: &meltemi_http::ResponseHead) -> u16 {
    let grpc = exchange.info.is_grpc.then(|| head.headers.get_str(&name::GRPC_STATUS)).flatten();
    match grpc {
        // As Envoy maps gRPC statuses for outlier detection.
        Some("4" | "8" | "13" | "14" | "15") => 503,
        _ => head.status.as_u16(),
    }
}

/// What the router says of the response.
fn upstream_headers(exchange: &Exchange<'_>, host: &VirtualHost, head: &mut meltemi_http::ResponseHead) {
    // Before the request has ended there is no time that the host took for it.
    let since = exchange.info.last_downstream_byte_received;
    if let Some(since) = since.filter(|_| !exchange.context.http.suppress_envoy_headers()) {
        let now = exchange.info.upstream.timing.first_byte_received.unwrap_or_else(Instant::now);
        let ms = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(name::X_ENVOY_UPSTREAM_SERVICE_TIME, number(ms));
    }
    if host.include_attempt_count_in_response {
        head.headers.insert(name::X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(exchange.info.upstream.attempts));
    }
    head.headers.remove(&name::X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL);
}

/// Numbers below a hundred, in which most answers come, have their digits in the program.
fn number(n: u64) -> HeaderValue {
    const TENS_AND_ONES: &str = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    let digits = |skip: usize| HeaderValue::from_static(&TENS_AND_ONES[n as usize * 2 + skip..][..2 - skip]);
    match n {
        0..10 => digits(1),
        10..100 => digits(0),
        _ => HeaderValue::from(n),
    }
}

/// An upgrade that the host took over HTTP/2 is a 101, to all but the encoder of HTTP/2.
fn upgrade_head(exchange: &Exchange<'_>, upstream: &ClientStream, head: &mut meltemi_http::ResponseHead) {
    let Some(kind) = &exchange.request.upgrade else { return };
    if upstream.protocol() == Protocol::Http2 {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        if let Ok(value) = HeaderValue::from_str(kind) {
            head.headers.insert(header::UPGRADE, value);
        }
    }
}

fn note_grpc_status(exchange: &mut Exchange<'_>, headers: &meltemi_http::Headers) {
    if let Some(status) = headers.get_str(&name::GRPC_STATUS).and_then(|text| text.parse().ok()) {
        exchange.info.grpc_status = Some(status);
    }
}

/// Moves both bodies until the response has ended and been sent.
async fn transfer(
    exchange: &mut Exchange<'_>,
    upstream: &mut ClientStream,
    sending: &mut Sending,
    timers: &mut Timers,
    mut response_done: bool,
) -> End {
    let parts = exchange.parts();
    let StreamParts { stream: down, deadline, info, filters, trailers: seen } = parts;
    deadline.set(timers.due());
    let mut moved = (info.bytes_received, info.bytes_sent);
    let one_way = matches!(down, ServerStream::H1(_));
    poll_fn(|cx| {
        // A write that fails here is seen again by reading.
        if let Poll::Ready(Err(_)) = sending.poll(cx, down, upstream, &mut info.bytes_received) {
            return Poll::Ready(End::Downstream);
        }
        let flushed = upstream.poll_flush(cx).is_ready();
        if sending.tunnel_ended() && flushed && one_way {
            return Poll::Ready(End::Downstream);
        }
        while !response_done {
            match poll_response_frame(cx, down, upstream) {
                Poll::Pending => break,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(frame)) => {
                    response_done = frame.is_none() || upstream.response_ended();
                    if let Some(frame) = frame {
                        note_frame(&frame, info, filters, seen);
                        down.send_frame(frame);
                    }
                    if response_done {
                        down.finish();
                    }
                }
            }
        }
        match down.poll_flush(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(End::Downstream),
            // An upgraded HTTP/1 connection has no half of its own to leave open.
            Poll::Ready(Ok(())) if response_done && (sending.request_done() || !sending.is_tunnel() || one_way) => {
                return Poll::Ready(End::Done);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if sending.request_done() && !sending.is_tunnel() && down.poll_closed(cx).is_ready() {
            return Poll::Ready(End::Downstream);
        }
        let now_moved = (info.bytes_received, info.bytes_sent);
        if now_moved != moved {
            moved = now_moved;
            timers.progress(tokio::time::Instant::now());
            deadline.set(timers.due());
        }
        while deadline.poll(cx).is_ready() {
            match timers.expired(tokio::time::Instant::now()) {
                Some(expired) => return Poll::Ready(End::Expired(expired)),
                None => deadline.set(timers.due()),
            }
        }
        Poll::Pending
    })
    .await
}

/// What filters and logs are told of a frame of the response.
fn note_frame(frame: &Frame, info: &mut StreamInfo, filters: &mut StreamFilters, seen: &mut Option<Headers>) {
    match frame {
        Frame::Data(data) => {
            info.bytes_sent += data.len() as u64;
            filters.on_response_data(data, info);
        }
        Frame::Trailers(trailers) => {
            let status = trailers.get_str(&name::GRPC_STATUS).and_then(|t| t.parse().ok());
            info.grpc_status = status.or(info.grpc_status);
            *seen = Some(trailers.clone());
        }
    }
}

fn poll_response_frame(
    cx: &mut Context<'_>,
    down: &mut ServerStream,
    upstream: &mut ClientStream,
) -> Poll<Result<Option<Frame>, End>> {
    if ready!(down.poll_ready(cx)).is_err() {
        return Poll::Ready(Err(End::Downstream));
    }
    upstream.poll_frame(cx).map_err(End::Upstream)
}

fn finish(exchange: &mut Exchange<'_>, target: &Target, end: End, now: Instant) {
    exchange.info.upstream.timing.last_byte_received = Some(now);
    exchange.info.last_downstream_byte_sent = matches!(end, End::Done).then_some(now);
    let info = &mut exchange.info;
    let traffic = &target.cluster.stats.traffic;
    match end {
        End::Done => return,
        End::Downstream => {
            traffic.upstream_rq_cancelled().inc();
            info.flags |= ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
            info.response_code_details = Some("downstream_remote_disconnect".into());
        }
        End::Upstream(error) => {
            traffic.upstream_rq_rx_reset().inc();
            let failure = super::Failure::Reset(error.reset_reason());
            info.flags |= failure.flags();
            let details = failure.reply(false).details;
            let details = details.replace("before_response_started", "after_response_started");
            info.response_code_details = Some(details.into());
        }
        End::Expired(expired) => {
            expired.count(traffic);
            let failure = super::Failure::Expired(expired);
            info.flags |= failure.flags();
            info.response_code_details = Some(failure.reply(false).details);
        }
    }
    exchange.stream.abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_printed_in_full() {
        for n in (0..300).chain([u64::MAX]) {
            assert_eq!(number(n).to_str().unwrap(), n.to_string());
        }
    }
}
