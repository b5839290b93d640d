//! Role-based access control: permissions and principals, compiled. Evaluation needs only [`RbacFacts`].

use crate::common::Value;
use crate::header::HeaderMatcher;
use ipnet::IpNet;
use meltemi_matchers::{PathMatcher, PathTemplate, StringMatcher};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RbacAction {
    Allow,
    Deny,
    /// Never denies.
    Log,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rbac {
    pub action: RbacAction,
    /// In order of name, as Envoy evaluates them.
    pub policies: Vec<RbacPolicy>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RbacPolicy {
    pub name: Arc<str>,
    pub permissions: Vec<Permission>,
    pub principals: Vec<Principal>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    And(Vec<Permission>),
    Or(Vec<Permission>),
    Not(Box<Permission>),
    Any,
    Header(HeaderMatcher),
    Path(PathMatcher),
    DestinationIp(IpNet),
    DestinationPort(u16),
    /// `start..end`.
    DestinationPortRange {
        start: u32,
        end: u32,
    },
    Metadata(MetadataMatcher),
    ServerName(StringMatcher),
    /// Of the path without query.
    Template(PathTemplate),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    And(Vec<Principal>),
    Or(Vec<Principal>),
    Not(Box<Principal>),
    Any,
    /// Of the peer's URI SAN, else DNS SAN, else subject. `None`: any authenticated peer.
    Authenticated(Option<StringMatcher>),
    /// The peer of the socket.
    DirectRemoteIp(IpNet),
    /// After XFF and PROXY protocol.
    RemoteIp(IpNet),
    Header(HeaderMatcher),
    Path(PathMatcher),
    Metadata(MetadataMatcher),
    FilterState {
        key: Arc<str>,
        matcher: StringMatcher,
    },
}

/// `envoy.type.matcher.v3.MetadataMatcher` over dynamic metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    pub filter: Arc<str>,
    pub path: Vec<Arc<str>>,
    pub value: ValueMatcher,
    pub invert: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    Null,
    Exact(f64),
    Range {
        start: f64,
        end: f64,
    },
    String(StringMatcher),
    Bool(bool),
    Present(bool),
    /// Some element of a list matches.
    AnyElement(Box<ValueMatcher>),
    Or(Vec<ValueMatcher>),
}

impl ValueMatcher {
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Null => matches!(value, Some(Value::Null)),
            Self::Exact(wanted) => value.and_then(Value::as_f64) == Some(*wanted),
            Self::Range { start, end } => {
                value.and_then(Value::as_f64).is_some_and(|number| number >= *start && number < *end)
            }
            Self::String(matcher) => value.and_then(Value::as_str).is_some_and(|text| matcher.matches(text)),
            Self::Bool(wanted) => value.and_then(Value::as_bool) == Some(*wanted),
            Self::Present(wanted) => value.is_some() == *wanted,
            Self::AnyElement(matcher) => {
                value.and_then(Value::as_array).is_some_and(|list| list.iter().any(|item| matcher.matches(Some(item))))
            }
            Self::Or(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}
