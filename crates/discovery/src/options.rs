//! `pilot-discovery`'s flags, and what they come to.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use meltemi_ca::{Authenticator, Authority, TokenAuthority, TokenVerifier};
use meltemi_config::mesh::MeshConfig;
use meltemi_model::KeyFetch;
use meltemi_push::debounce::Debounce;
use meltemi_store::ConfigStore as _;
use meltemi_tls::{TrustAnchors, TrustDomain};
use tokio::sync::Semaphore;

use self::authority::AuthorityArgs;
use self::debug::DebugArgs;
use self::gateways::GatewayArgs;
pub use self::tokens::{TokenKeys, Tokens};
use self::unused::Unused;
use self::webhook::WebhookArgs;
use crate::bundles::Known;
use crate::cluster::{Cluster, ClusterSigners, Membership};
use crate::documents::{Documents, Roots};
use crate::given::{Given, GivenFiles};
use crate::keys::{self, ForbiddenAddresses};
use crate::mesh;

mod authority;
mod debug;
mod gateways;
mod tokens;
mod unused;
mod webhook;

pub use self::debug::DebugOptions;
pub use self::webhook::WebhookOptions;

/// Where istiod has them mounted.
const DEFAULT_KEY_ROOTS: &str = "/cacerts/extra.pem";
/// Keys are fetched anew at most this often.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
const DEFAULT_ROOTS_MAP: &str = "istio-ca-root-cert";
const DEFAULT_REVOCATIONS_MAP: &str = "istio-ca-crl";
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// Flags of `discovery`. Addresses take Istio's form, where an empty host is every address.
#[derive(Debug, Clone, Parser)]
#[command(
    rename_all = "camelCase",
    args_override_self = true,
    after_help = "\
Examples:
  meltemi discovery --configDir ./manifests
  meltemi discovery --kubeconfig ~/.kube/config      # a cluster; in a pod its own, without flags
  meltemi discovery --configDir ./manifests --meshConfig mesh.yaml --grpcAddr 127.0.0.1:15010 --secureGRPCAddr ''
  curl -s localhost:8080/debug/syncz        # what every proxy has acknowledged

