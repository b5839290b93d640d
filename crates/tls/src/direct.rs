//! Peers that webpki does not take although an anchor vouches for them by itself: leaves of X.509 version 1, which OpenSSL
//! still makes by default from a request without extensions, and a leaf that is an anchor, as self-signed servers have it.
//!
//! Only what is simple enough to be certain of is done here: one signature of one anchor, dates and use. A path over
//! intermediates, an anchor with name constraints and a context with revocation lists are left to webpki, which refuses.

#[cfg(test)]
mod tests;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

/// What the peer is, since a certificate may be for one use alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Server,
    Client,
}

/// Whether one of the anchors is this leaf, or has signed it and it is of version 1.
pub(crate) fn vouched(leaf: &[u8], anchors: &[CertificateDer<'_>], now: UnixTime, peer: Peer) -> Result<(), Error> {
    let certificate = parse(leaf)?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    if !now.is_some_and(|now| certificate.validity().is_valid_at(now)) {
        return Err(CertificateError::Expired.into());
    }
    if anchors.iter().any(|anchor| **anchor == *leaf) {
        return if serves(&certificate, peer) { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) };
    }
    if certificate.version() != X509Version::V1 {
        return Err(CertificateError::UnknownIssuer.into());
    }
    match anchors.iter().any(|anchor| signed_by(leaf, &certificate, anchor).is_some()) {
        true => Ok(()),
        false => Err(CertificateError::UnknownIssuer.into()),
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// A certificate that does not say what it is for is for everything.
fn serves(certificate: &X509Certificate<'_>, peer: Peer) -> bool {
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => {
            let named = if peer == Peer::Server { usage.value.server_auth } else { usage.value.client_auth };
            usage.value.any || named
        }
        Err(_) => false,
    }
}

fn signed_by(leaf: &[u8], certificate: &X509Certificate<'_>, anchor: &[u8]) -> Option<()> {
    let anchor = parse(anchor).ok()?;
    let constrained = !matches!(anchor.name_constraints(), Ok(None));
    if constrained || anchor.subject().as_raw() != certificate.issuer().as_raw() {
        return None;
    }
    // Certificate: SEQUENCE of what is signed, the algorithm and the signature.
    let (_, outer) = Any::from_der(leaf).ok()?;
    let (rest, _) = Any::from_der(outer.data).ok()?;
    let (_, algorithm) = Any::from_der(rest).ok()?;
    let provider = crate::provider();
    let known = provider.signature_verification_algorithms.all.iter();
    let named = known.copied().filter(|known| *known.signature_alg_id() == *algorithm.data);
    let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    verified(anchor.public_key(), named, signed, signature)
}

/// Whether one of the algorithms fits the key and finds the signature right.
fn verified(
    key: &SubjectPublicKeyInfo<'_>,
    algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> Option<()> {
    let (_, outer) = Any::from_der(key.raw).ok()?;
    let (_, kind) = Any::from_der(outer.data).ok()?;
    let mut fitting = algorithms.filter(|algorithm| *algorithm.public_key_alg_id() == *kind.data);
    fitting.find_map(|algorithm| algorithm.verify_signature(&key.subject_public_key.data, message, signature).ok())
}

/// Whether a peer with this certificate has its key, by TLS 1.2. Only what webpki refuses is looked at here.
pub(crate) fn tls12_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let provider = crate::provider();
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls12_signature(message, leaf, signed, algorithms).or_else(|reason| {
        let certificate = parse(leaf)?;
        if certificate.version() != X509Version::V1 {
            return Err(reason);
        }
        let named = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let named = named.flat_map(|(_, algorithms)| algorithms.iter().copied());
        match verified(certificate.public_key(), named, message, signed.signature()) {
            Some(()) => Ok(HandshakeSignatureValid::assertion()),
            None => Err(CertificateError::BadSignature.into()),
        }
    })
}

/// The same by TLS 1.3.
pub(crate) fn tls13_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let provider = crate::provider();
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature(message, leaf, signed, algorithms).or_else(|reason| {
        let certificate = parse(leaf)?;
        if certificate.version() != X509Version::V1 {
            return Err(reason);
        }
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    })
}
