//! Compiled matchers of strings, addresses and domains, shared by validation and by the proxy.
//!
//! Owns the semantics of Envoy's and Istio's matchers once, as values without I/O and without clock. Must never allocate
//! on the matching path (case-insensitive regexes included); compiling may. Costs: exact, prefix and suffix are one
//! comparison; [`CidrMap`] one hash look-up a distinct prefix length; [`DomainTrie`] one a distinct wildcard length;
//! [`PrefixTree`] one pass over the text.

mod cidr;
mod domain;
mod prefix;
mod regex;
mod string;
mod template;

pub use cidr::{CidrMap, CidrSet};
pub use domain::{DomainError, DomainTrie};
pub use prefix::{PrefixTree, PrefixesOf};
pub use regex::{FullRegex, RegexError, RegexRewrite, quoted};
pub use string::{PathMatcher, StringMatcher, StringPattern};
pub use template::{PathTemplate, TemplateError};
