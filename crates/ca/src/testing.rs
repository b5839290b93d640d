//! Authorities and requests for tests.

use crate::authority::AuthorityOptions;
use crate::signer::{Material, Signer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SignatureAlgorithm,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Ca {
    pub fn root(name: &str) -> Self {
        Self::of(params(name), KeyPair::generate().unwrap())
    }

    pub fn root_with_key(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        Self::of(params(name), KeyPair::generate_for(algorithm).unwrap())
    }

    /// Valid so long from now; already ended where that is negative.
    pub fn root_until(name: &str, now: SystemTime, seconds: i64) -> Self {
        let mut params = params(name);
        params.not_before = (now - Duration::from_secs(7200)).into();
        let length = Duration::from_secs(seconds.unsigned_abs());
        params.not_after = if seconds < 0 { now - length } else { now + length }.into();
        Self::of(params, KeyPair::generate().unwrap())
    }

    pub fn changed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(name);
        change(&mut params);
        Self::of(params, KeyPair::generate().unwrap())
    }

    fn of(params: CertificateParams, key: KeyPair) -> Self {
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn intermediate(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }

    pub fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.0
    }

    pub fn material(&self, roots: &str) -> Material {
        let key = Zeroizing::new(self.key_pem());
        let (chain, crl) = (String::new(), String::new());
        Material { certificate: self.pem(), key, chain, roots: roots.to_owned(), next: None, crl }
    }

    /// A signer that has signed nothing yet.
    pub fn signer(&self, roots: &str, now: SystemTime) -> Arc<Signer> {
        let trust_domain = "cluster.local".parse().unwrap();
        Arc::new(Signer::new(&self.material(roots), &trust_domain, (now, now)).unwrap())
    }
}

/// An empty revocation list, in PEM.
pub(crate) fn revocations(ca: &Ca, end: SystemTime) -> String {
    let list = rcgen::CertificateRevocationListParams {
        this_update: (end - Duration::from_secs(24 * 3600)).into(),
        next_update: end.into(),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(ca.issuer()).unwrap().pem().unwrap()
}

pub(crate) fn options() -> AuthorityOptions {
    AuthorityOptions::new("cluster.local".parse().unwrap())
}

/// A request that asks for names that it must not get.
pub(crate) fn request(key: &KeyPair) -> String {
    let params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// Of the first certificate of a PEM text.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

pub(crate) fn write_plugged(dir: &Path, signer: &Ca, chain: &str, roots: &str) {
    for (name, text) in [
        ("ca-cert.pem", &signer.pem()),
        ("ca-key.pem", &signer.key_pem()),
        ("root-cert.pem", &roots.to_owned()),
        ("cert-chain.pem", &chain.to_owned()),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
}
