//! QPACK (RFC 9204) with the static table alone.
//!
//! We announce a dynamic table of no size, so a section stands by itself: no stream waits for another, and a peer can make us
//! keep nothing. What compression is lost a gateway gets back in latency under loss.

mod table;

use bytes::{BufMut, Bytes, BytesMut};
use http::{StatusCode, header};

use crate::{
    Headers,
    h2::{
        head::is_of_http1,
        hpack::{
            Field, OVERHEAD,
            decode::{DecodeError, Text, by_name, integer, static_size, text, with_value},
            encode::integer as put_integer,
            huffman,
        },
    },
};

/// Decodes a whole section. `take` is given each field and its size (bytes of name and value and 32), and returns whether it wants
/// the next. An error ends the connection (`QPACK_DECOMPRESSION_FAILED`).
pub fn decode(section: &[u8], mut take: impl FnMut(Field, usize) -> bool) -> Result<(), DecodeError> {
    let mut input = section;
    // Required Insert Count: there is no dynamic table that a section could need.
    if integer(&mut input, 8)? != 0 {
        return Err(DecodeError);
    }
    integer(&mut input, 7)?;
    let mut scratch = Vec::new();
    while let Some(first) = input.first().copied() {
        scratch.clear();
        let (field, size) = match first {
            0b1100_0000.. => indexed(integer(&mut input, 6)?)?,
            0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
                let index = integer(&mut input, 4)?;
                let named = (table::name(index), table::name_len(index));
                valued(&mut input, named, first & 0x20 != 0, &mut scratch)?
            }
            0b0010_0000..=0b0011_1111 => {
                let named = literal_name(&mut input, &mut scratch)?;
                scratch.clear();
                valued(&mut input, named, first & 0x10 != 0, &mut scratch)?
            }
            // All else refers to the dynamic table.
            _ => return Err(DecodeError),
        };
        if !take(field, size) {
            break;
        }
    }
    Ok(())
}

fn indexed(index: usize) -> Result<(Field, usize), DecodeError> {
    let field = table::field(index).ok_or(DecodeError)?;
    Ok((field.clone(), static_size(field)))
}

/// A name and its length. RFC 9204 4.5.6: a length with a prefix of three bits, and before it the mark of Huffman's code.
fn literal_name(input: &mut &[u8], scratch: &mut Vec<u8>) -> Result<(Option<Field>, usize), DecodeError> {
    let coded = input.first().ok_or(DecodeError)? & 0x08 != 0;
    let length = integer(input, 3)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(DecodeError)?;
    *input = rest;
    if !coded {
        return Ok((by_name(bytes), bytes.len()));
    }
    huffman::decode(bytes, scratch).map_err(|_| DecodeError)?;
    Ok((by_name(scratch), scratch.len()))
}

/// Reads the value of a name; `never`: no table on the way may keep it.
fn valued(
    input: &mut &[u8],
    (name, name_len): (Option<Field>, usize),
    never: bool,
    scratch: &mut Vec<u8>,
) -> Result<(Field, usize), DecodeError> {
    let value = match text(input, scratch)? {
        Text::Plain(bytes) => bytes,
        Text::Decoded => scratch,
    };
    let size = name_len + value.len() + OVERHEAD;
    let Some(name) = name else { return Ok((Field::Invalid, size)) };
    let mut field = with_value(name, value, Bytes::copy_from_slice);
    if never && let Field::Header(_, value) = &mut field {
        value.set_sensitive(true);
    }
    Ok((field, size))
}

/// The section of a response's head.
pub fn response(status: StatusCode, headers: &Headers, out: &mut BytesMut) {
    begin(out);
    put(out, b":status", status.as_str().as_bytes(), false);
    fields(headers, out);
}

pub fn trailers(headers: &Headers, out: &mut BytesMut) {
    begin(out);
    fields(headers, out);
}

fn begin(out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
}

fn fields(headers: &Headers, out: &mut BytesMut) {
    for (name, value) in headers.iter() {
        if is_of_http1(name) || *name == header::TE && value.as_bytes() != b"trailers" {
            continue;
        }
        put(out, name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
    }
}

fn put(out: &mut BytesMut, name: &[u8], value: &[u8], sensitive: bool) {
    let known = table::index_of(name);
    if !sensitive && let Some(index) = known.and_then(|first| table::exact(first, value)) {
        return put_integer(out, usize::from(index), 6, 0xc0);
    }
    match known {
        Some(index) => put_integer(out, usize::from(index), 4, if sensitive { 0x70 } else { 0x50 }),
        None => {
            put_integer(out, name.len(), 3, if sensitive { 0x30 } else { 0x20 });
            out.put_slice(name);
        }
    }
    put_integer(out, value.len(), 7, 0);
    out.put_slice(value);
}

#[cfg(test)]
mod tests;
