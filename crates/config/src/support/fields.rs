//! Every field that a type can hold, as paths.

use serde::Deserialize;

use crate::kind::{self, Kind};
use crate::shape::Shape;

/// Whether the type keeps the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Used,
    NotUsed,
}

/// The leaves of a kind, in the order of its type.
pub(super) fn of_kind(kind: Kind) -> Vec<(String, Usage)> {
    let start = match kind.info().shape {
        kind::Shape::Spec => "spec",
        kind::Shape::Document => "",
    };
    leaves_of(&Shape::of_kind(kind), start)
}

/// The leaves of a type.
pub(super) fn of_type<T: for<'de> Deserialize<'de>>() -> Vec<(String, Usage)> {
    leaves_of(&Shape::of_type::<T>(), "")
}

fn leaves_of(shape: &Shape, start: &str) -> Vec<(String, Usage)> {
    let mut found = Vec::new();
    leaves(shape, start, &mut found);
    found
}

fn leaves(shape: &Shape, path: &str, found: &mut Vec<(String, Usage)>) {
    match shape {
        Shape::Optional(inner) => leaves(inner, path, found),
        Shape::List(inner) => leaves(inner, &format!("{path}[]"), found),
        Shape::Map(inner) => leaves(inner, &format!("{path}{{}}"), found),
        Shape::Struct(of) if !of.fields.is_empty() => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, inner) in &of.fields {
                leaves(inner, &format!("{path}{dot}{name}"), found);
            }
        }
        Shape::Ignored => found.push((path.to_owned(), Usage::NotUsed)),
        _ => found.push((path.to_owned(), Usage::Used)),
    }
}
