//! Telemetry.

use super::{Validation, common};
use crate::cel::Expression;
use crate::path::Path;
use crate::telemetry::{AccessLogging, Metrics, ProviderRef, TagOperation, Telemetry, Tracing};

pub(super) fn telemetry(spec: &Telemetry, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    common::target_refs(spec.selector.is_some(), spec.target_ref.as_ref(), &spec.target_refs, at, v);
    if spec.tracing.len() > 1 {
        v.warn(&at.field("tracing"), "multiple tracing is not currently supported; the first one is used");
    }
    let list = at.field("tracing");
    for (i, item) in spec.tracing.iter().enumerate() {
        tracing(item, &list.index(i), v);
    }
    let list = at.field("metrics");
    for (i, item) in spec.metrics.iter().enumerate() {
        metrics(item, &list.index(i), v);
    }
    let list = at.field("accessLogging");
    for (i, item) in spec.access_logging.iter().enumerate() {
        access_logging(item, &list.index(i), v);
    }
}

fn providers(list: &[ProviderRef], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("providers");
    for (i, provider) in list.iter().enumerate() {
        v.require(&at.index(i).field("name"), !provider.name.is_empty(), "providers.name may not be empty");
    }
}

fn tracing(tracing: &Tracing, at: &Path<'_>, v: &mut Validation) {
    if tracing.providers.len() > 1 {
        v.warn(&at.field("providers"), "multiple providers is not currently supported; the first one is used");
    }
    providers(&tracing.providers, at, v);
    if let Some(percentage) = tracing.random_sampling_percentage {
        common::percent(percentage.value(), &at.field("randomSamplingPercentage"), v);
    }
    let tags = at.field("customTags");
    for (name, tag) in &tracing.custom_tags {
        let at = tags.field(name);
        v.require(&at, !name.is_empty(), "tag name cannot be empty");
        let values = [
            tag.literal.as_ref().map(|l| l.value.is_empty()),
            tag.environment.as_ref().map(|e| e.name.is_empty()),
            tag.header.as_ref().map(|h| h.name.is_empty()),
            tag.formatter.as_ref().map(|f| f.value.is_empty()),
        ];
        match values.iter().flatten().count() {
            0 => v.warn(&at, "has no value: set one of literal, environment, header and formatter"),
            1 => {}
            _ => v.error(&at, "only one of literal, environment, header and formatter can be set"),
        }
        v.require(&at, !values.contains(&Some(true)), "the name or value cannot be empty");
    }
}

fn metrics(metrics: &Metrics, at: &Path<'_>, v: &mut Validation) {
    providers(&metrics.providers, at, v);
    common::duration(metrics.reporting_interval, &at.field("reportingInterval"), v);
    let overrides = at.field("overrides");
    for (i, item) in metrics.overrides.iter().enumerate() {
        let at = overrides.index(i);
        if let Some(matches) = &item.matches {
            let at = at.field("match");
            v.require(
                &at,
                matches.metric.is_none() || matches.custom_metric.is_none(),
                "only one of metric and customMetric can be set",
            );
            let named = matches.custom_metric.as_ref().is_none_or(|m| !m.is_empty());
            v.require(&at.field("customMetric"), named, "customMetric may not be empty");
        }
        let tags = at.field("tagOverrides");
        for (name, tag) in &item.tag_overrides {
            let at = tags.field(name);
            if name.is_empty() {
                v.warn(&at, "tagOverrides.name may not be empty");
            }
            match (tag.operation, tag.value.as_deref()) {
                (TagOperation::Upsert, None | Some("")) => {
                    v.error(&at, "tagOverrides.value must be set when operation is UPSERT")
                }
                (TagOperation::Remove, Some(text)) if !text.is_empty() => {
                    v.error(&at, "tagOverrides.value may only be set when operation is UPSERT");
                }
                _ => {}
            }
        }
    }
}

fn access_logging(log: &AccessLogging, at: &Path<'_>, v: &mut Validation) {
    providers(&log.providers, at, v);
    if let Some(filter) = &log.filter {
        let expression = Expression::parse(&filter.expression).map(drop);
        v.check(
            &at.field("filter").field("expression"),
            expression.map_err(|error| format!("must be a valid CEL expression: {error}")),
        );
    }
}
