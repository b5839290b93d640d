use super::*;

/// 100 hosts each, with so many percent healthy and degraded.
fn census(healthy: &[u64], degraded: &[u64]) -> Vec<Census> {
    let degraded = degraded.iter().copied().chain(std::iter::repeat(0));
    healthy.iter().zip(degraded).map(|(h, d)| Census { total: 100, healthy: *h, degraded: d, excluded: 0 }).collect()
}

fn check(healthy: &[u64], expected: &[u32], panic: &[bool]) {
    let loads = loads(&census(healthy, &[]), 140, 50);
    assert_eq!((loads.healthy.as_slice(), loads.panic.as_slice()), (expected, panic), "{healthy:?}");
}

#[test]
fn tables_of_envoys_documentation() {
    // "Priority levels", two priorities.
    check(&[100, 100], &[100, 0], &[false, false]);
    check(&[72, 100], &[100, 0], &[false, false]);
    check(&[71, 100], &[99, 1], &[false, false]);
    check(&[50, 100], &[70, 30], &[false, false]);
    check(&[25, 100], &[35, 65], &[false, false]);
    check(&[0, 100], &[0, 100], &[false, false]);
    // Three priorities.
    check(&[100, 100, 100], &[100, 0, 0], &[false; 3]);
    check(&[72, 72, 100], &[100, 0, 0], &[false; 3]);
    check(&[71, 71, 100], &[99, 1, 0], &[false; 3]);
    check(&[50, 50, 100], &[70, 30, 0], &[false; 3]);
    check(&[25, 100, 100], &[35, 65, 0], &[false; 3]);
    check(&[25, 25, 100], &[35, 35, 30], &[false; 3]);
    // "Panic threshold": below 100 in total, loads are scaled to 100, priorities below the threshold panic.
    check(&[72, 72], &[100, 0], &[false, false]);
    check(&[71, 71], &[99, 1], &[false, false]);
    check(&[50, 60], &[70, 30], &[false, false]);
    check(&[25, 0], &[50, 50], &[true, true]);
    // The documentation rounds to 7 and 93; Envoy's code gives the rounding error to the first priority.
    check(&[5, 65], &[8, 92], &[true, false]);
}

#[test]
fn degraded_hosts_take_what_healthy_ones_leave() {
    let loads = loads(&census(&[10, 20, 10], &[20, 10, 0]), 100, 0);
    assert_eq!((loads.healthy, loads.degraded), (vec![16, 28, 14], vec![28, 14, 0]));
}

#[test]
fn no_hosts_and_disabled_panic() {
    assert_eq!(loads(&[], 140, 50), Loads::default());
    let none = loads(&[Census::default(), Census::default()], 140, 50);
    assert_eq!((none.healthy, none.panic), (vec![100, 0], vec![true, true]));
    let disabled = loads(&census(&[0, 0], &[]), 140, 0);
    assert_eq!((disabled.healthy, disabled.panic), (vec![100, 0], vec![false, false]));
}

#[test]
fn excluded_hosts_do_not_count() {
    let warming = Census { total: 10, healthy: 2, degraded: 0, excluded: 8 };
    assert_eq!(loads(&[warming], 140, 50).panic, [false]);
}

#[test]
fn choice_follows_the_loads() {
    let loads =
        Loads { healthy: vec![16, 28, 14], degraded: vec![28, 14, 0], panic: vec![false; 3], ..Loads::default() };
    let mut counts = std::collections::BTreeMap::new();
    (0..100).for_each(|roll| *counts.entry(loads.choose(roll)).or_insert(0) += 1);
    let expected = [((0, false), 16), ((0, true), 28), ((1, false), 28), ((1, true), 14), ((2, false), 14)];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn localities_shrink_below_the_overprovisioning_factor() {
    let check = |available, expected: f64| {
        assert!((locality_weight(100, available, 100, 140) - expected).abs() < 1e-9, "{available}");
    };
    // The table of "Locality weighted load balancing".
    check(100, 100.0);
    check(72, 100.0);
    check(70, 98.0);
    check(50, 70.0);
    check(25, 35.0);
    check(0, 0.0);
}
