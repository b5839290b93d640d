//! What a peer's certificate must satisfy, with anchors that rotate in place.

use crate::certificate::{CertError, CertInfo, cert_info, certificates_from_pem};
use crate::direct::{self, Peer};
use crate::peer::{PeerInfo, San};
use crate::spiffe::TrustDomain;
use crate::svid;
use crate::verified::{Question, Verified};
use arc_swap::ArcSwapOption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A predicate over one subject alternative name; any name that satisfies any predicate admits the peer.
pub type SanMatcher = Arc<dyn Fn(&San<'_>) -> bool + Send + Sync>;

/// Roots that each context keeps whole. A list longer than this is of public authorities, of which nobody expects what these
/// are kept for.
const KEPT: usize = 16;

/// Roots and revocation lists of one moment.
pub struct TrustAnchors {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    /// Asks the revocation lists; none where there are no lists.
    revoked_servers: Option<Arc<WebPkiServerVerifier>>,
    /// Roots of other trust domains, each of which vouches for its own alone.
    foreign: BTreeMap<Box<str>, TrustAnchors>,
    /// Only these trust domains are known, and peers are theirs by SPIFFE's rules.
    svids_only: bool,
    /// The first roots as they came; none of the system's.
    certificates: Vec<CertificateDer<'static>>,
    verified: Verified,
}

impl TrustAnchors {
    /// `crl` may be empty. Where it is not, every authority of a peer's chain must have a list in it that has not ended, as Envoy
    /// has it (`CertificateValidationContext.crl`). Every certificate in `roots` becomes an anchor.
    pub fn from_pem(roots: &[u8], crl: &[u8]) -> Result<Self, CertError> {
        let mut store = RootCertStore::empty();
        let mut roots = certificates_from_pem(roots)?;
        for root in &roots {
            store.add(root.clone())?;
        }
        let anchors = Self::new(store, crl)?;
        roots.truncate(KEPT);
        Ok(Self { certificates: roots, ..anchors })
    }

    /// The host's own roots (`file-root:system`).
    pub fn system() -> Result<Self, CertError> {
        Self::system_with(&[])
    }

    /// The host's own roots and those of a PEM text, which may be empty.
    pub fn system_with(roots: &[u8]) -> Result<Self, CertError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let roots = if roots.is_empty() { Vec::new() } else { certificates_from_pem(roots)? };
        for root in roots {
            store.add(root)?;
        }
        Self::new(store, &[])
    }

    /// Has peers of another trust domain verified by these roots, and by no others; nor do these vouch for anybody else.
    pub fn federate(mut self, domain: &TrustDomain, anchors: TrustAnchors) -> Self {
        self.foreign.insert(domain.as_str().into(), anchors);
        self
    }

    /// Each trust domain with its roots, and nobody else (Envoy's `envoy.tls.cert_validator.spiffe`). `None` without a domain.
    pub fn of_trust_domains(domains: impl IntoIterator<Item = (Box<str>, TrustAnchors)>) -> Option<Self> {
        let foreign: BTreeMap<Box<str>, TrustAnchors> = domains.into_iter().collect();
        let any = foreign.values().next()?;
        Some(Self {
            roots: any.roots.clone(),
            clients: any.clients.clone(),
            revoked_servers: any.revoked_servers.clone(),
            certificates: foreign.values().flat_map(|anchors| anchors.certificates.iter().cloned()).collect(),
            svids_only: true,
            foreign,
            verified: Verified::default(),
        })
    }

    /// Verifies a chain (PEM, leaf first) as a peer would that sees it as a client's and as a server's.
    pub fn verify(&self, chain: &[u8], now: SystemTime) -> Result<(), CertError> {
        let chain = certificates_from_pem(chain)?;
        let (leaf, rest) = chain.split_first().ok_or(CertError::NoCertificate)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.verify_client(leaf, rest, now)?;
        Ok(self.verify_server(leaf, rest, now)?)
    }

    fn new(store: RootCertStore, crl: &[u8]) -> Result<Self, CertError> {
        let roots = Arc::new(store);
        let crls = CertificateRevocationListDer::pem_slice_iter(crl)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| CertError::Crl(e.to_string()))?;
        let revoked_servers = match crls.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), crate::provider());
                let built = builder.with_crls(crls.clone()).enforce_revocation_expiration().build();
                Some(built.map_err(|e| CertError::Crl(e.to_string()))?)
            }
        };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), crate::provider())
            .with_crls(crls)
            .enforce_revocation_expiration()
            .build()
            .map_err(|e| CertError::Crl(e.to_string()))?;
        Ok(Self {
            roots,
            clients,
            revoked_servers,
            foreign: BTreeMap::new(),
            svids_only: false,
            certificates: Vec::new(),
            verified: Verified::default(),
        })
    }

    /// What a peer's leaf says, once its chain is verified or known to be; `None` where only webpki can read it.
    fn admit(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<Option<Arc<PeerInfo>>, Error> {
        let question = if self.asks_lists() { None } else { Question::new(leaf, rest, peer) };
        if let Some(known) = question.and_then(|question| self.verified.find(&question, now)) {
            return Ok(Some(known));
        }
        match peer {
            Peer::Server => self.verify_server(leaf, rest, now)?,
            Peer::Client => self.verify_client(leaf, rest, now)?,
        }
        let info = PeerInfo::of_certificates(leaf, rest).map(Arc::new);
        if let (Some(question), Some(info)) = (question, &info) {
            let chain: Vec<_> = std::iter::once(leaf).chain(rest).collect();
            self.verified.keep(question, &chain, now, info);
        }
        Ok(info)
    }

    fn asks_lists(&self) -> bool {
        self.revoked_servers.is_some() || self.foreign.values().any(Self::asks_lists)
    }

    /// The roots by which this leaf is verified. With a second name it could be of two trust domains at once, so that the
    /// authority of one would vouch for the other.
    fn responsible(&self, leaf: &CertificateDer<'_>) -> Result<&Self, Error> {
        if self.svids_only {
            let domain = svid::trust_domain(leaf)?;
            return self.foreign.get(&domain).ok_or_else(|| CertificateError::UnknownIssuer.into());
        }
        if self.foreign.is_empty() {
            return Ok(self);
        }
        let peer = PeerInfo::from_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match peer.uri_sans.len() {
            0 => Ok(self),
            1 => Ok(peer.trust_domain().and_then(|domain| self.foreign.get(domain)).unwrap_or(self)),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let own = self.responsible(leaf)?;
        let algorithms = crate::provider().signature_verification_algorithms.all;
        let by_path = ParsedCertificate::try_from(leaf)
            .and_then(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &own.roots, rest, now, algorithms));
        match by_path {
            Ok(()) => own.check_server_revocation(leaf, rest, now),
            Err(reason) => own.vouch(leaf, now, Peer::Server, reason),
        }
    }

    fn verify_client(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let own = self.responsible(leaf)?;
        match own.clients.verify_client_cert(leaf, rest, now) {
            Ok(_) => Ok(()),
            Err(reason) => own.vouch(leaf, now, Peer::Client, reason),
        }
    }

    /// Of a chain that verifies: whether a list says that one of it is revoked.
    fn check_server_revocation(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(verifier) = &self.revoked_servers else { return Ok(()) };
        // Names are not its business: peers of a mesh are known by others than the one that a client asks for.
        let nameless = ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into());
        match verifier.verify_server_cert(leaf, rest, &nameless, &[], now) {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// The reason that webpki gave stands where no anchor vouches for the leaf itself, or a revocation list must be asked.
    fn vouch(&self, leaf: &CertificateDer<'_>, now: UnixTime, peer: Peer, reason: Error) -> Result<(), Error> {
        match self.revoked_servers.is_some() {
            true => Err(reason),
            false => direct::vouched(leaf, &self.certificates, now, peer).map_err(|_| reason),
        }
    }
}

/// Holds the current anchors of one validation context; empty until the first arrive, and then nothing verifies.
#[derive(Default)]
pub struct TrustSlot(ArcSwapOption<TrustAnchors>);

impl TrustSlot {
    pub fn new(anchors: TrustAnchors) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(anchors)))
    }

    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    pub fn set(&self, anchors: TrustAnchors) {
        self.0.store(Some(Arc::new(anchors)));
    }

    pub fn is_empty(&self) -> bool {
        self.0.load().is_none()
    }

    /// The roots that are trusted now, for an operator's eyes; none of the system's.
    pub fn roots(&self) -> Vec<CertInfo> {
        let anchors = self.0.load();
        anchors.iter().flat_map(|anchors| &anchors.certificates).filter_map(|root| cert_info(root).ok()).collect()
    }

    /// What the leaf of a connection's chain says, where these anchors have verified it.
    pub(crate) fn known(&self, chain: &[CertificateDer<'_>], peer: Peer) -> Option<Arc<PeerInfo>> {
        let (leaf, rest) = chain.split_first()?;
        self.0.load().as_ref()?.verified.peer(&Question::new(leaf, rest, peer)?)
    }

    fn current(&self) -> Result<Arc<TrustAnchors>, Error> {
        self.0.load_full().ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

impl fmt::Debug for TrustSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustSlot({})", if self.is_empty() { "empty" } else { "set" })
    }
}

