//! The control plane alone, for trying it against foreign proxies without building the data plane.

use clap::Parser as _;
use meltemi_telemetry::logging::{Format, Level, Levels, Logging};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = meltemi_discovery::Args::parse();
    let _logging = Logging::install(Format::Text, Levels::new(Level::INFO).with_list(&args.log_output_level)?);
    meltemi_discovery::run(args.prepare().await?, meltemi_discovery::termination()).await?;
    Ok(())
}
