//! Fault injection: delays and aborts, by percentage or by the request's own headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use meltemi_http::{HeaderName, Headers, RequestHead, StatusCode, name};
use meltemi_plan::filter::{self as plan, FaultAbortBy, FaultDelayBy};
use meltemi_plan::{FilterOverride, Fraction, HeaderMatcher};
use meltemi_telemetry::{Spec, stats};

use crate::chain::ChainScope;
use crate::context::Context;
use crate::flags::ResponseFlags;
use crate::info::StreamInfo;
use crate::lookup::RequestFields;
use crate::reply::{Flow, LocalReply};

stats! {
    pub(crate) struct FaultStats {
        delays_injected: Spec::counter("delays_injected"),
        aborts_injected: Spec::counter("aborts_injected"),
        faults_overflow: Spec::counter("faults_overflow"),
        active_faults: Spec::gauge("active_faults"),
    }
}

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");

/// The body of an abort that brings none of its own.
const ABORTED: &str = "fault filter abort";

struct Shared {
    active: AtomicU32,
    stats: FaultStats,
}

pub(crate) struct Fault {
    config: Arc<plan::Fault>,
    shared: Arc<Shared>,
}

/// A fault that counts as active until its stream ends.
pub(crate) struct ActiveFault(Arc<Shared>);

impl std::fmt::Debug for ActiveFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ActiveFault")
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
        self.0.stats.active_faults().dec();
    }
}

enum Abort {
    Http(StatusCode),
    Grpc(u32),
}

impl Fault {
    pub fn new(config: Arc<plan::Fault>, scope: &ChainScope, context: &Context) -> Self {
        let metrics = scope.metrics(("fault.", "envoy_http_fault_"), "");
        let stats = FaultStats::new(&context.registry, metrics);
        Self { config, shared: Arc::new(Shared { active: AtomicU32::new(0), stats }) }
    }

    pub async fn on_request(
        &self,
        name: &str,
        head: &RequestHead,
        info: &mut StreamInfo,
        active: &mut Option<ActiveFault>,
    ) -> Flow {
        let config = match info.filter_override(name) {
            Some(FilterOverride::Fault(own)) => own.clone(),
            _ => self.config.clone(),
        };
        if (config.delay.is_none() && config.abort.is_none()) || !applies(&config, head, info) {
            return Flow::Continue;
        }
        if let Some(delay) = delay(&config, head, rand::random())
            && self.begin(&config, active)
        {
            info.flags |= ResponseFlags::DELAY_INJECTED;
            self.shared.stats.delays_injected().inc();
            tokio::time::sleep(delay).await;
        }
        let Some(abort) = abort(&config, head, info.is_grpc, rand::random()) else { return Flow::Continue };
        if active.is_none() && !self.begin(&config, active) {
            return Flow::Continue;
        }
        self.shared.stats.aborts_injected().inc();
        let body =
            config.abort.as_ref().map(|a| &*a.body).filter(|body| !body.is_empty()).unwrap_or(ABORTED).to_owned();
        let mut reply = LocalReply::new(StatusCode::OK, body, "fault_filter_abort");
        reply.flags = ResponseFlags::FAULT_INJECTED;
        match abort {
            Abort::Http(status) => reply.status = status,
            Abort::Grpc(status) => reply.grpc_status = Some(status),
        }
        reply.into()
    }

    /// Whether one more fault may be active.
    fn begin(&self, config: &plan::Fault, active: &mut Option<ActiveFault>) -> bool {
        if config.max_active.is_some_and(|max| self.shared.active.load(Relaxed) >= max) {
            self.shared.stats.faults_overflow().inc();
            return false;
        }
        self.shared.active.fetch_add(1, Relaxed);
        self.shared.stats.active_faults().inc();
        *active = Some(ActiveFault(self.shared.clone()));
        true
    }
}

fn applies(config: &plan::Fault, head: &RequestHead, info: &StreamInfo) -> bool {
    let cluster = info.upstream.cluster.as_ref().map(|c| &*c.name);
    if config.upstream_cluster.as_deref().is_some_and(|wanted| cluster != Some(wanted)) {
        return false;
    }
    if !HeaderMatcher::all_match(&config.headers, &RequestFields(head)) {
        return false;
    }
    let node = || head.headers.get_str(&name::X_ENVOY_DOWNSTREAM_SERVICE_NODE);
    config.downstream_nodes.is_empty() || config.downstream_nodes.iter().any(|n| node() == Some(n))
}

fn number<T: std::str::FromStr>(headers: &Headers, name: &HeaderName) -> Option<T> {
    headers.get_str(name)?.parse().ok()
}

/// A percentage in a header may lower the configured one, never raise it.
fn limited(fraction: Fraction, headers: &Headers, percentage: &HeaderName) -> Fraction {
    match number::<u32>(headers, percentage) {
        Some(numerator) => Fraction { numerator: numerator.min(fraction.numerator), ..fraction },
        None => fraction,
    }
}

fn delay(config: &plan::Fault, head: &RequestHead, roll: u64) -> Option<Duration> {
    let delay = config.delay.as_ref()?;
    let (duration, fraction) = match delay.by {
        FaultDelayBy::Fixed(duration) => (duration, delay.fraction),
        FaultDelayBy::Header => {
            let millis = number(&head.headers, &DELAY)?;
            (Duration::from_millis(millis), limited(delay.fraction, &head.headers, &DELAY_PERCENTAGE))
        }
    };
    (!duration.is_zero() && fraction.hits(roll)).then_some(duration)
}

fn abort(config: &plan::Fault, head: &RequestHead, is_grpc: bool, roll: u64) -> Option<Abort> {
    let abort = config.abort.as_ref()?;
    let status = |code: u16| StatusCode::from_u16(code).ok().filter(|s| (200..600).contains(&s.as_u16()));
    let (kind, fraction) = match abort.by {
        FaultAbortBy::Http(code) => (Abort::Http(status(code)?), abort.fraction),
        FaultAbortBy::Grpc(code) => (Abort::Grpc(code), abort.fraction),
        FaultAbortBy::Header => {
            let http = number(&head.headers, &ABORT).and_then(status);
            let grpc = || number(&head.headers, &ABORT_GRPC).filter(|_| is_grpc);
            let kind = http.map(Abort::Http).or_else(|| grpc().map(Abort::Grpc))?;
            (kind, limited(abort.fraction, &head.headers, &ABORT_PERCENTAGE))
        }
    };
    fraction.hits(roll).then_some(kind)
}
