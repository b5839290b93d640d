//! Secrets by name, and the TLS contexts over them.
//!
//! A context holds the slots of its secrets, so that a rotation replaces what a slot holds and nothing else. Only a change of
//! names to verify (which a slot does not hold) asks for new contexts; [`SecretStore::install`] says so.

#[cfg(test)]
mod tests;

use meltemi_matchers::StringPattern;
use meltemi_plan::common::DataSource;
use meltemi_plan::tls::{
    Curve, SanKind, SanMatcher as PlanSan, Secret, SecretKind, SecretRef, TlsCertificate, TlsCommon, TlsVersion,
    TrustDomain, Validation as PlanValidation, ValidationContext,
};
use meltemi_plan::{DownstreamTls, UpstreamTls};
use meltemi_tls::{
    CertError, CertSlot, ClientOptions, ClientTls, Identity, San, SanMatcher, ServerOptions, ServerTls, TrustAnchors,
    TrustSlot, Validation,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("environment variable {0} is not set")]
    Environment(String),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error("a validation context without trusted_ca cannot verify")]
    NoAnchors,
    #[error("OCSP staples and key passwords are not supported")]
    Unsupported,
}

/// Slots by secret name; both kinds exist for a name until the secret says which it is.
#[derive(Debug, Default)]
struct Slots {
    certificate: Arc<CertSlot>,
    trust: Arc<TrustSlot>,
    context: Option<Arc<ValidationContext>>,
    arrived: bool,
}

/// All secrets that any context names.
#[derive(Debug, Default)]
pub struct SecretStore {
    named: BTreeMap<Arc<str>, Slots>,
}

/// Reads a data source. File contents are read anew each time: rotation of files is a new secret.
pub fn read(source: &DataSource) -> Result<Vec<u8>, SecretError> {
    match source {
        DataSource::Inline(bytes) => Ok(bytes.to_vec()),
        DataSource::File { path, .. } => {
            std::fs::read(path).map_err(|source| SecretError::File { path: path.to_path_buf(), source })
        }
        DataSource::Environment(name) => {
            std::env::var(&**name).map(String::into_bytes).map_err(|_| SecretError::Environment(name.to_string()))
        }
    }
}

fn identity(certificate: &TlsCertificate) -> Result<Identity, SecretError> {
    if certificate.password.is_some() || certificate.ocsp_staple.is_some() {
        return Err(SecretError::Unsupported);
    }
    Ok(Identity::from_pem(&read(&certificate.chain)?, &read(&certificate.key)?)?)
}

fn anchors(context: &ValidationContext) -> Result<TrustAnchors, SecretError> {
    let crl = context.crl.as_ref().map(read).transpose()?.unwrap_or_default();
    let of_domain = |domain: &TrustDomain| {
        let bundle = read(&domain.bundle)?;
        // Revocation lists may stand among the roots; Envoy reads no others.
        Ok((Box::from(&*domain.name), TrustAnchors::from_pem(&bundle, &[&bundle, &b"\n"[..], &crl].concat())?))
    };
    let domains = context.trust_domains.iter().map(of_domain).collect::<Result<Vec<_>, SecretError>>()?;
    if let Some(anchors) = TrustAnchors::of_trust_domains(domains) {
        return Ok(anchors);
    }
    match &context.trusted_ca {
        Some(source) => Ok(TrustAnchors::from_pem(&read(source)?, &crl)?),
        None if context.system_roots => Ok(TrustAnchors::system()?),
        None => Err(SecretError::NoAnchors),
    }
}

fn san_matcher(matcher: &PlanSan) -> SanMatcher {
    let PlanSan { kind, matcher } = matcher.clone();
    Arc::new(move |san| match (kind, san) {
        (SanKind::Dns | SanKind::Any, San::Dns(text)) => match &matcher.pattern {
            StringPattern::Exact(name) => is_name_of(name, text),
            _ => matcher.matches(text),
        },
        (SanKind::Uri | SanKind::Any, San::Uri(text)) | (SanKind::Email | SanKind::Any, San::Email(text)) => {
            matcher.matches(text)
        }
        (SanKind::IpAddress | SanKind::Any, San::Ip(ip)) => matcher.matches(ip.to_string()),
        _ => false,
    })
}

