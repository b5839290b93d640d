//! `local_reply_config`: what an operator wants local replies to look like.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};
use meltemi_filters::{
    LocalReply, Scope, StreamInfo, access_log,
    format::{self, Missing},
    headers,
};
use meltemi_http::{RequestHead, ResponseHead};
use meltemi_plan::hcm::{BodyFormat, LocalReplyConfig};

/// Applies the first mapper that matches, then the body format.
pub(super) fn customize(
    config: &LocalReplyConfig,
    mut reply: LocalReply,
    request: &RequestHead,
    info: &mut StreamInfo,
) -> LocalReply {
    if config.mappers.is_empty() && config.body_format.is_none() {
        return reply;
    }
    info.response_code = Some(reply.status.as_u16());
    let scope = Scope { request: Some(request), ..Scope::new(info) };
    let mapper = config.mappers.iter().find(|mapper| access_log::passes(&mapper.filter, &scope));
    let mut body_format = config.body_format.as_ref();
    if let Some(mapper) = mapper {
        body_format = mapper.body_format.as_ref().or(body_format);
        if let Some(status) = mapper.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            reply.status = status;
        }
        if let Some(body) = &mapper.body {
            reply.body = Cow::Owned(String::from_utf8_lossy(body).into_owned());
        }
        headers::add_to(&mapper.headers, &mut reply.headers, &scope);
    }
    info.response_code = Some(reply.status.as_u16());
    if let Some(body_format) = body_format {
        format_body(body_format, &mut reply, request, info);
    }
    reply
}

fn format_body(body_format: &BodyFormat, reply: &mut LocalReply, request: &RequestHead, info: &StreamInfo) {
    let mut response = ResponseHead::new(reply.status);
    response.headers = reply.headers.clone();
    let scope =
        Scope { request: Some(request), response: Some(&response), local_reply_body: &reply.body, ..Scope::new(info) };
    let mut out = Vec::new();
    let content_type = match body_format {
        BodyFormat::Text { format, content_type } => {
            format::write(format, &scope, Missing::Dash, &mut out);
            content_type
        }
        BodyFormat::Json { format, content_type } => {
            format::write_json(format, &scope, false, &mut out);
            out.push(b'\n');
            content_type
        }
    };
    if let Ok(value) = HeaderValue::from_str(content_type) {
        reply.headers.insert(header::CONTENT_TYPE, value);
    }
    reply.body = Cow::Owned(String::from_utf8_lossy(&out).into_owned());
}
