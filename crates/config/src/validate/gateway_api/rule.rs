//! What the CRDs demand of HTTPRoute and GRPCRoute alike.

use super::super::{Validation, common};
use super::{at_most, backend, hostnames, parents, section_name};
use crate::gateway_api::{FilteredBackend, HttpHeaderMatch, RouteRule, RuledRoute, ValueMatchType};
use crate::names;
use crate::path::Path;
use crate::wire::Str;

const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
pub(super) const MAX_ALL_MATCHES: usize = 128;
const MAX_BACKENDS: usize = 16;
pub(super) const MAX_VALUES: usize = 16;
const MAX_VALUE_BYTES: usize = 4096;

/// Parents, hosts and the rules; `repeated` is said of a rule whose name another has.
pub(super) fn route<R: RuledRoute>(
    spec: &R,
    at: &Path<'_>,
    v: &mut Validation,
    repeated: &str,
    rule: impl Fn(&R::Rule, &Path<'_>, &mut Validation),
) {
    parents(spec.parent_refs(), at, v);
    hostnames(spec.hostnames(), at, v);
    let rules = at.field("rules");
    at_most(spec.rules().len(), MAX_RULES, &rules, v);
    for (i, one) in spec.rules().iter().enumerate() {
        let at = rules.index(i);
        if let Some(name) = one.name() {
            let at = at.field("name");
            section_name(name, &at, v);
            v.require(&at, !spec.rules()[..i].iter().any(|other| other.name() == Some(name)), repeated);
        }
        rule(one, &at, v);
    }
}

/// How many matches the rules have together.
pub(super) fn all_matches(spec: &impl RuledRoute) -> usize {
    spec.rules().iter().map(|rule| rule.matches().len()).sum()
}

pub(super) fn matches<R: RouteRule>(
    rule: &R,
    at: &Path<'_>,
    v: &mut Validation,
    condition: impl Fn(&R::Match, &Path<'_>, &mut Validation),
) {
    let at = at.field("matches");
    at_most(rule.matches().len(), MAX_MATCHES, &at, v);
    for (i, one) in rule.matches().iter().enumerate() {
        condition(one, &at.index(i), v);
    }
}

/// The backends; `filters` is asked for each with the backend's path.
pub(super) fn backends<R: RouteRule>(
    rule: &R,
    at: &Path<'_>,
    v: &mut Validation,
    filters: impl Fn(&R::Backend, &Path<'_>, &mut Validation),
) {
    let at = at.field("backendRefs");
    at_most(rule.backend_refs().len(), MAX_BACKENDS, &at, v);
    for (i, one) in rule.backend_refs().iter().enumerate() {
        let at = at.index(i);
        backend(&one.backend(), true, &at, v);
        filters(one, &at, v);
    }
}

pub(super) fn headers(headers: &[HttpHeaderMatch], at: &Path<'_>, v: &mut Validation) {
    let values: Vec<_> = headers.iter().map(|own| (own.match_type, &own.name, &own.value)).collect();
    self::values(&values, |a, b| a.eq_ignore_ascii_case(b), at, v);
}

/// Conditions on named values, each name once.
pub(super) fn values(
    values: &[(ValueMatchType, &Str, &Str)],
    same: impl Fn(&str, &str) -> bool,
    at: &Path<'_>,
    v: &mut Validation,
) {
    at_most(values.len(), MAX_VALUES, at, v);
    for (i, (kind, name, value)) in values.iter().enumerate() {
        let at = at.index(i);
        value_match(*kind, name, value, &at, v);
        let again = values[..i].iter().any(|(_, other, _)| same(other, name));
        v.require(&at.field("name"), !again, "a name stands once");
    }
}

fn value_match(kind: ValueMatchType, name: &Str, value: &Str, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("name"), names::header_name(name));
    let at = at.field("value");
    v.require(&at, (1..=MAX_VALUE_BYTES).contains(&value.len()), "a value has 1 to 4096 characters");
    if kind == ValueMatchType::RegularExpression {
        common::regex(value, &at, v);
    }
}
