//! What the mesh says about itself: logs, metrics, trace context and span export.
//!
//! Owns the sharded metric cells, their Prometheus and `/stats` text, run-time log levels, W3C and B3 trace context, and the
//! OTLP and Zipkin encoders. Must never open a socket (exporters take a transport from whoever has one) nor block a worker:
//! a metric is a thread-local add, a span is one bounded queue push.

pub mod export;
pub mod logging;
pub mod metrics;
pub mod trace;

pub use metrics::{Counter, Gauge, Group, Histogram, Kind, Registry, Series, SeriesSet, Spec};
pub use trace::TraceContext;
