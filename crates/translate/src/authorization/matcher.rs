//! Istio's patterns (`*`, `*suffix`, `prefix*`, exact) as Envoy's matchers. An empty prefix is invalid there, so that `*` alone
//! asks for presence.

use meltemi_proto::envoy::config::route::v3::HeaderMatcher;
use meltemi_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use meltemi_proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use meltemi_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use meltemi_proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher, value_matcher,
};

use crate::wire;

pub use meltemi_matchers::quoted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Kept,
    Ignored,
}

pub fn text(value: &str) -> StringMatcher {
    text_after("", value)
}

/// The pattern with a fixed text before what it matches.
pub fn text_after(before: &str, value: &str) -> StringMatcher {
    if value == "*" {
        return regex(".+".into());
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return match before {
            "" => pattern(MatchPattern::Suffix(suffix.into()), Case::Kept),
            before => regex(format!("{before}.*{}", quoted(suffix))),
        };
    }
    match value.strip_suffix('*') {
        Some(prefix) => wire::prefix(&format!("{before}{prefix}")),
        None => wire::exact(&format!("{before}{value}")),
    }
}

pub fn regex(regex: String) -> StringMatcher {
    pattern(MatchPattern::SafeRegex(wire::regex(&regex)), Case::Kept)
}

fn pattern(pattern: MatchPattern, case: Case) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: case == Case::Ignored }
}

pub fn header(name: &str, value: &str, case: Case) -> HeaderMatcher {
    let wanted = match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
        ("*", ..) => None,
        (_, Some(suffix), _) => Some(MatchPattern::Suffix(suffix.into())),
        (_, None, Some(prefix)) => Some(MatchPattern::Prefix(prefix.into())),
        (exact, None, None) => Some(MatchPattern::Exact(exact.into())),
    };
    let specifier = match wanted {
        None => HeaderMatchSpecifier::PresentMatch(true),
        Some(wanted) => HeaderMatchSpecifier::StringMatch(pattern(wanted, case)),
    };
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

pub fn value(text: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(text)) }
}

/// A list with such an element.
pub fn element(one: ValueMatcher) -> ValueMatcher {
    let list = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(one))) };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}

pub fn element_or_value(one: ValueMatcher) -> ValueMatcher {
    or(vec![element(one.clone()), one])
}

/// One of several; a single one stands for itself.
pub fn one_value(mut values: Vec<ValueMatcher>) -> ValueMatcher {
    if values.len() == 1 { values.swap_remove(0) } else { or(values) }
}

fn or(value_matchers: Vec<ValueMatcher>) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers })) }
}

/// The metadata of a filter, at a path of keys.
pub fn metadata(filter: &str, path: &[&str], wanted: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(path_segment::Segment::Key((*key).into())) };
    MetadataMatcher {
        filter: filter.into(),
        path: path.iter().map(segment).collect(),
        value: Some(wanted),
        invert: false,
    }
}
