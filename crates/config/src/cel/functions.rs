//! The functions of the language and, of Kubernetes' own, those about lists, patterns, URLs and addresses.
//!
//! Owns which names are known. Sets, versions, quantities, named formats and `format` are not: a rule that needs them is
//! refused when its definition is read.

mod address;
mod arithmetic;
mod convert;
mod list;
mod text;
mod time;
mod url;

use super::evaluate::{Budget, Outcome, no_overload};
use super::value::Value;

pub(super) use self::arithmetic::arithmetic;
pub(super) use self::convert::shown;
pub(crate) use self::time::duration;
pub(crate) use self::url::Url;

/// Functions about one thing: `None` if the name or the types are not theirs.
type Family = fn(&str, &[Value], &Budget) -> Option<Outcome>;

/// Those that are called on a value: `a.f(b)`, where `a` is the first argument.
const METHODS: &[(&[&str], Family)] = &[
    (text::METHODS, text::method),
    (list::METHODS, list::method),
    (time::METHODS, time::method),
    (url::METHODS, url::method),
    (address::METHODS, address::method),
];

/// Those that are called by name alone.
const FUNCTIONS: &[(&[&str], Family)] = &[
    (convert::FUNCTIONS, convert::function),
    (text::FUNCTIONS, text::method),
    (url::FUNCTIONS, url::function),
    (address::FUNCTIONS, address::function),
];

pub(super) fn is_known(name: &str) -> bool {
    METHODS.iter().chain(FUNCTIONS).any(|(names, _)| names.contains(&name))
}

/// Calls a function; `method` says that the first argument stood before the dot.
pub(super) fn call(name: &str, method: bool, arguments: &[Value], budget: &Budget) -> Outcome {
    let families = if method { METHODS } else { FUNCTIONS };
    let mut known = families.iter().filter(|(names, _)| names.contains(&name));
    let outcome = known.find_map(|(_, family)| family(name, arguments, budget));
    outcome.unwrap_or_else(|| Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())))
}
