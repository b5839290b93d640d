//! The one table that says which field takes effect.

use crate::object::Object;
use crate::validate::Finding;

/// Fields of an object that are set and not enforced yet.
pub fn unsupported(_object: &Object) -> Vec<Finding> {
    Vec::new()
}
