//! Istio's TCP metrics: opened when peers are known, bytes as they pass, closed at the end.

use std::sync::Arc;
use std::time::Duration;

use meltemi_plan::filter::IstioStats as Config;

use super::{Metric, StatsFilter};
use crate::context::Context;
use crate::info::{Direction, StreamInfo};

/// One configured `istio.stats` network filter.
#[derive(Debug)]
pub struct TcpStats {
    filter: StatsFilter,
    /// How often to call [`TcpReport::tick`].
    pub interval: Duration,
}

/// What one connection has reported so far.
#[derive(Debug, Default)]
pub struct TcpReport {
    opened: bool,
    sent: u64,
    received: u64,
}

impl TcpStats {
    pub fn new(config: &Config, direction: Direction, context: &Arc<Context>) -> Self {
        let interval = config.tcp_reporting_duration.max(Duration::from_millis(100));
        Self { filter: StatsFilter::new(config, direction, context), interval }
    }

    /// Reports what passed since the last time, and the opening the first time. Call each interval, and once the upstream
    /// is connected and metadata exchanged.
    pub fn tick(&self, report: &mut TcpReport, info: &StreamInfo) {
        let handles = self.filter.handles(&Metric::TCP, None, info);
        let add = |metric: Metric, n: u64| {
            if let Some(series) = handles[metric as usize].as_ref().filter(|_| n > 0) {
                series.add(0, n);
            }
        };
        add(Metric::TcpOpened, u64::from(!report.opened));
        add(Metric::TcpReceived, info.bytes_received.saturating_sub(report.received));
        add(Metric::TcpSent, info.bytes_sent.saturating_sub(report.sent));
        *report = TcpReport { opened: true, sent: info.bytes_sent, received: info.bytes_received };
    }

    /// The last report.
    pub fn end(&self, report: &mut TcpReport, info: &StreamInfo) {
        self.tick(report, info);
        if let Some(series) = &self.filter.handles(&Metric::TCP, None, info)[Metric::TcpClosed as usize] {
            series.add(0, 1);
        }
    }
}
