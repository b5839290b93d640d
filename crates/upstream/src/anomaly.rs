//! What is not normal: online statistics of the latency and the errors of endpoints and routes.
//!
//! Some seconds of a subject's requests make a window. A window is scored against what is normal: for an endpoint the median of its
//! cluster's endpoints, for a route (and an endpoint with too few peers) what it was like before. Scores add up over windows
//! as in a CUSUM chart, so that a small difference that stays and a large one that comes and goes are both found, and one odd
//! second is not. Pure: no clock but the one given.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use meltemi_plan::Sensitivity;
use meltemi_plan::anomaly::Sample;

/// So many requests make a window.
const ENOUGH_REQUESTS: u32 = 50;
/// Where they do not come, those of so many ticks do, if they are at least [`MIN_REQUESTS`]; fewer are forgotten.
const MAX_TICKS: u32 = 10;
const MIN_REQUESTS: u32 = 8;
/// Endpoints with a window that can be compared with each other.
const MIN_MEASURED: usize = 4;
/// Windows before a subject is compared with itself.
const MIN_HISTORY: u32 = 30;
/// The windows that a baseline remembers; ten times as many while an anomaly lasts, which is not to become normal soon.
const MEMORY: f64 = 120.0;
/// The least standard deviation of logarithms: a tenth more or less is no difference.
const LEAST_SPREAD: f64 = 0.1;
/// Less than this above normal is no anomaly, however regular.
const LEAST_EXCESS: Duration = Duration::from_millis(1);
/// Errors up to this rate are normal.
const LEAST_ERROR_RATE: f64 = 0.01;
/// A window counts no more than so many standard deviations.
const LARGEST_SCORE: f64 = 8.0;
/// Of normal values the standard deviation is so many median absolute deviations.
const MAD_TO_SIGMA: f64 = 1.4826;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    LatencyAboveNormal,
    ErrorsAboveNormal,
}

impl Reason {
    pub const ALL: [Self; 2] = [Self::LatencyAboveNormal, Self::ErrorsAboveNormal];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::LatencyAboveNormal => "LatencyAboveNormal",
            Self::ErrorsAboveNormal => "ErrorsAboveNormal",
        }
    }
}

/// Of the CUSUM: what a window must exceed to count, and the sum that is an anomaly, both in standard deviations.
#[derive(Clone, Copy, Debug)]
struct Chart {
    drift: f64,
    threshold: f64,
}

impl Chart {
    fn of(sensitivity: Sensitivity) -> Self {
        let (drift, threshold) = match sensitivity {
            Sensitivity::Low => (4.0, 16.0),
            Sensitivity::Medium => (3.0, 10.0),
            Sensitivity::High => (2.0, 6.0),
        };
        Self { drift, threshold }
    }
}

/// Requests enough to be judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    requests: u32,
    /// 0 to 1.
    error_rate: f64,
    latency: Option<LogLatency>,
}

/// Mean of ln(µs), and the standard error of the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LogLatency {
    mean: f64,
    error: f64,
}

impl Window {
    fn new(sample: Sample) -> Self {
        let answers = f64::from(sample.answers);
        let latency = (sample.answers >= MIN_REQUESTS).then(|| {
            let mean = sample.logs / answers;
            let variance = (sample.squares / answers - mean * mean).max(0.0) * answers / (answers - 1.0);
            LogLatency { mean, error: (variance / answers).sqrt() }
        });
        let error_rate = f64::from(sample.errors.min(sample.requests)) / f64::from(sample.requests.max(1));
        Self { requests: sample.requests, error_rate, latency }
    }
}

/// What is expected of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    /// ln(µs) and its standard deviation.
    latency: Option<(f64, f64)>,
    error_rate: f64,
    /// Else the subject's own past.
    by_peers: bool,
}

