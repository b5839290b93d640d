//! A rule's `match` as matchers of headers, all of which must hold.

use meltemi_config::rate_limit::RateLimitMatch;
use meltemi_config::wire::Str;
use meltemi_matchers::quoted;
use meltemi_proto::envoy::config::route::v3::HeaderMatcher;
use meltemi_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;

use crate::authorization::matcher;
use crate::route::header_matcher;

pub fn headers(matches: &RateLimitMatch) -> Vec<HeaderMatcher> {
    let lists = [
        (":authority", one_of(&matches.hosts, host)),
        (":method", one_of(&matches.methods, pattern)),
        (":path", one_of(&matches.paths, path)),
    ];
    let pseudo = lists.into_iter().filter_map(|(name, regex)| Some((name, regex?)));
    let pseudo = pseudo.map(|(name, regex)| HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher::regex(regex))),
        ..HeaderMatcher::default()
    });
    pseudo.chain(matches.headers.iter().map(|(name, value)| header_matcher(name, value))).collect()
}

/// `None` where everything matches.
fn one_of(patterns: &[Str], regex: fn(&str) -> String) -> Option<String> {
    let everything = patterns.is_empty() || patterns.iter().any(|pattern| &**pattern == "*");
    (!everything).then(|| patterns.iter().map(|pattern| regex(pattern)).collect::<Vec<_>>().join("|"))
}

fn pattern(text: &str) -> String {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(suffix), _) => format!(".*{}", quoted(suffix)),
        (None, Some(prefix)) => format!("{}.*", quoted(prefix)),
        (None, None) => quoted(text),
    }
}

/// In any case, with or without a port.
fn host(text: &str) -> String {
    format!("(?i:{})(:[0-9]+)?", pattern(text))
}

/// With or without a query, which is no part of what must match.
fn path(text: &str) -> String {
    let pattern = match text.strip_prefix('*') {
        Some(suffix) => format!("[^?]*{}", quoted(suffix)),
        None => pattern(text),
    };
    format!("{pattern}(\\?.*)?")
}
