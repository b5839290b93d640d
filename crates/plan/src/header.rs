//! Header names, matchers and mutations.

use crate::error::{Result, refuse};
use crate::format::Format;
use http::HeaderName;
use meltemi_matchers::StringMatcher;
use std::borrow::Cow;
use std::fmt;

/// A header, or one of the pseudo-headers that matchers and formatters address by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    Method,
    Path,
    Authority,
    Scheme,
    Protocol,
    Status,
    Name(HeaderName),
}

impl HeaderKey {
    /// A header or pseudo-header by name, in any case.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":protocol" => Self::Protocol,
            ":status" => Self::Status,
            lower => match HeaderName::from_bytes(lower.as_bytes()) {
                Ok(name) => Self::Name(name),
                Err(_) => return refuse(format!("{name:?} is not a header name")),
            },
        })
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
            Self::Name(name) => name.as_str(),
        }
    }
}

impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a matcher may read of a message.
pub trait HeaderLookup {
    /// The value; several values of one name are joined with `,` as Envoy does. `None` when absent.
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderTest {
    Present,
    String(StringMatcher),
    /// A decimal integer in `start..end`.
    Range {
        start: i64,
        end: i64,
    },
}

/// `envoy.config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    pub key: HeaderKey,
    pub test: HeaderTest,
    pub invert: bool,
    pub missing_as_empty: bool,
}

impl HeaderMatcher {
    pub fn matches(&self, headers: &(impl HeaderLookup + ?Sized)) -> bool {
        let value = match headers.value(&self.key) {
            Some(value) => value,
            None if self.missing_as_empty => Cow::Borrowed(&[][..]),
            // Only presence may be inverted into a match of an absent header.
            None => return matches!(self.test, HeaderTest::Present) && self.invert,
        };
        self.hits(&value) != self.invert
    }

    /// Whether a field that is there with these values has one that passes.
    pub fn matches_one_of<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        values.any(|value| self.hits(value)) != self.invert
    }

    fn hits(&self, value: &[u8]) -> bool {
        match &self.test {
            HeaderTest::Present => true,
            HeaderTest::String(matcher) => matcher.matches(value),
            HeaderTest::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| number >= *start && number < *end),
        }
    }

    pub fn all_match(matchers: &[Self], headers: &(impl HeaderLookup + ?Sized)) -> bool {
        matchers.iter().all(|matcher| matcher.matches(headers))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HeaderAdd {
    pub key: HeaderKey,
    pub value: Format,
    pub action: AppendAction,
    /// Add it even if the value comes out empty.
    pub keep_empty: bool,
}

/// `*_headers_to_remove` and then `*_headers_to_add` of one level (weighted cluster, route, virtual host, configuration).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderRules {
    pub remove: Vec<HeaderName>,
    pub add: Vec<HeaderAdd>,
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// One step of the header mutation filter, applied in order.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderMutation {
    Remove(HeaderName),
    RemoveMatching(StringMatcher),
    Add(HeaderAdd),
}
