//! Fields to header blocks.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use super::{OVERHEAD, huffman};

/// The largest table we use, whatever the peer allows: the default of every implementation.
const MAX_TABLE: usize = 4096;
const SLOTS: usize = 128;
/// The first index of the dynamic table.
const DYNAMIC: u32 = 62;

/// What was encoded under a hash: once without a trace (`sequence` 0), or as an entry.
#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    sequence: u32,
}

struct Entry {
    /// Name and value, one after the other.
    bytes: Box<[u8]>,
    name_len: usize,
}

/// One direction's encoding state. A field becomes an entry when it is seen for the second time.
pub(in crate::h2) struct Encoder {
    /// The oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
    /// A change of capacity that the peer has not been told: the smallest since, and the last.
    resized: Option<(usize, usize)>,
    /// Of the oldest entry; entries are numbered from 1.
    oldest: u32,
    slots: Vec<Slot>,
}

impl Encoder {
    pub fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, capacity: MAX_TABLE, resized: None, oldest: 1, slots: Vec::new() }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn set_capacity(&mut self, peer: usize) {
        let capacity = peer.min(MAX_TABLE);
        let smallest = self.resized.map_or(capacity, |(smallest, _)| smallest.min(capacity));
        if capacity != self.capacity || self.resized.is_some() {
            self.resized = Some((smallest, capacity));
        }
        self.capacity = capacity;
        self.evict_to(capacity);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut BytesMut) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                integer(out, smallest, 5, 0x20);
            }
            integer(out, last, 5, 0x20);
        }
    }

    /// A field of the static table as it is.
    pub fn indexed(&self, out: &mut BytesMut, index: u8) {
        out.put_u8(0x80 | index);
    }

    /// `known`: the index of the name in the static table, or 0.
    pub fn field(&mut self, out: &mut BytesMut, known: u8, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        if size > self.capacity / 2 {
            return literal(out, 0, known, name, value);
        }
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); SLOTS];
        }
        let hash = hash(name, value);
        let places = [hash as usize % SLOTS, (hash >> 16) as usize % SLOTS];
        let mut free = None;
        for place in places {
            let slot = self.slots[place];
            let live = slot.sequence >= self.oldest;
            if slot.hash != hash {
                if !live {
                    free = Some(place);
                }
                continue;
            }
            if live {
                let entry = &self.entries[(slot.sequence - self.oldest) as usize];
                if entry.bytes[..entry.name_len] == *name && entry.bytes[entry.name_len..] == *value {
                    let newest = self.oldest + self.entries.len() as u32 - 1;
                    return integer(out, (DYNAMIC + newest - slot.sequence) as usize, 7, 0x80);
                }
                continue;
            }
            self.slots[place].sequence = self.insert(name, value, size);
            return indexed_literal(out, known, name, value);
        }
        if let Some(place) = free {
            self.slots[place] = Slot { hash, sequence: 0 };
        }
        literal(out, 0, known, name, value);
    }

    /// A field that no table on the way may keep (RFC 7541 7.1.3).
    pub fn sensitive(&self, out: &mut BytesMut, known: u8, name: &[u8], value: &[u8]) {
        literal(out, 0x10, known, name, value);
    }

    fn insert(&mut self, name: &[u8], value: &[u8], size: usize) -> u32 {
        self.evict_to(self.capacity - size);
        self.size += size;
        self.entries.push_back(Entry { bytes: [name, value].concat().into(), name_len: name.len() });
        let sequence = self.oldest + self.entries.len() as u32 - 1;
        if sequence == u32::MAX {
            self.renumber();
            return self.entries.len() as u32;
        }
        sequence
    }

    /// Begins to count anew, forgetting where entries are: once in four billion insertions.
    fn renumber(&mut self) {
        self.oldest = 1;
        self.slots.fill(Slot::default());
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.size -= oldest.bytes.len() + OVERHEAD;
            self.oldest += 1;
        }
    }
}

/// Multiplies and mixes eight bytes at a time. Whoever finds collisions gets literals instead of indices.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
    let mut state = (name.len() as u64) << 32 | value.len() as u64;
    for part in [name, value] {
        let mut chunks = part.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            state = (state.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
        }
        for byte in chunks.remainder() {
            state = (state.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(FACTOR);
        }
    }
    (state >> 32) as u32
}

/// A literal that leaves no trace. It is not Huffman-coded: it costs both ends more time than the bytes it saves.
fn literal(out: &mut BytesMut, kind: u8, known: u8, name: &[u8], value: &[u8]) {
    integer(out, usize::from(known), 4, kind);
    if known == 0 {
        plain(out, name);
    }
    plain(out, value);
}

/// A literal that becomes an entry at the peer too; sent once, so it is made short.
fn indexed_literal(out: &mut BytesMut, known: u8, name: &[u8], value: &[u8]) {
    integer(out, usize::from(known), 6, 0x40);
    if known == 0 {
        shortest(out, name);
    }
    shortest(out, value);
}

fn plain(out: &mut BytesMut, bytes: &[u8]) {
    integer(out, bytes.len(), 7, 0);
    out.extend_from_slice(bytes);
}

fn shortest(out: &mut BytesMut, bytes: &[u8]) {
    let coded = huffman::encoded_len(bytes);
    if coded >= bytes.len() {
        return plain(out, bytes);
    }
    integer(out, coded, 7, 0x80);
    huffman::encode(bytes, out);
}

/// RFC 7541 5.1.
pub(crate) fn integer(out: &mut BytesMut, value: usize, prefix: u32, first: u8) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        return out.put_u8(first | value as u8);
    }
    out.put_u8(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}
