//! A certificate that somebody else writes into files (`FILE_MOUNTED_CERTS`) and replaces there in time.

use super::{IdentityError, IdentityKeeper, TrustBundle};
use crate::environment::CertificateFiles;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Those who rotate files do so long before a certificate ends.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Until the first certificate is there.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(200);
const MAX_BYTES: u64 = 1 << 20;

type Look = [Option<(u64, SystemTime)>; 3];

/// Follows the files until dropped. Files that cannot be used leave in force what was.
pub(super) async fn follow(files: &CertificateFiles, keeper: &IdentityKeeper) {
    let mut known: Option<Look> = None;
    let (mut installed, mut told) = (false, String::new());
    loop {
        let now = look(files);
        // What failed while it was being written is tried again until it can be used.
        if known != Some(now) || !told.is_empty() {
            known = Some(now);
            match take(files, keeper) {
                Ok(()) => (installed, told) = (true, String::new()),
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(error, "the certificate in files is not taken");
                    }
                    told = error;
                }
            }
        }
        tokio::time::sleep(if installed { LOOK_EVERY } else { FIRST_LOOK_EVERY }).await;
    }
}

fn take(files: &CertificateFiles, keeper: &IdentityKeeper) -> Result<(), IdentityError> {
    let (chain, key) = (read(&files.chain)?, Zeroizing::new(read(&files.key)?));
    keeper.install(chain, key, TrustBundle { roots_pem: read(&files.roots)?, ..TrustBundle::default() })?;
    Ok(())
}

fn look(files: &CertificateFiles) -> Look {
    [&files.chain, &files.key, &files.roots].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.len(), meta.modified().ok()?))
    })
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let failed = |cause| IdentityError::File { path: path.to_owned(), cause };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("more than {MAX_BYTES} bytes"),
        )));
    }
    fs::read_to_string(path).map_err(failed)
}
