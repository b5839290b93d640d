//! The authority: who signs now, which roots are trusted now, and how both follow their files.
//!
//! Owns what is in force, which signers and the trust bundle read without a lock, and the one place where it changes
//! ([`Authority::look`]). What is refused leaves in force what was.

use crate::certificate::{CaCertificate, bundle, strong_key};
use crate::files::{Files, Kept, Plugged};
use crate::former::FormerRoot;
use crate::revocation::Revocations;
use crate::root;
use crate::rotation::{Held, Pace, Progress, Rotation, Stage};
use crate::shared::{self, View};
use crate::signer::{Material, SharedSigner, Signer, uri};
use crate::status::Status;
use arc_swap::ArcSwap;
use meltemi_tls::{CertError, Identity, SpiffeId, TrustAnchors, TrustDomain};
use rcgen::{CertificateSigningRequestParams, KeyPair, PublicKeyData as _, SanType, SubjectPublicKeyInfo};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use zeroize::{Zeroize as _, Zeroizing};

/// A request for an RSA-4096 key with a long name is under 3 KiB.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Says its cause itself, so that a chain of causes has it once.
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error(
        "{path}: {cause}; keep the old root in root-cert.pem until certificates under it have ended, or a restart of \
         discovery forgets it"
    )]
    Forgetful { path: PathBuf, cause: std::io::Error },
    #[error("{missing} is missing beside {present}")]
    Half { missing: &'static str, present: &'static str },
    #[error("{what}: {reason}")]
    Certificate { what: &'static str, reason: String },
    #[error("the signing certificate does not verify against the roots: {0}")]
    Unrooted(String),
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error("the signing certificate expires in less than the shortest lifetime")]
    Expired,
    #[error("there is no key that signs here: others sign for the mesh")]
    Keyless,
    /// Whoever signs in our place did not.
    #[error("the external authority: {0}")]
    External(String),
    #[error("too many changes of roots at once; wait until earlier ones are through")]
    Crowded,
    #[error(transparent)]
    Identity(#[from] CertError),
}

pub(crate) fn invalid(what: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |e| AuthorityError::Certificate { what, reason: e.to_string() }
}

#[derive(Clone, Debug)]
pub struct AuthorityOptions {
    pub trust_domain: TrustDomain,
    /// Lifetime given when a request asks for none (`DEFAULT_WORKLOAD_CERT_TTL`, 24 h).
    pub default_ttl: Duration,
    /// The longest lifetime granted (`MAX_WORKLOAD_CERT_TTL`, 90 days).
    pub max_ttl: Duration,
    /// Lifetime of self-signed roots (`CITADEL_SELF_SIGNED_CA_CERT_TTL`, ten years).
    pub root_ttl: Duration,
    /// How often a self-signed root is looked at; zero: it is never replaced
    /// (`CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL`, 1 h).
    pub root_check_interval: Duration,
    /// It is replaced in the last so many hundredths of its life (`CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE`,
    /// 20).
    pub root_grace_percent: u32,
    /// Before the first of these looks, so that several replicas do not look at the same moment.
    pub root_check_delay: Duration,
    pub pace: Pace,
    /// Roots that a plugged folder no longer holds are kept in a file of ours in it; false: somebody else remembers them.
    pub keeps_former_roots: bool,
    /// Revocation lists beside a signing certificate are in force with it (`PILOT_ENABLE_CA_CRL`); false: they are not looked at.
    pub takes_revocations: bool,
}

impl AuthorityOptions {
    pub fn new(trust_domain: TrustDomain) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            trust_domain,
            default_ttl: DAY,
            max_ttl: 90 * DAY,
            root_ttl: 3650 * DAY,
            root_check_interval: DAY / 24,
            root_grace_percent: 20,
            root_check_delay: Duration::ZERO,
            pace: Pace::default(),
            keeps_former_roots: true,
            takes_revocations: true,
        }
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

