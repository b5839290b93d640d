//! VirtualService matches as Envoy's.

use meltemi_config::networking::{HttpMatchRequest, StringMatch, StringMatchType};
use meltemi_config::wire::Str;
use meltemi_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use meltemi_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use meltemi_proto::envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use meltemi_proto::envoy::r#type::matcher::v3::{MetadataMatcher, StringMatcher, string_matcher::MatchPattern};

use super::claims;
use crate::wire;

/// Takes every request whatever its path and headers: nothing after it in the rule is reached.
pub fn is_catch_all(matches: Option<&HttpMatchRequest>) -> bool {
    let Some(matches) = matches else { return true };
    let every_path = match matches.uri.as_ref().map(StringMatch::kind) {
        None | Some(StringMatchType::Present) => true,
        Some(StringMatchType::Prefix(prefix)) => &**prefix == "/",
        Some(StringMatchType::Regex(regex)) => &**regex == ".*",
        Some(StringMatchType::Exact(_)) => false,
    };
    every_path
        && matches.headers.is_empty()
        && matches.without_headers.is_empty()
        && matches.query_params.is_empty()
        && matches.method.is_none()
        && matches.authority.is_none()
        && matches.scheme.is_none()
}

/// `segments`: a prefix is one of whole path segments, as in the Gateway API.
pub fn route_match(matches: Option<&HttpMatchRequest>, segments: bool) -> RouteMatch {
    let Some(matches) = matches else {
        return RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() };
    };
    let is_header = |(name, _): &(&Str, &StringMatch)| claims::path(name).is_none();
    let present = matches.headers.iter().filter(is_header).map(|(name, value)| header(name, value));
    let absent = matches.without_headers.iter().filter(is_header).map(|(name, value)| without_header(name, value));
    let mut headers: Vec<_> = present.chain(absent).collect();
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let pseudo = [(":method", &matches.method), (":authority", &matches.authority), (":scheme", &matches.scheme)];
    headers.extend(pseudo.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| header(name, value))));
    RouteMatch {
        path_specifier: Some(path(matches.uri.as_ref(), segments)),
        case_sensitive: Some(!matches.ignore_uri_case),
        headers,
        dynamic_metadata: claim_matchers(matches),
        query_parameters: matches.query_params.iter().map(|(name, value)| query_parameter(name, value)).collect(),
        ..RouteMatch::default()
    }
}

fn claim_matchers(matches: &HttpMatchRequest) -> Vec<MetadataMatcher> {
    let with = matches.headers.iter().map(|(name, value)| (name, value, false));
    let without = matches.without_headers.iter().map(|(name, value)| (name, value, true));
    let claims = with.chain(without);
    claims.filter_map(|(name, value, invert)| Some(claims::matcher(&claims::path(name)?, value, invert))).collect()
}

fn path(uri: Option<&StringMatch>, segments: bool) -> PathSpecifier {
    match uri.map(StringMatch::kind) {
        None | Some(StringMatchType::Present) => PathSpecifier::Prefix("/".into()),
        Some(StringMatchType::Exact(text)) => PathSpecifier::Path(text.to_string()),
        Some(StringMatchType::Prefix(text)) if segments && &**text != "/" => {
            PathSpecifier::PathSeparatedPrefix(text.trim_end_matches('/').to_owned())
        }
        Some(StringMatchType::Prefix(text)) => PathSpecifier::Prefix(text.to_string()),
        Some(StringMatchType::Regex(text)) => PathSpecifier::SafeRegex(wire::regex(text)),
    }
}

/// `None` where presence is all that is asked: no variant, or the regular expression `*` that older Istio took for that.
fn pattern(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value.kind() {
        StringMatchType::Present => return None,
        StringMatchType::Regex(text) if &**text == "*" => return None,
        StringMatchType::Exact(text) => MatchPattern::Exact(text.to_string()),
        StringMatchType::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        StringMatchType::Regex(text) => MatchPattern::SafeRegex(wire::regex(text)),
    };
    Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false })
}

/// A match on any string, for origins of CORS; one without a variant matches nothing and is left out.
pub fn string_matcher(value: &StringMatch) -> Option<StringMatcher> {
    pattern(value)
}

pub fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = pattern(value).map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch);
    HeaderMatcher { name: name.into(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

fn without_header(name: &str, value: &StringMatch) -> HeaderMatcher {
    HeaderMatcher {
        invert_match: true,
        // A request without the header has no such value either.
        treat_missing_header_as_empty: pattern(value).is_some(),
        ..header(name, value)
    }
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = pattern(value)
        .map_or(QueryParameterMatchSpecifier::PresentMatch(true), QueryParameterMatchSpecifier::StringMatch);
    QueryParameterMatcher { name: name.into(), query_parameter_match_specifier: Some(specifier) }
}
