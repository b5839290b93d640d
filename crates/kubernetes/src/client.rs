//! How to reach the API server: by a kubeconfig, or as a pod does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::ServiceBuilder;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose other end went without a word is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// By this file, or, where none is named, by `KUBECONFIG`, `~/.kube/config` or a pod's service account, whichever is there.
/// Nothing is asked of the server yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.with_context(|| path.display().to_string())?
        }
        None => Config::infer().await.context("no API server is known here")?,
    };
    client(&config).context("a client of the API server")
}

/// Put together by hand: kube's own retries, which hides an outage from whoever asks, and logs each failure beside them.
fn client(config: &Config) -> Result<Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
