//! What several kinds have in common: durations, labels, selectors, visibility, target references.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Validation;
use crate::names;
use crate::networking::WorkloadSelector;
use crate::path::Path;
use crate::security::{LabelSelector, PolicyTargetReference};
use crate::wire::Str;

/// At least 1 ms, in whole milliseconds.
pub(super) fn duration(value: Option<Duration>, at: &Path<'_>, v: &mut Validation) {
    let Some(value) = value else { return };
    if value < Duration::from_millis(1) {
        v.error(at, "duration must be greater than 1ms");
    } else {
        whole_milliseconds(value, at, v);
    }
}

/// As `duration`, or zero.
pub(super) fn duration_or_zero(value: Option<Duration>, at: &Path<'_>, v: &mut Validation) {
    duration(value.filter(|d| !d.is_zero()), at, v);
}

fn whole_milliseconds(value: Duration, at: &Path<'_>, v: &mut Validation) {
    v.require(at, value.subsec_nanos().is_multiple_of(1_000_000), "only durations to ms precision are supported");
}

pub(super) fn percent(value: f64, at: &Path<'_>, v: &mut Validation) {
    v.require(at, (0.0..=100.0).contains(&value), format_args!("percentage {value} is not in range 0..100"));
}

/// Kubernetes labels of something that is selected.
pub(super) fn labels(labels: &BTreeMap<Str, Str>, at: &Path<'_>, v: &mut Validation) {
    for (key, value) in labels {
        let at = at.field(key);
        v.check(&at, names::label_key(key));
        v.check(&at, names::label_value(value));
    }
}

/// Labels of a selector: no wildcards, keys not empty.
fn selector_labels(labels: &BTreeMap<Str, Str>, at: &Path<'_>, v: &mut Validation) {
    for (key, value) in labels {
        let at = at.field(key);
        v.require(&at, !key.is_empty(), "empty key is not supported in selector");
        v.require(&at, !key.contains('*') && !value.contains('*'), "wildcard is not supported in selector");
        v.require(&at, value.len() <= 63, "a label value has at most 63 characters");
    }
}

pub(super) fn workload_selector(selector: Option<&WorkloadSelector>, at: &Path<'_>, v: &mut Validation) {
    let Some(selector) = selector else { return };
    let at = at.field("workloadSelector");
    selector_labels(&selector.labels, &at.field("labels"), v);
    if selector.labels.is_empty() {
        v.warn(&at, "workload selector specified without labels: every workload of the namespace is selected");
    }
}

pub(super) fn label_selector(selector: Option<&LabelSelector>, at: &Path<'_>, v: &mut Validation) {
    let Some(selector) = selector else { return };
    selector_labels(&selector.match_labels, &at.field("matchLabels"), v);
    if selector.match_labels.is_empty() {
        v.warn(at, "workload selector specified without labels: every workload of the namespace is selected");
    }
}

/// `exportTo`: `.`, `*` or namespaces, without contradiction; `~` only of services (`nobody`). `namespace` is the object's
/// own.
pub(super) fn export_to(list: &[Str], namespace: &str, nobody: bool, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("exportTo");
    for (i, item) in list.iter().enumerate() {
        let here = at.index(i);
        match &**item {
            "~" if !nobody => v.error(&here, "\"~\" (no namespace) is only for services"),
            "*" | "~" => {
                v.require(&here, list.len() == 1, format_args!("{item:?} cannot be combined with other namespaces"));
            }
            "." => {}
            other => {
                let allowed = "only .,*, or a valid DNS 1123 label is allowed as exportTo entry";
                v.require(&here, names::is_dns_label(other), format_args!("{allowed}, not {other:?}"));
                let own = other == namespace && list.iter().any(|o| &**o == ".");
                v.require(&here, !own, "\".\" is the same namespace; remove one of them");
            }
        }
        v.require(&here, !list[..i].contains(item), format_args!("duplicate entries in exportTo for entry {item}"));
    }
}

/// Which policy kinds are for proxies at services (waypoints) or gateways.
pub(super) fn target_refs(
    selector: bool,
    one: Option<&PolicyTargetReference>,
    many: &[PolicyTargetReference],
    at: &Path<'_>,
    v: &mut Validation,
) {
    let ways = [selector, one.is_some(), !many.is_empty()];
    if ways.iter().filter(|w| **w).count() > 1 {
        v.error(at, "only one of targetRefs or workloadSelector can be set");
    }
    v.require(&at.field("targetRefs"), many.len() <= 16, "at most 16 targets");
    if let Some(target) = one {
        target_ref(target, &at.field("targetRef"), v);
    }
    let at = at.field("targetRefs");
    for (i, target) in many.iter().enumerate() {
        target_ref(target, &at.index(i), v);
    }
}

fn target_ref(target: &PolicyTargetReference, at: &Path<'_>, v: &mut Validation) {
    const ALLOWED: [(&str, &str); 5] = [
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "GatewayClass"),
        ("", "Service"),
        ("core", "Service"),
        ("networking.istio.io", "ServiceEntry"),
    ];
    v.require(&at.field("name"), !target.name.is_empty(), "targetRef name must be set");
    v.require(&at.field("name"), target.name.len() <= 253, "longer than 253 characters");
    v.require(&at.field("kind"), !target.kind.is_empty(), "targetRef kind must be set");
    v.require(
        &at.field("namespace"),
        target.namespace.is_empty(),
        "targetRef namespace must not be set; cross namespace referencing is not supported",
    );
    if !target.kind.is_empty() && !ALLOWED.contains(&(&*target.group, &*target.kind)) {
        v.error(
            &at.field("kind"),
            format_args!(
                "targetRef must be to one of [core/v1/Service networking.istio.io/v1/ServiceEntry \
                 gateway.networking.k8s.io/v1/Gateway gateway.networking.k8s.io/v1/GatewayClass] but was {}/{}",
                target.group, target.kind
            ),
        );
    }
}

/// A percentage that Envoy can express, in units of a ten-thousandth.
pub(super) fn fine_percent(value: f64, at: &Path<'_>, v: &mut Validation) {
    percent(value, at, v);
    v.require(at, value <= 0.0 || value >= 0.0001, format_args!("percentage {value} is too small to be expressed"));
}

/// A regular expression in RE2's syntax, bounded in length.
pub(super) fn regex(pattern: &str, at: &Path<'_>, v: &mut Validation) {
    if pattern.len() > 1024 {
        v.error(at, "regex is too large, at most 1024 characters");
        return;
    }
    if let Err(error) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
        let reason = match &error {
            regex::Error::Syntax(text) => text.lines().last().unwrap_or("syntax error").trim().to_owned(),
            other => other.to_string(),
        };
        v.error(at, format_args!("invalid regex {pattern:?}: {reason}"));
    }
}
