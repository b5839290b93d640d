use std::collections::BTreeMap;

use super::*;
use crate::hash::HashFunction;
use crate::members::{self, Lifecycle};
use crate::set::{LocalityMembers, Shape};
use crate::testing;

const RR: Policy = Policy::RoundRobin { slow_start: None };

fn members(assignment: &meltemi_plan::LoadAssignment) -> Vec<LocalityMembers> {
    let plan = testing::plan(meltemi_plan::ClusterKind::Static, testing::round_robin(), None);
    members::update(&[], &crate::adapt::groups(&plan, assignment), Lifecycle::default()).members
}

fn set(weights: &[u32], policy: Policy) -> Arc<EndpointSet> {
    let shape = Shape { policy, ..Shape::default() };
    Arc::new(EndpointSet::new(&members(&testing::hosts(weights)), &shape))
}

/// How often each host, by the last byte of its address, is picked.
fn counts(set: &Arc<EndpointSet>, policy: Policy, picks: usize) -> BTreeMap<String, usize> {
    let mut state = LbState::seeded(7);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let host = state.pick(set, policy, &PickContext::default()).unwrap();
        *counts.entry(host.address.to_string()).or_default() += 1;
    }
    counts
}

/// Pearson's statistic against the expected shares stays below the 99.99 % bound for up to 9 degrees of freedom (33.7).
fn check_shares(counts: &BTreeMap<String, usize>, shares: &[f64]) {
    let total: usize = counts.values().sum();
    let sum: f64 = shares.iter().sum();
    let statistic: f64 = shares
        .iter()
        .enumerate()
        .map(|(i, share)| {
            let seen = counts.get(&format!("10.0.0.{}:80", i + 1)).copied().unwrap_or(0) as f64;
            let expected = total as f64 * share / sum;
            (seen - expected).powi(2) / expected
        })
        .sum();
    assert!(statistic < 33.7, "{counts:?} against {shares:?}: {statistic}");
}

#[test]
fn round_robin_is_exact() {
    let even = counts(&set(&[1, 1, 1], RR), RR, 300);
    assert!(even.values().all(|n| *n == 100), "{even:?}");
    let weighted = counts(&set(&[1, 2, 3], RR), RR, 600);
    let difference: Vec<i64> =
        weighted.values().zip([100, 200, 300]).map(|(seen, wanted)| *seen as i64 - wanted).collect();
    assert!(difference.iter().all(|d| d.abs() <= 1), "{weighted:?}");
}

#[test]
fn round_robin_starts_anywhere() {
    let set = set(&[1; 8], RR);
    let firsts: std::collections::BTreeSet<u64> =
        (0..64).map(|seed| LbState::seeded(seed).pick(&set, RR, &PickContext::default()).unwrap().id).collect();
    assert!(firsts.len() >= 6, "{firsts:?}");
}

#[test]
fn random_ignores_weights_as_envoys_does() {
    check_shares(&counts(&set(&[1, 9, 1, 1], Policy::Random), Policy::Random, 20_000), &[1.0; 4]);
}

#[test]
fn least_request_prefers_idle_hosts() {
    let policy = Policy::LeastRequest { choices: 2, active_request_bias: 1.0, slow_start: None };
    let set = set(&[1, 1], policy);
    let busy = set.find(&testing::socket(1, 80).into()).unwrap().clone();
    let _active: Vec<_> = (0..5).map(|_| busy.begin_request()).collect();
    // The busy one is only taken when both choices fall on it.
    check_shares(&counts(&set, policy, 20_000), &[1.0, 3.0]);
}

#[test]
fn weighted_least_request_divides_weights_by_load() {
    let check = |bias: f64, shares: &[f64]| {
        let policy = Policy::LeastRequest { choices: 2, active_request_bias: bias, slow_start: None };
        let set = set(&[4, 2], policy);
        let busy = set.find(&testing::socket(1, 80).into()).unwrap().clone();
        let _active: Vec<_> = (0..3).map(|_| busy.begin_request()).collect();
        check_shares(&counts(&set, policy, 6000), shares);
    };
    check(1.0, &[1.0, 2.0]);
    check(0.0, &[4.0, 2.0]);
    check(0.5, &[2.0, 2.0]);
}