Exit codes: 0 ended when told to; 1 it failed; 2 wrong usage"
)]
pub struct Args {
    /// Directory to watch for Istio and Kubernetes YAML
    #[arg(long = "configDir")]
    pub config_dir: Option<PathBuf>,
    /// File that says how to reach a cluster, whose objects are read as well; in a pod, and without --configDir, its own
    /// cluster is
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Revision of this control plane: objects that are labelled with another (istio.io/rev) are not read
    #[arg(long, env = "REVISION", default_value = "default")]
    pub revision: String,
    /// File with the mesh configuration; the ConfigMap istio of istio-system where there is none
    /// [default: ./etc/istio/config/mesh]
    #[arg(long = "meshConfig")]
    pub mesh_config: Option<PathBuf>,
    /// Address of the plaintext gRPC port; empty turns it off
    #[arg(long = "grpcAddr", default_value = ":15010")]
    pub grpc_addr: String,
    /// Address of the TLS gRPC port; empty turns it off
    #[arg(long = "secureGRPCAddr", default_value = ":15012")]
    pub secure_grpc_addr: String,
    /// Address of the HTTP debug port; empty turns it off
    #[arg(long = "httpAddr", default_value = ":8080")]
    pub http_addr: String,
    /// Address of the metrics port; empty turns it off
    #[arg(long = "monitoringAddr", default_value = ":15014")]
    pub monitoring_addr: String,
    /// DNS domain suffix
    #[arg(long = "domain", default_value = "cluster.local")]
    pub domain: String,
    /// Trust domain of identities this control plane issues [default: the mesh configuration's]
    #[arg(long = "trust-domain", env = "TRUST_DOMAIN")]
    pub trust_domain: Option<String>,
    /// Name of the cluster whose registry this is
    #[arg(long = "clusterID", env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Namespace this control plane runs in
    #[arg(long, short = 'n', env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// Name of this instance
    #[arg(long = "podName", env = "POD_NAME", default_value = "istiod")]
    pub pod_name: String,
    /// File with the roots that verify clients of the TLS port, besides our own; it is followed
    #[arg(long = "caCertFile")]
    pub ca_cert_file: Option<PathBuf>,
    /// File with the certificate of the TLS port; it is followed [default: that which is mounted in ./var/run/secrets/istiod/tls,
    /// or our own authority issues one]
    #[arg(long = "tlsCertFile", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the private key of the TLS port; it is followed
    #[arg(long = "tlsKeyFile", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub authority: AuthorityArgs,
    /// Issuer of service account tokens to accept; without a file of its keys it is asked for them (OpenID Connect)
    #[arg(long = "tokenIssuer", env = "TOKEN_ISSUER")]
    pub token_issuer: Option<String>,
    /// File with the public key of that issuer
    #[arg(long = "tokenKeyFile", env = "TOKEN_KEY_FILE", requires = "token_issuer", group = "token_keys")]
    pub token_key_file: Option<PathBuf>,
    /// File with the key set (JWKS) of that issuer, such as a cluster has at /openid/v1/jwks; it is followed
    #[arg(long = "tokenKeySetFile", env = "TOKEN_KEY_SET_FILE", requires = "token_issuer", group = "token_keys")]
    pub token_key_set_file: Option<PathBuf>,
    /// File with the roots that vouch for that issuer's HTTPS [default: the system's]
    #[arg(
        long = "tokenIssuerCACertFile",
        env = "TOKEN_ISSUER_CA_CERT_FILE",
        requires = "token_issuer",
        conflicts_with = "token_keys"
    )]
    pub token_issuer_ca_cert_file: Option<PathBuf>,
    /// Audiences for one of which tokens must be meant
    #[arg(long = "tokenAudiences", env = "TOKEN_AUDIENCES", default_value = meltemi_ca::TOKEN_AUDIENCE, value_delimiter = ',')]
    pub token_audiences: Vec<String>,
    /// Refuse proxies whose node says another namespace or service account than their credential
    #[arg(long = "xdsIdentityCheck", env = "PILOT_ENABLE_XDS_IDENTITY_CHECK", num_args = 0..=1, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub xds_identity_check: bool,
    /// How long to wait for more changes before pushing
    #[arg(long = "debounceAfter", env = "PILOT_DEBOUNCE_AFTER", default_value = "100ms", value_parser = duration)]
    pub debounce_after: Duration,
    /// The longest a change waits for others
    #[arg(long = "debounceMax", env = "PILOT_DEBOUNCE_MAX", default_value = "10s", value_parser = duration)]
    pub debounce_max: Duration,
    /// How long the entry of a workload that registered itself stays after its proxy is gone
    #[arg(long = "workloadEntryGracePeriod", env = "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", default_value = "10s", value_parser = duration)]
    pub workload_entry_grace: Duration,
    /// How often idle gRPC connections are pinged
    #[arg(long = "keepaliveInterval", default_value = "30s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long a ping may take
    #[arg(long = "keepaliveTimeout", default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,
    /// The longest a connection lives; 0s is for ever
    #[arg(long = "keepaliveMaxServerConnectionAge", default_value = "0s", value_parser = duration)]
    pub keepalive_max_server_connection_age: Duration,
    /// Send clients back to the endpoint that served them first, for services with a label that asks for it
    #[arg(long = "persistentSessions", env = "PILOT_ENABLE_PERSISTENT_SESSION_FILTER", num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub persistent_sessions: bool,
    /// The service's label that names a cookie for that, or COOKIE:PATH
    #[arg(
        long = "persistentSessionLabel",
        env = "PILOT_PERSISTENT_SESSION_LABEL",
        default_value = "istio.io/persistent-session"
    )]
    pub persistent_session_label: String,
    /// The service's label that names a header for that
    #[arg(
        long = "persistentSessionHeaderLabel",
        env = "PILOT_PERSISTENT_SESSION_HEADER_LABEL",
        default_value = "istio.io/persistent-session-header"
    )]
    pub persistent_session_header_label: String,
    /// The label of workloads that only clients with a session reach
    #[arg(long = "drainingLabel", env = "PILOT_DRAINING_LABEL", default_value = "istio.io/draining")]
    pub draining_label: String,
    /// Serve HTTP/3 on gateways' HTTPS servers whose service has a UDP port of the same number
    #[arg(long = "quicListeners", env = "PILOT_ENABLE_QUIC_LISTENERS", num_args = 0..=1, default_value = "false",
        default_missing_value = "true")]
    pub quic_listeners: bool,
    /// Who fetches keys for tokens: the control plane (istiod, false), the proxy where the server is a service of the mesh
    /// (hybrid, true), or the proxy (envoy)
    #[arg(long = "jwksFetch", env = "PILOT_JWT_ENABLE_REMOTE_JWKS", default_value = "false", value_parser = key_fetch)]
    pub jwks_fetch: KeyFetch,
    /// How often keys for tokens are fetched anew
    #[arg(long = "jwksRefreshInterval", env = "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", default_value = "20m",
        value_parser = duration)]
    pub jwks_refresh_interval: Duration,
    /// Ranges of addresses from which no keys are fetched, with commas between them; link-local addresses and those of
    /// clouds' metadata never are
    #[arg(long = "blockedJwksCidrs", env = "BLOCKED_CIDRS_IN_JWKS_URIS", default_value = "",
        value_parser = ForbiddenAddresses::parse)]
    pub blocked_jwks_cidrs: ForbiddenAddresses,
    /// File with roots of servers that keys are fetched from, besides the system's [default: /cacerts/extra.pem]
    #[arg(long = "jwksCaFile")]
    pub jwks_ca_file: Option<PathBuf>,
    /// Let a workload have CUSTOM policies with different providers, each of which is asked about the requests of its own
    #[arg(long = "multipleCustomAuthzProviders", env = "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub multiple_custom_authz_providers: bool,
    /// Give instances of a headless TCP service one listener with a chain for each, in place of a listener for each
    #[arg(long = "headlessFilterChains", env = "PILOT_ENABLE_HEADLESS_FILTER_CHAIN_LISTENER", num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub headless_filter_chains: bool,
    /// Levels of log output, such as default:info,ads:debug
    #[arg(long = "log_output_level", default_value = "default:info")]
    pub log_output_level: String,
    /// Proxies served at once; further ones are refused
    #[arg(long = "maxConnections", default_value_t = MAX_CONNECTIONS, value_name = "N")]
    pub max_connections: usize,
    /// Log as JSON
    #[arg(long = "log_as_json")]
    pub log_as_json: bool,
    #[command(flatten)]
    pub debug: DebugArgs,
    #[command(flatten)]
    pub webhook: WebhookArgs,
    #[command(flatten)]
    pub gateways: GatewayArgs,
    #[command(flatten)]
    pub unused: Unused,
}

