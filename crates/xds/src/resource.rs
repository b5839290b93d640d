//! One resource as both variants of the protocol send it, and its name where they do not.

use std::sync::Arc;

use meltemi_proto::Any;

use crate::types;

/// One named resource and the version of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Equal content has equal versions, whichever server built it.
    pub version: Arc<str>,
    pub body: Arc<Any>,
}

/// The name inside a bare resource, which the state-of-the-world variant does not send beside it. A type that is not known to
/// carry its name in field 1 has the empty name.
pub fn resource_name(any: &Any) -> String {
    if !types::has_name(&any.type_url) {
        return String::new();
    }
    any.leading_string().unwrap_or_default()
}
