//! Certificates that somebody else signs: what is asked of them, and what may be asked.
//!
//! Owns the check that a request names its caller and nobody else, since others sign what a request says, and has what comes back
//! judged. Who signs, and how it is reached, is for another to know ([`ExternalAuthority`]).

#[cfg(test)]
mod tests;

use crate::authority::{AuthorityError, Issued, invalid, requested_key};
use crate::signed::{Asked, check};
use crate::signer::uri;
use meltemi_tls::{Identity, SpiffeId};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _, SanType};
use std::time::{Duration, SystemTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use zeroize::{Zeroize as _, Zeroizing};

/// A request whose caller is proven and named in it.
#[derive(Clone, Copy, Debug)]
pub struct ExternalRequest<'a> {
    /// PEM PKCS#10.
    pub csr: &'a str,
    pub id: &'a SpiffeId,
    pub ttl: Duration,
    pub signer: AskedSigner<'a>,
}

/// Which of the signers is to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedSigner<'a> {
    /// The one of the mesh.
    Everybodys,
    /// That which a proxy asks for (`CertSigner` in the request's metadata).
    Named(&'a str),
    /// That of the control plane's own certificate.
    ControlPlanes,
}

/// Signs in place of the mesh's own authority.
#[tonic::async_trait]
pub trait ExternalAuthority: Send + Sync {
    async fn sign(&self, request: ExternalRequest<'_>) -> Result<Issued, AuthorityError>;

    /// The longest lifetime of what this signer signs, where it has a limit of its own.
    fn longest(&self, signer: AskedSigner<'_>) -> Option<Duration>;
}

/// Lifetimes of certificates that somebody else signs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    /// Absent: as long as a workload's by default.
    pub asked: Option<Duration>,
    pub default: Duration,
    pub longest: Duration,
}

/// A certificate for whoever made the request, which names it and nobody else.
pub(crate) async fn sign_for_workload(
    external: &dyn ExternalAuthority,
    csr: &str,
    id: &SpiffeId,
    (lifetimes, signer): (Lifetimes, AskedSigner<'_>),
) -> Result<Issued, AuthorityError> {
    check_names(csr, id)?;
    let key = requested_key(csr)?.subject_public_key_info();
    sign(external, csr, Asked { key: &key, id, dns_names: &[], longest: lifetimes.longest }, (lifetimes, signer)).await
}

/// A certificate with a new key for a server of ours, such as discovery itself.
pub async fn external_server_identity(
    external: &dyn ExternalAuthority,
    dns_names: &[String],
    id: &SpiffeId,
    ttl: Duration,
) -> Result<Identity, AuthorityError> {
    let mut key = KeyPair::generate().map_err(invalid("server key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id)?];
    for name in dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.clone().try_into().map_err(invalid("server name"))?));
    }
    let csr = params.serialize_request(&key).and_then(|request| request.pem()).map_err(invalid("server request"))?;
    let public = key.subject_public_key_info();
    let text = Zeroizing::new(key.serialize_pem());
    key.zeroize();
    let lifetimes = Lifetimes { asked: None, default: ttl, longest: ttl };
    let asked = Asked { key: &public, id, dns_names, longest: ttl };
    let issued = sign(external, &csr, asked, (lifetimes, AskedSigner::ControlPlanes)).await?;
    Ok(Identity::from_pem(issued.chain.concat().as_bytes(), text.as_bytes())?)
}

async fn sign(
    external: &dyn ExternalAuthority,
    csr: &str,
    asked: Asked<'_>,
    (lifetimes, signer): (Lifetimes, AskedSigner<'_>),
) -> Result<Issued, AuthorityError> {
    let longest = external.longest(signer).map_or(asked.longest, |own| own.min(asked.longest));
    let ttl = lifetimes.asked.unwrap_or(lifetimes.default).min(longest);
    let issued = external.sign(ExternalRequest { csr, id: asked.id, ttl, signer }).await?;
    check(&issued, &Asked { longest, ..asked }, SystemTime::now())?;
    Ok(issued)
}

/// Whether the request's only name is the caller's.
pub(crate) fn check_names(csr: &str, id: &SpiffeId) -> Result<(), AuthorityError> {
    // Its size, its signature and its key, as for a request of our own.
    requested_key(csr)?;
    let wrong = |e: &dyn std::fmt::Display| AuthorityError::Request(e.to_string());
    let (_, block) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).map_err(|e| wrong(&e))?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| wrong(&e))?;
    let extensions = request.requested_extensions().into_iter().flatten();
    let names: Vec<&GeneralName<'_>> = extensions
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    match names[..] {
        [GeneralName::URI(uri)] if *uri == id.to_string() => Ok(()),
        _ => Err(AuthorityError::Request(format!("its one name is to be {id}, since somebody else signs it"))),
    }
}