#[test]
fn hashes_stick_and_spread() {
    let ring =
        Policy::RingHash { min_size: 1024, max_size: 8 << 20, function: HashFunction::XxHash, use_hostname: false };
    let maglev = Policy::Maglev { table_size: 65_537, use_hostname: false };
    for policy in [ring, maglev] {
        let set = set(&[1; 5], policy);
        let mut state = LbState::seeded(1);
        let mut pick = |hash| {
            let context = PickContext { hash: Some(hash), ..PickContext::default() };
            state.pick(&set, policy, &context).unwrap().id
        };
        let hashes: Vec<u64> = (0..500u64).map(|i| xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), 0)).collect();
        let first: Vec<u64> = hashes.iter().map(|h| pick(*h)).collect();
        let second: Vec<u64> = hashes.iter().map(|h| pick(*h)).collect();
        assert_eq!(first, second);
        let distinct: std::collections::BTreeSet<_> = first.into_iter().collect();
        assert_eq!(distinct.len(), 5);
    }
}

#[test]
fn weighted_rings_follow_weights_without_a_hash() {
    let policy = Policy::Maglev { table_size: 65_537, use_hostname: false };
    check_shares(&counts(&set(&[1, 2, 3], policy), policy, 20_000), &[1.0, 2.0, 3.0]);
}

#[test]
fn localities_are_weighted() {
    let hosts = |range: std::ops::Range<u8>| range.map(|h| testing::endpoint(testing::socket(h, 80), 1)).collect();
    let localities = vec![
        testing::locality(0, Some(1), hosts(1..2)),
        testing::locality(0, Some(3), hosts(2..4)),
        testing::locality(0, None, hosts(4..6)),
    ];
    let members = members(&testing::assignment(localities));
    let shape = Shape { locality_weighted: true, ..Shape::default() };
    let counted = counts(&Arc::new(EndpointSet::new(&members, &shape)), RR, 4000);
    assert_eq!(counted.len(), 3, "a locality without weight serves nothing: {counted:?}");
    check_shares(&counted, &[2.0, 3.0, 3.0]);
}

#[test]
fn earlier_hosts_are_avoided_as_long_as_tries_last() {
    let set = set(&[1, 1], RR);
    let first = set.find(&testing::socket(1, 80).into()).unwrap().id;
    let mut state = LbState::seeded(3);
    for _ in 0..20 {
        let previous = [first];
        let context = PickContext { previous: &previous, reselect: 3, ..PickContext::default() };
        assert_ne!(state.pick(&set, RR, &context).unwrap().id, first);
    }
    let all: Vec<u64> = set.hosts().map(|h| h.id).collect();
    let context = PickContext { previous: &all, reselect: 3, ..PickContext::default() };
    assert!(state.pick(&set, RR, &context).is_ok(), "the last one found serves");
}

#[test]
fn nobody_is_an_error() {
    let empty = Arc::new(EndpointSet::default());
    let picked = LbState::default().pick(&empty, RR, &PickContext::default());
    assert_eq!(picked.unwrap_err(), PickError::NoHealthyHost);
}

#[test]
fn a_full_scan_finds_the_idlest_host() {
    let policy = Policy::LeastRequest { choices: u32::MAX, active_request_bias: 1.0, slow_start: None };
    let set = set(&[1; 5], policy);
    let idle: Address = testing::socket(4, 80).into();
    let busy = set.hosts().filter(|h| h.address != idle);
    let _active: Vec<_> = busy.map(|h| h.begin_request()).collect();
    assert_eq!(counts(&set, policy, 50).get("10.0.0.4:80"), Some(&50));
}

#[test]
fn slow_start_grows_with_age() {
    let second = std::time::Duration::from_secs(1);
    let start = |aggression, min_weight| crate::set::SlowStart { window: second * 10, aggression, min_weight };
    let check = |start: crate::set::SlowStart, seconds: u32, expected: f64| {
        let factor = start.factor(second * seconds);
        assert!((factor - expected).abs() < 1e-6, "{start:?} at {seconds}: {factor}");
    };
    check(start(1.0, 0.1), 0, 0.1);
    check(start(1.0, 0.1), 5, 0.5);
    check(start(1.0, 0.1), 10, 1.0);
    check(start(2.0, 0.1), 5, 0.5f64.sqrt());
    check(start(0.5, 0.1), 5, 0.25);
    check(start(1.0, 0.0), 0, 0.0001);
    // All equally new: nobody is favoured.
    let policy = Policy::RoundRobin { slow_start: Some(start(1.0, 0.1)) };
    check_shares(&counts(&set(&[1, 1, 1], policy), policy, 900), &[1.0; 3]);
}

