//! Which fields of Envoy's messages are honoured, refused, or accepted without effect: `support.txt`, compiled.
//!
//! [`check`] walks the encoded message, not the decoded one, so that a field that is too new for our generated types is seen
//! too. It allocates only for an error; a listener with its filters takes some microseconds.

mod table;
mod walk;

use crate::error::{PlanError, Result};
use std::sync::Arc;

/// What becomes of a field that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Honoured,
    /// With the reason.
    Refused(&'static str),
    /// Accepted without effect, with the reason.
    Ignored(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A scalar, or a well-known message whose inside needs no look (durations, structs).
    Leaf,
    /// A message that is not in the table, since it stands nowhere that is honoured.
    Opaque,
    /// A well-known wrapper; empty means the zero value.
    Wrapper,
    /// Index into the table.
    Message(u16),
    Any,
    /// A map to `Any`.
    AnyMap,
    /// A map to a message of the table.
    MessageMap(u16),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub number: u32,
    pub name: &'static str,
    pub kind: Kind,
    pub repeated: bool,
    pub class: Class,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub name: &'static str,
    /// In order of number.
    pub fields: &'static [Field],
}

impl Message {
    fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &self.fields[at])
    }
}

fn message(name: &str) -> Option<&'static Message> {
    table::MESSAGES.binary_search_by_key(&name, |message| message.name).ok().map(|at| &table::MESSAGES[at])
}

/// Refuses an encoded message of the table that sets an unsupported or unknown field.
pub(crate) fn check(bytes: &[u8], name: &str) -> Result<()> {
    let Some(message) = message(name) else { return Ok(()) };
    walk::Walk::default().message(bytes, message, &mut |path, found| match found {
        walk::Found::Field(Field { class: Class::Refused(reason), name, .. }) => {
            Err(PlanError { path: walk::text(path, Some(name)), reason: (*reason).into() })
        }
        walk::Found::Field(_) => Ok(()),
        walk::Found::Unknown(number) => Err(PlanError {
            path: walk::text(path, None),
            reason: format!("field number {number} is not known to this version"),
        }),
    })
}

/// Fields that are set but have no effect: their paths and the reasons. At most a hundred are told.
pub(crate) fn ignored(bytes: &[u8], name: &str) -> Vec<(Arc<str>, Arc<str>)> {
    const MOST: usize = 100;
    let mut found = Vec::new();
    if let Some(message) = message(name) {
        // A message that could not be walked was refused before.
        let _ = walk::Walk::default().message(bytes, message, &mut |path, field| {
            if let walk::Found::Field(Field { class: Class::Ignored(reason), name, .. }) = field
                && found.len() < MOST
            {
                found.push((walk::text(path, Some(name)).into(), Arc::from(*reason)));
            }
            Ok(())
        });
    }
    found
}

/// Refuses an encoded xDS resource that sets an unsupported field, including those that decoding would lose.
pub fn check_resource(type_url: &str, bytes: &[u8]) -> Result<()> {
    check(bytes, type_url.rsplit('/').next().unwrap_or_default())
}

/// An encoded message as two: the fields of these numbers, and all others. Each keeps its order.
pub(crate) fn split(bytes: &[u8], numbers: &[u32]) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut chosen, mut rest) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    walk::top_level(bytes, |number, field| {
        if numbers.contains(&number) { &mut chosen } else { &mut rest }.extend_from_slice(field);
    })?;
    rest.shrink_to_fit();
    Ok((chosen, rest))
}

/// The whole table: message, field, class.
pub fn entries() -> impl Iterator<Item = (&'static str, &'static str, Class)> {
    table::MESSAGES
        .iter()
        .flat_map(|message| message.fields.iter().map(move |field| (message.name, field.name, field.class)))
}

#[cfg(test)]
mod tests;
