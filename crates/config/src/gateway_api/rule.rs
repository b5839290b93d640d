//! What HTTPRoute and GRPCRoute have in common: rules of matches, filters and backends.

use super::{BackendRef, ParentReference};
use crate::wire::Str;

/// A route that consists of rules.
pub trait RuledRoute {
    type Rule: RouteRule;

    fn parent_refs(&self) -> &[ParentReference];
    /// Empty: those of the parent.
    fn hostnames(&self) -> &[Str];
    fn rules(&self) -> &[Self::Rule];
}

/// A rule: requests that any of its matches fits go to its backends.
pub trait RouteRule {
    type Match;
    type Backend: FilteredBackend;

    fn name(&self) -> Option<&Str>;
    /// Empty: every request.
    fn matches(&self) -> &[Self::Match];
    fn backend_refs(&self) -> &[Self::Backend];
}

/// A [`BackendRef`] with filters of its own.
pub trait FilteredBackend {
    type Filter;

    /// What it names, without the filters.
    fn backend(&self) -> BackendRef;
    fn filters(&self) -> &[Self::Filter];
}

/// Declares a [`FilteredBackend`]: the fields of a [`BackendRef`], and filters.
macro_rules! filtered_backend {
    ($name:ident, $filter:ident) => {
        message! {
            /// A [`BackendRef`](super::BackendRef) with filters of its own.
            struct $name {
                group: Option<Str>,
                kind: Option<Str>,
                name: Str,
                namespace: Option<Str>,
                port: Option<u32>,
                weight: Option<i32>,
                filters: Vec<$filter>,
            }
        }

        impl super::FilteredBackend for $name {
            type Filter = $filter;

            fn backend(&self) -> super::BackendRef {
                super::BackendRef {
                    group: self.group.clone(),
                    kind: self.kind.clone(),
                    name: self.name.clone(),
                    namespace: self.namespace.clone(),
                    port: self.port,
                    weight: self.weight,
                }
            }

            fn filters(&self) -> &[$filter] {
                &self.filters
            }
        }
    };
}

/// Says of a route and its rules that they are a [`RuledRoute`] and [`RouteRule`]s.
macro_rules! ruled_route {
    ($route:ident, $rule:ident, $condition:ident, $backend:ident) => {
        impl RuledRoute for $route {
            type Rule = $rule;

            fn parent_refs(&self) -> &[ParentReference] {
                &self.parent_refs
            }

            fn hostnames(&self) -> &[Str] {
                &self.hostnames
            }

            fn rules(&self) -> &[$rule] {
                &self.rules
            }
        }

        impl RouteRule for $rule {
            type Match = $condition;
            type Backend = $backend;

            fn name(&self) -> Option<&Str> {
                self.name.as_ref()
            }

            fn matches(&self) -> &[$condition] {
                &self.matches
            }

            fn backend_refs(&self) -> &[$backend] {
                &self.backend_refs
            }
        }
    };
}

pub(super) use {filtered_backend, ruled_route};