impl Normal {
    /// Of endpoints by the windows of all of them; `None`: too few to compare.
    pub fn of_peers<'a>(windows: impl IntoIterator<Item = &'a Window>) -> Option<Self> {
        let windows: Vec<&Window> = windows.into_iter().collect();
        let error_rate = median(windows.iter().map(|window| window.error_rate).collect());
        let latencies: Vec<f64> = windows.iter().filter_map(|window| Some(window.latency?.mean)).collect();
        let latency = (latencies.len() >= MIN_MEASURED).then(|| {
            let middle = median(latencies.clone());
            (middle, MAD_TO_SIGMA * median(latencies.iter().map(|mean| (mean - middle).abs()).collect()))
        });
        (windows.len() >= MIN_MEASURED).then_some(Self { latency, error_rate, by_peers: true })
    }

    fn scores(&self, window: &Window) -> [f64; 2] {
        let latency = match (self.latency, window.latency) {
            (Some(normal), Some(latency)) => latency_score(normal, latency),
            _ => 0.0,
        };
        let expected = self.error_rate.max(LEAST_ERROR_RATE);
        [latency, deviance(window.error_rate, expected, window.requests).min(LARGEST_SCORE)]
    }
}

fn latency_score((mean, spread): (f64, f64), latency: LogLatency) -> f64 {
    let least = LEAST_EXCESS.as_micros() as f64;
    if latency.mean.exp() - mean.exp() < least {
        return 0.0;
    }
    // How means of windows spread has the error of a mean in it already.
    let sigma = LEAST_SPREAD.max(spread).max(latency.error);
    ((latency.mean - mean) / sigma).min(LARGEST_SCORE)
}

/// The signed root of twice the log likelihood ratio of a binomial rate: about normal, for rare errors too.
fn deviance(rate: f64, expected: f64, requests: u32) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    let expected = expected.min(1.0 - f64::EPSILON);
    let divergence = term(rate, expected) + term(1.0 - rate, 1.0 - expected);
    (2.0 * f64::from(requests) * divergence.max(0.0)).sqrt() * (rate - expected).signum()
}

/// 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let (middle, odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if odd { upper } else { f64::midpoint(lower, upper) }
}

/// What a subject was like, exponentially forgotten.
#[derive(Clone, Debug, Default)]
struct Baseline {
    windows: u32,
    /// Mean of ln(µs), and the mean absolute deviation.
    latency: Option<(f64, f64)>,
    error_rate: f64,
}

impl Baseline {
    fn normal(&self) -> Option<Normal> {
        // Of normal values the standard deviation is 1.25 mean absolute deviations.
        let latency = self.latency.map(|(mean, deviation)| (mean, 1.25 * deviation));
        (self.windows >= MIN_HISTORY).then_some(Normal { latency, error_rate: self.error_rate, by_peers: false })
    }

    fn learn(&mut self, window: &Window, anomalous: bool) {
        self.windows = self.windows.saturating_add(1);
        let memory = if anomalous { MEMORY * 10.0 } else { f64::from(self.windows).min(MEMORY) };
        self.error_rate += (window.error_rate - self.error_rate) / memory;
        let Some(latency) = window.latency else { return };
        let (mean, deviation) = self.latency.get_or_insert((latency.mean, 0.0));
        // One wild window moves the mean no further than a wide ordinary one.
        let reach = 4.0 * deviation.max(LEAST_SPREAD);
        let step = (latency.mean - *mean).clamp(-reach, reach);
        *mean += step / memory;
        *deviation += (step.abs() - *deviation) / memory;
    }
}

/// Whether something holds of a subject, in the shape of a Kubernetes condition.
#[derive(Clone, Debug)]
pub struct Condition {
    pub reason: Reason,
    /// `status` of the condition.
    pub active: bool,
    /// `None`: it has never been active.
    pub last_transition: Option<SystemTime>,
    /// Of the last window, in standard deviations.
    pub score: f64,
    /// What was seen and what was expected: µs, or a rate from 0 to 1.
    pub observed: f64,
    pub expected: f64,
    pub by_peers: bool,
    evidence: f64,
}

impl Condition {
    fn new(reason: Reason) -> Self {
        Self {
            reason,
            active: false,
            last_transition: None,
            score: 0.0,
            observed: 0.0,
            expected: 0.0,
            by_peers: false,
            evidence: 0.0,
        }
    }

    /// `answers take 212.4 ms, 35.0 ms at its peers`
    pub fn message(&self) -> String {
        let whose = if self.by_peers { "at its peers" } else { "before" };
        match self.reason {
            Reason::LatencyAboveNormal => {
                format!("answers take {:.1} ms, {:.1} ms {whose}", self.observed / 1000.0, self.expected / 1000.0)
            }
            Reason::ErrorsAboveNormal => {
                let (observed, expected) = (self.observed * 100.0, self.expected * 100.0);
                format!("{observed:.1} % of requests fail, {expected:.1} % {whose}")
            }
        }
    }