/// What a control plane runs with.
#[derive(Clone)]
pub struct Options {
    pub config_dir: Option<PathBuf>,
    /// What is read beside the folder and written to.
    pub cluster: Option<Arc<Cluster>>,
    pub revision: String,
    /// Who signs for workloads in place of the authority.
    pub(crate) external: Option<Arc<ClusterSigners>>,
    /// Roots that the mesh configuration names by URL and that were needed at the start.
    pub(crate) bundles: Known,
    /// Need not be there yet. Absent: the ConfigMap `istio` among the documents, or Istio's defaults.
    pub mesh_config: Option<PathBuf>,
    pub grpc: Option<SocketAddr>,
    pub secure: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub monitoring: Option<SocketAddr>,
    pub webhook: WebhookOptions,
    pub gateways: GatewayArgs,
    pub debug: DebugOptions,
    pub domain: String,
    /// Absent: the mesh configuration's.
    pub trust_domain: Option<TrustDomain>,
    pub cluster_id: String,
    pub namespace: String,
    pub pod_name: String,
    pub authority: Arc<Authority>,
    /// The tokens that prove a workload.
    pub tokens: Option<Tokens>,
    /// For one of which tokens must be meant that the cluster reviews.
    pub token_audiences: Vec<String>,
    /// Proxies may not say that they are of another namespace or service account than their credential.
    pub identity_check: bool,
    /// Roots of clients besides the authority's, and a certificate of the TLS ports in place of an issued one.
    pub(crate) given: Arc<Given>,
    pub debounce: Debounce,
    /// How long the entry of a workload that registered itself stays after its proxy is gone.
    pub workload_entry_grace: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub max_connection_age: Option<Duration>,
    /// ADS streams served at once; others are refused.
    pub max_connections: usize,
    /// Which services have persistent sessions.
    pub sessions: meltemi_model::Sessions,
    /// Gateways get HTTP/3 listeners (`PILOT_ENABLE_QUIC_LISTENERS`).
    pub quic_listeners: bool,
    pub keys: KeyOptions,
    /// A workload may have CUSTOM policies with different providers.
    pub several_external_authorizers: bool,
    /// Instances of a headless TCP service share a listener.
    pub headless_filter_chains: bool,
    /// The ConfigMap in which pods find the roots (`PILOT_CA_CERT_CONFIGMAP`).
    pub roots_map: String,
    /// The ConfigMap in which pods find revocation lists (`PILOT_CRL_CONFIGMAP`); absent: there are none (`PILOT_ENABLE_CA_CRL`).
    pub revocations_map: Option<String>,
}

