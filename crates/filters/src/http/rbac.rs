//! RBAC on requests: 403 with the policy that denied in the details.

use std::sync::Arc;

use meltemi_http::{RequestHead, StatusCode};
use meltemi_plan::FilterOverride;
use meltemi_plan::filter::RbacFilter;
use meltemi_telemetry::metrics::{Labels, Scope};
use meltemi_telemetry::{Spec, stats};

use crate::chain::{ChainScope, dotted};
use crate::context::Context;
use crate::info::StreamInfo;
use crate::rbac;
use crate::reply::{Flow, LocalReply};

stats! {
    pub(crate) struct RbacStats {
        allowed: Spec::counter("allowed"),
        denied: Spec::counter("denied"),
    }
}

stats! {
    pub(crate) struct ShadowStats {
        allowed: Spec::counter("shadow_allowed"),
        denied: Spec::counter("shadow_denied"),
    }
}

pub(crate) struct Rbac {
    config: Arc<RbacFilter>,
    stats: RbacStats,
    shadow: ShadowStats,
}

/// Rules in force and in shadow have prefixes of their own, each a label in Prometheus.
fn metrics(scope: &ChainScope, own: &str) -> Scope {
    let mut metrics = scope.metrics(("rbac.", "envoy_http_rbac_"), &dotted(own));
    if !own.is_empty() {
        metrics.labels = Labels::new(metrics.labels.iter().chain([("envoy_rbac_http_prefix", own)]));
    }
    metrics
}

impl Rbac {
    pub fn new(config: Arc<RbacFilter>, scope: &ChainScope, context: &Context) -> Self {
        let stats = metrics(scope, &config.rules_stat_prefix);
        let shadow = metrics(scope, &config.shadow_rules_stat_prefix);
        Self {
            stats: RbacStats::new(&context.registry, stats),
            shadow: ShadowStats::new(&context.registry, shadow),
            config,
        }
    }

    pub fn on_request(&self, name: &str, head: &RequestHead, info: &mut StreamInfo) -> Flow {
        let config = match info.filter_override(name) {
            Some(FilterOverride::Rbac(None)) => return Flow::Continue,
            Some(FilterOverride::Rbac(Some(own))) => own.clone(),
            _ => self.config.clone(),
        };
        if let Some(rules) = &config.shadow_rules {
            let verdict = rbac::try_out(rules, Some(head), info);
            let counter = if verdict.allowed { self.shadow.allowed() } else { self.shadow.denied() };
            counter.inc();
            let found = verdict.as_metadata(&config.shadow_rules_stat_prefix);
            info.find_out("envoy.filters.http.rbac", found);
        }
        let Some(rules) = &config.rules else { return Flow::Continue };
        let verdict = rbac::enforce(rules, Some(head), info);
        if verdict.allowed {
            self.stats.allowed().inc();
            return Flow::Continue;
        }
        self.stats.denied().inc();
        LocalReply::new(StatusCode::FORBIDDEN, "RBAC: access denied", rbac::denial(verdict.policy)).into()
    }
}
