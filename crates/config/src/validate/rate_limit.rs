//! The configuration of a rate limit server.

use std::collections::BTreeSet;

use super::Validation;
use crate::path::Path;
use crate::rate_limit::{LimitBlock, LimitDescriptor, RateLimitConfiguration, RateLimitUnit};

/// Descriptors of a request are as long as a document is deep; nobody's are.
const MAX_DEPTH: usize = 16;

/// Validates one document of a rate limit server.
pub fn rate_limit_configuration(document: &RateLimitConfiguration) -> Validation {
    let mut out = Validation::default();
    let at = Path::root("");
    out.require(&at.field("domain"), !document.domain.is_empty(), "required");
    descriptors(&document.descriptors, &at.field("descriptors"), 1, &mut out);
    out
}

fn descriptors(list: &[LimitDescriptor], at: &Path<'_>, depth: usize, v: &mut Validation) {
    if depth > MAX_DEPTH {
        v.error(at, format_args!("more than {MAX_DEPTH} descriptors inside each other"));
        return;
    }
    let mut known = BTreeSet::new();
    for (i, one) in list.iter().enumerate() {
        let at = at.index(i);
        if !known.insert((&one.key, &one.value)) {
            v.error(&at, format_args!("another descriptor has key {:?} and value {:?}", &*one.key, &*one.value));
        }
        descriptor(one, &at, v);
        descriptors(&one.descriptors, &at.field("descriptors"), depth + 1, v);
    }
}

fn descriptor(one: &LimitDescriptor, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("key"), !one.key.is_empty(), "required");
    if let Some(block) = &one.rate_limit {
        limit(block, &at.field("rate_limit"), v);
    }
    let shared = !one.share_threshold || one.value.contains('*');
    v.require(&at.field("share_threshold"), shared, "only for a value with a *");
    for (field, is_set) in [("detailed_metric", one.detailed_metric), ("value_to_metric", one.value_to_metric)] {
        if is_set {
            v.warn(
                &at.field(field),
                "has no effect: metrics are by configured descriptor, never by a request's values",
            );
        }
    }
    if one.metadata.is_some() {
        v.warn(&at.field("metadata"), "has no effect: responses carry no dynamic metadata");
    }
}

fn limit(block: &LimitBlock, at: &Path<'_>, v: &mut Validation) {
    let unit = at.field("unit");
    let known = RateLimitUnit::parse(&block.unit).is_some();
    if block.unlimited {
        v.require(&unit, block.unit.is_empty(), "what is unlimited has no unit");
        v.require(&at.field("requests_per_unit"), block.requests_per_unit == 0, "what is unlimited has no number");
    } else {
        v.require(
            &unit,
            known,
            format_args!("{:?} is none of second, minute, hour, day, week, month, year", &*block.unit),
        );
    }
    let replaces = at.field("replaces");
    for (i, replaced) in block.replaces.iter().enumerate() {
        let at = replaces.index(i);
        let at = at.field("name");
        v.require(&at, !replaced.name.is_empty(), "required");
        v.require(&at, replaced.name.is_empty() || replaced.name != block.name, "a limit cannot replace itself");
    }
}
