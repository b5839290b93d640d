//! The keys of whoever issues workloads' tokens, followed where they are: in a file, or with the issuer itself (OpenID
//! Connect Discovery 1.0).

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use http::Uri;
use meltemi_ca::TokenVerifier;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::State;
use crate::documents::Documents;
use crate::keys::DISCOVERY_PATH;
use crate::options::TokenKeys;

/// Issuers publish a key long before they sign with it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const FETCH_EVERY: Duration = Duration::from_secs(300);
/// Until there are keys at all, and after failures.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Name look-up, handshakes and answer together.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of an issuer's configuration.
#[derive(Deserialize)]
struct Provider {
    issuer: String,
    jwks_uri: String,
}

/// Follows the keys until told to stop; a key that was given is not followed.
pub(crate) async fn follow(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let Some((tokens, verifier)) = state.options.tokens.as_ref().zip(state.tokens.as_deref()) else { return };
    let following = async {
        match &tokens.keys {
            TokenKeys::Pem(_) => {}
            TokenKeys::SetFile(file) => follow_file(file, verifier).await,
            TokenKeys::Issuer(documents) => follow_issuer(&tokens.issuer, documents, verifier).await,
        }
    };
    tokio::select! {
        () = following => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn follow_file(file: &Path, verifier: &TokenVerifier) {
    let mut known = modified(file);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let time = modified(file);
        if time == known {
            continue;
        }
        known = time;
        match take(file, verifier) {
            Ok(()) => tracing::info!("tokens are verified by the new keys in {}", file.display()),
            Err(error) => tracing::warn!("{error:#}\nthe keys of tokens stay as they were"),
        }
    }
}

fn take(file: &Path, verifier: &TokenVerifier) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    verifier.set_jwks(&text).with_context(|| file.display().to_string())
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

async fn follow_issuer(issuer: &str, documents: &Documents, verifier: &TokenVerifier) {
    let mut told = String::new();
    loop {
        let wait = match renew(issuer, documents, verifier).await {
            Ok(()) => {
                told.clear();
                FETCH_EVERY
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != told {
                    tracing::warn!("keys of {issuer}: {error}\nthose of before stay in force");
                }
                told = error;
                RETRY_EVERY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Asks the issuer where its keys are, and for them.
async fn renew(issuer: &str, documents: &Documents, verifier: &TokenVerifier) -> Result<()> {
    let found = get(documents, &format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/'))).await?;
    let provider: Provider = serde_json::from_value(found).context("the issuer's configuration")?;
    // Or one issuer could speak for another (section 4.3).
    ensure!(provider.issuer == issuer, "its configuration is that of {:?}", provider.issuer);
    let keys = get(documents, &provider.jwks_uri).await?;
    Ok(verifier.set_jwks(&keys.to_string())?)
}

async fn get(documents: &Documents, url: &str) -> Result<Value> {
    let uri: Uri = url.parse().with_context(|| format!("{url}: not a URL"))?;
    // Who may change what is fetched may make tokens; on this machine's loopback that is nobody else.
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let secure = uri.scheme_str() == Some("https") || uri.scheme_str() == Some("http") && local;
    ensure!(secure, "{url}: only https is taken");
    tokio::time::timeout(TIMEOUT, documents.json(url)).await.with_context(|| format!("{url}: no answer in time"))?
}
