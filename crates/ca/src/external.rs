//! Certificates that somebody else signs: what is asked of them, and what may be asked.
//!
//! Owns the check that a request names its caller and nobody else, since others sign what a request says. Who signs, and how
//! it is reached, is for another to know ([`ExternalAuthority`]).

#[cfg(test)]
mod tests;

use crate::authority::{AuthorityError, Issued, requested_key};
use meltemi_tls::SpiffeId;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

/// A request whose caller is proven and named in it.
#[derive(Clone, Copy, Debug)]
pub struct ExternalRequest<'a> {
    /// PEM PKCS#10.
    pub csr: &'a str,
    pub id: &'a SpiffeId,
    pub ttl: Duration,
    /// The signer that the proxy asks for (`CertSigner` in the request's metadata); empty: the one of the mesh.
    pub signer: &'a str,
}

/// Signs in place of the mesh's own authority.
#[tonic::async_trait]
pub trait ExternalAuthority: Send + Sync {
    async fn sign(&self, request: ExternalRequest<'_>) -> Result<Issued, AuthorityError>;
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