/// How keys for tokens are got.
#[derive(Clone)]
pub struct KeyOptions {
    pub fetch: KeyFetch,
    pub interval: Duration,
    pub forbidden: ForbiddenAddresses,
    /// PEM roots besides the system's.
    pub extra_roots: Vec<u8>,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            fetch: KeyFetch::default(),
            interval: keys::DEFAULT_INTERVAL,
            forbidden: ForbiddenAddresses::default(),
            extra_roots: Vec::new(),
        }
    }
}

/// Ten times what one instance is planned for.
const MAX_CONNECTIONS: usize = 20_000;

impl Options {
    /// No sockets, no configuration, Istio's defaults.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            config_dir: None,
            cluster: None,
            revision: "default".to_owned(),
            external: None,
            bundles: Known::default(),
            mesh_config: None,
            grpc: None,
            secure: None,
            http: None,
            monitoring: None,
            webhook: WebhookOptions::default(),
            gateways: GatewayArgs::default(),
            debug: DebugOptions::default(),
            domain: "cluster.local".to_owned(),
            trust_domain: None,
            cluster_id: "Kubernetes".to_owned(),
            namespace: "istio-system".to_owned(),
            pod_name: "istiod".to_owned(),
            authority,
            tokens: None,
            token_audiences: vec![meltemi_ca::TOKEN_AUDIENCE.to_owned()],
            identity_check: true,
            given: Arc::default(),
            debounce: Debounce::default(),
            workload_entry_grace: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: None,
            max_connections: MAX_CONNECTIONS,
            sessions: meltemi_model::Sessions::default(),
            quic_listeners: false,
            keys: KeyOptions::default(),
            several_external_authorizers: false,
            headless_filter_chains: false,
            roots_map: DEFAULT_ROOTS_MAP.to_owned(),
            revocations_map: Some(DEFAULT_REVOCATIONS_MAP.to_owned()),
        }
    }

    /// What this control plane calls itself in responses, in istiod's form.
    pub(crate) fn identifier(&self) -> String {
        let info = serde_json::json!({
            "Component": "istiod",
            "ID": format!("{}.{}", self.pod_name, self.namespace),
            "Info": { "version": env!("CARGO_PKG_VERSION"), "revision": self.revision },
        });
        info.to_string()
    }

    /// The trust domain in force: that of the flag, else the mesh's.
    pub(crate) fn trust_domain_in(&self, mesh: &MeshConfig) -> Result<TrustDomain> {
        match &self.trust_domain {
            Some(given) => Ok(given.clone()),
            None => mesh.trust_domain.parse().context("trustDomain of the mesh configuration"),
        }
    }

    /// The verifier of tokens too, whose keys may change.
    pub(crate) fn authenticator(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<(Authenticator, Option<Arc<TokenVerifier>>)> {
        let verifier = self.tokens.as_ref().map(Tokens::verifier).transpose()?.map(Arc::new);
        let authorities = verifier.iter().map(|verifier| verifier.clone() as Arc<dyn TokenAuthority>);
        // It judges whatever nobody else does.
        let reviewer = self.cluster.iter().map(|cluster| cluster.tokens(self.token_audiences.clone()));
        Ok((Authenticator::new(trust_domain.clone(), authorities.chain(reviewer).collect()), verifier))
    }
}

impl Args {
    /// Whether a port is to be opened that takes a capability, told before there are threads; addresses that are wrong are
    /// refused later.
    pub fn binds_low_port(&self) -> bool {
        let given = [&self.grpc_addr, &self.secure_grpc_addr, &self.http_addr, &self.monitoring_addr];
        given.into_iter().filter_map(|text| address(text).ok().flatten()).any(|address| address.port() < 1024)
    }