/// Where what is held comes from.
enum Source {
    Memory,
    Kept(Kept),
    Plugged(Plugged),
    /// Somebody else keeps it; what has been supplied since the last look.
    Supplied(Option<Material>),
}

/// Roots and revocation lists that workloads are to verify each other by.
#[derive(Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// PEM; the root that signs now comes first.
    pub roots: Arc<str>,
    /// PEM; may be empty.
    pub crl: Arc<str>,
}

struct InForce {
    signer: SharedSigner,
    roots: Vec<CaCertificate>,
    bundle: Arc<TrustBundle>,
}

struct State {
    source: Source,
    rotation: Rotation,
    /// Of the files that we keep: the roots of ours in them, and the one whose key is there.
    kept: (Vec<CaCertificate>, CaCertificate),
    /// Of files that others write: the roots of before that our own file beside them holds.
    kept_former: Vec<FormerRoot>,
    /// When a self-signed root is next looked at.
    next_check: SystemTime,
    refused: Option<String>,
}

/// What became of reloads, for metrics.
#[derive(Debug, Default)]
pub struct ReloadCounters {
    pub taken: AtomicU64,
    pub refused: AtomicU64,
}

/// Signs workload certificates of one trust domain.
pub struct Authority {
    options: AuthorityOptions,
    in_force: ArcSwap<InForce>,
    state: Mutex<State>,
    /// Counts changes of what is in force.
    generation: watch::Sender<u64>,
    pub reloads: ReloadCounters,
}

impl Authority {
    /// A new self-signed root, kept nowhere.
    pub fn self_signed(options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let now = SystemTime::now();
        let (roots, key) = root::create(&options.trust_domain, now, options.root_ttl)?;
        let held = held(&self_signed_material(roots, key), &options, (now, now))?;
        Ok(Self::start(Source::Memory, Rotation::new(held, options.pace, now), options, now))
    }

    /// The self-signed root kept in `dir` (`root-cert.pem`, `ca-key.pem`), made there on first use.
    pub fn persistent(dir: &Path, options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let (kept, now) = (Kept::new(dir), SystemTime::now());
        let (roots, key) = match kept.read()? {
            Some(found) => found,
            None => {
                let (roots, key) = root::create(&options.trust_domain, now, options.root_ttl)?;
                kept.found(&roots, &key)?;
                (roots, key)
            }
        };
        let before = now + options.max_ttl;
        let mut current = held(&kept_material(&roots, key)?, &options, (now, before))?;
        let next = match kept.next()? {
            None => None,
            // We were stopped while it was being distributed.
            Some((key, since)) => Some((held(&kept_material(&roots, key)?, &options, (now, now))?, since)),
        };
        if let Some((next, _)) = &next {
            current.roots.retain(|root| root != next.signer.certificate());
        }
        let mut rotation = Rotation::new(current, options.pace, now);
        if let Some((mut next, since)) = next {
            next.roots.retain(|root| root != rotation.signer().certificate());
            rotation.follow(next, since)?;
        }
        Ok(Self::start(Source::Kept(kept), rotation, options, now))
    }

    /// A root or intermediate given by files with Istio's names: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem`,
    /// `cert-chain.pem` and, if it is there, `ca-crl.pem`; or `tls.crt`, `tls.key` and `ca.crt`. They are followed.
    pub fn plugged(dir: &Path, options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let (mut files, now) = (Plugged::new(dir), SystemTime::now());
        let before = now + options.max_ttl;
        let held = held(&files.read()?, &options, (now, before))?;
        let mut rotation = Rotation::new(held, options.pace, now);
        rotation.remember(&files.former()?, now)?;
        Ok(Self::start(Source::Plugged(files), rotation, options, now))
    }