#[test]
fn retries_leave_the_priorities_of_earlier_attempts_until_none_is_left() {
    let one = |priority: u32| {
        testing::locality(priority, Some(1), vec![testing::endpoint(testing::socket(priority as u8, 80), 1)])
    };
    let members = members(&testing::assignment((0..3).map(one).collect()));
    let set = Arc::new(EndpointSet::new(&members, &Shape { policy: RR, ..Shape::default() }));
    let ids: Vec<u64> =
        (0..3).map(|priority| set.find(&Address::Socket(testing::socket(priority, 80))).unwrap().id).collect();
    let pick = |attempted: &[usize], every: u32| {
        let previous: Vec<u64> = attempted.iter().map(|i| ids[*i]).collect();
        let leave_priorities = std::num::NonZeroU32::new(every);
        let context = PickContext { previous: &previous, leave_priorities, ..PickContext::default() };
        LbState::seeded(7).pick(&set, RR, &context).unwrap().priority
    };
    // Every attempt leaves one more behind; after the last of them all are there again.
    assert_eq!(
        [pick(&[], 1), pick(&[0], 1), pick(&[0, 1], 1), pick(&[0, 1, 2], 1), pick(&[0, 1, 2, 0], 1)],
        [0, 1, 2, 0, 1]
    );
    // Every second attempt.
    assert_eq!([pick(&[0], 2), pick(&[0, 0], 2), pick(&[0, 0, 1], 2), pick(&[0, 0, 1, 1], 2)], [0, 1, 1, 2]);
    assert_eq!(pick(&[0, 0], 0), 0, "without the option");
}

const PEAK_EWMA: PeakEwma =
    PeakEwma { decay: std::time::Duration::from_secs(10), default_rtt: std::time::Duration::from_millis(10) };

fn answer(host: &Endpoint, ms: u64) {
    host.state.latency.observe(PEAK_EWMA, std::time::Duration::from_millis(ms), Instant::now());
}

#[test]
fn peak_ewma_leaves_slow_and_failing_hosts_out_and_honours_weights() {
    let policy = Policy::PeakEwma(PEAK_EWMA);
    let known = |set: &Arc<EndpointSet>, slow: &str| {
        for host in set.hosts() {
            answer(host, if host.address.to_string() == slow { 50 } else { 2 });
        }
    };
    let set_of = |weights: &[u32]| set(weights, policy);
    let even = set_of(&[1; 5]);
    known(&even, "10.0.0.3:80");
    let seen = counts(&even, policy, 5_000);
    assert_eq!(seen.get("10.0.0.3:80"), None, "{seen:?}");
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 1_000), "{seen:?}");

    // One that fails fast is as one that is slow.
    let failing = set_of(&[1; 3]);
    known(&failing, "");
    let host = failing.find(&testing::socket(1, 80).into()).unwrap();
    host.state.latency.failed(PEAK_EWMA, Instant::now());
    assert_eq!(counts(&failing, policy, 1_000).get("10.0.0.1:80"), None);

    // Of two hosts the heavier waits for half of the cost.
    let weighted = set_of(&[1, 3]);
    known(&weighted, "");
    assert_eq!(counts(&weighted, policy, 100).keys().collect::<Vec<_>>(), ["10.0.0.2:80"]);
}

#[test]
fn peak_ewma_draws_again_where_two_bad_hosts_meet() {
    let policy = Policy::PeakEwma(PEAK_EWMA);
    let even = set(&[1; 5], policy);
    let bad = |host: &Endpoint| ["10.0.0.3:80", "10.0.0.4:80"].contains(&&*host.address.to_string());
    even.hosts().for_each(|host| answer(host, if bad(host) { 50 } else { 2 }));
    let seen = counts(&even, policy, 5_000);
    let of_bad: usize =
        seen.iter().filter(|(at, _)| ["10.0.0.3:80", "10.0.0.4:80"].contains(&at.as_str())).map(|(_, n)| n).sum();
    // They meet in every tenth pair, and in three pairs of three in every thousandth.
    assert!(of_bad < 25, "{seen:?}");
    // When all are dear, that is the usual, and all are chosen.
    even.hosts().for_each(|host| answer(host, 60));
    let seen = counts(&even, policy, 5_000);
    assert!(seen.len() == 5 && seen.values().all(|count| *count > 500), "{seen:?}");
}

#[test]
fn peak_ewma_tries_each_new_host_once_at_a_time() {
    let policy = Policy::PeakEwma(PEAK_EWMA);
    let fresh = set(&[1; 4], policy);
    let mut state = LbState::seeded(7);
    let mut active = Vec::new();
    for _ in 0..100 {
        let host = state.pick(&fresh, policy, &PickContext::default()).unwrap();
        active.push((host.id, host.begin_request()));
    }
    let count = |id: u64| active.iter().filter(|(own, _)| *own == id).count();
    let ids: std::collections::BTreeSet<u64> = active.iter().map(|(id, _)| *id).collect();
    assert!(ids.len() == 4 && ids.iter().all(|id| (20..=30).contains(&count(*id))), "{ids:?}");
}