/// Whether a certificate's DNS name is that of a host. A wildcard is one whole label, not several (RFC 6125 section 6.4.3,
/// CVE-2020-15104).
fn is_name_of(host: &str, dns_name: &str) -> bool {
    let below = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
    let wildcard = || dns_name.strip_prefix("*.").map(str::to_ascii_lowercase);
    host.eq_ignore_ascii_case(dns_name)
        || !host.starts_with('.') && wildcard().is_some_and(|rest| below(host) == Some(rest))
}

fn version(version: TlsVersion) -> meltemi_tls::TlsVersion {
    match version {
        TlsVersion::V1_2 => meltemi_tls::TlsVersion::Tls12,
        TlsVersion::V1_3 => meltemi_tls::TlsVersion::Tls13,
    }
}

fn curve(curve: Curve) -> meltemi_tls::Curve {
    match curve {
        Curve::X25519 => meltemi_tls::Curve::X25519,
        Curve::P256 => meltemi_tls::Curve::P256,
        Curve::P384 => meltemi_tls::Curve::P384,
        Curve::X25519MlKem768 => meltemi_tls::Curve::X25519MlKem768,
    }
}

impl SecretStore {
    fn slots(&mut self, name: &Arc<str>) -> &mut Slots {
        self.named.entry(name.clone()).or_default()
    }

    /// Puts a secret in place. True: contexts over it must be built anew, since the names to verify changed.
    pub fn install(&mut self, secret: &Secret) -> Result<bool, SecretError> {
        match &secret.kind {
            SecretKind::Certificate(certificate) => {
                let identity = identity(certificate)?;
                let slots = self.slots(&secret.name);
                slots.certificate.set(identity);
                slots.arrived = true;
                Ok(false)
            }
            SecretKind::Validation(context) => {
                let unverified = context.accept_untrusted && context.trust_domains.is_empty();
                let anchors = if unverified && context.trusted_ca.is_none() { None } else { Some(anchors(context)?) };
                let slots = self.slots(&secret.name);
                if let Some(anchors) = anchors {
                    slots.trust.set(anchors);
                }
                let demands = |c: &ValidationContext| {
                    let by_domain = !c.trust_domains.is_empty();
                    (c.sans.clone(), c.hashes.clone(), c.spki.clone(), c.accept_untrusted, by_domain)
                };
                let changed = slots.context.as_deref().map(demands).unwrap_or_default() != demands(context);
                slots.context = Some(context.clone());
                slots.arrived = true;
                Ok(changed)
            }
            // Nothing that is accepted reads a generic secret.
            SecretKind::Generic(_) => Ok(false),
        }
    }

    /// Names that a context has asked for and that have not arrived.
    pub fn missing(&self) -> BTreeSet<Arc<str>> {
        self.named.iter().filter(|(_, slots)| !slots.arrived).map(|(name, _)| name.clone()).collect()
    }

    /// The certificates held, for `/certs`.
    pub fn certificates(&self) -> Vec<(Arc<str>, Arc<Identity>)> {
        let current = |(name, slots): (&Arc<str>, &Slots)| Some((name.clone(), slots.certificate.current()?));
        self.named.iter().filter_map(current).collect()
    }

    fn certificate_slot(&mut self, reference: &SecretRef<TlsCertificate>) -> Result<Arc<CertSlot>, SecretError> {
        match reference {
            SecretRef::Inline(certificate) => Ok(CertSlot::new(identity(certificate)?)),
            SecretRef::Sds { name, .. } => Ok(self.slots(name).certificate.clone()),
        }
    }

    fn validation(&mut self, plan: &PlanValidation) -> Result<Option<Validation>, SecretError> {
        let (context, named) = match plan {
            PlanValidation::None => return Ok(None),
            PlanValidation::Static(context) => {
                // Without anchors nothing is verified, as by Envoy; names alone would prove nothing.
                if context.trusted_ca.is_none()
                    && !context.system_roots
                    && context.trust_domains.is_empty()
                    && context.hashes.is_empty()
                    && context.spki.is_empty()
                {
                    return Ok(None);
                }
                let (slot, unanchored) = match anchors(context) {
                    Ok(anchors) => (TrustSlot::new(anchors), false),
                    Err(SecretError::NoAnchors) => (TrustSlot::empty(), true),
                    Err(e) => return Err(e),
                };
                return Ok(Some(Validation { unanchored, ..validation(slot, &[context]) }));
            }
            PlanValidation::Sds { name, .. } => (None, name),
            PlanValidation::Combined { default, name, .. } => (Some(default), name),
        };
        let slots = self.slots(named);
        let contexts: Vec<&Arc<ValidationContext>> = context.into_iter().chain(&slots.context).collect();
        // A validator that the default brings stays when the secret's roots are merged in.
        let trust = match context.filter(|context| !context.trust_domains.is_empty()) {
            Some(context) => TrustSlot::new(anchors(context)?),
            None => slots.trust.clone(),
        };
        Ok(Some(validation(trust, &contexts)))
    }

