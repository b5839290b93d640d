//! Whose tokens prove a workload, and by which keys.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use meltemi_ca::TokenVerifier;

use super::read;
use crate::documents::Documents;

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub issuer: String,
    pub audiences: Vec<String>,
    pub keys: TokenKeys,
}

/// The public keys of an issuer.
#[derive(Clone, Debug)]
pub enum TokenKeys {
    /// One in PEM.
    Pem(String),
    /// A JSON Web Key Set in a file, which is followed.
    SetFile(PathBuf),
    /// Those that the issuer publishes.
    Issuer(Arc<Documents>),
}

impl Tokens {
    /// Those of an issuer with one key, meant for the authority.
    pub fn of_key(pem: &str, issuer: &str) -> Self {
        let (issuer, keys) = (issuer.to_owned(), TokenKeys::Pem(pem.to_owned()));
        Self { issuer, audiences: vec![meltemi_ca::TOKEN_AUDIENCE.to_owned()], keys }
    }

    pub(super) fn verifier(&self) -> Result<TokenVerifier> {
        let verifier = match &self.keys {
            TokenKeys::Pem(pem) => TokenVerifier::from_pem(pem, &self.issuer)?,
            TokenKeys::SetFile(file) => {
                let text = String::from_utf8(read(file)?)?;
                TokenVerifier::from_jwks(&text, &self.issuer).with_context(|| file.display().to_string())?
            }
            TokenKeys::Issuer(_) => TokenVerifier::without_keys(&self.issuer),
        };
        Ok(verifier.with_audiences(self.audiences.clone()))
    }
}
