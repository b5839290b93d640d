//! The client's side of TLS: Envoy's `UpstreamTlsContext` as one configuration of the library, which the connections of a
//! transport socket share. Opens no connection.

use crate::certificate::{CertError, CertSlot, ClientCert, Identity};
use crate::direct::Peer;
use crate::peer::PeerInfo;
use crate::sessions::Sessions;
use crate::trust::{ServerVerifier, TrustSlot, Validation};
use crate::{Choice, Curve, TlsVersion, provider_with, versions};
use meltemi_base::Compliance;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Envoy's `UpstreamTlsContext` in the part that a handshake needs.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub certificate: Option<Arc<CertSlot>>,
    /// None: any certificate is taken, as by Envoy.
    pub validation: Option<Validation>,
    pub alpn: Vec<Vec<u8>>,
    /// None: no SNI is sent.
    pub sni: Option<String>,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    pub cipher_suites: Vec<String>,
    /// In order of preference; empty: the provider's.
    pub curves: Vec<Curve>,
    /// Of this context alone, beside that of the process.
    pub compliance: Option<Compliance>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            certificate: None,
            validation: None,
            alpn: Vec::new(),
            sni: None,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
            compliance: None,
        }
    }
}

/// The client side of TLS for one transport socket. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    certificate: Option<Arc<CertSlot>>,
    trust: Option<Arc<TrustSlot>>,
}

impl ClientTls {
    pub fn new(options: ClientOptions) -> Result<Self, CertError> {
        let ClientOptions { cipher_suites, curves, compliance, .. } = &options;
        let choice = Choice { cipher_suites, curves, compliance: *compliance };
        let trust = options.validation.as_ref().map(|validation| validation.anchors.clone());
        let builder = ClientConfig::builder_with_provider(provider_with(&choice)?)
            .with_protocol_versions(versions(options.min_version, options.max_version))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier { validation: options.validation }));
        let mut config = match options.certificate.clone() {
            Some(slot) => builder.with_client_cert_resolver(Arc::new(ClientCert(slot))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = options.alpn;
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
        // An SNI such as Istio's `outbound_.80_._.host` has underscores and is still a name that rustls sends.
        let sni = options.sni.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        config.enable_sni = sni.is_some();
        let server_name = sni.unwrap_or(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()));
        Ok(Self { config: Arc::new(config), server_name, certificate: options.certificate, trust })
    }

    /// What this side presents if it is asked now.
    pub fn local(&self) -> Option<Arc<Identity>> {
        self.certificate.as_ref().and_then(|slot| slot.current())
    }

    /// What the server of a connection showed: shared with its other connections, where this side has verified it.
    pub fn peer(&self, shown: &[CertificateDer<'_>]) -> Option<Arc<PeerInfo>> {
        let known = self.trust.as_ref().and_then(|trust| trust.known(shown, Peer::Server));
        known.or_else(|| PeerInfo::of_chain(shown).map(Arc::new))
    }

    /// The anchors of the server, if it is verified.
    pub fn trust(&self) -> Option<&Arc<TrustSlot>> {
        self.trust.as_ref()
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// The name for `TlsConnector::connect`. It selects the resumption session and is sent as SNI if it is a DNS name.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// The same context under other ALPN protocols and SNI, as `istio.alpn` and `auto_sni` ask for. The resumption store
    /// is shared, so callers keep the result rather than deriving it for each connection.
    pub fn with(&self, alpn: Option<Vec<Vec<u8>>>, sni: Option<&str>) -> Self {
        let mut config = (*self.config).clone();
        if let Some(alpn) = alpn {
            config.alpn_protocols = alpn;
        }
        let mut server_name = self.server_name.clone();
        if let Some(Ok(name)) = sni.map(|name| ServerName::try_from(name.to_owned())) {
            config.enable_sni = true;
            server_name = name;
        }
        Self { config: Arc::new(config), server_name, ..self.clone() }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