    /// The server side of a filter chain.
    pub fn server_tls(&mut self, plan: &DownstreamTls) -> Result<ServerTls, SecretError> {
        let TlsCommon { min_version, max_version, cipher_suites, curves, compliance, alpn, certificates, validation } =
            &plan.common;
        let options = ServerOptions {
            certificates: certificates.iter().map(|c| self.certificate_slot(c)).collect::<Result<_, _>>()?,
            validation: self.validation(validation)?,
            require_client_certificate: plan.require_client_certificate,
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            min_version: version(*min_version),
            max_version: version(*max_version),
            cipher_suites: cipher_suites.iter().map(|name| name.to_string()).collect(),
            curves: curves.iter().map(|name| curve(*name)).collect(),
            compliance: *compliance,
        };
        Ok(ServerTls::new(options)?)
    }

    /// The client side of a transport socket; `verify_sni` demands a certificate that names the server asked for.
    pub fn client_tls(&mut self, plan: &UpstreamTls, verify_sni: bool) -> Result<ClientTls, SecretError> {
        let TlsCommon { min_version, max_version, cipher_suites, curves, compliance, alpn, certificates, validation } =
            &plan.common;
        let certificate = certificates.first().map(|c| self.certificate_slot(c)).transpose()?;
        let validation = self.validation(validation)?.map(|v| Validation { server_name: verify_sni, ..v });
        let options = ClientOptions {
            certificate,
            validation,
            alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            sni: (!plan.sni.is_empty()).then(|| plan.sni.to_string()),
            min_version: version(*min_version),
            max_version: version(*max_version),
            cipher_suites: cipher_suites.iter().map(|name| name.to_string()).collect(),
            curves: curves.iter().map(|name| curve(*name)).collect(),
            compliance: *compliance,
        };
        Ok(ClientTls::new(options)?)
    }
}

fn validation(anchors: Arc<TrustSlot>, contexts: &[&Arc<ValidationContext>]) -> Validation {
    let hex = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let svids_only = contexts.iter().any(|c| !c.trust_domains.is_empty());
    // By SPIFFE's rules peers are known by their URI alone, and none of them unverified.
    let names = |san: &&PlanSan| !svids_only || matches!(san.kind, SanKind::Uri | SanKind::Any);
    let matcher = |san: &PlanSan| match svids_only {
        true => san_matcher(&PlanSan { kind: SanKind::Uri, ..san.clone() }),
        false => san_matcher(san),
    };
    Validation {
        anchors,
        sans: contexts.iter().flat_map(|c| c.sans.iter().filter(names).map(matcher)).collect(),
        accept_untrusted: !svids_only && contexts.iter().any(|c| c.accept_untrusted),
        svids_only,
        server_name: false,
        unanchored: false,
        key_hashes: contexts.iter().flat_map(|c| c.spki.iter().map(hex)).collect(),
        certificate_hashes: contexts.iter().flat_map(|c| c.hashes.iter().map(hex)).collect(),
    }
}

/// Whether a TLS context names this secret.
pub fn names(common: &TlsCommon) -> impl Iterator<Item = (&Arc<str>, Option<&meltemi_plan::common::ConfigSource>)> {
    let certificates = common.certificates.iter().filter_map(|reference| match reference {
        SecretRef::Sds { name, source } => Some((name, source.as_ref())),
        SecretRef::Inline(_) => None,
    });
    let validation = match &common.validation {
        PlanValidation::Sds { name, source } | PlanValidation::Combined { name, source, .. } => {
            Some((name, source.as_ref()))
        }
        PlanValidation::None | PlanValidation::Static(_) => None,
    };
    certificates.chain(validation)
}