/// Envoy's `CertificateValidationContext` in the part that a verifier needs.
#[derive(Clone, Default)]
pub struct Validation {
    pub anchors: Arc<TrustSlot>,
    /// Empty: any name will do, once the chain verifies.
    pub sans: Vec<SanMatcher>,
    /// The certificate must name the server asked for by SNI (Envoy's `auto_san_validation`). Of servers only.
    pub server_name: bool,
    /// Envoy's `trust_chain_verification: ACCEPT_UNTRUSTED`: the chain is not verified; names still are.
    pub accept_untrusted: bool,
    /// A peer is verified by the roots of its trust domain, so that it must show a certificate.
    pub svids_only: bool,
    /// Envoy's context without `trusted_ca`: a leaf is known by its pin alone.
    pub unanchored: bool,
    /// SHA-256 fingerprints of acceptable leaves, lower-case hex.
    pub certificate_hashes: Vec<String>,
    /// The same of their public keys (SubjectPublicKeyInfo). One pin of either kind must match, if there is any.
    pub key_hashes: Vec<String>,
}

impl Validation {
    /// Envoy's rule: who must be one of a list, or of a trust domain, must show a certificate, whatever else is said.
    pub(crate) fn demands_a_certificate(&self) -> bool {
        let listed = !self.sans.is_empty() || self.pins();
        self.svids_only || listed && !self.accept_untrusted
    }

