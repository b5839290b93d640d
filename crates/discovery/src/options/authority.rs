//! Flags of the certificate authority, under the names of istiod's environment.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use meltemi_ca::{Authority, AuthorityOptions, Pace};
use meltemi_config::mesh::MeshConfig;
use meltemi_tls::TrustDomain;

use super::duration;
use crate::cluster::{Cluster, ClusterSigners, Signers};

/// Where istiod's image has them.
const DEFAULT_DIR: &str = "./etc/cacerts";

#[derive(Debug, Clone, clap::Args)]
pub struct AuthorityArgs {
    /// Directory of the signing certificate (`ca-cert.pem` or, kept by us, `root-cert.pem`), made where it is missing; it is
    /// followed [default: ./etc/cacerts, or none: a root in memory]
    #[arg(long = "caDir", env = "ROOT_CA_DIR")]
    pub ca_dir: Option<PathBuf>,
    /// Lifetime of workload certificates whose request asks for none
    #[arg(long = "workloadCertTTL", env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub workload_ttl: Duration,
    /// The longest lifetime of workload certificates
    #[arg(long = "maxWorkloadCertTTL", env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub max_workload_ttl: Duration,
    /// Lifetime of self-signed roots
    #[arg(long = "selfSignedCACertTTL", env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", default_value = "87600h", value_parser = duration)]
    pub root_ttl: Duration,
    /// How often it is looked whether a self-signed root is near its end; 0s: it is never replaced
    #[arg(
        long = "selfSignedRootCheckInterval",
        env = "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL",
        default_value = "1h",
        value_parser = duration
    )]
    pub root_check_interval: Duration,
    /// A self-signed root is replaced in the last so many hundredths of its life
    #[arg(
        long = "selfSignedRootGracePercent",
        env = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
        default_value_t = 20,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    pub root_grace_percent: u32,
    /// Put off the first look by a random part of that, so that replicas look at different moments
    #[arg(long = "selfSignedRootCheckJitter", env = "CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR", num_args = 0..=1,
        default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub root_check_jitter: bool,
    /// Distribute a new root before it signs, and trust the old one while its certificates live
    #[arg(long = "stagedRootRotation", env = "STAGED_ROOT_ROTATION", num_args = 0..=1, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub staged: bool,
    /// A new root signs no sooner than this, even if every connected proxy has it
    #[arg(long = "rootDistributionMin", env = "ROOT_DISTRIBUTION_MIN", default_value = "60s", value_parser = duration)]
    pub distribution_min: Duration,
    /// A new root signs after this, even if proxies have not said that they have it
    #[arg(long = "rootDistributionMax", env = "ROOT_DISTRIBUTION_MAX", default_value = "24h", value_parser = duration)]
    pub distribution_max: Duration,
    /// Who signs for workloads in place of our own authority: ISTIOD_RA_KUBERNETES_API, signers of the cluster
    #[arg(long = "externalCA", env = "EXTERNAL_CA")]
    pub external: Option<String>,
    /// The cluster's signer for workloads that name none
    #[arg(long = "k8sSigner", env = "K8S_SIGNER", default_value = "")]
    pub signer: String,
    /// The domain of signers that workloads name (CertSigner)
    #[arg(long = "certSignerDomain", env = "CERT_SIGNER_DOMAIN", default_value = "")]
    pub signer_domain: String,
    /// The longest lifetime of what a signer of the cluster signs, where it is less than that of all; several by commas
    #[arg(long = "signerMaxCertTTL", env = "SIGNER_MAX_CERT_TTL", value_name = "SIGNER=DURATION", value_delimiter = ',',
        value_parser = limit)]
    pub signer_max_ttl: Vec<(String, Duration)>,
    /// ConfigMap in every namespace of a cluster that has the roots of the mesh (root-cert.pem)
    #[arg(long = "caCertConfigMap", env = "PILOT_CA_CERT_CONFIGMAP", default_value = super::DEFAULT_ROOTS_MAP)]
    pub roots_map: String,
    /// Take revocation lists (ca-crl.pem) that are beside the signing certificate, and give them to proxies and namespaces
    #[arg(long = "caRevocations", env = "PILOT_ENABLE_CA_CRL", num_args = 0..=1, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub revocations: bool,
    /// ConfigMap in every namespace of a cluster that has the revocation lists of the authority (ca-crl.pem), if there are any
    #[arg(long = "crlConfigMap", env = "PILOT_CRL_CONFIGMAP", default_value = super::DEFAULT_REVOCATIONS_MAP)]
    pub revocations_map: String,
    /// Who signs discovery's own certificate where --tlsCertFile does not give it: istiod (whoever signs for workloads; custom and
    /// none are the same) or k8s.io/SIGNER, with --externalCA
    #[arg(long = "pilotCertProvider", env = "PILOT_CERT_PROVIDER", default_value = ISTIOD)]
    pub provider: String,
}

const ISTIOD: &str = "istiod";
const CUSTOM: &str = "custom";
const NONE: &str = "none";
/// Before the name of a signer of the cluster.
const SIGNER_PREFIX: &str = "k8s.io/";

