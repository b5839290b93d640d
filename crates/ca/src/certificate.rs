//! Certificates of authorities: PEM bundles of bounded size, what is read of each certificate, and which public keys are
//! strong enough to sign or be signed.

use crate::authority::AuthorityError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A file of certificates or revocation lists is not read beyond this.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Certificates of one file.
const MAX_CERTIFICATES: usize = 32;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Smaller ones make some forgeries cheap (NIST SP 800-56B section 6.2).
const SMALLEST_EXPONENT: u64 = 65_537;

/// A certificate of an authority, such as a root. Two are equal if their DER is.
#[derive(Clone)]
pub struct CaCertificate {
    pem: Arc<str>,
    der: Arc<[u8]>,
    key: Arc<[u8]>,
    /// The subject, in DER.
    name: Arc<[u8]>,
    pub subject: String,
    pub serial_hex: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl CaCertificate {
    /// Every certificate of a PEM text, which must hold at least one and nothing else; `what` names the text in errors.
    pub fn all(what: &'static str, pem: &str) -> Result<Vec<Self>, AuthorityError> {
        let wrong = |reason: String| AuthorityError::Certificate { what, reason };
        let mut found = Vec::new();
        for block in Pem::iter_from_buffer(pem.as_bytes()) {
            let block = block.map_err(|e| wrong(format!("malformed PEM: {e}")))?;
            if block.label != "CERTIFICATE" {
                return Err(wrong(format!("a {} where only certificates belong", block.label)));
            }
            if found.len() == MAX_CERTIFICATES {
                return Err(wrong(format!("more than {MAX_CERTIFICATES} certificates")));
            }
            let certificate = Self::from_der(&block.contents).map_err(wrong)?;
            if !found.contains(&certificate) {
                found.push(certificate);
            }
        }
        if found.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(found) }
    }

    fn from_der(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(der).map_err(|e| format!("malformed certificate: {e}"))?;
        let subject = parsed.subject().to_string();
        check_authority(&parsed).map_err(|reason| format!("{subject:?} {reason}"))?;
        Ok(Self {
            pem: encode("CERTIFICATE", der).into(),
            der: der.into(),
            key: parsed.public_key().raw.into(),
            name: parsed.subject().as_raw().into(),
            serial_hex: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            subject,
        })
    }

    pub fn pem(&self) -> &Arc<str> {
        &self.pem
    }

    #[cfg(test)]
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// SubjectPublicKeyInfo, in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl PartialEq for CaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for CaCertificate {}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate({}, {})", self.subject, self.serial_hex)
    }
}

/// The texts of these one after another.
pub(crate) fn bundle<'a>(certificates: impl IntoIterator<Item = &'a CaCertificate>) -> String {
    certificates.into_iter().map(|certificate| &*certificate.pem).collect()
}

/// Whether it may sign certificates at all.
fn check_authority(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let constraints = certificate.basic_constraints().map_err(|e| e.to_string())?;
    // Of version 1 there are no constraints; an authority of today has them (RFC 5280 section 4.2.1.9).
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err("is no certificate of an authority (CA:TRUE is missing)".to_owned());
    }
    let usage = certificate.key_usage().map_err(|e| e.to_string())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("may not sign certificates (its key usage)".to_owned());
    }
    strong_key(certificate.public_key())
}

/// ECDSA on P-256 or P-384, or RSA of 2048 to 4096 bits; the reason otherwise.
pub(crate) fn strong_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    let allowed = "ECDSA P-256, ECDSA P-384 and RSA of 2048 to 4096 bits are taken";
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            _ => Err(format!("has a key on a curve that is not taken; {allowed}")),
        };
    }
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
        return Err(format!("has a key of a kind that is not taken; {allowed}"));
    };
    if !RSA_BITS.contains(&rsa.key_size()) {
        return Err(format!("has an RSA key of {} bits; {allowed}", rsa.key_size()));
    }
    match rsa.try_exponent() {
        Ok(exponent) if exponent < SMALLEST_EXPONENT => Err(format!("has an RSA key of the exponent {exponent}")),
        _ => Ok(()),
    }
}

pub(crate) fn time(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// PEM of one block, in lines of 64 characters (RFC 7468 section 2).
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (place, character) in STANDARD.encode(der).chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}
