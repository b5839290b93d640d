//! `envoy.filters.http.ext_authz`: a service of its own says whether a request may go on, and what is changed of it.
//!
//! The service is asked once a request, over gRPC or HTTP; the request waits, at most as long as the call may take. Of its
//! body no more is held than is told, and an answer is bounded.

mod over_http;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use meltemi_http::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode, name};
use meltemi_plan::FilterOverride;
use meltemi_plan::ext_authz::{AuthzBody, AuthzBodyOverride, AuthzService, ExtAuthz as Config};
use meltemi_telemetry::{Spec, stats};

use crate::authz::{self, Changes, Peers, Refusal, Told, Verdict};
use crate::call::{Around, Caller, Early};
use crate::chain::{ChainScope, dotted};
use crate::context::Context;
use crate::edit::ResponseEdits;
use crate::flags::ResponseFlags;
use crate::info::StreamInfo;
use crate::query;
use crate::reply::{Flow, LocalReply};

stats! {
    struct AuthzStats {
        ok: Spec::counter("ok"),
        denied: Spec::counter("denied"),
        error: Spec::counter("error"),
        disabled: Spec::counter("disabled"),
        failure_mode_allowed: Spec::counter("failure_mode_allowed"),
    }
}

/// Where what a service tells is found in dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
const PARTIAL: &str = "x-envoy-auth-partial-body";

pub(crate) struct ExtAuthz {
    config: Arc<Config>,
    stats: AuthzStats,
}

/// What is told of a request's body.
struct Body {
    bytes: Vec<u8>,
    /// There was more.
    cut: bool,
    pack_as_bytes: bool,
}

impl ExtAuthz {
    pub fn new(config: Arc<Config>, scope: &ChainScope, context: &Context) -> Self {
        let metrics = scope.metrics(("ext_authz.", "envoy_http_ext_authz_"), &dotted(&config.stat_prefix));
        Self { stats: AuthzStats::new(&context.registry, metrics), config }
    }

    pub async fn on_request(
        &self,
        name: &str,
        (head, info): (&mut RequestHead, &mut StreamInfo),
        around: Around<'_>,
        edits: &mut ResponseEdits,
    ) -> Flow {
        if info.route.is_none() {
            return Flow::Continue;
        }
        if !self.is_enabled(info) {
            self.stats.disabled().inc();
            return if self.config.deny_at_disable { self.fail(None) } else { Flow::Continue };
        }
        let (body, extensions) = self.settings(name, info);
        let told = match body.filter(|_| may_have_body(head)) {
            None => None,
            Some(wanted) => match tell(wanted, around.early) {
                Ok(told) => told,
                Err(flow) => return flow,
            },
        };
        let started = Instant::now();
        let verdict = match &self.config.service {
            AuthzService::Grpc(target) => {
                let attributes = self.attributes(head, info, told, extensions);
                authz::check(target, attributes, around.caller).await
            }
            AuthzService::Http(service) => {
                over_http::check(&self.config, service, (&*head, told.as_ref()), around.caller).await
            }
        };
        match verdict {
            Verdict::Ok(changes) => self.allow(changes, started, (head, info), edits),
            Verdict::Denied(refusal) => self.deny(refusal, info),
            Verdict::Error(refusal) => {
                self.stats.error().inc();
                if !self.config.failure_mode_allow {
                    return self.fail(refusal);
                }
                self.stats.failure_mode_allowed().inc();
                if self.config.failure_mode_allow_header_add {
                    head.headers.append(FAILURE_ALLOWED, HeaderValue::from_static("true"));
                }
                Flow::Continue
            }
        }
    }

    fn is_enabled(&self, info: &StreamInfo) -> bool {
        let by_metadata =
            self.config.enabled_metadata.as_ref().is_none_or(|matcher| {
                matcher.value.matches(info.found(&matcher.filter, &matcher.path)) != matcher.invert
            });
        by_metadata && self.config.enabled.hits(rand::random())
    }

    /// What is told of the body, and the extensions of all levels.
    fn settings(&self, name: &str, info: &StreamInfo) -> (Option<AuthzBody>, BTreeMap<String, String>) {
        let mut extensions = BTreeMap::new();
        let mut body = self.config.body;
        for level in info.filter_overrides(name) {
            if let FilterOverride::ExtAuthz(own) = level {
                extensions.extend(own.context_extensions.clone());
                body = match own.body {
                    AuthzBodyOverride::Inherit => self.config.body,
                    AuthzBodyOverride::Never => None,
                    AuthzBodyOverride::Own(own) => Some(own),
                };
            }
        }
        (body, extensions)
    }

