//! The folder of an authority: Istio's plugged-in files, or a root that we made and keep.
//!
//! Owns the names and the order of writing: of a root that we keep, each moment's files are a whole authority, so that a stop
//! at any point loses nothing. Nothing here is logged.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use crate::certificate::MAX_FILE_BYTES;
use crate::former::FormerRoot;
use crate::signer::Material;
use meltemi_base::FileLooks;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(crate) const SIGNING_CERTIFICATE: &str = "ca-cert.pem";
pub(crate) const KEY: &str = "ca-key.pem";
pub(crate) const ROOTS: &str = "root-cert.pem";
pub(crate) const CHAIN: &str = "cert-chain.pem";
pub(crate) const CRL: &str = "ca-crl.pem";
/// Of a root of ours that is distributed and does not sign yet.
pub(crate) const NEXT_KEY: &str = "ca-next-key.pem";
/// The root that is distributed and does not sign yet, where the files are shared by several.
pub const NEXT_CERTIFICATE: &str = "ca-next-cert.pem";
/// Roots that files of others no longer hold and that are still trusted.
const FORMER: &str = "ca-former-roots.json";
/// A Secret of the type `kubernetes.io/tls`, which Istio takes too.
const TLS_CERTIFICATE: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_ROOTS: &str = "ca.crt";

/// Which files a plugged-in authority is in.
#[derive(Clone, Copy)]
struct Names {
    certificate: &'static str,
    key: &'static str,
    roots: &'static str,
    chain: Option<&'static str>,
}

const ISTIO: Names = Names { certificate: SIGNING_CERTIFICATE, key: KEY, roots: ROOTS, chain: Some(CHAIN) };
const KUBERNETES_TLS: Names = Names { certificate: TLS_CERTIFICATE, key: TLS_KEY, roots: TLS_ROOTS, chain: None };

/// Files by their names, as a Secret has them.
pub type Files = BTreeMap<String, Zeroizing<Vec<u8>>>;

impl Material {
    /// What files of Istio's names, or of a `kubernetes.io/tls` Secret, hold. A certificate without roots beside it is its own
    /// root.
    pub fn from_files(files: &Files) -> Result<Self, AuthorityError> {
        let names = if files.contains_key(SIGNING_CERTIFICATE) { ISTIO } else { KUBERNETES_TLS };
        let text = |name: &'static str| match files.get(name) {
            None => Ok(Zeroizing::new(String::new())),
            Some(bytes) => std::str::from_utf8(bytes)
                .map(|text| Zeroizing::new(text.to_owned()))
                .map_err(|error| AuthorityError::Certificate { what: name, reason: error.to_string() }),
        };
        let needed = |name: &'static str, present: &'static str| match text(name)? {
            text if text.is_empty() => Err(AuthorityError::Half { missing: name, present }),
            text => Ok(text),
        };
        let certificate = needed(names.certificate, names.key)?.to_string();
        let key = needed(names.key, names.certificate)?;
        let roots = text(names.roots)?.to_string();
        let roots = if roots.trim().is_empty() { certificate.clone() } else { roots };
        let chain = names.chain.map(text).transpose()?.map_or_else(String::new, |chain| chain.to_string());
        let next = Some(text(NEXT_CERTIFICATE)?.to_string()).filter(|next| !next.is_empty());
        Ok(Self { certificate, key, chain, roots, next, crl: text(CRL)?.to_string() })
    }

    /// The files of an authority that has no intermediates, under Istio's names.
    pub fn to_files(&self) -> Files {
        let file = |name: &str, text: &str| (name.to_owned(), Zeroizing::new(text.as_bytes().to_vec()));
        [file(SIGNING_CERTIFICATE, &self.certificate), file(KEY, &self.key), file(ROOTS, &self.roots)].into()
    }
}

/// A folder with an authority that somebody else writes.
pub(crate) struct Plugged {
    dir: PathBuf,
    /// As it was when it was last read.
    known: Option<FileLooks>,
    /// As it was at the last look, if it differs: files that are being written are left alone until they rest.
    changing: Option<FileLooks>,
}

