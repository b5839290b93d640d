//! Responses made here: local replies, with their gRPC form, and the refusals of broken requests.

use std::{borrow::Cow, future::poll_fn};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use meltemi_filters::{LocalReply, LogType, ResponseFlags, Scope, StreamInfo, grpc_status_of};
use meltemi_http::{Frame, Protocol, RequestHead, ResponseHead, ServerStream, h1::Violation, name};

use super::{Context, response, stats::ActiveRequest};

/// The head and body of a local reply to `request`.
pub(super) fn render(reply: &LocalReply, request: Option<&RequestHead>) -> (ResponseHead, Bytes) {
    let body = || match &reply.body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::copy_from_slice(text.as_bytes()),
    };
    if reply.customizable && request.is_some_and(RequestHead::is_grpc) {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = reply.grpc_status.unwrap_or_else(|| grpc_status_of(reply.status.as_u16()));
        head.headers.append(name::GRPC_STATUS, HeaderValue::from(status));
        let is_head = request.is_some_and(|request| request.method == Method::HEAD);
        if !reply.body.is_empty()
            && !is_head
            && let Ok(message) = HeaderValue::from_str(&percent_encoded(reply.body.trim_end_matches('\n')))
        {
            head.headers.append(name::GRPC_MESSAGE, message);
        }
        let more = reply.headers.iter().filter(|(name, _)| *name != header::CONTENT_TYPE);
        head.headers.extend(more.map(|(name, value)| (name.clone(), value.clone())).collect());
        return (head, Bytes::new());
    }
    let mut head = ResponseHead::new(reply.status);
    head.headers.extend(reply.headers.clone());
    let mut body = body();
    if !body.is_empty() {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if !head.headers.contains(&header::CONTENT_TYPE) {
            head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
    }
    if request.is_some_and(|request| request.method == Method::HEAD) {
        body.clear();
    }
    (head, body)
}

/// As gRPC encodes `grpc-message`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Answers a request that broke a framing rule; the connection closes after it.
pub(super) async fn refuse(context: &Context, stream: &mut ServerStream, violation: Violation) {
    let rule = violation.rule();
    tracing::debug!(rule = %violation, "request refused");
    context.http.stats().downstream_cx_protocol_error().inc();
    let reply = match violation {
        Violation::HostMissing => LocalReply::new(rule.status, "", rule.details),
        _ => LocalReply::new(rule.status, rule.status.canonical_reason().unwrap_or_default(), rule.details)
            .with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR),
    };
    answer_unparsed(context, stream, &reply).await;
}

/// Answers a client that did not finish its request head in time.
pub(super) async fn headers_timeout(context: &Context, stream: &mut ServerStream) {
    context.http.stats().downstream_rq_header_timeout().inc();
    let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, "request header timeout", "request_header_timeout");
    answer_unparsed(context, stream, &reply).await;
}

/// Answers a client whose request head does not go on.
pub(super) async fn stream_idle(context: &Context, stream: &mut ServerStream) {
    let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, "stream timeout", "stream_idle_timeout")
        .with_flags(ResponseFlags::STREAM_IDLE_TIMEOUT);
    answer_unparsed(context, stream, &reply).await;
}

async fn answer_unparsed(context: &Context, stream: &mut ServerStream, reply: &LocalReply) {
    let counted = ActiveRequest::new(context.http.stats(), Protocol::Http11);
    let mut info = StreamInfo::new(context.connection.clone());
    info.protocol = Some(Protocol::Http11);
    info.flags |= reply.flags;
    info.set_details(reply.details.clone());
    let (mut head, body) = render(reply, None);
    info.bytes_sent = body.len() as u64;
    response::complete(context, &mut head, None, info.start_time);
    stream.close_after_response();
    info.note_response_head(&head, stream.announces_close());
    send(stream, &head, body);
    let _ = poll_fn(|cx| stream.poll_flush(cx)).await;
    info.finish();
    counted.ended(&info);
    let scope = Scope { response: Some(&head), log_type: LogType::DownstreamEnd, ..Scope::new(&info) };
    context.http.logs.log(&scope);
}

/// Queues a whole response.
pub(super) fn send(stream: &mut ServerStream, head: &ResponseHead, body: Bytes) {
    let end = body.is_empty();
    stream.send_head(head, end);
    if !end {
        stream.send_frame(Frame::Data(body));
        stream.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_request_gets_its_status_in_the_head() {
        let mut request = RequestHead::new(Method::POST, "a", "/s/m");
        request.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy\nupstream", "no_healthy_upstream");
        let (head, body) = render(&reply, Some(&request));
        assert_eq!((head.status, body.len()), (StatusCode::OK, 0));
        assert_eq!(head.headers.get_str("grpc-status"), Some("14"));
        assert_eq!(head.headers.get_str("grpc-message"), Some("no healthy%0Aupstream"));
    }

    #[test]
    fn a_grpc_reply_has_one_content_type_and_head_no_message() {
        let mut request = RequestHead::new(Method::HEAD, "a", "/s/m");
        request.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let mut reply = LocalReply::new(StatusCode::NOT_FOUND, "{}\n", "route_not_found");
        reply.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (head, _) = render(&reply, Some(&request));
        assert_eq!(head.headers.get_all(&header::CONTENT_TYPE).count(), 1);
        assert_eq!(head.headers.get_str("grpc-message"), None);
        request.method = Method::POST;
        let (head, _) = render(&reply, Some(&request));
        assert_eq!(head.headers.get_str("grpc-message"), Some("{}"));
        reply.customizable = false;
        assert_eq!(render(&reply, Some(&request)).0.status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_head_request_gets_the_length_without_the_body() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "no_healthy_upstream");
        let (head, body) = render(&reply, Some(&RequestHead::new(Method::HEAD, "a", "/")));
        assert_eq!((head.headers.get_str("content-length"), body.len()), (Some("19"), 0));
    }
}