    fn attributes(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
        told: Option<Body>,
        extensions: BTreeMap<String, String>,
    ) -> meltemi_proto::envoy::service::auth::v3::AttributeContext {
        let config = &*self.config;
        let how = Peers { certificate: config.include_peer_certificate, tls_session: config.include_tls_session };
        let service = head.headers.get(&name::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER);
        let mut attributes = authz::peers(how, &config.metadata_namespaces, service, info);
        let cut = told.as_ref().map(|told| [(PARTIAL, if told.cut { "true" } else { "false" })]);
        let more = cut.as_ref().map_or(&[][..], |cut| &cut[..]);
        let sees = |name: &str| sees(config, name, true);
        let mut request = authz::request(head, info, Told { sees: &sees, more }, config.encode_raw_headers);
        if let (Some(told), Some(http)) = (told, &mut request.http) {
            match told.pack_as_bytes {
                true => http.raw_body = told.bytes.into(),
                false => http.body = String::from_utf8_lossy(&told.bytes).into_owned(),
            }
        }
        attributes.request = Some(request);
        attributes.context_extensions = extensions;
        attributes
    }

    fn allow(
        &self,
        mut changes: Changes,
        started: Instant,
        (head, info): (&mut RequestHead, &mut StreamInfo),
        edits: &mut ResponseEdits,
    ) -> Flow {
        self.stats.ok().inc();
        if !changes.metadata.is_empty() && self.config.takes_dynamic_metadata {
            let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            changes.metadata.insert("ext_authz_duration".to_owned(), took.into());
            info.find_out(NAMESPACE, std::mem::take(&mut changes.metadata));
        }
        let reroute = self.config.clear_route_cache && changes.touch_request();
        changes.request.iter().for_each(|edit| edit.on_request(head));
        changes.remove.iter().for_each(|name| drop(head.headers.remove(name)));
        if !(changes.query_set.is_empty() && changes.query_remove.is_empty()) {
            head.path = query::changed(&head.path, &changes.query_set, &changes.query_remove);
        }
        edits.append(&mut changes.response);
        if reroute { Flow::Reroute } else { Flow::Continue }
    }

    fn deny(&self, refusal: Refusal, info: &mut StreamInfo) -> Flow {
        self.stats.denied().inc();
        if !refusal.metadata.is_empty() && self.config.takes_dynamic_metadata {
            info.find_out(NAMESPACE, refusal.metadata.clone());
        }
        let status = refusal.status.unwrap_or(StatusCode::FORBIDDEN);
        self.reply(status, "ext_authz_denied", Some(refusal))
    }

    /// No verdict: refused, in the service's words where it has some.
    fn fail(&self, refusal: Option<Refusal>) -> Flow {
        let own = StatusCode::from_u16(self.config.status_on_error).unwrap_or(StatusCode::FORBIDDEN);
        let status = refusal.as_ref().and_then(|refusal| refusal.status).unwrap_or(own);
        self.reply(status, "ext_authz_error", refusal)
    }

    fn reply(&self, status: StatusCode, details: &'static str, refusal: Option<Refusal>) -> Flow {
        let mut reply = LocalReply::new(status, "", details).with_flags(ResponseFlags::UNAUTHORIZED_EXTERNAL);
        if let Some(refusal) = refusal {
            let mut head = ResponseHead::new(status);
            refusal.headers.iter().for_each(|edit| edit.on_response(&mut head));
            reply.headers = head.headers;
            let mut body = refusal.body;
            if let Some(most) = self.config.max_denied_body {
                body.truncate(body.floor_char_boundary(most));
            }
            reply.body = body.into();
        }
        reply.into()
    }
}

/// Whether the service sees a header. Without a list one over gRPC sees all, one over HTTP these.
fn sees(config: &Config, name: &str, all: bool) -> bool {
    let listed = |list: &[meltemi_matchers::StringMatcher]| list.iter().any(|matcher| matcher.matches(name));
    let allowed = config.allowed_headers.as_deref().map_or(all, listed);
    let always = !all && name == "authorization";
    (allowed || always) && !listed(&config.disallowed_headers)
}

/// A tunnel's bytes are nobody's body.
fn may_have_body(head: &RequestHead) -> bool {
    head.upgrade.is_none() && head.method != Method::CONNECT
}

/// What is told of the body; more of it has to be read, or it is too long, where there is another flow. `None`: there is none.
fn tell(wanted: AuthzBody, early: Option<&Early>) -> Result<Option<Body>, Flow> {
    // One byte more tells whether there is more.
    let enough = wanted.max_bytes.saturating_add(usize::from(!wanted.allow_partial));
    let Some(early) = early.filter(|early| early.complete || early.byte_size() >= enough) else {
        return Err(Flow::Body(enough));
    };
    if early.frames.is_empty() {
        return Ok(None);
    }
    let cut = early.byte_size() > wanted.max_bytes;
    if cut && !wanted.allow_partial {
        return Err(
            LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large", "request_payload_too_large").into()
        );
    }
    Ok(Some(Body { bytes: early.bytes(wanted.max_bytes), cut, pack_as_bytes: wanted.pack_as_bytes }))
}
