//! Header blocks to fields.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Field, OVERHEAD, huffman, tables::STATIC};
use crate::{ByteStr, Scheme, name};

/// The block cannot be decoded: the connection's state is lost (RFC 7541 2.3.3 and others).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError;

/// Storage that literal values are copied into, a piece for many values.
const PIECE: usize = 2 * 1024;
/// An integer larger than this is refused; far beyond any length or index that a block of allowed size can hold.
const MAX_INTEGER: usize = 1 << 24;

/// A field with its size. The length of the name is kept for entries whose field is [`Field::Invalid`].
struct Entry {
    field: Field,
    name_len: usize,
    size: usize,
}

/// One direction's decoding state.
pub(in crate::h2) struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    /// What the peer set, at most `limit`.
    capacity: usize,
    /// What our settings allow.
    limit: usize,
    values: BytesMut,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A string of a block: plain ones are still in the frame.
pub(crate) enum Text<'a> {
    Plain(&'a [u8]),
    /// Decoded into the scratch buffer that the caller named.
    Decoded,
}

impl Decoder {
    pub fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            capacity: limit,
            limit,
            values: BytesMut::new(),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Lets go of scratch storage; called when the connection is idle.
    pub fn release(&mut self) {
        self.values = BytesMut::new();
        self.name = Vec::new();
        self.value = Vec::new();
    }

