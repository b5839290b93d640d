//! What the policies of a proxy say of a request: its filters are gone through in their order, and each set of rules is asked by
//! the engine that the proxy has ([`meltemi_filters::rbac`]).
//!
//! Owns which rule of which policy a filter's rule was made of. Nobody is asked in place of an external authorizer: what it would
//! say stays open. Tokens are not verified: the claims that a request is given count as those of a valid token.

mod facts;
mod tokens;

#[cfg(test)]
mod tests;

use meltemi_config::{Key, Kind};
use meltemi_filters::{StreamInfo, rbac};
use meltemi_http::RequestHead;
use meltemi_plan::filter::{FilterOverride, HttpFilter, HttpFilterConfig, RbacFilter};
use meltemi_plan::rbac::MetadataMatcher;
use meltemi_plan::{NetworkFilter, RbacAction};
use meltemi_translate::authorization::{BAD_CUSTOM, CUSTOM_METADATA, CUSTOM_POLICY};

use crate::request::Request;
use crate::walk::{Failure, Outcome, as_routed};

/// Under which filters leave what they found.
const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const TCP_RBAC: &str = "envoy.filters.network.rbac";

const FORBIDDEN: u16 = 403;

/// Finds the RequestAuthentication that takes tokens of an issuer.
pub type PolicyOf<'a> = &'a dyn Fn(&str) -> Option<Rule>;

/// What one kind of policies said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `CUSTOM`, `tokens`, `AUDIT`, `DENY`, `ALLOW`.
    pub kind: &'static str,
    pub answer: Answer,
    /// Only told: it decides nothing.
    pub is_dry_run: bool,
    /// The rule that decided; none where it decided that no rule matched.
    pub rule: Option<Rule>,
    /// In place of a rule.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Passed,
    /// With this status; a connection is closed.
    Refused(Option<u16>),
    /// The provider of this name decides.
    Asked(String),
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub key: Key,
    /// `spec.rules[1]`.
    pub path: String,
}

impl Rule {
    /// Of the name that translation gives a rule: `ns[shop]-policy[readers]-rule[0]`, for CUSTOM with something before it.
    fn of_name(name: &str) -> Option<Self> {
        let (_, rest) = name.split_once("ns[")?;
        let (namespace, rest) = rest.split_once("]-policy[")?;
        let (policy, rest) = rest.split_once("]-rule[")?;
        let (index, _) = rest.split_once(']')?;
        let index: usize = index.parse().ok()?;
        let key = Key::new(Kind::AuthorizationPolicy, namespace, policy);
        Some(Self { key, path: format!("spec.rules[{index}]") })
    }

    /// `AuthorizationPolicy shop/readers spec.rules[1]`.
    pub fn title(&self) -> String {
        format!("{} {}", self.key, self.path)
    }
}

impl Decision {
    fn new(kind: &'static str, answer: Answer) -> Self {
        Self { kind, answer, is_dry_run: false, rule: None, why: String::new() }
    }

    pub fn is_refusal(&self) -> bool {
        !self.is_dry_run && matches!(self.answer, Answer::Refused(_))
    }

    /// In a sentence without an end: `DENY AuthorizationPolicy shop/x spec.rules[0] refuses it`.
    pub fn text(&self) -> String {
        let whose = self.rule.as_ref().map_or_else(|| self.why.clone(), |rule| format!("{} matches", rule.title()));
        let end = match (&self.answer, self.is_dry_run) {
            (Answer::Asked(provider), _) => return format!("{}: {whose}, so {provider} is asked", self.kind),
            (_, true) if matches!(self.answer, Answer::Passed) => "and would pass it (dry run)".to_owned(),
            (_, true) => "and would refuse it (dry run)".to_owned(),
            (Answer::Passed, _) => return format!("{}: {whose}", self.kind),
            (Answer::Refused(Some(_)), _) => "so it is refused".to_owned(),
            (Answer::Refused(None), _) => "so the connection is closed".to_owned(),
        };
        format!("{}: {whose}, {end}", self.kind)
    }
}

/// The decisions in force in one sentence; none where no policy has a say.
pub fn summary(decisions: &[Decision]) -> Option<String> {
    let in_force = || decisions.iter().filter(|decision| !decision.is_dry_run);
    if let Some(refused) = in_force().find(|decision| decision.is_refusal()) {
        return Some(format!("refused by {}", refused.text()));
    }
    let asked = in_force().find(|decision| matches!(decision.answer, Answer::Asked(_)));
    let allowed = in_force().rev().find(|decision| decision.rule.is_some() && decision.answer == Answer::Passed);
    Some(format!("passed by {}", asked.or(allowed).or_else(|| in_force().next_back())?.text()))
}

/// What each filter with policies says, up to the first that refuses.
pub fn decide(outcome: &Outcome<'_>, request: &Request, policy_of: PolicyOf<'_>) -> Vec<Decision> {
    let Some(chain) = outcome.chain.filter(|_| {
        // Nothing got as far as the filters.
        !matches!(outcome.failure, Some(Failure::Tls | Failure::Mtls | Failure::Protocol))
    }) else {
        return Vec::new();
    };
    let mut passage = Passage { info: facts::info(outcome, request), decisions: Vec::new() };
    for filter in &chain.filters {
        match filter {
            NetworkFilter::Rbac(own) => passage.rules(&own.rules, None),
            NetworkFilter::ExtAuthz(own) => passage.ask(own.enabled_metadata.as_ref()),
            _ => {}
        }
        if passage.is_over() {
            return passage.decisions;
        }
    }
    let Some(manager) = outcome.manager else { return passage.decisions };
    let routed = as_routed(request, manager);
    if let Some(client) = facts::forwarded(&routed, manager) {
        passage.info.remote = client.into();
    }
    let head = facts::head(&routed);
    for filter in &manager.http_filters {
        passage.http(filter, &head, (&routed, policy_of));
        if passage.is_over() {
            break;
        }
    }
    passage.decisions
}