    /// Joins the cluster where there is one, which takes as long as it takes to answer, and reads the files that the flags
    /// name; an error names the file.
    pub async fn prepare(self) -> Result<Options> {
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        if self.kubeconfig.is_none() && (self.config_dir.is_some() || !in_pod) {
            return self.into_options();
        }
        let cluster = Cluster::join(Membership {
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone(),
            revision: self.revision.clone(),
            pod_name: self.pod_name.clone(),
        })
        .await?;
        let mesh = mesh::initial(mesh::file(self.mesh_config.clone()).as_deref(), &cluster.store.snapshot())?;
        cluster.store.select(&mesh.discovery_selectors);
        let owner = self.trust_domain()?.map_or_else(|| mesh.trust_domain.parse(), Ok)?;
        let external = self.authority.signers(Some(&cluster))?;
        let bundles = match &external {
            Some(signers) => signers.bundles(self.documents()?, &mesh).await,
            None => Known::default(),
        };
        let mesh = bundles.resolve(mesh);
        let authority =
            self.authority.open_in(&cluster, external.as_ref().map(|signers| (signers, &mesh)), owner).await?;
        cluster.recall(&authority).await?;
        let (cluster, external) = (Some(Arc::new(cluster)), external.map(Arc::new));
        Ok(Options { cluster, external, bundles, ..self.options(authority)? })
    }

    /// What gets roots that the mesh configuration names by URL.
    fn documents(&self) -> Result<Documents> {
        let roots = key_roots(self.jwks_ca_file.as_deref())?;
        Ok(Documents::new(self.blocked_jwks_cidrs.clone(), Roots::SystemAnd(roots)))
    }

    /// As [`Self::prepare`], for a control plane without a cluster.
    pub fn into_options(self) -> Result<Options> {
        let owner = match self.trust_domain()? {
            Some(given) => given,
            None => {
                let file = mesh::file(self.mesh_config.clone());
                mesh::trust_domain_of(file.as_deref()).unwrap_or(DEFAULT_TRUST_DOMAIN.parse()?)
            }
        };
        self.authority.signers(None)?;
        let authority = self.authority.open(owner)?;
        self.options(authority)
    }

    fn trust_domain(&self) -> Result<Option<TrustDomain>> {
        let given = self.trust_domain.as_ref().filter(|text| !text.is_empty());
        given.map(|text| text.parse()).transpose().context("--trust-domain")
    }

    /// Whose tokens are taken, and by which keys; what is wrong with them is said now.
    fn tokens(&self) -> Result<Option<Tokens>> {
        let keys = match (&self.token_key_file, &self.token_key_set_file) {
            (Some(file), _) => key(file)?,
            (None, Some(file)) => TokenKeys::SetFile(file.clone()),
            (None, None) => {
                let file = self.token_issuer_ca_cert_file.as_deref();
                let roots = file
                    .map(|file| roots("--tokenIssuerCACertFile", file))
                    .transpose()?
                    .map_or(Roots::SystemAnd(Vec::new()), Roots::Only);
                let documents = Documents::new(ForbiddenAddresses::default(), roots).without_redirects();
                TokenKeys::Issuer(Arc::new(documents))
            }
        };
        let Some(issuer) = self.token_issuer.clone().filter(|issuer| !issuer.is_empty()) else { return Ok(None) };
        let tokens = Tokens { issuer, audiences: self.token_audiences.clone(), keys };
        if let TokenKeys::SetFile(file) = &tokens.keys {
            tokens.verifier().with_context(|| format!("--tokenKeySetFile {}", file.display()))?;
        }
        Ok(Some(tokens))
    }

