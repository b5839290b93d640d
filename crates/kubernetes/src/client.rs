//! How to reach the API server: by a kubeconfig, or as a pod does.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use meltemi_base::causes;
use tower::ServiceBuilder;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose other end went without a word is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// By this file, or, where none is named, by `KUBECONFIG`, `~/.kube/config` or a pod's service account, whichever is there.
/// Nothing is asked of the server yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = configuration(kubeconfig, None).await;
    let config = config.map_err(|reason| anyhow!("no API server is known here: {reason}"))?;
    client(&config).context("a client of the API server")
}

/// What the file says of its context, else of its current one. Where no file is named, what kubectl or a pod takes; or why there is
/// nothing.
pub(crate) async fn configuration(file: Option<&Path>, context: Option<&str>) -> Result<Config, String> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    match (file, context) {
        (Some(path), _) => {
            let named = |error| match error {
                KubeconfigError::ReadConfig(..) => reason(&error),
                other => format!("{}: {}", path.display(), reason(&other)),
            };
            let read = Kubeconfig::read_from(path).map_err(named)?;
            Config::from_custom_kubeconfig(read, &options).await.map_err(named)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| reason(&error)),
        (None, None) => Config::infer().await.map_err(|error| {
            let of_file = error.source().and_then(|cause| cause.downcast_ref());
            // In a pod the other half of it, about its account, is what matters.
            let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
            of_file.filter(|_| !in_pod).map_or_else(|| causes(&error), reason)
        }),
    }
}

/// On one line: what a parser shows of a file may be a token or a key.
fn reason(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(cause, path) if cause.kind() == ErrorKind::NotFound => {
            format!("there is no {}; --kubeconfig names another file", path.display())
        }
        KubeconfigError::ReadConfig(cause, path) => format!("{}: {cause}", path.display()),
        other => causes(other).lines().next().unwrap_or_default().to_owned(),
    }
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
