//! HTTP as the API server speaks it to webhooks: a review in, a review out.
//!
//! Owns what is answered with which status, and the counters. Has no sockets: who listens gives it what came.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use meltemi_telemetry::metrics::{Kind, Labels, Scope};
use meltemi_telemetry::{Counter, Group, Registry, Spec};

use crate::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, ReviewVersion, answer};
use crate::inject::{InjectError, Outcome};

/// Of a request's body: four times what Kubernetes stores of one object.
pub const MAX_BODY_BYTES: usize = 6 << 20;

/// Istiod's buckets, in thousandths of a second.
const TIMES: &[u64] = &[100, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000, 60_000];

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What came.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn text(status: u16, text: &str) -> Self {
        Self { status, content_type: TEXT, body: text.as_bytes().to_vec() }
    }
}

/// Istio's counters of injection.
#[derive(Clone)]
pub struct InjectionStats {
    requests: Counter,
    succeeded: Counter,
    failed: Counter,
    skipped: Counter,
    /// One histogram.
    time: Group,
}

impl InjectionStats {
    pub fn new(registry: &Registry) -> Self {
        let counter = |name| registry.counter(name, Labels::default());
        let times =
            Spec { name: Cow::Borrowed("sidecar_injection_time_seconds"), kind: Kind::Histogram(TIMES), tag: None };
        Self {
            requests: counter("sidecar_injection_requests_total"),
            succeeded: counter("sidecar_injection_success_total"),
            failed: counter("sidecar_injection_failure_total"),
            skipped: counter("sidecar_injection_skip_total"),
            time: registry.group(Scope::default(), vec![times]),
        }
    }

    fn took(&self, elapsed: Duration) {
        self.time.record(0, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    }

    /// A request that could not be read to its end.
    pub fn unread(&self) {
        self.requests.inc();
        self.failed.inc();
    }
}

/// Answers `/inject` by what `decide` makes of the pod.
pub fn inject(
    asked: Asked<'_>,
    stats: &InjectionStats,
    decide: impl FnOnce(&AdmissionRequest) -> Result<Outcome, InjectError>,
) -> Answered {
    let started = Instant::now();
    stats.requests.inc();
    let answered = review(asked, |request| match decide(request) {
        Ok(Outcome::Injected(patch)) => {
            stats.succeeded.inc();
            AdmissionResponse::patched(patch)
        }
        Ok(Outcome::Skipped) => {
            stats.skipped.inc();
            stats.succeeded.inc();
            AdmissionResponse::allow()
        }
        Err(error) => {
            tracing::error!(namespace = request.namespace, %error, "a pod is not injected");
            stats.failed.inc();
            AdmissionResponse::refuse(error.to_string())
        }
    });
    if let Err(refused) = &answered {
        tracing::error!(reason = %String::from_utf8_lossy(&refused.body), "a request for injection cannot be read");
        stats.failed.inc();
    }
    stats.took(started.elapsed());
    answered.unwrap_or_else(|refused| refused)
}

/// Answers `/validate`.
pub fn validate(asked: Asked<'_>, admit: impl FnOnce(&AdmissionRequest) -> AdmissionResponse) -> Answered {
    review(asked, admit).unwrap_or_else(|refused| refused)
}

/// Reads the review and writes the answer; an error is the answer to what is no review.
fn review(asked: Asked<'_>, decide: impl FnOnce(&AdmissionRequest) -> AdmissionResponse) -> Result<Answered, Answered> {
    if asked.body.is_empty() {
        return Err(Answered::text(400, "no body found"));
    }
    let media_type = asked.content_type.and_then(|given| given.split(';').next()).map(str::trim);
    if media_type != Some(JSON) {
        return Err(Answered::text(415, "invalid Content-Type, want `application/json`"));
    }
    match AdmissionReview::parse(asked.body) {
        Ok(review) => Ok(written(review.version, &review.request.uid, &decide(&review.request))),
        // Who asked reads reviews only.
        Err(error) => Err(written(ReviewVersion::V1, "", &AdmissionResponse::refuse(error.to_string()))),
    }
}

fn written(version: ReviewVersion, uid: &str, response: &AdmissionResponse) -> Answered {
    Answered { status: 200, content_type: JSON, body: answer(version, uid, response).to_string().into_bytes() }
}

#[cfg(test)]
mod tests;
