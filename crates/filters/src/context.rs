//! What filters share in a process: who we are, and the metrics that outlive any configuration.

use std::sync::Arc;

use meltemi_telemetry::Registry;

use crate::access_log::LogWriter;
use crate::peer::LocalNode;
use crate::stats::IstioMetrics;

/// Made once at start.
#[derive(Debug)]
pub struct Context {
    pub registry: Registry,
    pub node: LocalNode,
    pub istio: IstioMetrics,
    pub logs: Arc<LogWriter>,
}

impl Context {
    pub fn new(registry: &Registry, node: LocalNode) -> Arc<Self> {
        Arc::new(Self {
            registry: registry.clone(),
            istio: IstioMetrics::new(registry),
            logs: LogWriter::start(registry),
            node,
        })
    }
}
