//! A report as JSON: Istio's names at the top, the rest below.

use serde_json::{Map, Value, json};

use super::{Candidate, Passed, Report, Step, Upstream, policies};
use crate::origin::Place;

impl Report {
    /// `error`, `listener`, `filter_chain`, `route_config`, `virtual_host`, `route` and `cluster` as [`crate::Outcome::names`] has
    /// them, then what a person is told.
    pub fn json(&self) -> Value {
        let mut value = self.names.clone();
        value["proxy"] = json!(self.proxy);
        value["request"] = json!(self.request);
        value["verdict"] = json!(self.verdict);
        value["served"] = json!(self.is_served);
        let of_route = |name: &str| {
            let route = self.steps.iter().find(|step| step.kind == "route");
            let facts = route.into_iter().flat_map(|step| &step.facts);
            facts.clone().find(|(key, _)| *key == name).map(|(_, text)| text.clone())
        };
        value["timeout"] = json!(of_route("timeout"));
        value["retries"] = json!(of_route("retries"));
        value["policies"] = policies::json(&self.policies);
        value["steps"] = self.steps.iter().map(step).collect();
        value["clusters"] = self.upstreams.iter().map(upstream).collect();
        value["notes"] = json!(self.notes);
        value
    }
}

fn step(step: &Step) -> Value {
    json!({
        "step": step.kind,
        "name": step.name,
        "why": step.why,
        "decided_by": step.places.iter().map(Place::json).collect::<Vec<_>>(),
        "in_force": facts(&step.facts),
        "passed_over": step.passed.iter().map(passed).collect::<Vec<_>>(),
    })
}

fn passed(passed: &Passed) -> Value {
    json!({
        "name": passed.name,
        "reason": passed.reason,
        "decided_by": passed.place.as_ref().map(Place::json),
    })
}

fn upstream(upstream: &Upstream) -> Value {
    json!({
        "name": upstream.cluster,
        "share_percent": upstream.share,
        "problem": upstream.problem,
        "decided_by": upstream.places.iter().map(Place::json).collect::<Vec<_>>(),
        "in_force": facts(&upstream.facts),
        "endpoints": upstream.endpoints.iter().map(candidate).collect::<Vec<_>>(),
    })
}

fn candidate(candidate: &Candidate) -> Value {
    json!({
        "address": candidate.address,
        "workload": candidate.workload,
        "locality": candidate.locality,
        "priority": candidate.priority,
        "weight": candidate.weight,
        "health": candidate.health,
        "security": candidate.security,
        "problem": candidate.problem,
        "policies": policies::json(&candidate.policies),
    })
}

/// By name; a name that stands twice has a list.
fn facts(facts: &[(&'static str, String)]) -> Value {
    let mut map: Map<String, Value> = Map::new();
    for (name, text) in facts {
        let key = name.to_lowercase().replace(' ', "_");
        match map.get_mut(&key) {
            None => drop(map.insert(key, json!(text))),
            Some(Value::Array(list)) => list.push(json!(text)),
            Some(own) => *own = json!([own.clone(), text]),
        }
    }
    Value::Object(map)
}
