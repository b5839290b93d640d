//! Header rules of route configurations: `*_headers_to_remove`, then `*_headers_to_add`.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};
use meltemi_filters::StreamInfo;
use meltemi_http::{ByteStr, Headers, RequestHead, ResponseHead, StatusCode};
use meltemi_plan::{
    Format, HeaderKey, HeaderRules,
    header::{AppendAction, HeaderAdd},
};

use super::view;

/// Values that a rule may be computed from.
pub struct Source<'a> {
    pub info: &'a StreamInfo,
    pub request: &'a RequestHead,
    pub response: Option<&'a ResponseHead>,
}

/// A command string's text for this stream.
pub fn text<'a>(format: &'a Format, source: &Source<'_>) -> Cow<'a, str> {
    match format.as_literal() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(meltemi_filters::format_text(
            format,
            source.info,
            &view::RequestView(source.request),
            source.response.map(view::ResponseView).as_ref().map(|view| view as _),
        )),
    }
}

/// Additions are computed before anything is changed, so that a rule sees the message as it came.
fn values(rules: &HeaderRules, source: &Source<'_>) -> Vec<Option<HeaderValue>> {
    rules
        .add
        .iter()
        .map(|add| {
            let text = text(&add.value, source);
            if text.is_empty() && !add.keep_empty { None } else { HeaderValue::from_str(&text).ok() }
        })
        .collect()
}

pub fn apply_to_request(rules: &HeaderRules, request: &mut RequestHead, info: &StreamInfo) {
    if rules.is_empty() {
        return;
    }
    let values = values(rules, &Source { info, request, response: None });
    for name in &rules.remove {
        if *name != header::HOST {
            request.headers.remove(name);
        }
    }
    for (add, value) in rules.add.iter().zip(values) {
        let Some(value) = value else { continue };
        let text = || value.to_str().map(ByteStr::from).ok();
        match &add.key {
            HeaderKey::Name(name) if *name == header::HOST => request.authority = text().unwrap_or_default(),
            HeaderKey::Authority => request.authority = text().unwrap_or_default(),
            HeaderKey::Path => request.path = text().unwrap_or_default(),
            HeaderKey::Method => {
                if let Ok(method) = http::Method::from_bytes(value.as_bytes()) {
                    request.method = method;
                }
            }
            HeaderKey::Name(name) => set(&mut request.headers, add, name, value),
            HeaderKey::Scheme | HeaderKey::Protocol | HeaderKey::Status => {}
        }
    }
}

pub fn apply_to_response(rules: &HeaderRules, response: &mut ResponseHead, request: &RequestHead, info: &StreamInfo) {
    if rules.is_empty() {
        return;
    }
    let values = values(rules, &Source { info, request, response: Some(response) });
    for name in &rules.remove {
        response.headers.remove(name);
    }
    for (add, value) in rules.add.iter().zip(values) {
        let Some(value) = value else { continue };
        match &add.key {
            HeaderKey::Status => {
                if let Ok(status) = StatusCode::from_bytes(value.as_bytes()) {
                    response.status = status;
                }
            }
            HeaderKey::Name(name) => set(&mut response.headers, add, name, value),
            HeaderKey::Method | HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme | HeaderKey::Protocol => {}
        }
    }
}

fn set(headers: &mut Headers, add: &HeaderAdd, name: &HeaderName, value: HeaderValue) {
    match add.action {
        AppendAction::AppendIfExistsOrAdd => headers.append(name.clone(), value),
        AppendAction::AddIfAbsent if headers.contains(name) => {}
        AppendAction::OverwriteIfExists if !headers.contains(name) => {}
        AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(name.clone(), value);
        }
    }
}
