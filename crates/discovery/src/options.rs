//! `pilot-discovery`'s flags, and what they come to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use meltemi_ca::{Authenticator, Authority, AuthorityOptions, TokenVerifier};
use meltemi_push::debounce::Debounce;
use meltemi_tls::TrustDomain;
use tokio::sync::Semaphore;

/// Flags of `discovery`. Addresses take Istio's form, where an empty host is every address.
#[derive(Debug, Clone, Parser)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// Directory to watch for Istio and Kubernetes YAML
    #[arg(long = "configDir")]
    pub config_dir: Option<PathBuf>,
    /// File with the mesh configuration
    #[arg(long = "meshConfig", default_value = "./etc/istio/config/mesh")]
    pub mesh_config: PathBuf,
    /// Address of the plaintext gRPC port; empty turns it off
    #[arg(long = "grpcAddr", default_value = ":15010")]
    pub grpc_addr: String,
    /// Address of the TLS gRPC port; empty turns it off
    #[arg(long = "secureGRPCAddr", default_value = ":15012")]
    pub secure_grpc_addr: String,
    /// Address of the HTTP debug port; empty turns it off
    #[arg(long = "httpAddr", default_value = ":8080")]
    pub http_addr: String,
    /// Address of the webhook port
    #[arg(long = "httpsAddr", default_value = ":15017")]
    pub https_addr: String,
    /// Address of the metrics port; empty turns it off
    #[arg(long = "monitoringAddr", default_value = ":15014")]
    pub monitoring_addr: String,
    /// DNS domain suffix
    #[arg(long = "domain", default_value = "cluster.local")]
    pub domain: String,
    /// Trust domain of identities this control plane issues
    #[arg(long = "trust-domain", env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Name of the cluster whose registry this is
    #[arg(long = "clusterID", env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Namespace this control plane runs in
    #[arg(long, short = 'n', env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// Name of this instance
    #[arg(long = "podName", env = "POD_NAME", default_value = "istiod")]
    pub pod_name: String,
    /// File with the roots that verify clients of the TLS port, besides our own
    #[arg(long = "caCertFile")]
    pub ca_cert_file: Option<PathBuf>,
    /// File with the certificate of the TLS port; by default our own authority issues one
    #[arg(long = "tlsCertFile", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the private key of the TLS port
    #[arg(long = "tlsKeyFile", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Directory of the signing certificate (`ca-cert.pem` or, kept by us, `root-cert.pem`)
    #[arg(long = "caDir", env = "ROOT_CA_DIR", default_value = "./etc/cacerts")]
    pub ca_dir: PathBuf,
    /// Issuer of service account tokens to accept
    #[arg(long = "tokenIssuer", env = "TOKEN_ISSUER", requires = "token_key_file")]
    pub token_issuer: Option<String>,
    /// File with the public key of that issuer
    #[arg(long = "tokenKeyFile", env = "TOKEN_KEY_FILE", requires = "token_issuer")]
    pub token_key_file: Option<PathBuf>,
    /// How long to wait for more changes before pushing
    #[arg(long = "debounceAfter", env = "PILOT_DEBOUNCE_AFTER", default_value = "100ms", value_parser = duration)]
    pub debounce_after: Duration,
    /// The longest a change waits for others
    #[arg(long = "debounceMax", env = "PILOT_DEBOUNCE_MAX", default_value = "10s", value_parser = duration)]
    pub debounce_max: Duration,
    /// How often idle gRPC connections are pinged
    #[arg(long = "keepaliveInterval", default_value = "30s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long a ping may take
    #[arg(long = "keepaliveTimeout", default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,
    /// The longest a connection lives; 0s is for ever
    #[arg(long = "keepaliveMaxServerConnectionAge", default_value = "0s", value_parser = duration)]
    pub keepalive_max_server_connection_age: Duration,
    /// Levels of log output, such as default:info,ads:debug
    #[arg(long = "log_output_level", default_value = "default:info")]
    pub log_output_level: String,
    /// Proxies served at once; further ones are refused
    #[arg(long = "maxConnections", default_value_t = MAX_CONNECTIONS, value_name = "N")]
    pub max_connections: usize,
    /// Log as JSON
    #[arg(long = "log_as_json")]
    pub log_as_json: bool,
    /// Accepted for compatibility: registries to read
    #[arg(long, hide = true)]
    pub registries: Option<String>,
    /// Accepted for compatibility: Kubernetes credentials
    #[arg(long, hide = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// What a control plane runs with.
