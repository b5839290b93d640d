//! Policies on trial: requests are made up from what they name, and our engine over what we make of them must decide each as a
//! plain evaluation of the expected messages does, by the same policy.
//!
//! Owns the requests (`mention.rs` what policies name, `change.rs` what is at and around it, `search.rs` from which call each is
//! tried) and the evaluations (`messages.rs` of Envoy's filters, `ambient.rs` of a node proxy's policy). Costs thousands of
//! evaluations of messages that are kept as JSON: for cases, never for traffic.

mod ambient;
mod call;
mod change;
mod engine;
mod mention;
pub mod messages;
mod search;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;

use meltemi_proto::istio::security::Authorization;
use serde_json::{Value, json};

pub use call::{Call, Certificate};
pub(crate) use engine::Engine;
pub use mention::{Mentions, of_policies};

use messages::{Evaluator, Unreadable};
use search::Base;

/// Makes the calls of chance where nobody asks for others.
pub const SEED: u64 = 4;

/// How many matchers are told of that no call brought to both answers.
const MOST_UNTRIED: usize = 8;

/// What rules said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verdict {
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<String>,
}

/// What one filter said, or its rules in shadow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Shadow(Verdict),
    Rules(Verdict),
    /// Whether an external authorizer is asked.
    Asked(bool),
}

impl Step {
    /// Nothing comes behind it.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Rules(Verdict { allowed: false, .. }))
    }

    fn json(&self) -> Value {
        let of = |kind: &str, verdict: &Verdict| json!({kind: if verdict.allowed { "allowed" } else { "denied" }, "policy": verdict.policy});
        match self {
            Self::Shadow(verdict) => of("shadow", verdict),
            Self::Rules(verdict) => of("rules", verdict),
            Self::Asked(asked) => json!({ "asked": asked }),
        }
    }
}

/// What came of the calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub calls: usize,
    pub allowed: usize,
    pub denied: usize,
    /// Of those allowed: what an external authorizer decides.
    pub asked: usize,
    /// Where the calls may prove less than they seem to.
    pub notes: Vec<String>,
    pub disagreement: Option<Disagreement>,
}

/// The first call that is decided in two ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Disagreement {
    pub call: Value,
    pub expected: Value,
    pub found: Value,
}

impl Report {
    pub fn json(&self) -> Value {
        json!({
            "requests": self.calls,
            "allowed": self.allowed,
            "denied": self.denied,
            "asked": self.asked,
            "notes": self.notes,
            "disagreement": self.disagreement.as_ref().map(|of| {
                json!({"request": of.call, "expected": of.expected, "found": of.found})
            }),
        })
    }

    fn count(&mut self, steps: &[Step]) {
        self.calls += 1;
        match steps.iter().any(Step::is_denial) {
            true => self.denied += 1,
            false => self.allowed += 1,
        }
        self.asked += usize::from(steps.contains(&Step::Asked(true)));
    }

    /// What follows where matchers, each tried or not, led to so many different outcomes.
    fn judge(&mut self, untried: Vec<String>, is_conditional: bool, outcomes: usize) {
        if is_conditional && outcomes == 1 {
            let all = if self.denied > 0 { "denied" } else { "allowed" };
            self.notes.push(format!("every request was {all} in the same way, though there are rules about requests"));
        }
        let more = untried.len().saturating_sub(MOST_UNTRIED);
        self.notes.extend(untried.into_iter().take(MOST_UNTRIED));
        if more > 0 {
            self.notes.push(format!("and {more} other matchers that gave one answer alone"));
        }
    }
}

/// Filters and what they are made of.
pub struct Filters<'a> {
    /// As the JSON of their messages.
    pub expected: &'a [Value],
    pub found: &'a [Value],
    pub is_http: bool,
    pub mentions: Mentions,
    pub trust_domains: Vec<String>,
}

impl Filters<'_> {
    /// Tries them. Fails where a side cannot be evaluated at all.
    pub fn tried(&self, seed: u64) -> Result<Report, String> {
        let engine = Engine::of(self.found, self.is_http)?;
        let evaluator = Evaluator::default();
        let told = |error: Unreadable| error.to_string();
        let aspects = change::changes(&self.mentions, &self.trust_domains, self.is_http);
        let calls = search::calls((&evaluator, self.expected), &aspects, self.is_http, seed).map_err(told)?;
        let leaves = search::leaves(self.expected).map_err(told)?;
        let mut report = Report::default();
        let mut outcomes = BTreeSet::new();
        for call in &calls {
            let expected = evaluator.decide(self.expected, call).map_err(told)?;
            let found = engine.decide(call);
            report.count(&expected);
            if expected != found && report.disagreement.is_none() {
                let steps = |steps: &[Step]| steps.iter().map(Step::json).collect();
                report.disagreement =
                    Some(Disagreement { call: call.json(), expected: steps(&expected), found: steps(&found) });
            }
            outcomes.insert(expected);
        }
        let mut untried = Vec::new();
        for (path, leaf) in &leaves {
            if let Some(answer) = one_answer(&calls, |call| evaluator.holds(leaf, call)).map_err(told)? {
                untried.push(format!("{path} {leaf}: {} for every request", if answer { "holds" } else { "fails" }));
            }
        }
        report.judge(untried, !leaves.is_empty(), outcomes.len());
        Ok(report)
    }
}

/// The answer where all are the same.
fn one_answer(calls: &[Call], answer: impl Fn(&Call) -> Result<bool, Unreadable>) -> Result<Option<bool>, Unreadable> {
    let mut first = None;
    for call in calls {
        let own = answer(call)?;
        if *first.get_or_insert(own) != own {
            return Ok(None);
        }
    }
    Ok(first)
}

/// Tries a policy of a node proxy against the expected one.
pub fn ambient(expected: &Authorization, found: &Authorization, mentions: Mentions, seed: u64) -> Report {
    let aspects = change::changes(&with(mention::of_ambient(expected), mentions), &[], false);
    let mut bases = vec![Base::plain(&aspects, false)];
    for share in ambient::shares(expected) {
        let Ok(base) = Base::closest(&aspects, false, |call| Ok::<_, Infallible>(share(call)));
        bases.push(base);
    }
    let calls = search::around(&bases, &aspects, seed);
    let mut report = Report::default();
    let mut outcomes = BTreeSet::new();
    for call in &calls {
        let verdicts = [expected, found].map(|policy| Step::Rules(ambient::decide(policy, call)));
        report.count(&verdicts[..1]);
        if verdicts[0] != verdicts[1] && report.disagreement.is_none() {
            let [expected, found] = verdicts.each_ref().map(Step::json);
            report.disagreement = Some(Disagreement { call: call.json(), expected, found });
        }
        let [expected, _] = verdicts;
        outcomes.insert(expected);
    }
    let untried = ambient::matches(expected).enumerate().filter_map(|(index, one)| {
        let first = ambient::holds(one, calls.first()?);
        let answer = if first { "holds" } else { "fails" };
        calls
            .iter()
            .all(|call| ambient::holds(one, call) == first)
            .then(|| format!("matches[{index}]: {answer} for every connection"))
    });
    let untried = untried.collect();
    report.judge(untried, !expected.groups.is_empty(), outcomes.len());
    report
}

fn with(mut own: Mentions, more: Mentions) -> Mentions {
    for (field, values) in more {
        own.entry(field).or_default().extend(values);
    }
    own
}
