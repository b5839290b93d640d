//! Runs the proxy from an Envoy bootstrap file (JSON or YAML): `serve FILE [WORKERS]`. For comparing answers with Envoy's.

use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proxy::{Options, Proxy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: serve FILE [WORKERS]")?;
    let bootstrap: Bootstrap = meltemi_proto::json::from_text(&std::fs::read_to_string(file)?)?;
    let mut options = Options::new(&bootstrap)?;
    options.concurrency = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Clusters start tasks of their own when they are made.
    runtime.block_on(async { Proxy::new(options)?.run(std::future::pending()).await })?;
    Ok(())
}
