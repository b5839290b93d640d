//! A request's way told to a person, and the same as JSON.
//!
//! Owns the words. What is told is read off [`Outcome`] and the plans in it; where it stands in the configuration comes from
//! [`Origins`].

mod arrival;
mod json;
mod miss;
mod policies;
mod route;
mod steps;
mod text;
mod upstream;
mod words;

use meltemi_config::{Key, Kind};
use meltemi_model::Labels;
use meltemi_plan::route::find::without_port;
use meltemi_translate::names::Cluster as ClusterName;
use serde_json::Value;

use crate::mesh::Mesh;
use crate::origin::{Origins, Place};
use crate::policy::Decision;
use crate::request::Request;
use crate::sent::Sent;
use crate::walk::{Outcome, walk};

/// What is asked: of which proxy, and what is known of its configuration.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// `sidecar catalog-v1.shop`.
    pub proxy: &'a str,
    pub namespace: &'a str,
    pub labels: &'a Labels,
    /// Whom the proxy's own certificate names (`spiffe://…`), to whoever it calls by mutual TLS; empty: not known.
    pub identity: &'a str,
    /// `istio-system`, unless the mesh says otherwise.
    pub root_namespace: &'a str,
    pub sent: &'a Sent,
    pub origins: &'a Origins,
    /// The mesh that endpoints are in, to tell whether they take what is sent to them.
    pub mesh: Option<&'a Mesh>,
}

/// The answer.
#[derive(Debug, Clone)]
pub struct Report {
    pub proxy: String,
    /// `GET http://catalog:8080/ to 10.96.1.2:8080`.
    pub request: String,
    /// What becomes of the request, in a sentence.
    pub verdict: String,
    /// It gets an answer from where it should, as far as configuration decides that.
    pub is_served: bool,
    /// As [`Outcome::names`].
    pub names: Value,
    pub steps: Vec<Step>,
    /// What policies of this proxy say.
    pub policies: Vec<Decision>,
    pub upstreams: Vec<Upstream>,
    pub notes: Vec<String>,
}

/// One decision on the way.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// `listener`, `filter chain`, `policies`, `routes`, `virtual host`, `route`.
    pub kind: &'static str,
    pub name: String,
    /// Why this one.
    pub why: String,
    /// What in the configuration decided it.
    pub places: Vec<Place>,
    /// What is in force from here on, by name.
    pub facts: Vec<(&'static str, String)>,
    /// What was looked at before and did not fit.
    pub passed: Vec<Passed>,
    /// Something was chosen here, named or not.
    pub is_found: bool,
}

#[derive(Debug, Clone)]
pub struct Passed {
    pub name: String,
    pub reason: String,
    pub place: Option<Place>,
}

/// A cluster that may get the request.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    pub cluster: String,
    /// In percent of the traffic.
    pub share: f64,
    pub places: Vec<Place>,
    pub facts: Vec<(&'static str, String)>,
    pub endpoints: Vec<Candidate>,
    /// Why the cluster serves nobody.
    pub problem: Option<String>,
}

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    pub address: String,
    /// `catalog-v1.shop`, where that is told.
    pub workload: String,
    /// `region/zone/sub-zone`.
    pub locality: String,
    pub priority: u32,
    pub weight: u32,
    pub health: &'static str,
    /// What is spoken to it: `plaintext`, `mutual TLS`, `TLS`.
    pub security: String,
    /// Why its own proxy does not take it.
    pub problem: Option<String>,
    /// What policies of its own proxy say.
    pub policies: Vec<Decision>,
}

/// Answers a question.
pub fn explain(question: &Question<'_>, request: &Request) -> Report {
    let outcome = walk(question.sent, request);
    let upstreams = upstream::all(question, request, &outcome);
    let policies = policies::decide(question, request, &outcome);
    let (verdict, is_served) = match policies::verdict(&policies) {
        Some(refused) => (refused, false),
        None => steps::verdict(request, &outcome, &upstreams),
    };
    let condition = policies::condition(&policies).map(|condition| format!("{verdict}, {condition}"));
    let verdict = condition.filter(|_| is_served).unwrap_or(verdict);
    Report {
        proxy: question.proxy.to_owned(),
        request: words::request(request),
        verdict,
        is_served,
        names: outcome.names(),
        steps: steps::all(question, request, &outcome, &policies),
        notes: notes(question, request, (&outcome, &policies)),
        policies,
        upstreams,
    }
}

/// What the walk leaves out.
fn notes(question: &Question<'_>, request: &Request, (outcome, decisions): (&Outcome<'_>, &[Decision])) -> Vec<String> {
    let mut notes = Vec::new();
    let path = request.path.split(['?', '#']).next().unwrap_or_default();
    if let Some(manager) = outcome.manager {
        let odd = path.contains("/.") || path.contains("//") || path.contains('%') || path.contains('\\');
        if odd && (manager.normalize_path || manager.merge_slashes) {
            notes.push("the proxy brings the path into its normal form first: ask for that to be sure".to_owned());
        }
    }
    notes.extend(policies::notes(request, decisions));
    notes.extend(unseen(question, request));
    let refusals = question.sent.refusals();
    if !refusals.is_empty() {
        notes.push(format!("our proxy would refuse {}: {}", refusals.len(), refusals.join("; ")));
    }
    notes
}

/// That the request is for a service which the workload does not see, and what hides it.
fn unseen(question: &Question<'_>, request: &Request) -> Option<String> {
    let mesh = question.mesh.filter(|_| !request.inbound && request.protocol.is_http())?;
    let host = without_port(&request.host);
    let service = crate::names::find(&mesh.services, host, question.namespace)?;
    let is_seen = question.sent.clusters.iter().any(|cluster| match ClusterName::parse(&cluster.name) {
        ClusterName::Outbound { host, .. } => host == service.hostname,
        _ => false,
    });
    if is_seen || service.ports.is_empty() {
        return None;
    }
    let sidecar = mesh.snapshot.sidecar_for(question.namespace, question.labels);
    let key = sidecar.map(|sidecar| Key::new(Kind::Sidecar, &sidecar.namespace, &sidecar.name));
    let by = match key.and_then(|key| question.origins.place(&key, "spec.egress")) {
        Some(place) => {
            let at = place.source.as_ref().map(|source| format!(" at {source}")).unwrap_or_default();
            format!("{}{at}, or what the service is exported to", place.title())
        }
        None => "what the service is exported to".to_owned(),
    };
    Some(format!("{} is a service of the mesh that this workload does not see: {by}", service.hostname))
}

#[cfg(test)]
mod tests;
