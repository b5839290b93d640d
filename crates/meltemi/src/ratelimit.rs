//! `meltemi ratelimit`: the rate limit server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use meltemi_ratelimit::{Backend, Credential, OnFailure, Options, RateLimitServer, RedisOptions, Source};

/// `password` or `user:password`. Not a flag, which everybody on the machine could read.
const REDIS_CREDENTIAL: &str = "MELTEMI_REDIS_PASSWORD";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Serves envoy.service.ratelimit.v3.RateLimitService for this binary's proxies and for any Envoy. Changed files are in force within \
seconds; wrong ones leave the limits as they were.

Examples:
  meltemi ratelimit --config ./limits            # documents of Envoy's reference server
  meltemi ratelimit --policies ./manifests       # global rules of RateLimitPolicies
  meltemi ratelimit --policies ./manifests --listen 0.0.0.0:8081   # in a pod, where the proxies of others ask it
  meltemi ratelimit --config ./limits --redis 10.0.0.7:6379   # one count for several servers
  MELTEMI_REDIS_PASSWORD=user:password meltemi ratelimit --config ./limits --redis localhost:6379
  curl -s localhost:8082/metrics                 # hits within, near and over each limit

A document:
  domain: shop
  descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 60}

Exit codes: 0 it was told to end; 1 it failed")]
pub struct Arguments {
    /// Files, or folders of files, in the format of Envoy's reference server
    #[arg(short, long, required_unless_present = "policies", value_name = "PATH", num_args = 1..)]
    config: Vec<PathBuf>,
    /// Files or folders of a mesh's documents: the global rules of their RateLimitPolicies
    #[arg(short, long, value_name = "PATH", num_args = 1..)]
    policies: Vec<PathBuf>,
    /// Count in the Redis at this host and port, which other servers may share; without, in memory
    #[arg(long, value_name = "ADDRESS")]
    redis: Option<String>,
    /// How long to wait for Redis (`100ms`, `1s`)
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, requires = "redis")]
    redis_timeout: Duration,
    /// What to answer when Redis cannot be asked; with an error the proxy decides
    #[arg(long, value_enum, default_value = "error", requires = "redis")]
    on_failure: Failure,
    /// How many keys memory has room for; beyond that the least used begin anew
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(8..=50_000_000))]
    keys: u32,
    /// Address to serve gRPC on
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address of /metrics and /healthcheck
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Tell clients of their limit in RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset
    #[arg(long)]
    response_headers: bool,
    /// Count, and never refuse
    #[arg(long)]
    shadow: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Failure {
    Error,
    Allow,
    Deny,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = meltemi_config::parse_duration(text).map_err(str::to_owned)?;
    if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let options = Options {
        source: Source { paths: arguments.config.clone(), policies: arguments.policies.clone() },
        grpc: arguments.listen,
        http: arguments.http,
        on_failure: match arguments.on_failure {
            Failure::Error => OnFailure::Error,
            Failure::Allow => OnFailure::Allow,
            Failure::Deny => OnFailure::Deny,
        },
        headers: arguments.response_headers,
        shadow: arguments.shadow,
    };
    let server = RateLimitServer::bind(options, backend(arguments)?).await?;
    let addresses = server.addresses()?;
    tracing::info!("rate limits at {}, metrics at {}", addresses.grpc, addresses.http);
    server.serve(meltemi_discovery::termination()).await
}

fn backend(arguments: &Arguments) -> anyhow::Result<Backend> {
    let Some(address) = &arguments.redis else {
        return Ok(Backend::Memory { keys: usize::try_from(arguments.keys)? });
    };
    let credential = match std::env::var(REDIS_CREDENTIAL) {
        Ok(text) => Some(Credential::new(&text)),
        Err(std::env::VarError::NotPresent) => None,
        Err(error) => return Err(error).context(REDIS_CREDENTIAL),
    };
    Ok(Backend::Redis(RedisOptions { address: address.clone(), credential, timeout: arguments.redis_timeout }))
}
