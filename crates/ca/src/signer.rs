//! A signing certificate with its key, checked to be good for what it is to do before it ever signs.
//!
//! Owns the signing key, which it clears from memory when it goes. A signer is only made if a certificate that it signed on
//! trial verifies against the roots as a peer would verify it: key, chain, constraints and dates are all judged by that.

use crate::authority::{AuthorityError, invalid};
use crate::certificate::CaCertificate;
use crate::svid_key::SvidKey;
use meltemi_tls::{Identity, SpiffeId, TrustAnchors, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::{Zeroize as _, Zeroizing};

/// Certificates are valid from a little before now, since clocks of a mesh differ (Istio: two minutes).
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// What the files of an authority hold.
pub struct Material {
    /// PEM of the signing certificate, and of others perhaps after it.
    pub(crate) certificate: String,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub(crate) key: Zeroizing<String>,
    /// PEM of those between it and the root; may be empty.
    pub(crate) chain: String,
    /// PEM of the roots.
    pub(crate) roots: String,
    /// PEM of one of the roots that is to sign next, and is to be distributed before; its key is not needed for that.
    pub(crate) next: Option<String>,
    /// PEM of revocation lists; may be empty.
    pub(crate) crl: String,
}

impl Material {
    /// Roots (PEM) under which others sign for the mesh: they are distributed and changed as those of an authority of our own.
    pub fn of_others(roots: &str) -> Self {
        let (certificate, key, chain, crl) = (String::new(), Zeroizing::default(), String::new(), String::new());
        Self { certificate, key, chain, roots: roots.to_owned(), next: None, crl }
    }

    fn is_of_others(&self) -> bool {
        self.certificate.is_empty() && self.key.is_empty()
    }
}

/// A private key that does not outlive its use.
struct CaKey(KeyPair);

impl Drop for CaKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

pub(crate) struct Signer {
    /// None: others sign, and only their roots are known here.
    issuer: Option<Issuer<'static, CaKey>>,
    certificate: CaCertificate,
    /// What follows a leaf: the signing certificate and those between it and the root; empty when the root itself signs.
    intermediates: Vec<CaCertificate>,
    /// The roots that it leads to.
    anchors: Vec<CaCertificate>,
    /// The first end among the certificates that a peer needs.
    not_after: SystemTime,
    /// Seconds since the epoch: when the last certificate signed for a workload ends.
    issued_until: AtomicU64,
    /// Made when it is first asked for.
    svid_key: OnceLock<SvidKey>,
}

impl Signer {
    /// `issued_until` is when certificates may end that it signed before now, in another life.
    pub fn new(
        material: &Material,
        trust_domain: &TrustDomain,
        (now, issued_until): (SystemTime, SystemTime),
    ) -> Result<Self, AuthorityError> {
        if material.is_of_others() {
            return Self::elsewhere(material, (now, issued_until));
        }
        // Reading it as an identity checks that key and certificate belong together.
        Identity::from_pem(material.certificate.as_bytes(), material.key.as_bytes())?;
        let mut own = CaCertificate::all("signing certificate", &material.certificate)?;
        let roots = CaCertificate::all("roots", &material.roots)?;
        if !material.chain.trim().is_empty() {
            own.extend(CaCertificate::all("certificate chain", &material.chain)?);
        }
        let certificate = own.first().cloned().ok_or(AuthorityError::Expired)?;
        let mut intermediates: Vec<CaCertificate> = Vec::new();
        for candidate in own {
            if !roots.contains(&candidate) && !intermediates.contains(&candidate) {
                intermediates.push(candidate);
            }
        }
        for part in std::iter::once(&certificate).chain(&intermediates) {
            dated(part, now)?;
        }
        let key = CaKey(KeyPair::from_pem(&material.key).map_err(invalid("signing key"))?);
        let issuer = Issuer::from_ca_cert_pem(certificate.pem(), key).map_err(invalid("signing certificate"))?;
        let ends = std::iter::once(&certificate).chain(&intermediates).map(|part| part.not_after);
        let not_after = ends.min().unwrap_or(now);
        let issued_until = AtomicU64::new(seconds(issued_until));
        let issuer = Some(issuer);
        let mut signer = Self {
            issuer,
            certificate,
            intermediates,
            anchors: Vec::new(),
            not_after,
            issued_until,
            svid_key: OnceLock::new(),
        };
        signer.anchors = signer.anchors_among(roots, trust_domain, now)?;
        let last = signer.anchors.iter().map(|root| root.not_after).max().unwrap_or(now);
        signer.not_after = signer.not_after.min(last);
        Ok(signer)
    }

    /// Others sign under these roots, the first of which stands for whoever does.
    fn elsewhere(material: &Material, (now, issued_until): (SystemTime, SystemTime)) -> Result<Self, AuthorityError> {
        let roots = CaCertificate::all("roots", &material.roots)?;
        let anchors: Vec<CaCertificate> = roots.into_iter().filter(|root| root.is_valid_at(now)).collect();
        let last = anchors.iter().map(|root| root.not_after).max();
        let (Some(certificate), Some(not_after)) = (anchors.first().cloned(), last) else {
            return Err(AuthorityError::Unrooted("no root in it is valid now".to_owned()));
        };
        let issued_until = AtomicU64::new(seconds(issued_until));
        let (intermediates, svid_key) = (Vec::new(), OnceLock::new());
        Ok(Self { issuer: None, certificate, intermediates, anchors, not_after, issued_until, svid_key })
    }

    /// Signs on trial, and keeps the roots by which a peer verifies it.
    fn anchors_among(
        &self,
        roots: Vec<CaCertificate>,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Vec<CaCertificate>, AuthorityError> {
        let id = SpiffeId::new(trust_domain.clone(), "trial", "trial").expect("plain words are segments");
        let key = KeyPair::generate().map_err(invalid("trial key"))?;
        let end = (now + CLOCK_SKEW).min(self.not_after);
        let trial = self.certify(&key, vec![uri(&id)?], (now, end))?;
        let mut reason = "no root in it is valid now".to_owned();
        let mut anchors = Vec::new();
        for root in roots.into_iter().filter(|root| root.is_valid_at(now)) {
            let verified = TrustAnchors::from_pem(root.pem().as_bytes(), &[])?.verify(trial.concat().as_bytes(), now);
            match verified {
                Ok(()) => anchors.push(root),
                Err(error) => reason = error.to_string(),
            }
        }
        if anchors.is_empty() { Err(AuthorityError::Unrooted(reason)) } else { Ok(anchors) }
    }

    /// Signs for a workload.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        sans: Vec<SanType>,
        lifetime: (SystemTime, SystemTime),
    ) -> Result<Vec<String>, AuthorityError> {
        let chain = self.certify(key, sans, lifetime)?;
        self.issued_until.fetch_max(seconds(lifetime.1), Ordering::Relaxed);
        Ok(chain)
    }

    /// Signs for us, who take another certificate as soon as the signer changes.
    pub fn certify(
        &self,
        key: &impl PublicKeyData,
        sans: Vec<SanType>,
        (now, not_after): (SystemTime, SystemTime),
    ) -> Result<Vec<String>, AuthorityError> {
        let not_after = not_after.min(self.not_after);
        if not_after <= now {
            return Err(AuthorityError::Expired);
        }
        let mut params = CertificateParams::default();
        // With an empty subject the names are critical (RFC 5280 section 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = sans;
        // Said, and not only left out (SPIFFE X.509-SVID, section 4.1), as Istio's certificates say it.
        params.is_ca = IsCa::ExplicitNoCa;
        // Verifiers choose by it among roots of one name.
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = self.issuer.as_ref().ok_or(AuthorityError::Keyless)?;
        let leaf = params.signed_by(key, issuer).map_err(invalid("certificate"))?;
        let following = self.intermediates.iter().map(|part| part.pem().to_string());
        Ok(std::iter::once(leaf.pem()).chain(following).collect())
    }

    /// False: others sign.
    pub fn has_key(&self) -> bool {
        self.issuer.is_some()
    }

    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    pub fn intermediates(&self) -> &[CaCertificate] {
        &self.intermediates
    }

    pub fn anchors(&self) -> &[CaCertificate] {
        &self.anchors
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub fn issued_until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.issued_until.load(Ordering::Relaxed))
    }

    /// Takes over from one that is the same but for its roots.
    pub fn continue_from(&self, other: &Self) {
        self.issued_until.store(other.issued_until.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The key in PEM (PKCS#8), to be kept in a file that only its owner may read.
    pub fn key_pem(&self) -> Result<Zeroizing<String>, AuthorityError> {
        let issuer = self.issuer.as_ref().ok_or(AuthorityError::Keyless)?;
        Ok(Zeroizing::new(issuer.key().0.serialize_pem()))
    }

    /// Signs workloads' tokens.
    pub fn svid_key(&self) -> Result<&SvidKey, AuthorityError> {
        if let Some(key) = self.svid_key.get() {
            return Ok(key);
        }
        let issuer = self.issuer.as_ref().ok_or(AuthorityError::Keyless)?;
        let secret = Zeroizing::new(issuer.key().0.serialize_der());
        let key = SvidKey::derive(&secret)?;
        Ok(self.svid_key.get_or_init(|| key))
    }

    /// The same certificate with the same chain under the same roots.
    pub fn is_same(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.intermediates == other.intermediates
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The name of a workload, as a certificate carries it.
pub(crate) fn uri(id: &SpiffeId) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(id.to_string().try_into().map_err(invalid("identity"))?))
}

fn dated(certificate: &CaCertificate, now: SystemTime) -> Result<(), AuthorityError> {
    if certificate.is_valid_at(now) {
        return Ok(());
    }
    let when = if certificate.not_after < now { "has ended" } else { "is not valid yet" };
    Err(AuthorityError::Certificate {
        what: "signing certificate",
        reason: format!("{:?} {when}", certificate.subject),
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Shared by those who sign at the same time.
pub(crate) type SharedSigner = Arc<Signer>;
