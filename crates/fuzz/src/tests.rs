use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Of each seed, unless the environment has `MELTEMI_FUZZ_MUTATIONS`; `MELTEMI_FUZZ_TARGETS` names some targets of all, by commas.
const MUTATIONS: usize = 300;

/// Flips, cuts, repeats and joins bytes of a seed.
fn mutate(seed: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 if at < data.len() => data[at] = random.random(),
            2 => data.truncate(at),
            3 => data.insert(at, random.random()),
            4 => {
                let from = random.random_range(0..=other.len());
                data.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let copy = data[at..].to_vec();
                data.extend(copy.into_iter().take(64));
            }
        }
    }
    data
}

#[test]
fn no_seed_and_no_mutation_of_one_breaks_a_parser() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mutations = std::env::var("MELTEMI_FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().unwrap());
    let wanted = std::env::var("MELTEMI_FUZZ_TARGETS").unwrap_or_default();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|one| one == name);
    for (name, target) in TARGETS.iter().filter(|(name, _)| is_wanted(name)) {
        let mut seeds = Vec::new();
        for entry in std::fs::read_dir(folder.join(name)).unwrap_or_else(|e| panic!("seeds of {name}: {e}")) {
            seeds.push(std::fs::read(entry.unwrap().path()).unwrap());
        }
        assert!(!seeds.is_empty(), "{name} has no seed");
        seeds.sort();
        let mut random = StdRng::seed_from_u64(1);
        for seed in &seeds {
            target(seed);
            for _ in 0..mutations {
                let other = &seeds[random.random_range(0..seeds.len())];
                target(&mutate(seed, other, &mut random));
            }
        }
    }
}
