//! MurmurHash2, 64-bit, as libstdc++'s `std::hash` and Envoy's `MURMUR_HASH_2` have it.

pub(super) const STD_HASH_SEED: u64 = 0xc70f_6907;

const MUL: u64 = 0xc6a4_a793_5bd1_e995;

fn shift_mix(v: u64) -> u64 {
    v ^ (v >> 47)
}

pub fn murmur2(key: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ (key.len() as u64).wrapping_mul(MUL);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let data = shift_mix(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    shift_mix(shift_mix(hash).wrapping_mul(MUL))
}
