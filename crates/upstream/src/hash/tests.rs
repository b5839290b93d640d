use std::collections::BTreeMap;

use super::*;

fn hosts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("127.0.0.1:{}", 90 + i)).collect()
}

fn keyed<'a>(names: &'a [String], weights: &[f64]) -> Vec<Keyed<'a>> {
    names.iter().zip(weights).map(|(key, weight)| Keyed { key, weight: *weight }).collect()
}

#[test]
fn murmur_vectors() {
    // The vectors of Envoy's hash_test.
    let check =
        |key: &str, expected: u64| assert_eq!(murmur2(key.as_bytes(), murmur::STD_HASH_SEED), expected, "{key}");
    check("foo", 9_631_199_822_919_835_226);
    check("bar", 11_474_628_671_133_349_555);
    check("foo\nbar", 16_306_510_975_912_980_159);
    check("lyft", 12_847_078_931_730_529_320);
    check("", 6_142_509_188_972_423_790);
}

#[test]
fn a_ring_of_six_hosts_is_envoys() {
    // The ring of Envoy's ring_hash_lb_test "Basic": 127.0.0.1:90 to :95, at least 12 points.
    let names = hosts(6);
    let ring = Ring::new(&keyed(&names, &[1.0; 6]), 12, RING_LIMIT, HashFunction::XxHash);
    let first_ten = [
        (833_437_586_790_550_860, 94),
        (928_266_305_478_181_108, 92),
        (1_033_482_794_131_418_490, 90),
        (3_551_244_743_356_806_947, 95),
        (3_851_675_632_748_031_481, 93),
        (5_583_722_120_771_150_861, 91),
        (6_311_230_543_546_372_928, 91),
        (7_700_377_290_971_790_572, 93),
        (13_144_177_310_400_110_813, 95),
        (13_444_792_449_719_432_967, 92),
    ];
    let points: Vec<_> = ring.points.iter().map(|(hash, host)| (*hash, host + 90)).collect();
    assert_eq!(points[..10], first_ten);
    assert_eq!(points[10..].iter().map(|p| p.1).collect::<Vec<_>>(), [94, 90]);
}

#[test]
fn ring_lookup_wraps_and_walks() {
    let ring = Ring { points: vec![(10, 0), (20, 1), (30, 2)] };
    let check = |hash, attempt, expected| assert_eq!(ring.find(hash, attempt), Some(expected), "{hash} {attempt}");
    check(0, 0, 0);
    check(10, 0, 0);
    check(11, 0, 1);
    check(30, 0, 2);
    check(31, 0, 0);
    check(u64::MAX, 0, 0);
    check(11, 1, 2);
    check(11, 2, 0);
    assert_eq!(Ring::default().find(1, 0), None);
}

#[test]
fn ring_points_follow_weights_and_the_limits() {
    let names = hosts(3);
    let points = |weights: &[f64], min, max| {
        let ring = Ring::new(&keyed(&names, weights), min, max, HashFunction::Murmur2);
        let mut counts = BTreeMap::new();
        ring.points.iter().for_each(|p| *counts.entry(p.1).or_insert(0) += 1);
        counts.into_values().collect::<Vec<_>>()
    };
    assert_eq!(points(&[1.0, 2.0, 3.0], 12, RING_LIMIT), [2, 4, 6]);
    assert_eq!(points(&[1.0, 1.0, 1.0], 8, RING_LIMIT), [3, 3, 3]);
    assert_eq!(points(&[1.0, 1.0, 2.0], 1024, 4), [1, 1, 2]);
    assert_eq!(points(&[0.0, 1.0, 1.0], 4, RING_LIMIT), [2, 2]);
}

#[test]
fn maglev_is_full_fair_and_stable() {
    let names = hosts(6);
    let share = |weights: &[f64], size| {
        let table = Maglev::new(&keyed(&names, weights), size).table;
        let mut counts = BTreeMap::new();
        table.iter().for_each(|p| *counts.entry(*p).or_insert(0) += 1);
        counts.into_values().collect::<Vec<u64>>()
    };
    // Even weights: slots differ by at most one.
    let even = share(&[1.0; 6], 65_537);
    assert!(even.iter().max().unwrap() - even.iter().min().unwrap() <= 1, "{even:?}");
    // Envoy's maglev_lb_test "Weighted": 1 and 2 in 17 slots give 6 and 11.
    assert_eq!(share(&[1.0, 2.0], 17), [6, 11]);
    // The order of hosts does not matter; taking one away moves few keys.
    let all = keyed(&names, &[1.0; 6]);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    let (a, b) = (Maglev::new(&all, 1009), Maglev::new(&reversed, 1009));
    assert!((0..1009).all(|h| names[a.find(h, 0).unwrap()] == names[5 - b.find(h, 0).unwrap()]));
    let fewer = Maglev::new(&all[..5], 1009);
    let moved = (0..1009).filter(|h| a.find(*h, 0) != Some(5) && a.find(*h, 0) != fewer.find(*h, 0)).count();
    assert!(moved < 1009 / 5, "{moved} keys moved needlessly");
    assert_eq!(Maglev::new(&[], 17).find(1, 0), None);
}

#[test]
fn small_maglev_tables_are_envoys() {
    // Envoy's maglev_lb_test "Basic", "BasicWithRetryHostPredicate" and "Weighted".
    let names = hosts(6);
    let maglev = Maglev::new(&keyed(&names, &[1.0; 6]), 7);
    assert_eq!(maglev.table, [2, 4, 0, 1, 5, 0, 3]);
    assert_eq!([0, 1, 2].map(|attempt| maglev.find(10, attempt)), [Some(1), Some(0), Some(5)]);
    let weighted = Maglev::new(&keyed(&names[..2], &[1.0, 2.0]), 17);
    assert_eq!(weighted.table, [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]);
}