    /// A root or intermediate that somebody else keeps, who supplies it again when it changes ([`Self::supply`]).
    pub fn supplied(material: &Material, options: AuthorityOptions) -> Result<Self, AuthorityError> {
        let now = SystemTime::now();
        let before = now + options.max_ttl;
        let mut first = held(material, &options, (now, before))?;
        let next = material.next.as_ref().map(|next| CaCertificate::all("next root", next)).transpose()?;
        first.roots.retain(|root| next.as_ref().is_none_or(|next| !next.contains(root)));
        let mut rotation = Rotation::new(first, options.pace, now);
        if next.is_some() {
            // We were stopped while it was being distributed.
            rotation.follow(held(material, &options, (now, before))?, now)?;
        }
        Ok(Self::start(Source::Supplied(None), rotation, options, now))
    }

    /// Whether it signs with a key that somebody else keeps and supplies.
    pub fn is_supplied(&self) -> bool {
        let state = self.state();
        matches!(state.source, Source::Supplied(_)) && state.rotation.signer().has_key()
    }

    /// Of a self-signed root that is shared in these files: what they are to hold from now on, by the replica that leads. Nothing:
    /// they are to stay. `is_awaited`: another replica still distributes the next root.
    pub fn shared_step(
        &self,
        files: &Files,
        now: SystemTime,
        is_awaited: bool,
    ) -> Result<Option<Files>, AuthorityError> {
        let is_distributed = !self.awaits(files);
        let mut state = self.state();
        let is_due = self.is_due(&state, now);
        if is_due {
            state.next_check = now + self.options.root_check_interval;
        }
        shared::step(files, View { is_due, is_distributed, is_awaited }, || {
            let (roots, key) = root::create(&self.options.trust_domain, now, self.options.root_ttl)?;
            Ok(self_signed_material(roots, key))
        })
    }

    /// Whether proxies of ours lack the root in these files that is to sign next.
    pub fn awaits(&self, files: &Files) -> bool {
        let next = Material::from_files(files).ok().and_then(|material| material.next);
        let Some(next) = next.and_then(|next| CaCertificate::all("next root", &next).ok()) else { return false };
        let state = self.state();
        let trusted = state.rotation.trusted();
        !next.iter().all(|next| trusted.iter().any(|trusted| trusted.root == *next && trusted.distributed))
    }

    /// Roots that are trusted although whoever keeps the authority no longer has them; to be remembered.
    pub fn former_roots(&self) -> Vec<FormerRoot> {
        self.state().rotation.former_roots()
    }

    /// Trusts these, too, for as long as they say.
    pub fn remember(&self, former: &[FormerRoot], now: SystemTime) -> Result<(), AuthorityError> {
        let mut state = self.state();
        state.rotation.remember(former, now)?;
        self.publish(&state.rotation);
        Ok(())
    }

    /// Takes this with the next look, if the authority is a supplied one.
    pub fn supply(&self, material: Material) {
        if let Source::Supplied(next) = &mut self.state().source {
            *next = Some(material);
        }
    }

    /// Whether the folder holds a plugged-in authority.
    pub fn is_plugged(dir: &Path) -> bool {
        Plugged::is_in(dir)
    }

