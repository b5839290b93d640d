//! The numbers themselves: one shard of 64-bit cells per thread, summed when somebody looks.
//!
//! A cell has one writer at a time in each shard (its thread), so an add is a relaxed load and store without a locked
//! instruction and without a shared cache line. Chunks of cells are allocated when first touched: a cluster nobody calls
//! costs no cells. A thread that ends folds its shard into the retired one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// 64 cells: 512 bytes, some eight cache lines, about one cluster's counters.
const CHUNK: usize = 64;
/// 256 chunks in a block, 256 blocks: four million cells.
const BLOCK: usize = 256;
const BLOCKS: usize = 256;
const CAPACITY: u32 = (CHUNK * BLOCK * BLOCKS) as u32;

type Chunk = [AtomicU64; CHUNK];

struct Block {
    chunks: [OnceLock<Box<Chunk>>; BLOCK],
}

struct Shard {
    blocks: [OnceLock<Box<Block>>; BLOCKS],
}

impl Shard {
    fn new() -> Self {
        Self { blocks: [const { OnceLock::new() }; BLOCKS] }
    }

    fn cell(&self, index: u32) -> &AtomicU64 {
        let index = index as usize;
        let block = self.blocks[index / (CHUNK * BLOCK)]
            .get_or_init(|| Box::new(Block { chunks: [const { OnceLock::new() }; BLOCK] }));
        let chunk = block.chunks[index / CHUNK % BLOCK].get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        &chunk[index % CHUNK]
    }

    fn peek(&self, index: u32) -> Option<&AtomicU64> {
        let index = index as usize;
        let chunk = self.blocks[index / (CHUNK * BLOCK)].get()?.chunks[index / CHUNK % BLOCK].get()?;
        Some(&chunk[index % CHUNK])
    }

    fn add(&self, index: u32, n: u64) {
        let cell = self.cell(index);
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds every touched cell of `other` to this shard.
    fn absorb(&self, other: &Shard) {
        for (b, block) in other.blocks.iter().enumerate().filter_map(|(i, b)| Some((i, b.get()?))) {
            for (c, chunk) in block.chunks.iter().enumerate().filter_map(|(i, c)| Some((i, c.get()?))) {
                for (i, cell) in chunk.iter().enumerate() {
                    let value = cell.load(Ordering::Relaxed);
                    if value != 0 {
                        self.add(((b * BLOCK + c) * CHUNK + i) as u32, value);
                    }
                }
            }
        }
    }
}

/// Which cells are taken, and every thread's shard.
struct Table {
    live: Vec<Arc<Shard>>,
    /// What threads that ended had counted; written only under the table's lock.
    retired: Shard,
    next: u32,
    /// Freed ranges by their length; all their cells are zero in every shard.
    free: BTreeMap<u32, Vec<u32>>,
}

static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();

fn table() -> &'static Mutex<Table> {
    // Cell 0 is where metrics go when the table is full; nobody reads it.
    TABLE.get_or_init(|| Mutex::new(Table { live: Vec::new(), retired: Shard::new(), next: 1, free: BTreeMap::new() }))
}

struct Mine(Arc<Shard>);

impl Drop for Mine {
    fn drop(&mut self) {
        let mut table = table().lock();
        table.live.retain(|s| !Arc::ptr_eq(s, &self.0));
        table.retired.absorb(&self.0);
    }
}

thread_local! {
    static MINE: Mine = {
        let shard = Arc::new(Shard::new());
        table().lock().live.push(shard.clone());
        Mine(shard)
    };
}

/// Adds to this thread's shard of a cell.
pub(super) fn add(index: u32, n: u64) {
    if MINE.try_with(|mine| mine.0.add(index, n)).is_err() {
        table().lock().retired.add(index, n);
    }
}

/// Sum over all threads; wraps, so that gauges may be negative in one shard.
pub(super) fn sum(index: u32) -> u64 {
    sum_range(index, 1)[0]
}

/// Sums of `len` cells from `base`.
pub(super) fn sum_range(base: u32, len: u32) -> Vec<u64> {
    let table = table().lock();
    let one = |index: u32| {
        let shards = table.live.iter().map(Arc::as_ref).chain(std::iter::once(&table.retired));
        shards.filter_map(|s| s.peek(index)).fold(0u64, |sum, c| sum.wrapping_add(c.load(Ordering::Relaxed)))
    };
    (base..base + len).map(one).collect()
}

/// Moves the sum to `value` by a difference in this thread's shard.
pub(super) fn set(index: u32, value: u64) {
    let now = sum(index);
    add(index, value.wrapping_sub(now));
}

/// A range of cells, all zero. Given back on drop, which must be after the last add.
pub(super) struct Range {
    pub base: u32,
    pub len: u32,
}

impl Range {
    /// `None` when all cells are taken. Short ranges of one length lie together in whole chunks, so that those that every
    /// cluster touches do not drag in the cells of those that none does.
    pub fn new(len: u32) -> Option<Self> {
        let mut table = table().lock();
        if let Some(base) = table.free.get_mut(&len).and_then(Vec::pop) {
            return Some(Self { base, len });
        }
        let chunk = CHUNK as u32;
        let packed = chunk.checked_div(len).unwrap_or(1).max(1);
        let base = if packed > 1 { table.next.next_multiple_of(chunk) } else { table.next };
        let taken = if packed > 1 { chunk } else { len };
        if CAPACITY - base.min(CAPACITY) < taken {
            return None;
        }
        table.next = base + taken;
        if packed > 1 {
            let rest = (1..packed).rev().map(|i| base + i * len);
            table.free.entry(len).or_default().extend(rest);
        }
        Some(Self { base, len })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let mut table = table().lock();
        for index in self.base..self.base + self.len {
            for shard in table.live.iter().map(Arc::as_ref).chain(std::iter::once(&table.retired)) {
                if let Some(cell) = shard.peek(index) {
                    cell.store(0, Ordering::Relaxed);
                }
            }
        }
        table.free.entry(self.len).or_default().push(self.base);
    }
}
