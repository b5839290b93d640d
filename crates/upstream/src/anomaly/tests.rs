use super::*;
use meltemi_plan::anomaly::Record;
use std::time::UNIX_EPOCH;

/// SplitMix64: tests see the same traffic each time.
struct Dice(u64);

impl Dice {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// How an endpoint answers.
#[derive(Clone, Copy)]
struct Traffic {
    requests: u32,
    /// Typical time, and the standard deviation of its logarithm.
    millis: f64,
    sigma: f64,
    error_rate: f64,
    /// Share of answers that take thirty times as long.
    tail: f64,
}

const STEADY: Traffic = Traffic { requests: 20, millis: 20.0, sigma: 0.6, error_rate: 0.002, tail: 0.02 };

impl Traffic {
    fn sample(self, dice: &mut Dice) -> Sample {
        let record = Record::default();
        for _ in 0..self.requests {
            record.ended(dice.uniform() < self.error_rate);
            let tail = if dice.uniform() < self.tail { 30.0 } else { 1.0 };
            let millis = self.millis * tail * (self.sigma * dice.normal()).exp();
            record.answered(Duration::from_secs_f64(millis / 1000.0));
        }
        record.take()
    }
}

/// One tick of a cluster; the changes by endpoint.
fn tick(
    subjects: &mut [Subject],
    traffic: &[Traffic],
    sensitivity: Sensitivity,
    dice: &mut Dice,
) -> Vec<(usize, Condition)> {
    subjects.iter_mut().zip(traffic).for_each(|(subject, traffic)| subject.observe(traffic.sample(dice)));
    let normal = Normal::of_peers(subjects.iter().filter_map(Subject::window));
    let judged = subjects.iter_mut().enumerate();
    let changes = |(i, subject): (usize, &mut Subject)| {
        subject.judge(normal.as_ref(), sensitivity, UNIX_EPOCH).into_iter().map(move |change| (i, change))
    };
    judged.flat_map(changes).collect()
}

/// The tick at which an endpoint of these becomes anomalous, and which and why.
fn first_alarm(traffic: &[Traffic], sensitivity: Sensitivity, ticks: u32) -> Option<(u32, usize, Reason)> {
    let (mut subjects, mut dice) = (vec![Subject::default(); traffic.len()], Dice(7));
    (1..=ticks).find_map(|at| {
        let changes = tick(&mut subjects, traffic, sensitivity, &mut dice);
        changes.first().map(|(i, condition)| (at, *i, condition.reason))
    })
}

#[test]
fn steady_noise_is_no_anomaly() {
    // Among peers: 5 endpoints for 20,000 seconds, at many and at few requests.
    for traffic in [STEADY, Traffic { requests: 3, ..STEADY }, Traffic { error_rate: 0.05, ..STEADY }] {
        let (mut subjects, mut dice) = (vec![Subject::default(); 5], Dice(1));
        let alarms: usize =
            (0..20_000).map(|_| tick(&mut subjects, &[traffic; 5], Sensitivity::Medium, &mut dice).len()).sum();
        assert_eq!(alarms, 0, "of {} requests a second", traffic.requests);
    }
    // By itself.
    assert_eq!(first_alarm(&[STEADY], Sensitivity::Medium, 100_000), None);
}

#[test]
fn a_slow_endpoint_stands_out_among_its_peers() {
    let slow = Traffic { millis: 60.0, ..STEADY };
    for (sensitivity, limit) in [(Sensitivity::Low, 24), (Sensitivity::Medium, 12), (Sensitivity::High, 6)] {
        let traffic = [STEADY, STEADY, slow, STEADY, STEADY];
        let (at, which, reason) = first_alarm(&traffic, sensitivity, 100).unwrap();
        assert_eq!((which, reason), (2, Reason::LatencyAboveNormal));
        assert!(at <= limit, "{sensitivity:?} takes {at} s");
    }
    // Half of them are not unlike the rest.
    assert_eq!(first_alarm(&[STEADY, slow, STEADY, slow], Sensitivity::Medium, 100), None);
    // A millisecond matters to nobody.
    let (fast, slower) = (Traffic { millis: 0.2, tail: 0.0, ..STEADY }, Traffic { millis: 0.9, tail: 0.0, ..STEADY });
    assert_eq!(first_alarm(&[fast, fast, slower, fast], Sensitivity::High, 100), None);
}

#[test]
fn a_failing_endpoint_stands_out_among_its_peers() {
    let failing = Traffic { error_rate: 0.1, ..STEADY };
    for (requests, limit) in [(100, 6), (20, 60)] {
        let [good, bad] = [STEADY, failing].map(|traffic| Traffic { requests, ..traffic });
        let (at, which, reason) = first_alarm(&[good, good, good, bad, good], Sensitivity::Medium, 100).unwrap();
        assert_eq!((which, reason), (3, Reason::ErrorsAboveNormal));
        assert!(at <= limit, "{requests} requests a second take {at} s");
    }
}

#[test]
fn one_that_comes_and_goes_is_found_and_one_odd_second_is_not() {
    let bad = Traffic { error_rate: 1.0, ..STEADY };
    let run = |is_bad: fn(u32) -> bool| {
        let (mut subjects, mut dice) = (vec![Subject::default(); 5], Dice(3));
        let mut traffic = [STEADY; 5];
        (0..60).any(|at| {
            traffic[0] = if is_bad(at) { bad } else { STEADY };
            !tick(&mut subjects, &traffic, Sensitivity::Medium, &mut dice).is_empty()
        })
    };
    assert!(run(|at| at % 2 == 0), "every other second");
    assert!(!run(|at| at == 30), "one second");
}

#[test]
fn a_subject_alone_is_compared_with_its_past_and_recovers() {
    let slow = Traffic { millis: 60.0, ..STEADY };
    let (mut subject, mut dice) = ([Subject::default()], Dice(5));
    let mut run = |traffic: Traffic, ticks: u32| {
        let changes = (0..ticks).map(|at| (at, tick(&mut subject, &[traffic], Sensitivity::Medium, &mut dice)));
        let changes = changes.flat_map(|(at, all)| all.into_iter().map(move |(_, condition)| (at, condition)));
        changes.collect::<Vec<_>>()
    };
    assert!(run(slow, 60).is_empty(), "nothing to compare it with");
    assert!(run(STEADY, 900).is_empty());
    let began = run(slow, 30);
    let [(at, condition)] = &began[..] else { panic!("{began:?}") };
    assert!(*at < 20 && condition.active && !condition.by_peers, "{began:?}");
    assert!(condition.message().ends_with(" ms before"), "{}", condition.message());
    let ended = run(STEADY, 60);
    let [(at, condition)] = &ended[..] else { panic!("{ended:?}") };
    assert!(*at < 40 && !condition.active, "{ended:?}");
}

#[test]
fn few_requests_make_a_window_in_time() {
    let mut subject = Subject::default();
    let mut dice = Dice(1);
    let mut windows = |requests: u32, ticks: u32| {
        let traffic = Traffic { requests, ..STEADY };
        let seen = (0..ticks).map(|_| {
            subject.observe(traffic.sample(&mut dice));
            subject.window().map(|window| window.requests)
        });
        seen.collect::<Vec<_>>()
    };
    assert_eq!(windows(20, 3), [None, None, Some(60)]);
    let slow = windows(2, 10);
    assert_eq!((slow[8], slow[9]), (Some(60), Some(20)), "those of ten seconds do");
    windows(0, MAX_TICKS + 1);
    assert_eq!(windows(0, 1), [None], "what was long ago says nothing");
}

#[test]
fn a_verdict_falls_once_until_there_is_new_evidence() {
    let steady = Traffic { requests: 60, ..STEADY };
    let slow = Traffic { millis: 200.0, ..steady };
    let traffic = [steady, steady, slow, steady];
    let (mut subjects, mut dice) = (vec![Subject::default(); 4], Dice(9));
    let mut verdicts = 0;
    for _ in 0..6 {
        tick(&mut subjects, &traffic, Sensitivity::Medium, &mut dice);
        assert!(!subjects[0].take_verdict(Sensitivity::Medium));
        verdicts += u32::from(subjects[2].take_verdict(Sensitivity::Medium));
        assert!(!subjects[2].take_verdict(Sensitivity::Medium));
    }
    assert_eq!(verdicts, 5, "the second window is the first that suffices");
}

#[test]
fn the_deviance_of_a_rate_grows_with_it() {
    assert_eq!(deviance(0.01, 0.01, 100), 0.0);
    assert!(deviance(0.0, 0.01, 100) < 0.0);
    let (some, many) = (deviance(0.1, 0.01, 100), deviance(0.5, 0.01, 100));
    assert!(some > 4.0 && many > 2.0 * some, "{some} {many}");
    assert!(deviance(1.0, 1.0, 100).is_finite());
}

#[test]
fn a_median_is_in_the_middle() {
    assert_eq!([vec![], vec![3.0], vec![3.0, 1.0], vec![5.0, 1.0, 2.0]].map(median), [0.0, 3.0, 2.0, 2.0]);
}