    fn start(source: Source, rotation: Rotation, options: AuthorityOptions, now: SystemTime) -> Self {
        let in_force = ArcSwap::from_pointee(InForce::of(&rotation));
        let roots = rotation.trusted().iter().map(|trusted| trusted.root.clone()).collect();
        let kept = (roots, rotation.signer().certificate().clone());
        let next_check = now + options.root_check_interval + options.root_check_delay;
        let kept_former = rotation.former_roots();
        let state = State { source, rotation, kept, kept_former, next_check, refused: None };
        let (generation, reloads) = (watch::Sender::new(0), ReloadCounters::default());
        Self { options, in_force, state: Mutex::new(state), generation, reloads }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the files hold now, if they changed, and goes on with a change of roots as far as `progress` allows. An
    /// error leaves everything as it was; it is given once for each content of the files.
    pub fn look(&self, now: SystemTime, progress: Progress) -> Result<(), AuthorityError> {
        let mut state = self.state();
        let taken = self.follow(&mut state, now);
        state.rotation.advance(now, progress);
        let kept = state.keep(self.options.keeps_former_roots);
        self.publish(&state.rotation);
        match &taken {
            Ok(false) => {}
            Ok(true) => {
                self.reloads.taken.fetch_add(1, Ordering::Relaxed);
                state.refused = None;
            }
            Err(error) => {
                self.reloads.refused.fetch_add(1, Ordering::Relaxed);
                state.refused = Some(error.to_string());
            }
        }
        taken.and(kept)
    }

    /// Whether something new is to be in force.
    fn follow(&self, state: &mut State, now: SystemTime) -> Result<bool, AuthorityError> {
        let before = now + self.options.max_ttl;
        let held = match &mut state.source {
            Source::Plugged(files) => match files.look() {
                None => return Ok(false),
                Some(material) => held(&material?, &self.options, (now, before))?,
            },
            Source::Supplied(next) => match next.take() {
                None => return Ok(false),
                Some(material) => held(&material, &self.options, (now, before))?,
            },
            Source::Memory | Source::Kept(_) => match self.successor(state, now)? {
                None => return Ok(false),
                Some(held) => held,
            },
        };
        state.rotation.follow(held, now)?;
        Ok(true)
    }

    /// Another self-signed root, once the one in force is near its end.
    fn successor(&self, state: &mut State, now: SystemTime) -> Result<Option<Held>, AuthorityError> {
        if !self.is_due(state, now) {
            return Ok(None);
        }
        state.next_check = now + self.options.root_check_interval;
        let (roots, key) = root::create(&self.options.trust_domain, now, self.options.root_ttl)?;
        let mut next = held(&self_signed_material(roots, key), &self.options, (now, now))?;
        let others = state.rotation.trusted().iter().map(|trusted| &trusted.root);
        next.roots.extend(others.filter(|root| *root != state.rotation.signer().certificate()).cloned());
        Ok(Some(next))
    }

    /// Whether a self-signed root is near its end, and no change of roots is under way.
    fn is_due(&self, state: &State, now: SystemTime) -> bool {
        let checked = !self.options.root_check_interval.is_zero() && now >= state.next_check;
        if !checked || state.rotation.stage() != Stage::Single {
            return false;
        }
        let root = state.rotation.signer().certificate();
        let life = root.not_after.duration_since(root.not_before).unwrap_or_default();
        now + life * self.options.root_grace_percent.min(100) / 100 >= root.not_after
    }

    fn publish(&self, rotation: &Rotation) {
        let next = InForce::of(rotation);
        let current = self.in_force.load();
        if !Arc::ptr_eq(&current.signer, &next.signer) || current.bundle != next.bundle {
            self.in_force.store(Arc::new(next));
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Changes whenever signer or bundle do.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.options.trust_domain
    }

    pub fn options(&self) -> &AuthorityOptions {
        &self.options
    }

    /// What workloads verify each other by now.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.in_force.load().bundle.clone()
    }

    /// PEM bundle of roots that proxies verify against.
    pub fn root_pem(&self) -> Arc<str> {
        self.bundle().roots.clone()
    }

    /// When the first of the roots ends; absent if there is none.
    pub fn root_not_after(&self) -> Option<SystemTime> {
        self.in_force.load().roots.iter().map(|root| root.not_after).min()
    }

    /// When the signing certificate ends, or another that its certificates need.
    pub fn not_after(&self) -> SystemTime {
        self.in_force.load().signer.not_after()
    }

    pub fn stage(&self) -> Stage {
        self.state().rotation.stage()
    }

    /// For an operator's eyes.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status::new(&state.rotation, state.refused.clone())
    }

