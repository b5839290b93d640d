//! A certificate that somebody else writes into files (`FILE_MOUNTED_CERTS`) and replaces there in time.

use super::{IdentityError, IdentityKeeper, TrustBundle};
use crate::environment::CertificateFiles;
use meltemi_base::{FollowedFiles, Look};
use std::fs;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// Those who rotate files do so long before a certificate ends.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Until the first certificate is there.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(200);
const MAX_BYTES: u64 = 1 << 20;

/// Follows the files until dropped. Files that cannot be used leave in force what was.
pub(super) async fn follow(files: &CertificateFiles, keeper: &IdentityKeeper) {
    let (mut followed, mut installed) = (FollowedFiles::default(), false);
    loop {
        match followed.look([&files.chain, &files.key, &files.roots], || take(files, keeper)) {
            Look::Same => {}
            Look::Taken => installed = true,
            Look::Refused(error) => tracing::warn!(error, "the certificate in files is not taken"),
        }
        tokio::time::sleep(if installed { LOOK_EVERY } else { FIRST_LOOK_EVERY }).await;
    }
}

fn take(files: &CertificateFiles, keeper: &IdentityKeeper) -> Result<(), IdentityError> {
    let (chain, key) = (read(&files.chain)?, Zeroizing::new(read(&files.key)?));
    keeper.install(chain, key, TrustBundle { roots_pem: read(&files.roots)?, ..TrustBundle::default() })?;
    Ok(())
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
