//! The signing certificate with its chain and root.

use meltemi_tls::{CertError, Identity, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Istio's default for self-signed roots: ten years.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are valid from a little before now, since clocks of a mesh differ (Istio: two minutes).
const CLOCK_SKEW: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Says its cause itself, so that a chain of causes has it once.
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{missing} is missing beside {present}")]
    Half { missing: &'static str, present: &'static str },
    #[error("{what}: {reason}")]
    Certificate { what: &'static str, reason: String },
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error("the signing certificate expires in less than the shortest lifetime")]
    Expired,
    #[error(transparent)]
    Identity(#[from] CertError),
}

fn invalid(what: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |e| AuthorityError::Certificate { what, reason: e.to_string() }
}

#[derive(Clone, Debug)]
pub struct AuthorityOptions {
    pub trust_domain: TrustDomain,
    /// Lifetime given when a request asks for none (`DEFAULT_WORKLOAD_CERT_TTL`, 24 h).
    pub default_ttl: Duration,
    /// The longest lifetime granted (`MAX_WORKLOAD_CERT_TTL`, 90 days).
    pub max_ttl: Duration,
}

impl AuthorityOptions {
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, default_ttl: Duration::from_secs(24 * 3600), max_ttl: Duration::from_secs(90 * 24 * 3600) }
    }
}

/// A signed chain, as Istio's CertificateService returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// PEM, leaf first, then intermediates.
    pub chain: Vec<String>,
    /// PEM bundle of roots.
    pub root: String,
}

/// Signs workload certificates of one trust domain.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The signing certificate and those between it and the root; empty when the root itself signs.
    intermediates: Vec<String>,
    root: String,
    not_after: SystemTime,
    options: AuthorityOptions,
}

impl Authority {
    /// A new self-signed root, kept nowhere.
    pub fn self_signed(options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let (certificate, key) = new_root(&options.trust_domain)?;
        Self::from_pem(&certificate, &key, &[], &certificate, options)
    }

    /// The self-signed root kept in `dir` (`root-cert.pem`, `ca-key.pem`), made there on first use.
    pub fn persistent(dir: &Path, options: AuthorityOptions) -> Result<Self, AuthorityError> {
        const CERTIFICATE: &str = "root-cert.pem";
        const KEY: &str = "ca-key.pem";
        let (certificate_file, key_file) = (dir.join(CERTIFICATE), dir.join(KEY));
        match (certificate_file.exists(), key_file.exists()) {
            (true, true) => {}
            (true, false) => return Err(AuthorityError::Half { missing: KEY, present: CERTIFICATE }),
            (false, true) => return Err(AuthorityError::Half { missing: CERTIFICATE, present: KEY }),
            (false, false) => {
                let (certificate, key) = new_root(&options.trust_domain)?;
                fs::create_dir_all(dir).map_err(file_error(dir))?;
                write(&certificate_file, &certificate, 0o644)?;
                write(&key_file, &key, 0o600)?;
            }
        }
        let root = read(&certificate_file)?;
        Self::from_pem(&root, &read(&key_file)?, &[], &root, options)
    }

    /// A root or intermediate given by files with Istio's names: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem`,
    /// `cert-chain.pem`.
    pub fn plugged(dir: &Path, options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let root = read(&dir.join("root-cert.pem"))?;
        let chain = read(&dir.join("cert-chain.pem"))?;
        let intermediates = split_pem(&chain);
        Self::from_pem(
            &read(&dir.join("ca-cert.pem"))?,
            &read(&dir.join("ca-key.pem"))?,
            &intermediates,
            &root,
            options,
        )
    }

    fn from_pem(
        certificate: &str,
        key: &str,
        chain: &[String],
        root: &str,
        options: AuthorityOptions,
    ) -> Result<Self, AuthorityError> {
        // Reading it as an identity checks that key and certificate belong together.
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
        let key = KeyPair::from_pem(key).map_err(invalid("signing key"))?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(invalid("signing certificate"))?;
        let is_root = split_pem(root).iter().any(|pem| pem.trim() == certificate.trim());
        let mut intermediates: Vec<String> = Vec::new();
        if !is_root {
            intermediates.push(certificate.to_owned());
        }
        for pem in chain {
            if pem.trim() != certificate.trim() && !split_pem(root).iter().any(|r| r.trim() == pem.trim()) {
                intermediates.push(pem.clone());
            }
        }
        Ok(Self { issuer, intermediates, root: root.to_owned(), not_after: identity.info().not_after, options })
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.options.trust_domain
    }

    /// PEM bundle of roots that proxies verify against.
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// When the first of the roots ends; absent if none can be read.
    pub fn root_not_after(&self) -> Option<SystemTime> {
        let blocks = x509_parser::pem::Pem::iter_from_buffer(self.root.as_bytes()).map_while(Result::ok);
        let ends = blocks.filter_map(|pem| {
            let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
        });
        ends.min()
    }

    /// When the signing certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs the public key of `csr` (PEM PKCS#10, whose own signature proves possession) for `id`.
    pub fn sign(&self, csr: &str, id: &SpiffeId, ttl: Option<Duration>) -> Result<Issued, AuthorityError> {
        let request =
            CertificateSigningRequestParams::from_pem(csr).map_err(|e| AuthorityError::Request(e.to_string()))?;
        let uri = id.to_string().try_into().map_err(invalid("identity"))?;
        self.issue(&request.public_key, vec![SanType::URI(uri)], ttl.unwrap_or(self.options.default_ttl))
    }

    /// A certificate with a new key for a server of ours, such as discovery itself.
    pub fn server_identity(&self, dns_names: &[String], id: &SpiffeId) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate().map_err(invalid("server key"))?;
        let mut sans = vec![SanType::URI(id.to_string().try_into().map_err(invalid("identity"))?)];
        for name in dns_names {
            sans.push(SanType::DnsName(name.clone().try_into().map_err(invalid("server name"))?));
        }
        let issued = self.issue(&key, sans, self.options.max_ttl)?;
        Ok(Identity::from_pem(issued.chain.concat().as_bytes(), key.serialize_pem().as_bytes())?)
    }

    fn issue(&self, key: &impl PublicKeyData, sans: Vec<SanType>, ttl: Duration) -> Result<Issued, AuthorityError> {
        let now = SystemTime::now();
        let not_after = (now + ttl.min(self.options.max_ttl)).min(self.not_after);
        if not_after <= now {
            return Err(AuthorityError::Expired);
        }
        let mut params = CertificateParams::default();
        // With an empty subject the names are critical (RFC 5280 section 4.2.1.6).
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = sans;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key, &self.issuer).map_err(invalid("certificate"))?;
        let mut chain = vec![leaf.pem()];
        chain.extend(self.intermediates.iter().cloned());
        Ok(Issued { chain, root: self.root.clone() })
    }
}

fn new_root(trust_domain: &TrustDomain) -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate().map_err(invalid("root key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    let certificate = params.self_signed(&key).map_err(invalid("root"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The certificates of a PEM bundle, one text each.
fn split_pem(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).filter(|block| block.contains(END)).map(|block| format!("{}\n", block.trim())).collect()
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError {
    move |cause| AuthorityError::File { path: path.to_owned(), cause }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(file_error(path))
}

#[cfg(test)]
mod tests;