    /// Signs the public key of `csr` (PEM PKCS#10, whose own signature proves possession) for `id`.
    pub fn sign(&self, csr: &str, id: &SpiffeId, ttl: Option<Duration>) -> Result<Issued, AuthorityError> {
        let key = requested_key(csr)?;
        let now = SystemTime::now();
        let end = now + ttl.unwrap_or(self.options.default_ttl).min(self.options.max_ttl);
        let in_force = self.in_force.load();
        let chain = in_force.signer.issue(&key, vec![uri(id)?], (now, end))?;
        Ok(Issued { chain, root: in_force.bundle.roots.to_string() })
    }

    /// A token that names the workload, for these (SPIFFE JWT-SVID).
    pub fn sign_token(&self, id: &SpiffeId, audiences: &[String]) -> Result<String, AuthorityError> {
        let signer = self.in_force.load().signer.clone();
        signer.svid_key()?.sign(id, audiences, (SystemTime::now(), signer.not_after()))
    }

    /// What tokens are verified by, those of former signers and of the next one, too: JSON Web Keys.
    pub fn token_keys(&self) -> Result<Vec<Value>, AuthorityError> {
        self.token_signers().iter().map(|signer| Ok(signer.svid_key()?.jwk().clone())).collect()
    }

    /// The claims of a token for this audience; none where no key of ours signed it, or it has ended.
    pub fn verify_token(&self, token: &str, audience: &str) -> Result<Option<Map<String, Value>>, AuthorityError> {
        for signer in self.token_signers() {
            if let Some(claims) = signer.svid_key()?.verify(token, audience) {
                return Ok(Some(claims));
            }
        }
        Ok(None)
    }

    /// Of several with one key the first.
    fn token_signers(&self) -> Vec<SharedSigner> {
        let state = self.state();
        let rotation = &state.rotation;
        let former = rotation.former().iter().map(|former| &former.signer);
        let mut signers: Vec<SharedSigner> = Vec::new();
        for signer in [rotation.signer()].into_iter().chain(rotation.next()).chain(former) {
            let key = signer.certificate().public_key();
            if signers.iter().all(|known| known.certificate().public_key() != key) {
                signers.push(signer.clone());
            }
        }
        signers
    }

    /// A certificate with a new key for a server of ours, such as discovery itself; to be renewed when the signer changes.
    pub fn server_identity(&self, dns_names: &[String], id: &SpiffeId) -> Result<Identity, AuthorityError> {
        let mut key = KeyPair::generate().map_err(invalid("server key"))?;
        let mut sans = vec![uri(id)?];
        for name in dns_names {
            sans.push(SanType::DnsName(name.clone().try_into().map_err(invalid("server name"))?));
        }
        let now = SystemTime::now();
        let chain = self.in_force.load().signer.certify(&key, sans, (now, now + self.options.max_ttl))?;
        let text = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        Ok(Identity::from_pem(chain.concat().as_bytes(), text.as_bytes())?)
    }
}

impl InForce {
    fn of(rotation: &Rotation) -> Self {
        let roots = rotation.roots();
        let bundle = TrustBundle { roots: bundle(&roots).into(), crl: rotation.revocations().pem() };
        Self { signer: rotation.signer().clone(), roots, bundle: Arc::new(bundle) }
    }
}

