//! Cases as files: a mesh, a proxy in it, and what is to become of calls.
//!
//! The format is that of Istio's simulation tests turned to YAML (`name`, `kind`, `proxy`, `mesh_config`, `config`,
//! `kube_config`, `calls`). A case is answered by the same walk as every other request. Must not need anything besides the file.

mod check;
mod mesh;
mod policies;
mod read;

use serde_json::{Value, json};

use crate::walk::{Outcome, walk};

pub use mesh::{Dialect, MeshOfCase};
pub use policies::{Judgement, compare_policies, play_policies};
pub use read::{Case, CaseError, Expected, read};

/// What became of one call, or of one thing that a case expects.
#[derive(Debug, Clone)]
pub struct Played {
    pub call: String,
    /// The names of what took the call, as [`Outcome::names`]; what was found, for other expectations.
    pub result: Value,
    /// How it differs from what was expected. None: it passed.
    pub problems: Vec<String>,
}

impl Played {
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// One line of output.
    pub fn json(&self) -> Value {
        let mut line = json!({"call": self.call, "pass": self.passed(), "result": self.result});
        if !self.passed() {
            line["problems"] = json!(self.problems);
        }
        line
    }
}

/// Plays a case: what it expects of resources, then its calls in order, then (only where something is wrong) whether the
/// resources are valid.
pub fn play(case: &Case, dialect: Dialect) -> Result<Vec<Played>, CaseError> {
    let mesh = MeshOfCase::build(case, dialect)?;
    Ok(play_on(case, &mesh))
}

/// As [`play`], on a mesh that is built already.
pub fn play_on(case: &Case, mesh: &MeshOfCase) -> Vec<Played> {
    let mut played = check::resources(case, &mesh.sent);
    for call in &case.calls {
        let outcome = walk(&mesh.sent, &call.request);
        played.push(Played { call: call.name.clone(), result: outcome.names(), problems: differences(call, &outcome) });
    }
    if !case.skip_validation {
        let problems = check::invalid(&mesh.sent);
        if !problems.is_empty() {
            played.push(Played { call: "valid resources".into(), result: Value::Null, problems });
        }
    }
    played
}

fn differences(call: &read::Call, outcome: &Outcome<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if call.error != outcome.failure {
        let text = |failure: Option<crate::walk::Failure>| failure.map_or("no error", |failure| failure.code());
        problems.push(format!("error: expected {}, got {}", text(call.error), text(outcome.failure)));
    }
    let names = outcome.names();
    for (key, field) in read::MATCHED {
        let found = names[field].as_str().unwrap_or_default();
        let wanted = call.matched.get(key).map(String::as_str).or_else(|| call.strict.then_some(""));
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            problems.push(format!("{key}: expected {wanted:?}, got {found:?}"));
        }
    }
    for validation in &call.custom {
        problems.extend(check::custom(validation, outcome.chain.map(|chain| &**chain)));
    }
    problems
}
