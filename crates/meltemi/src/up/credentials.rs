//! Identities of the local mesh: a root and a token key that live as long as the run.
//!
//! Owns the token key, which never leaves this process; discovery gets its public half. Discovery makes certificates, from
//! the root in the run's folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use meltemi_ca::{Authority, AuthorityOptions, TokenIssuer};
use meltemi_local::{Credentials, Discovery};
use meltemi_tls::TrustDomain;

const ISSUER: &str = "meltemi-up";
/// A run is never as long; nothing renews tokens.
const TOKEN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

pub struct LocalIdentities {
    tokens: TokenIssuer,
}

impl LocalIdentities {
    pub fn new() -> anyhow::Result<Self> {
        Ok(LocalIdentities { tokens: TokenIssuer::generate(ISSUER).context("token key")? })
    }

    fn write(&self, folder: &Path, trust_domain: &str) -> anyhow::Result<Discovery> {
        let options = AuthorityOptions::new(trust_domain.parse::<TrustDomain>().context("the mesh's trust domain")?);
        Authority::persistent(folder, options).context("the mesh's root certificate")?;
        let key = folder.join("token-key.pem");
        fs::write(&key, self.tokens.public_pem()).context("token key")?;
        let arguments = [
            "--caDir".to_owned(),
            folder.display().to_string(),
            "--tokenKeyFile".to_owned(),
            key.display().to_string(),
            "--tokenIssuer".to_owned(),
            ISSUER.to_owned(),
            // One machine changes less at a time than a cluster does, and its user waits.
            "--debounceAfter".to_owned(),
            "20ms".to_owned(),
        ];
        Ok(Discovery {
            arguments: arguments.to_vec(),
            environment: Vec::new(),
            root_certificate: folder.join("root-cert.pem"),
        })
    }
}

impl Credentials for LocalIdentities {
    fn prepare(&self, folder: &Path, trust_domain: &str) -> Result<Discovery, String> {
        self.write(folder, trust_domain).map_err(|error| format!("{error:#}"))
    }

    fn token(&self, namespace: &str, service_account: &str) -> Result<String, String> {
        let token = self.tokens.issue(namespace, service_account, TOKEN_LIFETIME);
        token.map_err(|error| error.to_string())
    }
}
