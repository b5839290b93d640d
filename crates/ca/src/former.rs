//! Roots that no longer sign and are trusted while certificates under them may live, in the form in which they are kept: a restart
//! must not forget them, nor a replica that was never told.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use crate::certificate::{CaCertificate, MAX_FILE_BYTES};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Times are kept in whole hours, rounded up: a signer that still signs would else change them with each certificate.
const GRAIN: Duration = Duration::from_secs(3600);

/// A root that the authority's files need not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerRoot {
    pub root: CaCertificate,
    /// When the last certificate under it has ended on every clock.
    pub until: SystemTime,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// PEM.
    root: String,
    /// Seconds since the epoch.
    until: u64,
}

impl FormerRoot {
    pub(crate) fn new(root: CaCertificate, until: SystemTime) -> Self {
        let hours = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().div_ceil(GRAIN.as_secs());
        Self { root, until: UNIX_EPOCH + Duration::from_secs(hours.saturating_mul(GRAIN.as_secs())) }
    }

    /// All of a text that [`Self::to_text`] made.
    pub fn from_text(text: &str) -> Result<Vec<Self>, AuthorityError> {
        let wrong = |reason: String| AuthorityError::Certificate { what: "former roots", reason };
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(wrong(format!("more than {MAX_FILE_BYTES} bytes")));
        }
        let written: Vec<Written> = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let mut found = Vec::new();
        for Written { root, until } in written {
            let until = UNIX_EPOCH.checked_add(Duration::from_secs(until)).ok_or_else(|| wrong("until".to_owned()))?;
            found.extend(CaCertificate::all("former roots", &root)?.into_iter().map(|root| Self { root, until }));
        }
        Ok(found)
    }

    pub fn to_text(former: &[Self]) -> String {
        let written = former.iter().map(|FormerRoot { root, until }| Written {
            root: root.pem().to_string(),
            until: until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        });
        serde_json::to_string(&written.collect::<Vec<_>>()).expect("texts and numbers are JSON")
    }

    /// Those of both, each for the longer time, without any that `now` is past.
    pub fn union(own: &[Self], others: &[Self], now: SystemTime) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for former in own.iter().chain(others).filter(|former| former.until > now && former.root.not_after > now) {
            match all.iter_mut().find(|known| known.root == former.root) {
                Some(known) => known.until = known.until.max(former.until),
                None => all.push(former.clone()),
            }
        }
        all
    }
}
