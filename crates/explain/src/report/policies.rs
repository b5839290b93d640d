//! What policies decide, at this proxy and at the one where the request arrives.

use meltemi_config::Kind;
use meltemi_model::Workload;
use serde_json::{Value, json};

use super::{Question, Step};
use crate::policy::{self, Answer, Decision, Rule};
use crate::request::{Request, Security};
use crate::walk::Outcome;

/// What the policies of the proxy in question say.
pub(super) fn decide(question: &Question<'_>, request: &Request, outcome: &Outcome<'_>) -> Vec<Decision> {
    let find = |issuer: &str| {
        let mesh = question.mesh?;
        of_issuer(mesh, &Workload::new(question.namespace, question.labels), issuer)
    };
    policy::decide(outcome, request, &find)
}

/// The rule of a RequestAuthentication that takes tokens of an issuer.
pub(super) fn of_issuer(mesh: &crate::Mesh, workload: &Workload<'_>, issuer: &str) -> Option<Rule> {
    let policies = mesh.snapshot.request_authentications(workload);
    policies.iter().find_map(|policy| {
        let index = policy.spec.jwt_rules.iter().position(|rule| *rule.issuer == *issuer)?;
        let key = meltemi_config::Key::new(Kind::RequestAuthentication, &policy.namespace, &policy.name);
        Some(Rule { key, path: format!("spec.jwtRules[{index}]") })
    })
}

/// The step that tells of them; none where no policy has a say.
pub(super) fn step(question: &Question<'_>, decisions: &[Decision]) -> Option<Step> {
    let why = policy::summary(decisions)?;
    let rules = decisions.iter().filter_map(|decision| decision.rule.as_ref());
    let places = rules.filter_map(|rule| question.origins.place(&rule.key, &rule.path)).collect();
    let facts = decisions.iter().map(|decision| ("policies", decision.text())).collect();
    Some(Step { kind: "policies", why, places, facts, is_found: true, ..Step::default() })
}

/// What becomes of the request by them, where they decide it.
pub(super) fn verdict(decisions: &[Decision]) -> Option<String> {
    let refused = decisions.iter().find(|decision| decision.is_refusal())?;
    let how = match refused.answer {
        Answer::Refused(Some(status)) => format!("answered {status}"),
        _ => "closed".to_owned(),
    };
    Some(format!("{how}: {}", refused.text()))
}

/// On whom it depends whether the request goes on.
pub(super) fn condition(decisions: &[Decision]) -> Option<String> {
    let asked = decisions.iter().find_map(|decision| match &decision.answer {
        Answer::Asked(provider) => Some(provider),
        _ => None,
    })?;
    Some(format!("if {asked} allows it"))
}

/// What is assumed of whoever asks, where that counts.
pub(super) fn notes(request: &Request, decisions: &[Decision]) -> Vec<String> {
    if decisions.is_empty() {
        return Vec::new();
    }
    let mut notes = Vec::new();
    if request.security == Security::Mtls && request.principal.is_empty() {
        notes.push(
            "whom the client's certificate names is not known: rules about identities do not match (--principal)",
        );
    }
    if request.source.is_none() {
        notes.push("the client's address is not known: rules about addresses take it for 0.0.0.0 (--source-ip)");
    }
    notes.into_iter().map(str::to_owned).collect()
}

pub(super) fn json(question: &[Decision]) -> Value {
    question.iter().map(one).collect()
}

fn one(decision: &Decision) -> Value {
    let answer = match &decision.answer {
        Answer::Passed => "passed",
        Answer::Refused(_) => "refused",
        Answer::Asked(_) => "asked",
    };
    let status = match decision.answer {
        Answer::Refused(status) => json!(status),
        _ => Value::Null,
    };
    let provider = match &decision.answer {
        Answer::Asked(provider) => json!(provider.trim_start_matches("provider ")),
        _ => Value::Null,
    };
    json!({
        "action": decision.kind,
        "answer": answer,
        "status": status,
        "provider": provider,
        "dry_run": decision.is_dry_run,
        "policy": decision.rule.as_ref().map(|rule| json!({
            "kind": rule.key.kind.as_str(),
            "namespace": &*rule.key.namespace,
            "name": &*rule.key.name,
            "rule": rule.path,
        })),
        "why": decision.text(),
    })
}
