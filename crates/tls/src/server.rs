//! The server's side of TLS: Envoy's `DownstreamTlsContext` as one configuration of the library, which the connections of a
//! filter chain share. Accepts no connection.

use crate::certificate::{CertError, CertSlot, Identity, ServerCerts, choose};
use crate::direct::Peer;
use crate::peer::PeerInfo;
use crate::trust::{ClientVerifier, TrustSlot, Validation};
use crate::{Choice, Curve, TlsVersion, provider_with, versions};
use meltemi_base::Compliance;
use rustls::pki_types::CertificateDer;
use rustls::server::ServerConfig;
use std::fmt;
use std::sync::Arc;

/// Envoy's `DownstreamTlsContext` in the part that a handshake needs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub certificates: Vec<Arc<CertSlot>>,
    /// None: no certificate is asked of the client, unless `require_client_certificate`.
    pub validation: Option<Validation>,
    pub require_client_certificate: bool,
    pub alpn: Vec<Vec<u8>>,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// OpenSSL names; empty: the provider's defaults.
    pub cipher_suites: Vec<String>,
    /// In order of preference; empty: the provider's.
    pub curves: Vec<Curve>,
    /// Of this context alone, beside that of the process.
    pub compliance: Option<Compliance>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            validation: None,
            require_client_certificate: false,
            alpn: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
            compliance: None,
        }
    }
}

/// The server side of TLS for one filter chain. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
    certificates: Vec<Arc<CertSlot>>,
    trust: Option<Arc<TrustSlot>>,
}

impl ServerTls {
    pub fn new(options: ServerOptions) -> Result<Self, CertError> {
        let ServerOptions { cipher_suites, curves, compliance, .. } = &options;
        let choice = Choice { cipher_suites, curves, compliance: *compliance };
        let builder = ServerConfig::builder_with_provider(provider_with(&choice)?)
            .with_protocol_versions(versions(options.min_version, options.max_version))?;
        let trust = options.validation.as_ref().map(|validation| validation.anchors.clone());
        let demanded = options.validation.as_ref().is_some_and(Validation::demands_a_certificate);
        let builder = if options.validation.is_some() || options.require_client_certificate {
            builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                validation: options.validation,
                mandatory: options.require_client_certificate || demanded,
            }))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(ServerCerts(options.certificates.clone())));
        config.alpn_protocols = options.alpn;
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        // One ticket is what a client of ours uses; each costs an encryption and a write.
        config.send_tls13_tickets = 1;
        config.ignore_client_order = true;
        let mut without_alpn = config.clone();
        without_alpn.alpn_protocols.clear();
        let (config, without_alpn) = (Arc::new(config), Arc::new(without_alpn));
        Ok(Self { config, without_alpn, certificates: options.certificates, trust })
    }

    /// TLS 1.3 that presents nothing and so serves nobody, for what of QUIC comes before a name is known.
    pub fn nobody() -> Result<Arc<ServerConfig>, CertError> {
        let options = ServerOptions { min_version: TlsVersion::Tls13, ..ServerOptions::default() };
        Ok(Self::new(options)?.config)
    }

    /// What this side presents now to a client that asked for this name.
    pub fn local(&self, server_name: Option<&str>) -> Option<Arc<Identity>> {
        choose(&self.certificates, server_name, |_| true)
    }

    /// What is in each slot now, in the order of the options.
    pub fn certificates(&self) -> impl Iterator<Item = Option<Arc<Identity>>> {
        self.certificates.iter().map(|slot| slot.current())
    }

    /// What the client of a connection showed, if it showed a certificate: shared with its other connections, where this side
    /// has verified it.
    pub fn peer(&self, shown: &[CertificateDer<'_>]) -> Option<Arc<PeerInfo>> {
        let known = self.trust.as_ref().and_then(|trust| trust.known(shown, Peer::Client));
        known.or_else(|| PeerInfo::of_chain(shown).map(Arc::new))
    }

    /// The anchors of clients, if they are verified.
    pub fn trust(&self) -> Option<&Arc<TrustSlot>> {
        self.trust.as_ref()
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// For a client that offers these protocols. Where none is ours the handshake goes on without one, as OpenSSL and
    /// BoringSSL have it; RFC 7301 would have it fail, and a mesh client offers names such as `istio` alone.
    pub fn config_for(&self, offered: &[Vec<u8>]) -> Arc<ServerConfig> {
        let common = self.config.alpn_protocols.iter().any(|own| offered.contains(own));
        if offered.is_empty() || common { self.config.clone() } else { self.without_alpn.clone() }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("alpn", &self.config.alpn_protocols.len()).finish_non_exhaustive()
    }
}

impl PeerInfo {
    /// What the peer of an established connection showed, if it showed a certificate.
    pub fn of(connection: &rustls::CommonState) -> Option<Self> {
        Self::of_chain(connection.peer_certificates()?)
    }

    /// The same of the certificates that it showed, leaf first.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (leaf, issuers) = chain.split_first()?;
        Self::of_certificates(leaf, issuers)
    }

    pub(crate) fn of_certificates(leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>]) -> Option<Self> {
        let issuers = issuers.iter().map(|issuer| Arc::from(&**issuer)).collect();
        Some(Self { issuers, ..Self::from_certificate(leaf).ok()? })
    }
}
