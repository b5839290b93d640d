//! New self-signed roots.

use crate::authority::{AuthorityError, invalid};
use crate::signer::CLOCK_SKEW;
use meltemi_tls::TrustDomain;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::time::{Duration, SystemTime};
use zeroize::{Zeroize as _, Zeroizing};

/// Certificate and key, in PEM. The key is on P-256.
pub(crate) fn create(
    trust_domain: &TrustDomain,
    now: SystemTime,
    lifetime: Duration,
) -> Result<(String, Zeroizing<String>), AuthorityError> {
    let mut key = KeyPair::generate().map_err(invalid("root key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    let certificate = params.self_signed(&key).map_err(invalid("root"))?;
    let text = Zeroizing::new(key.serialize_pem());
    key.zeroize();
    Ok((certificate.pem(), text))
}