    fn options(self, authority: Authority) -> Result<Options> {
        self.unused.warn();
        let trust_domain = self.trust_domain()?;
        let tokens = self.tokens()?;
        let mesh_config = mesh::file(self.mesh_config);
        let authority = Arc::new(authority);
        let files = GivenFiles {
            certificate: self.tls_cert_file.zip(self.tls_key_file),
            roots: self.ca_cert_file,
            is_mounted: false,
        };
        let files = files.or_mounted(Path::new(""));
        if files.certificate.is_none() {
            self.authority.check_control_plane()?;
        }
        let webhook = self.webhook.options(&self.revision)?;
        Ok(Options {
            gateways: self.gateways,
            config_dir: self.config_dir,
            revision: self.revision,
            mesh_config,
            grpc: address(&self.grpc_addr).context("--grpcAddr")?,
            secure: address(&self.secure_grpc_addr).context("--secureGRPCAddr")?,
            http: address(&self.http_addr).context("--httpAddr")?,
            monitoring: address(&self.monitoring_addr).context("--monitoringAddr")?,
            webhook,
            debug: self.debug.options(),
            domain: self.domain,
            trust_domain,
            cluster_id: self.cluster_id,
            namespace: self.namespace,
            pod_name: self.pod_name,
            tokens,
            token_audiences: self.token_audiences,
            identity_check: self.xds_identity_check,
            given: Arc::new(Given::read(files)?),
            debounce: Debounce { quiet: self.debounce_after, longest: self.debounce_max },
            workload_entry_grace: self.workload_entry_grace,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            max_connections: self.max_connections.clamp(1, Semaphore::MAX_PERMITS),
            sessions: meltemi_model::Sessions {
                enabled: self.persistent_sessions,
                cookie_label: self.persistent_session_label.into(),
                header_label: self.persistent_session_header_label.into(),
                draining_label: self.draining_label.into(),
            },
            quic_listeners: self.quic_listeners,
            keys: KeyOptions {
                fetch: self.jwks_fetch,
                interval: self.jwks_refresh_interval.max(SHORTEST_REFRESH),
                forbidden: self.blocked_jwks_cidrs,
                extra_roots: key_roots(self.jwks_ca_file.as_deref())?,
            },
            several_external_authorizers: self.multiple_custom_authz_providers,
            headless_filter_chains: self.headless_filter_chains,
            roots_map: self.authority.roots_map.clone(),
            revocations_map: self.authority.revocations.then(|| self.authority.revocations_map.clone()),
            max_connection_age: Some(self.keepalive_max_server_connection_age).filter(|age| !age.is_zero()),
            ..Options::new(authority)
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// A key, once it is certain that tokens can be verified by it.
fn key(file: &Path) -> Result<TokenKeys> {
    let name = || format!("--tokenKeyFile {}", file.display());
    let text = String::from_utf8(read(file)?).with_context(name)?;
    TokenVerifier::from_pem(&text, "").with_context(name)?;
    Ok(TokenKeys::Pem(text))
}

/// PEM roots in the file that a flag names.
fn roots(flag: &str, path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    TrustAnchors::from_pem(&bytes, &[]).with_context(|| format!("{flag} {}", path.display()))?;
    Ok(bytes)
}

/// Of the file that was named, or of the default one where it is there.
fn key_roots(named: Option<&Path>) -> Result<Vec<u8>> {
    let default = Path::new(DEFAULT_KEY_ROOTS);
    match named {
        None if !default.exists() => Ok(Vec::new()),
        named => roots("--jwksCaFile", named.unwrap_or(default)),
    }
}

fn key_fetch(text: &str) -> Result<KeyFetch, String> {
    match text {
        "istiod" | "false" => Ok(KeyFetch::ControlPlane),
        "hybrid" | "true" => Ok(KeyFetch::Hybrid),
        "envoy" => Ok(KeyFetch::Proxy),
        other => Err(format!("{other:?} is not one of istiod, false, hybrid, true, envoy")),
    }
}

/// `:15010`, `127.0.0.1:0`, `[::1]:15010`, `localhost:15010`; empty is none. Of a name the first address counts.
fn address(text: &str) -> Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let full = if text.starts_with(':') { format!("{}{text}", any_host()) } else { text.to_owned() };
    let found = full.to_socket_addrs().with_context(|| format!("{text:?} is not an address"))?.next();
    Ok(Some(found.with_context(|| format!("{text:?} has no address"))?))
}

/// Every address of this machine, of both families where the system takes them on one socket.
fn any_host() -> &'static str {
    let both = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only.trim() == "0");
    if both && std::net::UdpSocket::bind("[::]:0").is_ok() { "[::]" } else { "0.0.0.0" }
}

fn duration(text: &str) -> Result<Duration, String> {
    meltemi_config::parse_duration(text).map_err(|reason| format!("{text:?}: {reason}"))
}
