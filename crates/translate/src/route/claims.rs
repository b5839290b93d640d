//! Matches on claims of a verified JWT: `@request.auth.claims.<name>` or `@request.auth.claims[<name>][<name>]` in the place of
//! a header's name. What the JWT filter leaves in the request's metadata is matched, so that no client can forge it.

use meltemi_config::networking::StringMatch;
use meltemi_proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use meltemi_proto::envoy::r#type::matcher::v3::{MetadataMatcher, ValueMatcher};

use super::matching;
use crate::authentication::{FILTER, PAYLOAD};
use crate::authorization::matcher;

const PREFIX: &str = "@request.auth.claims";

/// The claim's path, where the name of a header match is a claim.
pub fn path(name: &str) -> Option<Vec<String>> {
    let rest =
        name.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)).map(|_| &name[PREFIX.len()..])?;
    if let Some(dotted) = rest.strip_prefix('.').filter(|dotted| !dotted.is_empty()) {
        return Some(dotted.split('.').map(str::to_owned).collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']').filter(|inner| !inner.is_empty())?;
    Some(inner.split("][").map(str::to_owned).collect())
}

pub fn matcher(path: &[String], value: &StringMatch, invert: bool) -> MetadataMatcher {
    let wanted = match matching::string_matcher(value) {
        Some(pattern) => matcher::value(pattern),
        None => ValueMatcher { match_pattern: Some(MatchPattern::PresentMatch(true)) },
    };
    let path: Vec<&str> = std::iter::once(PAYLOAD).chain(path.iter().map(String::as_str)).collect();
    // A claim is a string, or a list with the string in it.
    MetadataMatcher { invert, ..matcher::metadata(FILTER, &path, matcher::element_or_value(wanted)) }
}

#[cfg(test)]
mod tests;