#[derive(Clone)]
pub struct Options {
    pub config_dir: Option<PathBuf>,
    /// Absent: Istio's defaults.
    pub mesh_config: Option<PathBuf>,
    pub grpc: Option<SocketAddr>,
    pub secure: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub monitoring: Option<SocketAddr>,
    pub domain: String,
    pub trust_domain: TrustDomain,
    pub cluster_id: String,
    pub namespace: String,
    pub pod_name: String,
    pub authority: Arc<Authority>,
    /// Public key (PEM) and issuer of the tokens that prove a workload.
    pub tokens: Option<(String, String)>,
    /// PEM roots of clients, besides the authority's.
    pub extra_roots: Vec<u8>,
    /// PEM chain and key of the TLS port in place of an issued one.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub debounce: Debounce,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub max_connection_age: Option<Duration>,
    /// ADS streams served at once; others are refused.
    pub max_connections: usize,
}

/// Ten times what one instance is planned for.
const MAX_CONNECTIONS: usize = 20_000;

impl Options {
    /// No sockets, no configuration, Istio's defaults.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            config_dir: None,
            mesh_config: None,
            grpc: None,
            secure: None,
            http: None,
            monitoring: None,
            domain: "cluster.local".to_owned(),
            trust_domain: authority.trust_domain().clone(),
            cluster_id: "Kubernetes".to_owned(),
            namespace: "istio-system".to_owned(),
            pod_name: "istiod".to_owned(),
            authority,
            tokens: None,
            extra_roots: Vec::new(),
            certificate: None,
            debounce: Debounce::default(),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: None,
            max_connections: MAX_CONNECTIONS,
        }
    }

    /// What this control plane calls itself in responses, in istiod's form.
    pub(crate) fn identifier(&self) -> String {
        let info = serde_json::json!({
            "Component": "istiod",
            "ID": format!("{}.{}", self.pod_name, self.namespace),
            "Info": { "version": env!("CARGO_PKG_VERSION"), "revision": "default" },
        });
        info.to_string()
    }

    pub(crate) fn authenticator(&self) -> Authenticator {
        let verifier = self.tokens.as_ref().and_then(|(key, issuer)| {
            let verifier = TokenVerifier::from_pem(key, issuer, self.trust_domain.clone());
            verifier.inspect_err(|error| tracing::error!(%error, "tokens are not accepted")).ok()
        });
        Authenticator::new(self.trust_domain.clone(), verifier)
    }
}

impl Args {
    /// Reads the files that the flags name.
    pub fn into_options(self) -> Result<Options> {
        let trust_domain: TrustDomain = self.trust_domain.parse().context("--trust-domain")?;
        let authority = Arc::new(authority(&self.ca_dir, trust_domain)?);
        let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
        let certificate = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(chain), Some(key)) => Some((read(chain)?, read(key)?)),
            _ => None,
        };
        let tokens = match (&self.token_key_file, self.token_issuer) {
            (Some(key), Some(issuer)) => Some((String::from_utf8(read(key)?).context("--tokenKeyFile")?, issuer)),
            _ => None,
        };
        let extra_roots = self.ca_cert_file.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Options {
            config_dir: self.config_dir,
            mesh_config: Some(self.mesh_config).filter(|path| path.exists()),
            grpc: address(&self.grpc_addr).context("--grpcAddr")?,
            secure: address(&self.secure_grpc_addr).context("--secureGRPCAddr")?,
            http: address(&self.http_addr).context("--httpAddr")?,
            monitoring: address(&self.monitoring_addr).context("--monitoringAddr")?,
            domain: self.domain,
            cluster_id: self.cluster_id,
            namespace: self.namespace,
            pod_name: self.pod_name,
            tokens,
            extra_roots,
            certificate,
            debounce: Debounce { quiet: self.debounce_after, longest: self.debounce_max },
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            max_connections: self.max_connections.clamp(1, Semaphore::MAX_PERMITS),
            max_connection_age: Some(self.keepalive_max_server_connection_age).filter(|age| !age.is_zero()),
            ..Options::new(authority)
        })
    }
}

/// A plugged-in certificate where there is one, one that we kept where there is that, else a new one kept nowhere.
fn authority(dir: &Path, trust_domain: TrustDomain) -> Result<Authority> {
    let options = AuthorityOptions::new(trust_domain);
    let authority = if dir.join("ca-cert.pem").exists() {
        Authority::plugged(dir, options)
    } else if dir.is_dir() {
        Authority::persistent(dir, options)
    } else {
        Authority::self_signed(options)
    };
    authority.with_context(|| format!("signing certificate in {}", dir.display()))
}

/// `:15010`, `127.0.0.1:0`, `[::1]:15010`; empty is none.
fn address(text: &str) -> Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.replace("localhost:", "127.0.0.1:") };
    Ok(Some(full.parse().with_context(|| format!("{text:?} is not an address"))?))
}

/// Go's durations with one unit, such as `100ms` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| format!("{text:?} is not a duration"))?;
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" if number == 0.0 => 0.0,
        _ => return Err(format!("{text:?} is not a duration")),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("{text:?} is not a duration"))
}
