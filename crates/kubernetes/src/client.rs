//! How to reach the API server: by a kubeconfig, or as a pod does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A request is a few milliseconds; watches are not bound by it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// By this file, or, where none is named, by `KUBECONFIG`, `~/.kube/config` or a pod's service account, whichever is there.
/// Nothing is asked of the server yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.with_context(|| path.display().to_string())?
        }
        None => Config::infer().await.context("no API server is known here")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Whoever asks has a rhythm of its own; a retry inside would hide an outage from it.
    config.default_retry = false;
    Client::try_from(config).context("a client of the API server")
}