    fn pins(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.key_hashes.is_empty()
    }

    fn verifies_chain(&self) -> bool {
        !self.accept_untrusted && !self.unanchored
    }

    /// Verifies a chain, where this context does, and checks the names and pins of its leaf.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        peer: Peer,
    ) -> Result<(), Error> {
        let info = match self.verifies_chain() {
            true => self.anchors.current()?.admit(leaf, rest, now, peer)?,
            false if self.takes_any_name() => None,
            false => PeerInfo::from_certificate(leaf).ok().map(Arc::new),
        };
        self.check_names(info.as_deref())
    }

    fn takes_any_name(&self) -> bool {
        self.sans.is_empty() && !self.pins()
    }

    fn check_names(&self, leaf: Option<&PeerInfo>) -> Result<(), Error> {
        if self.takes_any_name() {
            return Ok(());
        }
        let info = leaf.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let pinned = || {
            let key = || info.key_sha256_hex().is_some_and(|hash| self.key_hashes.contains(&hash));
            self.certificate_hashes.contains(&info.sha256_hex()) || key()
        };
        if self.pins() && !pinned() {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        if self.sans.is_empty() || info.sans().any(|san| self.sans.iter().any(|matches| matches(&san))) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }
}

impl fmt::Debug for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validation").field("anchors", &self.anchors).field("sans", &self.sans.len()).finish()
    }
}

fn signature_schemes() -> Vec<SignatureScheme> {
    crate::provider().signature_verification_algorithms.supported_schemes()
}

/// Verifies a server's chain against the slot's anchors and its names against the list. Envoy's rule: the name asked for
/// by SNI is not compared unless the list says so.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    /// None: Envoy without a validation context takes any certificate.
    pub(crate) validation: Option<Validation>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(validation) = &self.validation else { return Ok(ServerCertVerified::assertion()) };
        validation.check(end_entity, intermediates, now, Peer::Server)?;
        if validation.server_name {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        direct::tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        direct::tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

/// The server's view of its clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) validation: Option<Validation>,
    pub(crate) mandatory: bool,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Anchors rotate, and a borrowed list cannot; an empty list asks for any certificate (RFC 8446 section 4.2.4).
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(validation) = &self.validation else { return Ok(ClientCertVerified::assertion()) };
        validation.check(end_entity, intermediates, now, Peer::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        direct::tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        direct::tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests;
