//! Header matchers, rules and mutations.

use super::common::{enumeration, list, regex, required, string_matcher};
use crate::error::{At, PlanError, Result, refuse};
use crate::format::Format;
use crate::header::{AppendAction, HeaderAdd, HeaderKey, HeaderMatcher, HeaderMutation, HeaderRules, HeaderTest};
use http::HeaderName;
use meltemi_matchers::{StringMatcher, StringPattern};
use meltemi_proto::envoy::config::common::mutation_rules::v3 as mutation;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3 as route;

pub(crate) fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
        .map_err(|_| PlanError::new(format!("{name:?} is not a header name")))
}

pub(crate) fn header_matcher(value: &route::HeaderMatcher) -> Result<HeaderMatcher> {
    use route::header_matcher::HeaderMatchSpecifier as Kind;
    let key = HeaderKey::parse(&value.name).at("name")?;
    let mut invert = value.invert_match;
    let mut missing_as_empty = value.treat_missing_header_as_empty;
    let test = match value.header_match_specifier.as_ref() {
        None | Some(Kind::PresentMatch(true)) => HeaderTest::Present,
        Some(Kind::PresentMatch(false)) => {
            invert = !invert;
            HeaderTest::Present
        }
        Some(Kind::ExactMatch(text)) => HeaderTest::String(StringMatcher::exact(text)),
        Some(Kind::PrefixMatch(text)) => HeaderTest::String(StringMatcher::prefix(text)),
        Some(Kind::SuffixMatch(text)) => HeaderTest::String(StringMatcher::suffix(text)),
        Some(Kind::ContainsMatch(text)) => HeaderTest::String(StringMatcher::contains(text)),
        Some(Kind::SafeRegexMatch(pattern)) => HeaderTest::String(StringMatcher {
            pattern: StringPattern::Regex(regex(pattern).at("safe_regex_match")?),
            ignore_case: false,
        }),
        Some(Kind::StringMatch(matcher)) => HeaderTest::String(string_matcher(matcher).at("string_match")?),
        Some(Kind::RangeMatch(range)) => HeaderTest::Range { start: range.start, end: range.end },
    };
    if test == HeaderTest::Present {
        missing_as_empty = false;
    }
    Ok(HeaderMatcher { key, test, invert, missing_as_empty })
}

pub(crate) fn header_matchers(values: &[route::HeaderMatcher], field: &str) -> Result<Vec<HeaderMatcher>> {
    list(values, field, header_matcher)
}

pub(crate) fn header_add(value: &core::HeaderValueOption) -> Result<HeaderAdd> {
    use core::header_value_option::HeaderAppendAction as Action;
    let header = required(&value.header, "header")?;
    let key = HeaderKey::parse(&header.key).at("key").at("header")?;
    if matches!(key, HeaderKey::Method | HeaderKey::Status | HeaderKey::Protocol) {
        return refuse(format!("header.key: {key} may not be changed"));
    }
    if header.key.eq_ignore_ascii_case("host") {
        return refuse("header.key: host may not be changed");
    }
    let text = match (header.value.is_empty(), header.raw_value.is_empty()) {
        (_, true) => header.value.as_str(),
        (true, false) => std::str::from_utf8(&header.raw_value)
            .map_err(|_| PlanError::new("header.raw_value: bytes that are not UTF-8 are not supported"))?,
        (false, false) => return refuse("header: only one of value and raw_value may be set"),
    };
    let action = match (value.append, enumeration::<Action>(value.append_action).at("append_action")?) {
        (Some(true), _) => AppendAction::AppendIfExistsOrAdd,
        (Some(false), _) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Action::AppendIfExistsOrAdd) => AppendAction::AppendIfExistsOrAdd,
        (None, Action::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, Action::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Action::OverwriteIfExists) => AppendAction::OverwriteIfExists,
    };
    if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return refuse("header.value: holds a line break or NUL");
    }
    let value_format = Format::parse(text).at("value").at("header")?;
    Ok(HeaderAdd { key, value: value_format, action, keep_empty: value.keep_empty_value })
}

pub(crate) fn header_adds(values: &[core::HeaderValueOption], field: &str) -> Result<Vec<HeaderAdd>> {
    list(values, field, |value| {
        let add = header_add(value)?;
        match add.key {
            HeaderKey::Name(_) => Ok(add),
            pseudo => refuse(format!("header.key: {pseudo} may not be changed")),
        }
    })
}

/// `prefix` is `request_headers` or `response_headers`.
pub(crate) fn header_rules(add: &[core::HeaderValueOption], remove: &[String], prefix: &str) -> Result<HeaderRules> {
    let field = format!("{prefix}_to_remove");
    let remove = list(remove, &field, |name| {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            return refuse(format!("{name} may not be removed"));
        }
        header_name(name)
    })?;
    Ok(HeaderRules { add: header_adds(add, &format!("{prefix}_to_add"))?, remove })
}

pub(crate) fn header_mutation(value: &mutation::HeaderMutation) -> Result<HeaderMutation> {
    use mutation::header_mutation::Action;
    Ok(match required(&value.action, "action")? {
        Action::Remove(name) => HeaderMutation::Remove(header_name(name).at("remove")?),
        Action::Append(add) => HeaderMutation::Add(header_add(add).at("append")?),
        Action::RemoveOnMatch(found) => {
            let matcher = required(&found.key_matcher, "remove_on_match.key_matcher")?;
            HeaderMutation::RemoveMatching(string_matcher(matcher).at("remove_on_match.key_matcher")?)
        }
    })
}
