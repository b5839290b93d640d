//! Runs a foreign Envoy: its sockets, its bootstrap, its restarts and its end.

use crate::bootstrap::{self, Sockets};
use crate::environment::Settings;
use crate::sds::Secrets;
use crate::upstream::ControlPlane;
use meltemi_base::Backoff;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// An Envoy that ran this long was healthy: its next failure is retried shortly.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
const FIRST_RESTART: Duration = Duration::from_millis(200);
const LONGEST_RESTART: Duration = Duration::from_secs(30);
/// xDS responses of large meshes go far beyond tonic's 4 MiB.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
/// Time between Envoy's SIGTERM and the kill.
const KILL_AFTER: Duration = Duration::from_secs(5);
const OWNER_ONLY: u32 = 0o600;

/// How to run Envoy.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    pub binary: PathBuf,
    /// Bootstrap and sockets are kept here; made with mode 0700.
    pub directory: PathBuf,
    pub log_level: String,
    pub extra_arguments: Vec<String>,
}

/// Serves the sockets and keeps Envoy running until `stop` resolves, which is after the drain; then ends it.
pub async fn run(
    settings: &Settings,
    options: &EnvoyOptions,
    control_plane: Arc<ControlPlane>,
    secrets: Secrets,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.directory)?;
    let sockets = Sockets::below(&options.directory);
    let bootstrap_file = options.directory.join("envoy-rev.json");
    std::fs::write(&bootstrap_file, bootstrap::envoy(settings, &sockets).to_string())?;
    let relay = AggregatedDiscoveryServiceServer::new(Relay { control_plane });
    let xds = tonic::transport::Server::builder().add_service(relay);
    let sds = tonic::transport::Server::builder().add_service(secrets.into_server());
    let xds = xds.serve_with_incoming(listen(&sockets.xds, OWNER_ONLY)?);
    let sds = sds.serve_with_incoming(listen(&sockets.sds, OWNER_ONLY)?);
    tokio::select! {
        done = xds => done.map_err(io::Error::other),
        done = sds => done.map_err(io::Error::other),
        done = keep_running(settings, options, &bootstrap_file, stop) => done,
    }
}

/// A socket that those may open whom the mode lets. One left by a process that is gone is replaced.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<UnixListenerStream> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(UnixListenerStream::new(listener))
}

fn command(settings: &Settings, options: &EnvoyOptions, bootstrap_file: &Path) -> Command {
    let mut command = Command::new(&options.binary);
    command.arg("-c").arg(bootstrap_file);
    command.args(["--drain-time-s", &settings.drain_duration.as_secs().to_string()]);
    command.args(["--drain-strategy", "immediate", "--local-address-ip-version", "v4"]);
    command.args(["--disable-hot-restart", "--allow-unknown-static-fields", "--log-level", &options.log_level]);
    if let Some(workers) = settings.concurrency.filter(|workers| *workers > 0) {
        command.args(["--concurrency", &workers.to_string()]);
    }
    command.args(&options.extra_arguments).kill_on_drop(true);
    command
}

async fn keep_running(
    settings: &Settings,
    options: &EnvoyOptions,
    bootstrap_file: &Path,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    tokio::pin!(stop);
    let mut backoff = Backoff::new(FIRST_RESTART, LONGEST_RESTART);
    loop {
        let started = Instant::now();
        let mut child = command(settings, options, bootstrap_file)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start {}: {e}", options.binary.display())))?;
        let status: ExitStatus = tokio::select! {
            status = child.wait() => status?,
            () = &mut stop => return end(child).await,
        };
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        let wait = backoff.next();
        tracing::error!(%status, restart_in = ?wait, "envoy ended");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut stop => return Ok(()),
        }
    }
}

/// Ends the process.
async fn end(mut child: Child) -> io::Result<()> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // The process may have ended by itself meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(KILL_AFTER, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// Passes ADS streams on to discovery under the agent's credential.
struct Relay {
    control_plane: Arc<ControlPlane>,
}

impl Relay {
    async fn client(&self) -> Result<AggregatedDiscoveryServiceClient<tonic::transport::Channel>, Status> {
        let channel = self.control_plane.discovery_channel(None).await;
        let channel = channel.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES))
    }

    fn authorize<T>(&self, request: T) -> Result<Request<T>, Status> {
        self.control_plane.authorize(Request::new(request)).map_err(|e| Status::internal(e.to_string()))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = Streaming<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Streaming<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        self.client().await?.stream_aggregated_resources(self.authorize(requests)?).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        self.client().await?.delta_aggregated_resources(self.authorize(requests)?).await
    }
}
