use super::*;

const SETTINGS: PeakEwma = PeakEwma { decay: Duration::from_secs(10), default_rtt: Duration::from_millis(10) };

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The cost of an idle host `after` the start, in milliseconds.
fn cost(latency: &Latency, start: Instant, after: Duration) -> f64 {
    SETTINGS.cost(latency, 0, start + after) / 1000.0
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.02 * expected, "{found} is not {expected}");
}

#[test]
fn a_peak_counts_at_once_and_falls_with_time() {
    let (latency, start) = (Latency::default(), Instant::now());
    latency.observe(SETTINGS, ms(5), start);
    near(cost(&latency, start, ms(0)), 5.0);
    latency.observe(SETTINGS, ms(100), start);
    near(cost(&latency, start, ms(0)), 100.0);
    // At the end of the window of 30 s, with other samples: 5 % of the peak is left.
    for second in 1..=30u64 {
        latency.observe(SETTINGS, ms(1), start + Duration::from_secs(second));
    }
    near(cost(&latency, start, Duration::from_secs(30)), 100.0 * 0.0498 + 0.95);
}

#[test]
fn one_slow_answer_does_not_mark_a_busy_host() {
    let (latency, start) = (Latency::default(), Instant::now());
    latency.observe(SETTINGS, ms(100), start);
    // Ten a millisecond, of which one counts.
    for step in 1..=2_000u64 {
        latency.observe(SETTINGS, ms(1), start + Duration::from_micros(step * 100));
    }
    near(cost(&latency, start, ms(200)), 1.0 + 99.0 * (1.0_f64 - 1.0 / 32.0).powi(200));
    // One that is slow each time stays so.
    for step in 1..=2_000u64 {
        latency.observe(SETTINGS, ms(99 + step % 2), start + ms(200 + step));
    }
    near(cost(&latency, start, ms(2_200)), 100.0);
}

#[test]
fn a_host_that_nobody_asks_becomes_cheap_again() {
    let (latency, start) = (Latency::default(), Instant::now());
    latency.observe(SETTINGS, ms(100), start);
    near(cost(&latency, start, Duration::from_secs(20)), 13.5);
}

#[test]
fn a_new_host_is_tried_once_and_then_costs_the_default() {
    let (latency, now) = (Latency::default(), Instant::now());
    assert_eq!(SETTINGS.cost(&latency, 0, now), 0.0);
    near(SETTINGS.cost(&latency, 1, now) / 1000.0, 20.0);
}

#[test]
fn failures_add_up_to_a_limit_however_fast_they_are() {
    let (latency, start) = (Latency::default(), Instant::now());
    latency.observe(SETTINGS, ms(2), start);
    latency.failed(SETTINGS, start);
    near(cost(&latency, start, ms(0)), 8.0);
    // The answer that carried the failure changes nothing.
    latency.observe(SETTINGS, ms(1), start);
    near(cost(&latency, start, ms(0)), 8.0);
    (0..20).for_each(|_| latency.failed(SETTINGS, start));
    near(cost(&latency, start, ms(0)), 1_000.0);
    let unknown = Latency::default();
    unknown.failed(SETTINGS, start);
    near(cost(&unknown, start, ms(0)), 40.0);
}
