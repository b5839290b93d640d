//! Walks an encoded message by the table.

use super::table::MESSAGES;
use super::{Class, Field, Kind, Message, message};
use crate::error::{PlanError, Result};
use meltemi_proto::Any;
use smallvec::SmallVec;

/// As deep as prost decodes.
const MAX_DEPTH: usize = 100;

/// One step of the way down to a field.
#[derive(Debug, Clone)]
pub(super) struct Step {
    name: &'static str,
    index: Option<usize>,
    key: Option<String>,
}

pub(super) enum Found<'a> {
    Field(&'a Field),
    Unknown(u32),
}

/// Renders a path in the form of [`PlanError`].
pub(super) fn text(path: &[Step], last: Option<&str>) -> String {
    let mut out = String::new();
    for step in path {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(step.name);
        if let Some(index) = step.index {
            out.push_str(&format!("[{index}]"));
        }
        if let Some(key) = &step.key {
            out.push_str(&format!("[{key:?}]"));
        }
    }
    if let Some(last) = last {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(last);
    }
    out
}

#[derive(Default)]
pub(super) struct Walk {
    path: Vec<Step>,
    depth: usize,
}

type Visit<'v> = dyn FnMut(&[Step], Found<'_>) -> Result<()> + 'v;

/// A field's value as it stands in the message.
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = *self.0.get(at)?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    /// The next field; `None` at a fault.
    fn field(&mut self) -> Option<(u32, Raw<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
        Some((
            number,
            match key & 7 {
                0 => Raw::Number(self.varint()?),
                1 => Raw::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    Raw::Bytes(self.take(length)?)
                }
                5 => Raw::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
                _ => return None,
            },
        ))
    }
}

/// Calls `visit` with the number and the whole encoding of each field of a message.
pub(super) fn top_level(bytes: &[u8], mut visit: impl FnMut(u32, &[u8])) -> Result<()> {
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() {
        let before = reader.0;
        let Some((number, _)) = reader.field() else { return Err(PlanError::new("malformed protobuf")) };
        visit(number, &before[..before.len() - reader.0.len()]);
    }
    Ok(())
}

impl Walk {
    pub(super) fn message(&mut self, bytes: &[u8], message: &'static Message, visit: &mut Visit<'_>) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault("is nested too deeply"));
        }
        self.depth += 1;
        let done = self.fields(bytes, message, visit);
        self.depth -= 1;
        done
    }

    fn fault(&self, reason: &str) -> PlanError {
        PlanError { path: text(&self.path, None), reason: reason.into() }
    }

    fn fields(&mut self, bytes: &[u8], message: &'static Message, visit: &mut Visit<'_>) -> Result<()> {
        let mut counts: SmallVec<[(u32, usize); 8]> = SmallVec::new();
        let mut reader = Reader(bytes);
        while !reader.0.is_empty() {
            let Some((number, raw)) = reader.field() else { return Err(self.fault("malformed protobuf")) };
            let Some(field) = message.field(number) else {
                visit(&self.path, Found::Unknown(number))?;
                continue;
            };
            if is_unset(field, &raw) {
                continue;
            }
            visit(&self.path, Found::Field(field))?;
            let Raw::Bytes(inner) = raw else { continue };
            if field.class != Class::Honoured || matches!(field.kind, Kind::Leaf | Kind::Opaque | Kind::Wrapper) {
                continue;
            }
            let index = field.repeated.then(|| next_index(&mut counts, number));
            self.path.push(Step { name: field.name, index, key: None });
            self.value(field.kind, inner, visit)?;
            self.path.pop();
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, bytes: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        match kind {
            Kind::Leaf | Kind::Opaque | Kind::Wrapper => Ok(()),
            Kind::Message(index) => self.message(bytes, &MESSAGES[usize::from(index)], visit),
            Kind::Any => self.any(bytes, visit),
            Kind::AnyMap | Kind::MessageMap(_) => {
                let (key, value) = pair(bytes).ok_or_else(|| self.fault("malformed protobuf"))?;
                if let Some(step) = self.path.last_mut() {
                    step.key = Some(String::from_utf8_lossy(key).into_owned());
                }
                match kind {
                    Kind::MessageMap(index) => self.message(value, &MESSAGES[usize::from(index)], visit),
                    _ => self.any(value, visit),
                }
            }
        }
    }

    /// Types that are not in the table are for the conversion to judge.
    fn any(&mut self, bytes: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let (type_url, value) = pair(bytes).ok_or_else(|| self.fault("malformed protobuf"))?;
        let Ok(type_url) = std::str::from_utf8(type_url) else { return Err(self.fault("type_url is not UTF-8")) };
        let name = type_url.rsplit('/').next().unwrap_or_default();
        if let Some(message) = message(name) {
            return self.message(value, message, visit);
        }
        if name.ends_with(".TypedStruct") {
            let any = Any { type_url: type_url.into(), value: bytes::Bytes::copy_from_slice(value) };
            let resolved =
                meltemi_proto::json::resolve_typed_struct(&any).map_err(|error| self.fault(&error.to_string()))?;
            if let Some(message) = message(resolved.type_url.rsplit('/').next().unwrap_or_default()) {
                return self.message(&resolved.value, message, visit);
            }
        }
        Ok(())
    }
}

/// The two fields of a map entry or an `Any`.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut first, mut second) = (&[][..], &[][..]);
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() {
        match reader.field()? {
            (1, Raw::Bytes(bytes)) => first = bytes,
            (2, Raw::Bytes(bytes)) => second = bytes,
            _ => {}
        }
    }
    Some((first, second))
}

/// Zero scalars and empty wrappers may be on the wire without having been asked for. A set but empty leaf message cannot be
/// told from an empty string here; neither asks for anything.
fn is_unset(field: &Field, raw: &Raw<'_>) -> bool {
    match (field.kind, raw) {
        (Kind::Leaf, Raw::Number(0)) => true,
        (Kind::Leaf, Raw::Bytes(bytes)) => !field.repeated && bytes.is_empty(),
        (Kind::Wrapper, Raw::Bytes(bytes)) => bytes.iter().skip(1).all(|byte| *byte == 0),
        _ => false,
    }
}

fn next_index(counts: &mut SmallVec<[(u32, usize); 8]>, number: u32) -> usize {
    match counts.iter_mut().find(|(have, _)| *have == number) {
        Some((_, count)) => {
            *count += 1;
            *count
        }
        None => {
            counts.push((number, 0));
            0
        }
    }
}