    /// Decodes a whole block. `take` is given each field and its size (bytes of name and value and 32), and returns whether it
    /// wants the next; the table is kept right whatever it wants.
    pub fn decode(&mut self, block: &[u8], mut take: impl FnMut(Field, usize) -> bool) -> Result<(), DecodeError> {
        let mut input = block;
        let mut wanted = true;
        let mut began = false;
        while let Some(first) = input.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut input, 7)?;
                let (field, _, size) = self.entry(index)?;
                if wanted {
                    wanted = take(field.clone(), size);
                }
            } else if first & 0x40 != 0 {
                let literal = self.literal(&mut input, 6, wanted, true)?;
                if wanted {
                    wanted = take(literal.field.clone(), literal.size);
                }
                self.insert(literal);
            } else if first & 0x20 != 0 {
                // RFC 7541 4.2: only at the beginning of a block.
                let capacity = integer(&mut input, 5)?;
                if began || capacity > self.limit {
                    return Err(DecodeError);
                }
                self.capacity = capacity;
                self.evict_to(capacity);
                continue;
            } else {
                let never = first & 0x10 != 0;
                let mut literal = self.literal(&mut input, 4, wanted, false)?;
                if never && let Field::Header(_, value) = &mut literal.field {
                    value.set_sensitive(true);
                }
                if wanted {
                    wanted = take(literal.field, literal.size);
                }
            }
            began = true;
        }
        Ok(())
    }

    /// The field of an index, the length of its name, and its size.
    fn entry(&self, index: usize) -> Result<(&Field, usize, usize), DecodeError> {
        let index = index.checked_sub(1).ok_or(DecodeError)?;
        if let Some(field) = STATIC.get(index) {
            return Ok((field, name_of(field).len(), static_size(field)));
        }
        let entry = self.entries.get(index - STATIC.len()).ok_or(DecodeError)?;
        Ok((&entry.field, entry.name_len, entry.size))
    }

    /// A literal with its name by index or in full. `keep`: it is going into the table, and so gets storage of its own.
    fn literal(&mut self, input: &mut &[u8], prefix: u32, wanted: bool, keep: bool) -> Result<Entry, DecodeError> {
        let index = integer(input, prefix)?;
        let mut scratch = std::mem::take(&mut self.name);
        let mut decoded = std::mem::take(&mut self.value);
        scratch.clear();
        decoded.clear();
        let result = self.literal_parts(input, index, (&mut scratch, &mut decoded), (wanted, keep));
        self.name = scratch;
        self.value = decoded;
        result
    }

    fn literal_parts(
        &mut self,
        input: &mut &[u8],
        index: usize,
        (scratch, decoded): (&mut Vec<u8>, &mut Vec<u8>),
        (wanted, keep): (bool, bool),
    ) -> Result<Entry, DecodeError> {
        let (name_len, known) = if index == 0 {
            let name = match text(input, scratch)? {
                Text::Plain(bytes) => bytes,
                Text::Decoded => scratch,
            };
            (name.len(), by_name(name))
        } else {
            let (field, name_len, _) = self.entry(index)?;
            (name_len, Some(field.clone()))
        };
        let value = match text(input, decoded)? {
            Text::Plain(bytes) => bytes,
            Text::Decoded => decoded,
        };
        let size = name_len + value.len() + OVERHEAD;
        let field = match known {
            Some(name) if wanted || keep => with_value(name, value, |value| self.store(value, keep)),
            Some(_) | None => Field::Invalid,
        };
        Ok(Entry { field, name_len, size })
    }

    fn store(&mut self, value: &[u8], keep: bool) -> Bytes {
        // A table entry outlives its message, and must not hold the storage of others.
        if keep || value.len() > PIECE / 4 {
            return Bytes::copy_from_slice(value);
        }
        if self.values.capacity() < value.len() {
            self.values = BytesMut::with_capacity(PIECE);
        }
        self.values.extend_from_slice(value);
        self.values.split().freeze()
    }

    /// RFC 7541 4.4: an entry larger than the table empties it.
    fn insert(&mut self, entry: Entry) {
        let Some(room) = self.capacity.checked_sub(entry.size) else { return self.evict_to(0) };
        self.evict_to(room);
        self.size += entry.size;
        self.entries.push_front(entry);
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

/// A field of that name with a value; [`Field::Invalid`] where no message may have it. `store` gives a header's value its place.
pub(crate) fn with_value(name: Field, value: &[u8], store: impl FnOnce(&[u8]) -> Bytes) -> Field {
    let field = match name {
        Field::Header(name, _) => {
            return match HeaderValue::from_maybe_shared(store(value)) {
                Ok(value) => Field::Header(name, value),
                Err(_) => Field::Invalid,
            };
        }
        Field::Method(_) => Method::from_bytes(value).ok().map(Field::Method),
        Field::Scheme(_) if value.eq_ignore_ascii_case(b"http") => Some(Field::Scheme(Scheme::Http)),
        Field::Scheme(_) if value.eq_ignore_ascii_case(b"https") => Some(Field::Scheme(Scheme::Https)),
        Field::Authority(_) if is_authority(value) => ByteStr::from_utf8(value).map(Field::Authority),
        Field::Path(_) if value.iter().all(u8::is_ascii_graphic) => ByteStr::from_utf8(value).map(Field::Path),
        Field::Protocol(_) if name::parse(value).is_some() => ByteStr::from_utf8(value).map(Field::Protocol),
        Field::Status(_) if value.len() == 3 => StatusCode::from_bytes(value).ok().map(Field::Status),
        Field::Scheme(_)
        | Field::Authority(_)
        | Field::Path(_)
        | Field::Protocol(_)
        | Field::Status(_)
        | Field::Invalid => None,
    };
    field.unwrap_or(Field::Invalid)
}

fn name_of(field: &Field) -> &str {
    match field {
        Field::Header(name, _) => name.as_str(),
        Field::Method(_) => ":method",
        Field::Scheme(_) => ":scheme",
        Field::Authority(_) => ":authority",
        Field::Path(_) => ":path",
        Field::Protocol(_) => ":protocol",
        Field::Status(_) => ":status",
        Field::Invalid => "",
    }
}

/// Bytes of name and value of a table's entry, and [`OVERHEAD`].
pub(crate) fn static_size(field: &Field) -> usize {
    let value = match field {
        Field::Header(_, value) => value.len(),
        Field::Method(method) => method.as_str().len(),
        Field::Scheme(scheme) => scheme.as_str().len(),
        Field::Authority(text) | Field::Path(text) | Field::Protocol(text) => text.as_bytes().len(),
        Field::Status(_) => 3,
        Field::Invalid => 0,
    };
    name_of(field).len() + value + OVERHEAD
}

/// A field of that name without value; `None` if no message may have one.
pub(crate) fn by_name(bytes: &[u8]) -> Option<Field> {
    if bytes.first() == Some(&b':') {
        return Some(match bytes {
            b":method" => Field::Method(Method::GET),
            b":scheme" => Field::Scheme(Scheme::Http),
            b":authority" => Field::Authority(ByteStr::default()),
            b":path" => Field::Path(ByteStr::default()),
            b":protocol" => Field::Protocol(ByteStr::default()),
            b":status" => Field::Status(StatusCode::OK),
            _ => return None,
        });
    }
    if bytes.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let name: HeaderName = name::parse(bytes)?;
    Some(Field::Header(name, HeaderValue::from_static("")))
}

/// Host and port without user information; the same rule as for HTTP/1's `Host`.
pub(in crate::h2) fn is_authority(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_graphic() && !b"/\\?#\"<>^{}|`@".contains(b))
}

/// RFC 7541 5.1.
pub(crate) fn integer(input: &mut &[u8], prefix: u32) -> Result<usize, DecodeError> {
    let (first, mut rest) = input.split_first().ok_or(DecodeError)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(DecodeError)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if value > MAX_INTEGER || shift > 28 {
                return Err(DecodeError);
            }
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
    }
    *input = rest;
    Ok(value)
}

/// RFC 7541 5.2.
pub(crate) fn text<'a>(input: &mut &'a [u8], scratch: &mut Vec<u8>) -> Result<Text<'a>, DecodeError> {
    let coded = input.first().ok_or(DecodeError)? & 0x80 != 0;
    let length = integer(input, 7)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(DecodeError)?;
    *input = rest;
    if !coded {
        return Ok(Text::Plain(bytes));
    }
    huffman::decode(bytes, scratch).map_err(|_| DecodeError)?;
    Ok(Text::Decoded)
}
