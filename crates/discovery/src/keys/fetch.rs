//! Key sets from their URL, or from where the issuer's OpenID configuration says that they are.
//!
//! What is no key set is not taken, so that nothing else can be read through a proxy's configuration.

use anyhow::{Context as _, Result, ensure};
use meltemi_config::Str;
use meltemi_model::KeySource;
use serde_json::Value;

use super::{Fetch, ForbiddenAddresses};
use crate::documents::{Documents, Roots};

/// OpenID Connect Discovery 1.0, section 4.
pub(crate) const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

pub(crate) struct HttpFetch(Documents);

impl HttpFetch {
    /// `extra_roots` are PEM roots besides the system's.
    pub fn new(forbidden: ForbiddenAddresses, extra_roots: Vec<u8>) -> Self {
        Self(Documents::new(forbidden, Roots::SystemAnd(extra_roots)))
    }
}

impl Fetch for HttpFetch {
    async fn fetch(&self, source: &KeySource) -> Result<Str> {
        if !source.uri.is_empty() {
            return key_set(&self.0.json(&source.uri).await?);
        }
        let configuration = self.0.json(&format!("{}{DISCOVERY_PATH}", source.issuer.trim_end_matches('/'))).await?;
        let uri = configuration["jwks_uri"].as_str().context("the issuer's OpenID configuration has no jwks_uri")?;
        key_set(&self.0.json(uri).await?)
    }
}

/// RFC 7517: an object with a list of keys. Written anew, so that the same keys are the same text.
fn key_set(answer: &Value) -> Result<Str> {
    ensure!(answer["keys"].is_array(), "the answer is no key set: it has no list of keys");
    Ok(answer.to_string().into())
}

#[cfg(test)]
mod tests;
