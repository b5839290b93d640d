//! Anomaly detection: where configuration asks for it, and what the request path counts for it.
//!
//! Asked for in the metadata of a cluster or route, under [`METADATA`]. A request leaves three relaxed additions; whoever
//! judges takes the counts from time to time.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::common::Metadata;
use crate::error::{At, PlanError, refuse};

/// The metadata's key: `sensitivity`, `eject` and the name of the `policy`, all strings.
pub const METADATA: &str = "meltemi.anomaly_detection";

/// How far from normal is an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensitivity {
    Low,
    Medium,
    High,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalyDetection {
    pub sensitivity: Sensitivity,
    /// An endpoint that is unlike its peers is ejected, within the limits of the cluster's outlier detection.
    pub eject: bool,
    /// `namespace/name`, for people.
    pub policy: Arc<str>,
}

impl AnomalyDetection {
    /// What the metadata of a cluster or route asks for.
    pub(crate) fn of(metadata: Option<&Metadata>) -> Result<Option<Self>, PlanError> {
        let Some(asked) = metadata.and_then(|metadata| metadata.filters.get(METADATA)) else { return Ok(None) };
        let text = |key: &str| asked.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let found = Self {
            sensitivity: match text("sensitivity") {
                "low" => Sensitivity::Low,
                "medium" => Sensitivity::Medium,
                "high" => Sensitivity::High,
                _ => return refuse("must be low, medium or high").at("sensitivity").at(METADATA),
            },
            eject: match text("eject") {
                "true" => true,
                "false" => false,
                _ => return refuse("must be true or false").at("eject").at(METADATA),
            },
            policy: text("policy").into(),
        };
        Ok(Some(found))
    }
}

/// A route that is watched, and what its requests were like.
#[derive(Debug)]
pub struct Watch {
    pub detection: AnomalyDetection,
    pub record: Record,
}

impl Watch {
    pub(crate) fn of(metadata: Option<&Metadata>) -> Result<Option<Arc<Self>>, PlanError> {
        let found = AnomalyDetection::of(metadata)?;
        Ok(found.map(|detection| Arc::new(Self { detection, record: Record::default() })))
    }
}

/// Requests since somebody last took them.
#[derive(Debug, Default)]
pub struct Record {
    requests: AtomicU32,
    errors: AtomicU32,
    /// Answers whose time is in the sums.
    answers: AtomicU32,
    /// Of the natural logarithms of times in microseconds, and of their squares; in units of 1/[`FRACTION`].
    logs: AtomicU64,
    squares: AtomicU64,
}

const FRACTION: f64 = 65536.0;

impl Record {
    /// Takes in that a request ended.
    pub fn ended(&self, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    /// Takes in how long an answer took to begin.
    pub fn answered(&self, time: Duration) {
        let log = (time.as_secs_f64() * 1e6).max(1.0).ln();
        self.answers.fetch_add(1, Relaxed);
        self.logs.fetch_add((log * FRACTION) as u64, Relaxed);
        self.squares.fetch_add((log * log * FRACTION) as u64, Relaxed);
    }

    /// What has come since the last call. A request that ends meanwhile may be in this sample with a part and in the next with
    /// the rest.
    pub fn take(&self) -> Sample {
        let sum = |cell: &AtomicU64| cell.swap(0, Relaxed) as f64 / FRACTION;
        Sample {
            requests: self.requests.swap(0, Relaxed),
            errors: self.errors.swap(0, Relaxed),
            answers: self.answers.swap(0, Relaxed),
            logs: sum(&self.logs),
            squares: sum(&self.squares),
        }
    }
}

/// Requests of some time.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Sample {
    pub requests: u32,
    pub errors: u32,
    pub answers: u32,
    /// Sum of ln(µs) over the answers.
    pub logs: f64,
    /// Sum of their squares.
    pub squares: f64,
}

impl std::ops::AddAssign for Sample {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.answers += other.answers;
        self.logs += other.logs;
        self.squares += other.squares;
    }
}
