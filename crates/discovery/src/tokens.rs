//! The keys of whoever issues workloads' tokens, followed in their file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use meltemi_ca::TokenVerifier;
use tokio::sync::watch;

use crate::State;
use crate::options::TokenKeys;

/// Issuers publish a key long before they sign with it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Follows the file until told to stop; where keys are in none, there is nothing to do.
pub(crate) async fn follow(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let tokens = state.options.tokens.as_ref().zip(state.tokens.as_ref());
    let Some((TokenKeys::SetFile(file), verifier)) = tokens.map(|(tokens, verifier)| (&tokens.keys, verifier)) else {
        return;
    };
    let mut known = modified(file);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
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
