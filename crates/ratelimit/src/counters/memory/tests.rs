use std::collections::HashMap;

use meltemi_telemetry::Registry;
use meltemi_telemetry::metrics::Labels;
use proptest::prelude::*;

use super::*;

fn memory(keys: usize) -> Memory {
    Memory::new(keys, Registry::new().counter("evicted", Labels::default()))
}

fn hit(key: &str, window: u64, hits: u64) -> Hit {
    Hit { key: format!("{key}_{window}"), hits, ends: window + 60, length: 60 }
}

proptest! {
    /// Against a map that forgets nothing.
    #[test]
    fn counts_are_those_of_a_plain_counter(steps in prop::collection::vec((0u8..12, 0u64..5, 0u64..40), 1..200)) {
        let memory = memory(4096);
        let mut plain: HashMap<(u8, u64), u64> = HashMap::new();
        let mut now = 0;
        for (key, hits, pause) in steps {
            now += pause;
            let window = now - now % 60;
            let count = plain.entry((key, window)).or_default();
            *count += hits;
            prop_assert_eq!(memory.add(&hit(&key.to_string(), window, hits), now), *count);
        }
        prop_assert_eq!(memory.evicted.value(), 0);
    }
}

#[test]
fn a_window_that_is_over_gives_its_place_away() {
    let memory = memory(8);
    for window in 0..100 {
        for key in 0..8 {
            assert_eq!(memory.add(&hit(&key.to_string(), window * 60, 1), window * 60), 1);
        }
    }
    assert_eq!(memory.evicted.value(), 0);
}

#[test]
fn many_keys_neither_grow_the_table_nor_cost_a_busy_key_its_count() {
    let memory = memory(8);
    let mut busy = 0;
    for _ in 0..3 {
        busy = memory.add(&hit("busy", 0, 1), 0);
    }
    for stranger in 0..10_000 {
        memory.add(&hit(&stranger.to_string(), 0, 1), 0);
    }
    assert_eq!(memory.add(&hit("busy", 0, 1), 0), busy + 1);
    assert!(memory.evicted.value() >= 9_900);
}

#[test]
fn counts_stop_at_the_largest_number() {
    let memory = memory(8);
    memory.add(&hit("a", 0, u64::MAX), 0);
    assert_eq!(memory.add(&hit("a", 0, 2), 0), u64::MAX);
}
