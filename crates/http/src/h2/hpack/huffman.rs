//! The Huffman code of RFC 7541 Appendix B.
//!
//! The code is canonical: the lengths determine it, so they are all that is written down; codes and the decoding table are made
//! at compile time. Symbols of up to eight bits, which is all that ordinary text uses, are decoded by one look-up each.

use bytes::{BufMut, BytesMut};

/// Bits of each symbol's code; the last is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
const EOS: usize = 256;
const LONGEST: usize = 30;
/// Width of the look-up.
const WIDTH: u32 = 8;

struct Code {
    codes: [u32; 257],
    /// Symbols in the order of their codes.
    order: [u16; 257],
    /// For each length: its first code, how many there are, and where they begin in `order`.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u16; LONGEST + 1],
    /// By the next eight bits: the symbol and its length; 0 for a longer code.
    short: [(u8, u8); 1 << WIDTH],
}

const fn build() -> Code {
    let mut code = Code {
        codes: [0; 257],
        order: [0; 257],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        short: [(0, 0); 1 << WIDTH],
    };
    let (mut next, mut placed, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.start[length] = placed as u16;
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == length {
                code.codes[symbol] = next;
                code.order[placed] = symbol as u16;
                code.count[length] += 1;
                if length <= WIDTH as usize {
                    let shift = WIDTH as usize - length;
                    let mut low = 0;
                    while low < 1 << shift {
                        code.short[((next as usize) << shift) | low] = (symbol as u8, length as u8);
                        low += 1;
                    }
                }
                next += 1;
                placed += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

static CODE: Code = build();

/// The string is not a valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Appends the decoded `bytes` to `out`; at most 8/5 of their number.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    let mut input = bytes.iter();
    // Bits left-justified in `bits`.
    let (mut bits, mut have) = (0u64, 0u32);
    loop {
        while have <= 56 {
            let Some(byte) = input.next() else { break };
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let (symbol, length) = CODE.short[(bits >> (64 - WIDTH)) as usize];
        let (symbol, length) = if length != 0 { (symbol, u32::from(length)) } else { long(bits, have)? };
        if length > have || length == 0 {
            return padding(bits, have);
        }
        out.push(symbol);
        bits <<= length;
        have -= length;
        if have == 0 && input.len() == 0 {
            return Ok(());
        }
    }
}

/// What is left must be the beginning of EOS, and less than a byte.
fn padding(bits: u64, have: u32) -> Result<(), Invalid> {
    let ones = have == 0 || bits >> (64 - have) == (1 << have) - 1;
    if have < 8 && ones { Ok(()) } else { Err(Invalid) }
}

/// A symbol of more than eight bits. Length 0: there are not enough bits for any.
fn long(bits: u64, have: u32) -> Result<(u8, u32), Invalid> {
    for length in WIDTH as usize + 1..=LONGEST {
        if length as u32 > have {
            return Ok((0, 0));
        }
        let code = (bits >> (64 - length)) as u32;
        let offset = code.wrapping_sub(CODE.first[length]);
        if code >= CODE.first[length] && offset < CODE.count[length] {
            let symbol = CODE.order[usize::from(CODE.start[length]) + offset as usize];
            return u8::try_from(symbol).map(|symbol| (symbol, length as u32)).map_err(|_| Invalid);
        }
    }
    Err(Invalid)
}

/// How long `bytes` are when encoded.
pub(super) fn encoded_len(bytes: &[u8]) -> usize {
    let bits: usize = bytes.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends `bytes`, encoded.
pub(super) fn encode(bytes: &[u8], out: &mut BytesMut) {
    let (mut bits, mut have) = (0u64, 0u32);
    for byte in bytes {
        let symbol = usize::from(*byte);
        let length = u32::from(LENGTHS[symbol]);
        bits = bits << length | u64::from(CODE.codes[symbol]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.put_u8((bits >> have) as u8);
        }
    }
    if have > 0 {
        // Padded with the first bits of EOS.
        let pad = 8 - have;
        out.put_u8((bits << pad) as u8 | ((1u16 << pad) - 1) as u8);
    }
}