impl State {
    /// Brings the files of a root that we keep to what is in force. Roots come before the keys that need them, and what
    /// others added to the roots stays.
    fn keep(&mut self, keeps_former_roots: bool) -> Result<(), AuthorityError> {
        let kept = match &self.source {
            Source::Kept(kept) => kept,
            Source::Plugged(files) if keeps_former_roots => {
                let former = self.rotation.former_roots();
                if former != self.kept_former {
                    files.keep_former(&former)?;
                    self.kept_former = former;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (signer, next) = (self.rotation.signer(), self.rotation.next());
        let roots = self.rotation.trusted().iter().map(|trusted| trusted.root.clone());
        let in_force = (roots.collect::<Vec<_>>(), signer.certificate().clone());
        if in_force == self.kept && next.is_none() {
            return Ok(());
        }
        let Some((roots, key)) = kept.read()? else { return Ok(()) };
        if in_force.0 != self.kept.0 {
            let found = CaCertificate::all("roots", &roots)?;
            let added = found.iter().filter(|root| !self.kept.0.contains(root) && !in_force.0.contains(root));
            kept.write_roots(&bundle(in_force.0.iter().chain(added)))?;
        }
        if public_key(&key)? != signer.certificate().public_key() {
            kept.write_next(&signer.key_pem()?)?;
            kept.promote()?;
        }
        if let Some(next) = next.filter(|_| !kept.has_next()) {
            kept.write_next(&next.key_pem()?)?;
        }
        self.kept = in_force;
        Ok(())
    }
}

impl Material {
    /// A new self-signed root with its key.
    pub fn self_signed(options: &AuthorityOptions) -> Result<Self, AuthorityError> {
        let (roots, key) = root::create(&options.trust_domain, SystemTime::now(), options.root_ttl)?;
        Ok(self_signed_material(roots, key))
    }
}

fn self_signed_material(roots: String, key: Zeroizing<String>) -> Material {
    Material { certificate: roots.clone(), key, chain: String::new(), roots, next: None, crl: String::new() }
}

/// Of roots that we keep, the one to which the key belongs signs.
fn kept_material(roots: &str, key: Zeroizing<String>) -> Result<Material, AuthorityError> {
    let public = public_key(&key)?;
    let all = CaCertificate::all("roots", roots)?;
    let own = all.iter().find(|root| root.public_key() == public).ok_or(CertError::Mismatch)?;
    Ok(Material { roots: roots.to_owned(), ..self_signed_material(own.pem().to_string(), key) })
}

/// SubjectPublicKeyInfo of a private key in PEM.
fn public_key(key: &str) -> Result<Vec<u8>, AuthorityError> {
    let mut pair = KeyPair::from_pem(key).map_err(invalid("signing key"))?;
    let public = pair.subject_public_key_info();
    pair.zeroize();
    Ok(public)
}

/// Checks what files hold, whole, before any of it is used.
fn held(
    material: &Material,
    options: &AuthorityOptions,
    (now, issued_until): (SystemTime, SystemTime),
) -> Result<Held, AuthorityError> {
    let signer = Signer::new(material, &options.trust_domain, (now, issued_until))?;
    let roots = CaCertificate::all("roots", &material.roots)?;
    // Roots that have ended verify nothing and only lengthen the bundle.
    let roots: Vec<CaCertificate> = roots.into_iter().filter(|root| root.not_after > now).collect();
    let crl = if options.takes_revocations { material.crl.as_str() } else { "" };
    let revocations = Revocations::from_pem(crl, now)?;
    revocations.cover(&signer)?;
    // As verifiers will read both.
    TrustAnchors::from_pem(bundle(&roots).as_bytes(), crl.as_bytes())?;
    Ok(Held { signer: Arc::new(signer), roots, revocations })
}

/// The public key of a request whose own signature is right; nothing else of it is looked at.
pub(crate) fn requested_key(csr: &str) -> Result<SubjectPublicKeyInfo, AuthorityError> {
    if csr.len() > MAX_REQUEST_BYTES {
        return Err(AuthorityError::Request(format!("more than {MAX_REQUEST_BYTES} bytes")));
    }
    let wrong = |e: &dyn std::fmt::Display| AuthorityError::Request(e.to_string());
    let (_, block) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).map_err(|e| wrong(&e))?;
    // Its signature, over the very bytes that the key is taken from.
    CertificateSigningRequestParams::from_der(&block.contents.as_slice().into()).map_err(|e| wrong(&e))?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| wrong(&e))?;
    let key = &request.certification_request_info.subject_pki;
    strong_key(key).map_err(AuthorityError::Request)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests;
