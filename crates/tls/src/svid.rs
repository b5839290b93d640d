//! Whose a certificate is by SPIFFE's rules for X.509-SVIDs (sections 4 and 5), where each trust domain has roots of its own.

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};
use x509_parser::extensions::GeneralName;

/// The trust domain that a leaf's one URI names. Refused as by Envoy: an authority's certificate, and one whose key may sign
/// certificates or revocation lists, or does not say what it is for.
pub(crate) fn trust_domain(leaf: &CertificateDer<'_>) -> Result<Box<str>, Error> {
    let bad = || Error::from(CertificateError::BadEncoding);
    let refused = || Error::from(CertificateError::ApplicationVerificationFailure);
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|_| bad())?;
    let usage = certificate.key_usage().map_err(|_| bad())?.ok_or_else(refused)?;
    if certificate.is_ca() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(refused());
    }
    let names = certificate.subject_alternative_name().map_err(|_| bad())?.ok_or_else(refused)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    // With a second one it could be of two trust domains at once.
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(refused()) };
    let (domain, _) = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or_else(refused)?;
    if domain.is_empty() { Err(refused()) } else { Ok(domain.into()) }
}
