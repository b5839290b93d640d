//! An authorization service over HTTP: the request's head is sent to it, and what it answers is the verdict.

use ::http::header;
use bytes::Bytes;
use meltemi_http::{ByteStr, HeaderName, HeaderValue, Headers, RequestHead, StatusCode};
use meltemi_matchers::StringMatcher;
use meltemi_plan::HeaderKey;
use meltemi_plan::ext_authz::{ExtAuthz as Config, HttpAuthz};
use meltemi_plan::header::AppendAction;
use serde_json::{Map, Value};

use super::{Body, Caller, sees};
use crate::authz::{Changes, Refusal, Verdict, removable};
use crate::call::{Answer, Call};
use crate::edit::{Action, Edit};

/// Bytes of an answer.
const LIMIT: usize = 1024 * 1024;
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
const PARTIAL: HeaderName = HeaderName::from_static(super::PARTIAL);

pub(super) async fn check(
    config: &Config,
    service: &HttpAuthz,
    (head, told): (&RequestHead, Option<&Body>),
    caller: &dyn Caller,
) -> Verdict {
    let body = told.map(|told| Bytes::copy_from_slice(&told.bytes)).unwrap_or_default();
    let call = Call {
        cluster: service.cluster.clone(),
        head: question(config, service, head, told),
        body,
        timeout: service.timeout,
        limit: LIMIT,
    };
    match caller.call(call).await {
        Ok(answer) if !answer.status.is_server_error() => verdict(service, answer),
        Ok(answer) => {
            tracing::debug!(cluster = %service.cluster, status = answer.status.as_u16(), "no authorization");
            Verdict::Error(None)
        }
        Err(error) => {
            tracing::debug!(cluster = %service.cluster, %error, "no authorization");
            Verdict::Error(None)
        }
    }
}

fn question(config: &Config, service: &HttpAuthz, head: &RequestHead, told: Option<&Body>) -> RequestHead {
    let path = match &service.path_override {
        Some(path) => ByteStr::from(&**path),
        None if service.path_prefix.is_empty() => head.path.clone(),
        None => ByteStr::from(format!("{}{}", service.path_prefix, head.path)),
    };
    let mut asked = RequestHead::new(head.method.clone(), head.authority.clone(), path);
    asked.scheme = head.scheme;
    let length = told.map_or(0, |told| told.bytes.len());
    asked.headers.append(header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in head.headers.iter() {
        let of_framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
        if !of_framing && sees(config, name.as_str(), false) {
            asked.headers.append(name.clone(), value.clone());
        }
    }
    if let Some(told) = told {
        asked.headers.insert(PARTIAL, HeaderValue::from_static(if told.cut { "true" } else { "false" }));
    }
    for (name, value) in &service.headers_to_add {
        asked.headers.insert(name.clone(), value.clone());
    }
    asked
}

fn verdict(service: &HttpAuthz, mut answer: Answer) -> Verdict {
    let remove = listed(&answer.headers);
    answer.headers.remove(&TO_REMOVE);
    let metadata = metadata(service, &answer.headers);
    if answer.status != StatusCode::OK {
        let headers = edits(&answer.headers, AppendAction::AppendIfExistsOrAdd, |name| to_client(service, name));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        return Verdict::Denied(Refusal { status: Some(answer.status), headers, body, metadata });
    }
    let among = |list: &[StringMatcher], name: &HeaderName| list.iter().any(|matcher| matcher.matches(name.as_str()));
    let mut request =
        edits(&answer.headers, AppendAction::OverwriteIfExistsOrAdd, |name| among(&service.upstream_headers, name));
    request.extend(edits(&answer.headers, AppendAction::AppendIfExistsOrAdd, |name| {
        among(&service.upstream_headers_to_append, name)
    }));
    let response = edits(&answer.headers, AppendAction::AppendIfExistsOrAdd, |name| {
        among(&service.client_headers_on_success, name)
    });
    Verdict::Ok(Changes { request, remove, response, metadata, ..Changes::default() })
}

fn listed(headers: &Headers) -> Vec<HeaderName> {
    let name = TO_REMOVE;
    let values = headers.get_all(&name).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| removable(name.trim())).collect()
}

fn edits(headers: &Headers, action: AppendAction, wanted: impl Fn(&HeaderName) -> bool) -> Vec<Edit> {
    let fields = headers.iter().filter(|(name, _)| wanted(name));
    fields
        .map(|(name, value)| Edit {
            key: HeaderKey::Name(name.clone()),
            value: value.clone(),
            action: Action::As(action),
        })
        .collect()
}

/// The length is that of the body as the client gets it.
fn to_client(service: &HttpAuthz, name: &HeaderName) -> bool {
    if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
        return false;
    }
    let always = [header::WWW_AUTHENTICATE, header::LOCATION].contains(name);
    let listed = |list: &Vec<StringMatcher>| list.iter().any(|matcher| matcher.matches(name.as_str()));
    always || service.client_headers.as_ref().is_none_or(listed)
}

fn metadata(service: &HttpAuthz, headers: &Headers) -> Map<String, Value> {
    let wanted = |name: &HeaderName| service.metadata_from_headers.iter().any(|matcher| matcher.matches(name.as_str()));
    let fields = headers.iter().filter(|(name, _)| wanted(name));
    fields.map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into())).collect()
}