    /// True when the condition changed.
    fn add(&mut self, score: f64, chart: Chart, now: SystemTime) -> bool {
        self.score = score;
        self.evidence = (self.evidence + score - chart.drift).clamp(0.0, 2.0 * chart.threshold);
        let active = if self.active { self.evidence > 0.0 } else { self.evidence >= chart.threshold };
        let changed = active != self.active;
        if changed {
            self.active = active;
            self.last_transition = Some(now);
        }
        changed
    }
}

/// An endpoint or a route.
#[derive(Clone, Debug)]
pub struct Subject {
    pending: Sample,
    ticks: u32,
    /// The last complete one; `None` once it is old.
    window: Option<Window>,
    /// The window has not been judged.
    fresh: bool,
    age: u32,
    baseline: Baseline,
    conditions: [Condition; 2],
}

impl Default for Subject {
    fn default() -> Self {
        Self {
            pending: Sample::default(),
            ticks: 0,
            window: None,
            fresh: false,
            age: 0,
            baseline: Baseline::default(),
            conditions: Reason::ALL.map(Condition::new),
        }
    }
}

impl Subject {
    /// Takes in the requests of a tick.
    pub fn observe(&mut self, sample: Sample) {
        self.pending += sample;
        self.ticks += 1;
        self.age += 1;
        let due = self.ticks >= MAX_TICKS;
        self.fresh = self.pending.requests >= if due { MIN_REQUESTS } else { ENOUGH_REQUESTS };
        if self.fresh {
            self.window = Some(Window::new(self.pending));
            self.age = 0;
        } else if self.age > MAX_TICKS {
            self.window = None;
        }
        if self.fresh || due {
            (self.pending, self.ticks) = (Sample::default(), 0);
        }
    }

    /// What it was like lately.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// Judges a window that has not been judged, by the peers' where there are enough of them. Gives the conditions that changed.
    pub fn judge(&mut self, peers: Option<&Normal>, sensitivity: Sensitivity, now: SystemTime) -> Vec<Condition> {
        let Some(window) = self.window.filter(|_| std::mem::take(&mut self.fresh)) else { return Vec::new() };
        let mut changed = Vec::new();
        if let Some(normal) = peers.copied().or_else(|| self.baseline.normal()) {
            let chart = Chart::of(sensitivity);
            for (condition, score) in self.conditions.iter_mut().zip(normal.scores(&window)) {
                (condition.observed, condition.expected) = compared(condition.reason, &window, &normal);
                condition.by_peers = normal.by_peers;
                if condition.add(score, chart, now) {
                    changed.push(condition.clone());
                }
            }
        }
        let anomalous = self.is_anomalous();
        self.baseline.learn(&window, anomalous);
        changed
    }

    pub fn is_anomalous(&self) -> bool {
        self.conditions.iter().any(|condition| condition.active)
    }

    /// Peers do better, by so much that it is better to do without it. What is known is halved with that: when it is tried again
    /// it has to show anew that it is not well.
    pub fn take_verdict(&mut self, sensitivity: Sensitivity) -> bool {
        let threshold = Chart::of(sensitivity).threshold;
        let is_due = |own: &&mut Condition| own.active && own.by_peers && own.evidence >= threshold;
        let mut due = self.conditions.iter_mut().filter(is_due).peekable();
        let any = due.peek().is_some();
        due.for_each(|condition| condition.evidence = threshold / 2.0);
        any
    }

    /// Those that are or have been active.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().filter(|condition| condition.last_transition.is_some())
    }
}

fn compared(reason: Reason, window: &Window, normal: &Normal) -> (f64, f64) {
    match reason {
        Reason::LatencyAboveNormal => {
            let micros = |log: Option<f64>| log.map_or(0.0, f64::exp);
            (micros(window.latency.map(|own| own.mean)), micros(normal.latency.map(|own| own.0)))
        }
        Reason::ErrorsAboveNormal => (window.error_rate, normal.error_rate),
    }
}
