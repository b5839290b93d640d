//! Filters that say whether a connection may go on: rules (`envoy.filters.network.rbac`) and services that are asked
//! (`envoy.filters.network.ext_authz`), with what they count under Envoy's names.

use std::sync::Arc;

use meltemi_plan::NetworkFilter;
use meltemi_plan::ext_authz::NetworkExtAuthz;
use meltemi_plan::listener::NetworkRbac;
use meltemi_telemetry::metrics::{Labels, Prefix, Scope};
use meltemi_telemetry::{Spec, stats};

use crate::authz::{self, Verdict};
use crate::call::Caller;
use crate::chain::dotted;
use crate::context::Context;
use crate::flags::ResponseFlags;
use crate::info::StreamInfo;
use crate::rbac;

stats! {
    struct RuleStats {
        allowed: Spec::counter("allowed"),
        denied: Spec::counter("denied"),
    }
}

stats! {
    struct ShadowStats {
        allowed: Spec::counter("shadow_allowed"),
        denied: Spec::counter("shadow_denied"),
    }
}

stats! {
    struct ServiceStats {
        total: Spec::counter("total"),
        ok: Spec::counter("ok"),
        denied: Spec::counter("denied"),
        error: Spec::counter("error"),
        failure_mode_allowed: Spec::counter("failure_mode_allowed"),
        disabled: Spec::counter("disabled"),
        cx_closed: Spec::counter("cx_closed"),
        active: Spec::gauge("active"),
    }
}

/// Counts a question for as long as it is open.
struct Asked<'a>(&'a ServiceStats);

impl<'a> Asked<'a> {
    fn new(stats: &'a ServiceStats) -> Self {
        stats.total().inc();
        stats.active().inc();
        Self(stats)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.active().dec();
    }
}

/// One such filter of a chain.
pub enum Guard {
    Rules(Box<Rules>),
    Service(Box<Service>),
}

pub struct Rules {
    config: Arc<NetworkRbac>,
    stats: RuleStats,
    shadow: ShadowStats,
}

pub struct Service {
    config: Arc<NetworkExtAuthz>,
    stats: ServiceStats,
}

impl Guard {
    /// `None`: of another kind.
    pub fn of(filter: &NetworkFilter, context: &Context) -> Option<Self> {
        match filter {
            NetworkFilter::Rbac(config) => Some(Self::Rules(Box::new(Rules::new(config.clone(), context)))),
            NetworkFilter::ExtAuthz(config) => Some(Self::Service(Box::new(Service::new(config.clone(), context)))),
            _ => None,
        }
    }

    /// The details of a refusal.
    pub async fn admit(&self, info: &mut StreamInfo, caller: &dyn Caller) -> Result<(), String> {
        match self {
            Self::Rules(rules) => rules.admit(info),
            Self::Service(service) => service.admit(info, caller).await,
        }
    }
}

impl Rules {
    fn new(config: Arc<NetworkRbac>, context: &Context) -> Self {
        // A prefix may come with its dot.
        let prefix = config.stat_prefix.trim_end_matches('.');
        let scope = |own: &str| Scope {
            prefix: Prefix::Plain(format!("{}rbac.{}", dotted(prefix), dotted(own)).into()),
            prometheus: format!("envoy_rbac_{}", dotted(own).replace(['.', '-'], "_")).into(),
            labels: Labels::new([("envoy_rbac_prefix", prefix)]),
        };
        let shadow = scope(&config.rules.shadow_rules_stat_prefix);
        Self {
            stats: RuleStats::new(&context.registry, scope("")),
            shadow: ShadowStats::new(&context.registry, shadow),
            config,
        }
    }

    fn admit(&self, info: &mut StreamInfo) -> Result<(), String> {
        let rules = &self.config.rules;
        if let Some(shadow) = &rules.shadow_rules {
            let verdict = rbac::try_out(shadow, None, info);
            let counter = if verdict.allowed { self.shadow.allowed() } else { self.shadow.denied() };
            counter.inc();
            let found = verdict.as_metadata(&rules.shadow_rules_stat_prefix);
            info.find_out("envoy.filters.network.rbac", found);
        }
        let Some(enforced) = &rules.rules else { return Ok(()) };
        let verdict = rbac::enforce(enforced, None, info);
        if verdict.allowed {
            self.stats.allowed().inc();
            return Ok(());
        }
        self.stats.denied().inc();
        Err(rbac::denial(verdict.policy))
    }
}

impl Service {
    fn new(config: Arc<NetworkExtAuthz>, context: &Context) -> Self {
        let prefix = format!("ext_authz.{}.", config.stat_prefix);
        let prometheus = format!("envoy_{}", prefix.replace(['.', '-'], "_")).into();
        let scope = Scope { prefix: Prefix::Plain(prefix.into()), prometheus, ..Scope::default() };
        Self { stats: ServiceStats::new(&context.registry, scope), config }
    }

    async fn admit(&self, info: &mut StreamInfo, caller: &dyn Caller) -> Result<(), String> {
        let enabled =
            self.config.enabled_metadata.as_ref().is_none_or(|matcher| {
                matcher.value.matches(info.found(&matcher.filter, &matcher.path)) != matcher.invert
            });
        if !enabled {
            self.stats.disabled().inc();
            return Ok(());
        }
        let verdict = {
            let _asked = Asked::new(&self.stats);
            authz::admission(&self.config, info, caller).await
        };
        let admitted = match &verdict {
            Verdict::Ok(_) => {
                self.stats.ok().inc();
                true
            }
            Verdict::Denied(_) => {
                self.stats.denied().inc();
                false
            }
            Verdict::Error(_) => {
                self.stats.error().inc();
                if self.config.failure_mode_allow {
                    self.stats.failure_mode_allowed().inc();
                }
                self.config.failure_mode_allow
            }
        };
        let found = match verdict {
            Verdict::Ok(changes) => changes.metadata,
            Verdict::Denied(refusal) => refusal.metadata,
            Verdict::Error(_) => Default::default(),
        };
        info.find_out("envoy.filters.network.ext_authz", found);
        if admitted {
            return Ok(());
        }
        self.stats.cx_closed().inc();
        info.flags |= ResponseFlags::UNAUTHORIZED_EXTERNAL;
        Err("ext_authz_close".to_owned())
    }
}