/// Whether the request's token is still in it behind this proxy.
pub fn keeps_token(outcome: &Outcome<'_>, request: &Request) -> bool {
    let filters = outcome.manager.iter().flat_map(|manager| &manager.http_filters);
    filters.into_iter().all(|filter| match &filter.config {
        HttpFilterConfig::JwtAuthn(config) => tokens::stays(config, request),
        _ => true,
    })
}

/// A request on its way through the filters.
struct Passage {
    info: StreamInfo,
    decisions: Vec<Decision>,
}

impl Passage {
    fn is_over(&self) -> bool {
        self.decisions.last().is_some_and(Decision::is_refusal)
    }

    fn http(&mut self, filter: &HttpFilter, head: &RequestHead, (request, policy_of): (&Request, PolicyOf<'_>)) {
        let own = self.info.filter_override(&filter.name).cloned();
        let is_off = match &own {
            Some(FilterOverride::Disabled | FilterOverride::Rbac(None)) => true,
            Some(_) => false,
            None => filter.disabled,
        };
        match &filter.config {
            _ if is_off => {}
            HttpFilterConfig::Rbac(config) => match own {
                Some(FilterOverride::Rbac(Some(own))) => self.rules(&own, Some(head)),
                _ => self.rules(config, Some(head)),
            },
            HttpFilterConfig::ExtAuthz(config) => self.ask(config.enabled_metadata.as_ref()),
            HttpFilterConfig::JwtAuthn(config) => {
                let decision = tokens::judge(config, request, &mut self.info, policy_of);
                self.decisions.push(decision);
            }
            _ => {}
        }
    }

    fn rules(&mut self, filter: &RbacFilter, head: Option<&RequestHead>) {
        if let Some(shadow) = &filter.shadow_rules {
            let verdict = rbac::evaluate(shadow, head, &self.info);
            if *filter.shadow_rules_stat_prefix != *CUSTOM_METADATA {
                let decision = said(shadow.action, verdict.allowed, verdict.policy, head.is_some());
                self.decisions.extend(decision.map(|decision| Decision { is_dry_run: true, ..decision }));
            }
            let found = verdict.as_metadata(&filter.shadow_rules_stat_prefix);
            self.info.find_out(if head.is_some() { HTTP_RBAC } else { TCP_RBAC }, found);
        }
        if let Some(rules) = &filter.rules {
            let verdict = rbac::evaluate(rules, head, &self.info);
            self.decisions.extend(said(rules.action, verdict.allowed, verdict.policy, head.is_some()));
        }
    }

    /// An external authorizer is asked about what a CUSTOM policy chose.
    fn ask(&mut self, wanted: Option<&MetadataMatcher>) {
        let Some(matcher) = wanted else {
            let why = "a filter asks about every request".to_owned();
            let answer = Answer::Asked("an external authorizer".to_owned());
            return self.decisions.push(Decision { why, ..Decision::new("CUSTOM", answer) });
        };
        let found = self.info.found(&matcher.filter, &matcher.path);
        if matcher.value.matches(found) == matcher.invert {
            return;
        }
        let name = found.and_then(|found| found.as_str()).unwrap_or_default();
        let provider = name.strip_prefix(CUSTOM_POLICY).and_then(|rest| rest.split_once("-ns[")).map(|(name, _)| name);
        let provider = provider.map(|name| name.trim_start_matches('-')).filter(|name| !name.is_empty());
        let answer = Answer::Asked(format!("provider {}", provider.unwrap_or("of no name")));
        let (rule, why) = (Rule::of_name(name), name.to_owned());
        self.decisions.push(Decision { rule, why, ..Decision::new("CUSTOM", answer) });
    }
}

/// What a set of rules said; nothing where AUDIT has nothing to tell.
fn said(action: RbacAction, allowed: bool, policy: Option<&str>, is_request: bool) -> Option<Decision> {
    let is_broken = policy.is_some_and(|policy| policy.ends_with(BAD_CUSTOM));
    let (kind, nothing) = match action {
        RbacAction::Allow => ("ALLOW", "no rule matches"),
        RbacAction::Deny if is_broken => ("CUSTOM without its provider", ""),
        RbacAction::Deny => ("DENY", "no rule matches"),
        RbacAction::Log => ("AUDIT", ""),
    };
    if action == RbacAction::Log && policy.is_none() {
        return None;
    }
    let answer = if allowed { Answer::Passed } else { Answer::Refused(is_request.then_some(FORBIDDEN)) };
    let rule = policy.and_then(Rule::of_name);
    let why = policy.map_or_else(|| nothing.to_owned(), |policy| format!("rule {policy} matches"));
    Some(Decision { rule, why, ..Decision::new(kind, answer) })
}