/// A random part of it.
fn jitter(interval: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(u32::MAX);
    interval.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn limit(text: &str) -> Result<(String, Duration), String> {
    let (signer, limit) = text.split_once('=').ok_or_else(|| format!("{text:?} is not SIGNER=DURATION"))?;
    match duration(limit)? {
        limit if limit.is_zero() || signer.is_empty() => {
            Err(format!("{text:?} is not SIGNER=DURATION, more than nothing"))
        }
        limit => Ok((signer.to_owned(), limit)),
    }
}

/// The one kind of external authority there is.
const KUBERNETES: &str = "ISTIOD_RA_KUBERNETES_API";

impl AuthorityArgs {
    /// Who signs in place of our own authority.
    pub(super) fn signers(&self, cluster: Option<&Cluster>) -> Result<Option<ClusterSigners>> {
        let control_plane = self.control_plane_signer()?;
        let Some(kind) = self.external.as_deref().filter(|kind| !kind.is_empty()) else {
            if let Some(signer) = control_plane {
                bail!("--pilotCertProvider {SIGNER_PREFIX}{signer}: only with --externalCA {KUBERNETES}");
            }
            return Ok(None);
        };
        if kind != KUBERNETES {
            bail!("--externalCA {kind}: only {KUBERNETES} is there");
        }
        if self.signer.is_empty() && self.signer_domain.is_empty() {
            bail!("--externalCA {kind}: neither --k8sSigner nor --certSignerDomain says who signs");
        }
        let cluster = cluster.context("--externalCA: there is no cluster (--kubeconfig)")?;
        let (default, domain) = (self.signer.clone(), self.signer_domain.clone());
        let longest = self.signer_max_ttl.iter().cloned().collect();
        Ok(Some(cluster.signers(Signers { default, domain, control_plane, longest })))
    }

    /// Whether somebody signs our own certificate, which is not given.
    pub(super) fn check_control_plane(&self) -> Result<()> {
        let external = self.external.as_deref().is_some_and(|kind| !kind.is_empty());
        if external && self.signer.is_empty() && self.control_plane_signer()?.is_none() {
            bail!(
                "--externalCA: nobody signs discovery's own certificate; --pilotCertProvider {SIGNER_PREFIX}SIGNER or \
                 --k8sSigner names who does, or --tlsCertFile what was signed"
            );
        }
        Ok(())
    }

    /// The signer of our own certificate, where it is named.
    fn control_plane_signer(&self) -> Result<Option<String>> {
        match self.provider.strip_prefix(SIGNER_PREFIX) {
            Some("") => bail!("--pilotCertProvider {}: no signer is named", self.provider),
            Some(signer) => Ok(Some(signer.to_owned())),
            None if ["", ISTIOD, CUSTOM, NONE].contains(&&*self.provider) => Ok(None),
            None => {
                bail!("--pilotCertProvider {}: one of {ISTIOD}, {CUSTOM}, {NONE}, {SIGNER_PREFIX}SIGNER", self.provider)
            }
        }
    }

    /// That of whoever signs in place of our own; else that of a folder where one was named or is plugged in, else that which the
    /// cluster keeps.
    pub(super) async fn open_in(
        &self,
        cluster: &Cluster,
        external: Option<(&ClusterSigners, &MeshConfig)>,
        trust_domain: TrustDomain,
    ) -> Result<Authority> {
        if let Some((signers, mesh)) = external {
            return signers.authority(mesh, self.options(trust_domain)?).context("--externalCA");
        }
        if self.ca_dir.is_some() || Authority::is_plugged(Path::new(DEFAULT_DIR)) {
            // In a cluster there is a better place to remember roots than a folder that others write.
            return self.open_with(AuthorityOptions { keeps_former_roots: false, ..self.options(trust_domain)? });
        }
        cluster.authority(self.options(trust_domain)?).await.context("signing certificate of the cluster")
    }

    /// A plugged-in certificate where there is one, one that we kept where there is that, else a new one: kept where a
    /// folder was named, else nowhere.
    pub(super) fn open(&self, trust_domain: TrustDomain) -> Result<Authority> {
        self.open_with(self.options(trust_domain)?)
    }

    fn open_with(&self, options: AuthorityOptions) -> Result<Authority> {
        let dir = self.ca_dir.as_deref().unwrap_or(Path::new(DEFAULT_DIR));
        let authority = if Authority::is_plugged(dir) {
            Authority::plugged(dir, options)
        } else if dir.exists() && !dir.is_dir() {
            bail!("--caDir {}: not a folder", dir.display());
        } else if self.ca_dir.is_some() || dir.exists() {
            Authority::persistent(dir, options)
        } else {
            tracing::warn!(
                "there is no {DEFAULT_DIR}: the root certificate lives in memory only, and proxies that have it trust no \
                 other after a restart; --caDir names a folder to keep it in"
            );
            Authority::self_signed(options)
        };
        authority.with_context(|| format!("signing certificate in {}", dir.display()))
    }

    fn options(&self, trust_domain: TrustDomain) -> Result<AuthorityOptions> {
        if self.workload_ttl.is_zero() || self.workload_ttl > self.max_workload_ttl {
            bail!("--workloadCertTTL: not between nothing and --maxWorkloadCertTTL");
        }
        if self.root_ttl <= self.max_workload_ttl {
            bail!("--selfSignedCACertTTL: not more than --maxWorkloadCertTTL");
        }
        if self.distribution_min > self.distribution_max {
            bail!("--rootDistributionMin: more than --rootDistributionMax");
        }
        Ok(AuthorityOptions {
            default_ttl: self.workload_ttl,
            max_ttl: self.max_workload_ttl,
            root_ttl: self.root_ttl,
            root_check_interval: self.root_check_interval,
            root_grace_percent: self.root_grace_percent,
            root_check_delay: if self.root_check_jitter { jitter(self.root_check_interval) } else { Duration::ZERO },
            takes_revocations: self.revocations,
            pace: Pace { staged: self.staged, least: self.distribution_min, longest: self.distribution_max },
            ..AuthorityOptions::new(trust_domain)
        })
    }
}
