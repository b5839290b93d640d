//! Matches on claims of a verified JWT: `@request.auth.claims.<name>` or `@request.auth.claims[<name>][<name>]` in the place of
//! a header's name. What the JWT filter leaves in the request's metadata is matched, so that no client can forge it.

use meltemi_config::networking::StringMatch;
use meltemi_proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use meltemi_proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use meltemi_proto::envoy::r#type::matcher::v3::{ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher, list_matcher};

use super::matching;

const PREFIX: &str = "@request.auth.claims";

/// The claim's path, where the name of a header match is a claim.
pub fn path(name: &str) -> Option<Vec<String>> {
    let rest =
        name.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)).map(|_| &name[PREFIX.len()..])?;
    if let Some(dotted) = rest.strip_prefix('.') {
        return Some(dotted.split('.').map(str::to_owned).collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split("][").map(str::to_owned).collect())
}

pub fn matcher(path: &[String], value: &StringMatch, invert: bool) -> MetadataMatcher {
    let wanted = || match matching::string_matcher(value) {
        Some(pattern) => MatchPattern::StringMatch(pattern),
        None => MatchPattern::PresentMatch(true),
    };
    let one = || ValueMatcher { match_pattern: Some(wanted()) };
    let listed = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(one()))) };
    // A claim is a string, or a list with the string in it.
    let list = ValueMatcher { match_pattern: Some(MatchPattern::ListMatch(Box::new(listed))) };
    let segment = |key: &str| PathSegment { segment: Some(path_segment::Segment::Key(key.into())) };
    MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: std::iter::once(segment("payload")).chain(path.iter().map(|key| segment(key))).collect(),
        value: Some(ValueMatcher {
            match_pattern: Some(MatchPattern::OrMatch(OrMatcher { value_matchers: vec![one(), list] })),
        }),
        invert,
    }
}

#[cfg(test)]
mod tests;