impl Plugged {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), known: None, changing: None }
    }

    /// Whether the folder holds an authority of this form.
    pub fn is_in(dir: &Path) -> bool {
        [SIGNING_CERTIFICATE, TLS_CERTIFICATE].iter().any(|name| dir.join(name).exists())
    }

    fn names(&self) -> Names {
        if self.dir.join(TLS_CERTIFICATE).exists() { KUBERNETES_TLS } else { ISTIO }
    }

    fn looks(&self) -> FileLooks {
        let names = [SIGNING_CERTIFICATE, KEY, ROOTS, CHAIN, CRL, TLS_CERTIFICATE, TLS_KEY, TLS_ROOTS];
        FileLooks::of(names.map(|name| self.dir.join(name)))
    }

    /// What is in the files, whether they changed or not.
    pub fn read(&mut self) -> Result<Material, AuthorityError> {
        self.known = Some(self.looks());
        self.changing = None;
        let names = self.names();
        let roots = read(&self.dir.join(names.roots))?;
        let key = Zeroizing::new(read(&self.dir.join(names.key))?);
        let certificate = read(&self.dir.join(names.certificate))?;
        let chain = names.chain.map(|name| read(&self.dir.join(name))).transpose()?.unwrap_or_default();
        let crl = match read(&self.dir.join(CRL)) {
            Err(AuthorityError::File { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Material { certificate, key, chain, roots, next: None, crl })
    }

    /// Roots that were in the files before, as [`Self::keep_former`] left them.
    pub fn former(&self) -> Result<Vec<FormerRoot>, AuthorityError> {
        let path = self.dir.join(FORMER);
        if path.exists() { FormerRoot::from_text(&read(&path)?) } else { Ok(Vec::new()) }
    }

    pub fn keep_former(&self, former: &[FormerRoot]) -> Result<(), AuthorityError> {
        let text = FormerRoot::to_text(former);
        replace(&self.dir, FORMER, &text, 0o644).map_err(|error| match error {
            AuthorityError::File { path, cause } => AuthorityError::Forgetful { path, cause },
            other => other,
        })
    }

    /// What is in the files, once they differ from what was read last and have rested since the last look.
    pub fn look(&mut self) -> Option<Result<Material, AuthorityError>> {
        let now = self.looks();
        if self.known.as_ref() == Some(&now) {
            self.changing = None;
            return None;
        }
        if self.changing.as_ref() == Some(&now) {
            return Some(self.read());
        }
        self.changing = Some(now);
        None
    }
}

/// A folder with a self-signed root of ours.
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Roots and the key of the one that signs; none yet where the folder has neither.
    pub fn read(&self) -> Result<Option<(String, Zeroizing<String>)>, AuthorityError> {
        let (roots, key) = (self.0.join(ROOTS), self.0.join(KEY));
        match (roots.exists(), key.exists()) {
            (true, true) => Ok(Some((read(&roots)?, Zeroizing::new(read(&key)?)))),
            (true, false) => Err(AuthorityError::Half { missing: KEY, present: ROOTS }),
            (false, true) => Err(AuthorityError::Half { missing: ROOTS, present: KEY }),
            (false, false) => Ok(None),
        }
    }

    /// The key of the root that is to sign next, and since when it is there.
    pub fn next(&self) -> Result<Option<(Zeroizing<String>, std::time::SystemTime)>, AuthorityError> {
        let path = self.0.join(NEXT_KEY);
        if !path.exists() {
            return Ok(None);
        }
        let since = fs::metadata(&path).and_then(|meta| meta.modified()).map_err(file_error(&path))?;
        Ok(Some((Zeroizing::new(read(&path)?), since)))
    }

    pub fn has_next(&self) -> bool {
        self.0.join(NEXT_KEY).exists()
    }

    /// Makes the folder and its first root.
    pub fn found(&self, roots: &str, key: &str) -> Result<(), AuthorityError> {
        fs::create_dir_all(&self.0).map_err(file_error(&self.0))?;
        self.write_key(KEY, key)?;
        self.write_roots(roots)
    }

    pub fn write_roots(&self, roots: &str) -> Result<(), AuthorityError> {
        replace(&self.0, ROOTS, roots, 0o644)
    }

    /// After its root is among the roots.
    pub fn write_next(&self, key: &str) -> Result<(), AuthorityError> {
        self.write_key(NEXT_KEY, key)
    }

    /// The next key becomes the one that signs, in one step.
    pub fn promote(&self) -> Result<(), AuthorityError> {
        let (next, key) = (self.0.join(NEXT_KEY), self.0.join(KEY));
        fs::rename(&next, &key).map_err(file_error(&next))
    }

    fn write_key(&self, name: &str, key: &str) -> Result<(), AuthorityError> {
        replace(&self.0, name, key, 0o600)
    }
}

/// Puts a whole file in the place of another.
fn replace(dir: &Path, name: &str, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let (temporary, path) = (dir.join(format!(".{name}.new")), dir.join(name));
    match fs::remove_file(&temporary) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(file_error(&temporary)(cause)),
        _ => {}
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&temporary, &path)).map_err(file_error(&path))
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(file_error(path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(file_error(path))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let cause = std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE_BYTES} bytes"));
        return Err(file_error(path)(cause));
    }
    Ok(text)
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError {
    move |cause| AuthorityError::File { path: path.to_owned(), cause }
}
