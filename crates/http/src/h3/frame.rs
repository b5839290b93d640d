//! Frames (RFC 9114 7.2): their types, and their headers as bytes arrive.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;
pub const CANCEL_PUSH: u64 = 0x3;
pub const SETTINGS: u64 = 0x4;
pub const PUSH_PROMISE: u64 = 0x5;
pub const GOAWAY: u64 = 0x7;
pub const MAX_PUSH_ID: u64 = 0xd;

/// Types that meant something in HTTP/2 and must not come here (RFC 9114 7.2.8).
pub fn is_of_http2(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}

/// Largest value of a variable-length integer (RFC 9000 16).
const MAX_VARINT: u64 = (1 << 62) - 1;

/// A variable-length integer and its length, once all of it is there.
pub fn varint(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let length = 1usize << (first >> 6);
    let rest = input.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

pub fn put_varint(out: &mut BytesMut, value: u64) {
    debug_assert!(value <= MAX_VARINT, "a variable-length integer has 62 bits");
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// Puts the header of a frame.
pub fn put_header(out: &mut BytesMut, kind: u64, length: usize) {
    put_varint(out, kind);
    put_varint(out, length as u64);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: u64,
    /// Of the payload.
    pub length: u64,
}

/// A frame's header that may come in pieces.
#[derive(Debug, Default)]
pub struct Partial {
    bytes: [u8; 16],
    len: usize,
}

impl Partial {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes no more of `input` than the header; `None` when more is needed.
    pub fn read(&mut self, input: &mut Bytes) -> Option<FrameHeader> {
        while let Some(byte) = input.first().copied() {
            input.advance(1);
            self.bytes[self.len] = byte;
            self.len += 1;
            let known = &self.bytes[..self.len];
            if let Some((kind, used)) = varint(known)
                && let Some((length, _)) = varint(&known[used..])
            {
                self.len = 0;
                return Some(FrameHeader { kind, length });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_examples_of_the_rfc() {
        let cases: [(&[u8], u64); 4] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(varint(bytes), Some((value, bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
        assert_eq!(varint(&[0x40, 0x25]), Some((37, 2)), "longer than it need be");
    }

    #[test]
    fn a_header_is_read_whatever_pieces_it_comes_in() {
        let mut whole = BytesMut::new();
        put_header(&mut whole, 0x21, 100_000);
        whole.put_slice(b"payload");
        let whole = whole.freeze();
        for cut in 0..5 {
            let (mut first, mut second) = (whole.slice(..cut), whole.slice(cut..));
            let mut partial = Partial::default();
            assert_eq!(partial.read(&mut first), None);
            assert_eq!((partial.is_empty(), first.is_empty()), (cut == 0, true));
            assert_eq!(partial.read(&mut second), Some(FrameHeader { kind: 0x21, length: 100_000 }));
            assert_eq!((partial.is_empty(), &second[..]), (true, &b"payload"[..]));
        }
    }
}
