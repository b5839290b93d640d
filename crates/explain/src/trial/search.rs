//! Calls that are worth a trial: for each rule one that it matches, or nearly does, and from there one step in every direction.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::call::Call;
use super::change::Change;
use super::messages::{Evaluator, Node, Unreadable};

/// Steps around the calls that rules match.
const MOST_STEPS: usize = 6_000;
/// Calls of chance, which come last.
const OF_CHANCE: usize = 400;
/// What may differ at once from the call of a rule.
const MOST_AT_ONCE: usize = 4;
/// Rules of which one call each is looked for.
const MOST_RULES: usize = 48;
/// How much of a matcher holds, at most.
const ALL: u64 = 1_000_000;

/// A permission with a principal of one policy: what a rule asks for at once.
type Rule<'a> = (&'a Value, &'a Value);

/// A call to go out from, and which aspects of it are worth a change.
pub struct Base {
    call: Call,
    aspects: Vec<usize>,
}

impl Base {
    /// Where no rule leads to: everything is changed.
    pub fn plain(aspects: &[Vec<Change>], is_http: bool) -> Self {
        Self { call: Call::plain(is_http), aspects: (0..aspects.len()).collect() }
    }

    /// Takes of each aspect what brings a call closest to matching, by its score; twice, as one may depend on another. What
    /// cannot change the score is of no interest.
    pub fn closest<E>(
        aspects: &[Vec<Change>],
        is_http: bool,
        score: impl Fn(&Call) -> Result<u64, E>,
    ) -> Result<Self, E> {
        let mut call = Call::plain(is_http);
        let mut most = score(&call)?;
        for change in aspects.iter().chain(aspects).flatten() {
            let other = changed(&call, [change]);
            let own = score(&other)?;
            if own > most {
                (call, most) = (other, own);
            }
        }
        let mut counting = Vec::new();
        for (index, changes) in aspects.iter().enumerate() {
            for change in changes {
                if score(&changed(&call, [change]))? != most {
                    counting.push(index);
                    break;
                }
            }
        }
        Ok(Self { call, aspects: counting })
    }
}

/// The calls for filters.
pub fn calls(
    (evaluator, filters): (&Evaluator, &[Value]),
    aspects: &[Vec<Change>],
    is_http: bool,
    seed: u64,
) -> Result<Vec<Call>, Unreadable> {
    let mut bases = vec![Base::plain(aspects, is_http)];
    for (permission, principal) in rules(filters).into_iter().take(MOST_RULES) {
        let score =
            |call: &Call| Ok(share(evaluator, permission, false, call)? + share(evaluator, principal, false, call)?);
        bases.push(Base::closest(aspects, is_http, score)?);
    }
    Ok(around(&bases, aspects, seed))
}

/// Boundaries first: the first change of every aspect, then the second. The same seed gives the same calls.
pub fn around(bases: &[Base], aspects: &[Vec<Change>], seed: u64) -> Vec<Call> {
    let mut calls: Vec<Call> = bases.iter().map(|base| base.call.clone()).collect();
    let most = aspects.iter().map(Vec::len).max().unwrap_or_default();
    let steps = (0..most).flat_map(|place| {
        let of_base = move |base: &'_ Base| -> Vec<Call> {
            let changes = base.aspects.iter().filter_map(|aspect| aspects.get(*aspect)?.get(place));
            changes.map(|change| changed(&base.call, [change])).filter(|call| *call != base.call).collect()
        };
        bases.iter().flat_map(of_base)
    });
    calls.extend(steps.take(MOST_STEPS));
    let mut chance = Chance(StdRng::seed_from_u64(seed));
    calls.extend((0..OF_CHANCE).filter_map(|_| chance.call(bases, aspects)));
    calls
}

fn changed<'a>(base: &Call, changes: impl IntoIterator<Item = &'a Change>) -> Call {
    let mut call = base.clone();
    for change in changes {
        change.apply(&mut call);
    }
    call
}

/// Of the rules in force and of those in shadow.
fn rules(filters: &[Value]) -> Vec<Rule<'_>> {
    let mut found = Vec::new();
    for policy in policies(filters).into_iter().map(|(_, policy)| policy) {
        for permission in policy["permissions"].as_array().into_iter().flatten() {
            let principals = policy["principals"].as_array().into_iter().flatten();
            found.extend(principals.map(|principal| (permission, principal)));
        }
    }
    found
}

fn policies(filters: &[Value]) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for filter in filters {
        for rules in ["shadow_rules", "rules"] {
            let policies = filter["typed_config"][rules]["policies"].as_object().into_iter().flatten();
            found.extend(policies.map(|(name, policy)| (format!("{rules} {name}"), policy)));
        }
    }
    found
}

/// The matchers without parts, each under where it stands.
pub fn leaves(filters: &[Value]) -> Result<Vec<(String, &Value)>, Unreadable> {
    let mut found = Vec::new();
    for (name, policy) in policies(filters) {
        for side in ["permissions", "principals"] {
            for (index, matcher) in policy[side].as_array().into_iter().flatten().enumerate() {
                leaves_of(matcher, &format!("{name} {side}[{index}]"), &mut found)?;
            }
        }
    }
    Ok(found)
}

fn leaves_of<'a>(matcher: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) -> Result<(), Unreadable> {
    match Node::of(matcher)? {
        Node::All(several) | Node::One(several) => {
            for (index, one) in several.iter().enumerate() {
                leaves_of(one, &format!("{path}[{index}]"), found)?;
            }
        }
        Node::Not(inner) => leaves_of(inner, &format!("{path}.not"), found)?,
        Node::Leaf("any", _) => {}
        Node::Leaf(..) => found.push((path.to_owned(), matcher)),
    }
    Ok(())
}

/// How much of a matcher, or of its negation, holds.
fn share(evaluator: &Evaluator, matcher: &Value, negated: bool, call: &Call) -> Result<u64, Unreadable> {
    let shares = |several: &[Value]| {
        several.iter().map(|one| share(evaluator, one, negated, call)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match (Node::of(matcher)?, negated) {
        (Node::All(all), false) | (Node::One(all), true) => {
            let shares = shares(all)?;
            let count = u64::try_from(shares.len()).unwrap_or(u64::MAX).max(1);
            shares.iter().sum::<u64>() / count
        }
        (Node::One(any), false) | (Node::All(any), true) => shares(any)?.into_iter().max().unwrap_or_default(),
        (Node::Not(inner), _) => share(evaluator, inner, !negated, call)?,
        (Node::Leaf(..), _) => {
            if evaluator.holds(matcher, call)? == negated {
                0
            } else {
                ALL
            }
        }
    })
}

struct Chance(StdRng);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    fn call(&mut self, bases: &[Base], aspects: &[Vec<Change>]) -> Option<Call> {
        let base = &self.one_of(bases)?.call;
        let mut changes = Vec::new();
        for _ in 0..=self.below(MOST_AT_ONCE) {
            changes.extend(self.one_of(aspects).and_then(|aspect| self.one_of(aspect)));
        }
        Some(changed(base, changes))
    }
}
