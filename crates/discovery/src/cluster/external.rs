//! An external authority behind the cluster's API: which signer a request goes to, how long what it signs may live, and by which
//! root its certificates are verified (`caCertificates` of the mesh configuration whose `certSigners` name it, by `pem` or by URL).
//!
//! Owns which roots the mesh has then: those of its signers and no other. No root of our own is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use meltemi_ca::{
    AskedSigner, Authority, AuthorityError, AuthorityOptions, CaCertificate, ExternalAuthority, ExternalRequest,
    Issued, Material,
};
use meltemi_config::Str;
use meltemi_config::mesh::MeshConfig;
use meltemi_kubernetes::{Client, RequestSigner};
use meltemi_model::Shared;

use crate::bundles::{Fetch, Known};

/// How long the start waits for roots by URL; what has not answered by then is asked on, and the start fails without any root.
const ROOTS_PATIENCE: Duration = Duration::from_secs(60);

/// Whose signers sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// The signer of workloads that name none (`K8S_SIGNER`).
    pub default: String,
    /// The domain of signers that workloads name (`CERT_SIGNER_DOMAIN`).
    pub domain: String,
    /// The signer of our own certificate (`PILOT_CERT_PROVIDER`); absent: the default one.
    pub control_plane: Option<String>,
    /// By signer, the longest lifetime of what it signs.
    pub longest: BTreeMap<String, Duration>,
}

impl Signers {
    /// Whether certificates of these signers are of the mesh.
    fn include(&self, signers: &[Str]) -> bool {
        let of_domain = |signer: &str| signer.strip_prefix(&*self.domain).is_some_and(|rest| rest.starts_with('/'));
        let own = |signer: &str| *signer == *self.default || self.control_plane.as_deref() == Some(signer);
        signers.iter().any(|signer| own(signer) || !self.domain.is_empty() && of_domain(signer))
    }

    /// The full name of who is to sign.
    fn of(&self, asked: AskedSigner<'_>) -> Result<String, AuthorityError> {
        match (asked, self.domain.as_str()) {
            (AskedSigner::ControlPlanes, _) if self.control_plane.is_some() => {
                Ok(self.control_plane.clone().unwrap_or_default())
            }
            (AskedSigner::Named(_), "") => Err(AuthorityError::Request(
                "it names a signer, whose domain is unknown (CERT_SIGNER_DOMAIN)".to_owned(),
            )),
            (AskedSigner::Named(asked), domain) => Ok(format!("{domain}/{asked}")),
            _ if self.default.is_empty() => {
                Err(AuthorityError::Request("it names no signer, and there is none for all (K8S_SIGNER)".to_owned()))
            }
            _ => Ok(self.default.clone()),
        }
    }

    /// The roots of the mesh: those of its signers, in PEM.
    fn roots(&self, mesh: &MeshConfig) -> Result<Material, AuthorityError> {
        let found = roots_where(mesh, |signers| self.include(signers))?;
        if found.is_empty() {
            let named = if self.default.is_empty() { format!("{}/…", self.domain) } else { self.default.clone() };
            let reason = format!(
                "caCertificates of the mesh configuration has no root whose certSigners name {named}: neither pem, nor a \
                 spiffeBundleUrl that has answered"
            );
            return Err(AuthorityError::External(reason));
        }
        Ok(Material::of_others(&found))
    }
}

/// Roots of `caCertificates` by the signers that they name, in PEM, each once.
fn roots_where(mesh: &MeshConfig, wanted: impl Fn(&[Str]) -> bool) -> Result<String, AuthorityError> {
    let mut found: Vec<CaCertificate> = Vec::new();
    for data in mesh.ca_certificates.iter().filter(|data| wanted(&data.cert_signers)) {
        for root in data.pem.iter().map(|pem| CaCertificate::all("caCertificates", pem)) {
            found.extend(root?);
        }
    }
    let each = found.iter().enumerate().filter(|(place, root)| !found[..*place].contains(root));
    Ok(each.map(|(_, root)| &**root.pem()).collect())
}

/// The roots under which a signer's certificates are, in PEM.
fn roots(mesh: &MeshConfig, signer: &str) -> Result<String, AuthorityError> {
    let found = roots_where(mesh, |signers| signers.iter().any(|own| **own == *signer))?;
    if found.is_empty() {
        let reason = format!("caCertificates of the mesh configuration has no root whose certSigners name {signer}");
        return Err(AuthorityError::External(reason));
    }
    Ok(found)
}

/// Signers of the cluster, for the mesh configuration in force.
pub(crate) struct ClusterSigners {
    signer: RequestSigner,
    signers: Signers,
    mesh: ArcSwap<Shared<MeshConfig>>,
}

impl ClusterSigners {
    pub fn new(client: Client, signers: Signers) -> Self {
        let mesh = ArcSwap::from_pointee(Shared::new(MeshConfig::default()));
        Self { signer: RequestSigner::new(client), signers, mesh }
    }

    /// What is found at the URLs of the signers' roots: without roots nobody could be served, so that it is waited for.
    pub async fn bundles(&self, fetch: impl Fetch, mesh: &MeshConfig) -> Known {
        Known::ask(fetch, mesh, |data| self.signers.include(&data.cert_signers), ROOTS_PATIENCE).await
    }

    /// What distributes the signers' roots.
    pub fn authority(&self, mesh: &MeshConfig, options: AuthorityOptions) -> Result<Authority, AuthorityError> {
        Authority::supplied(&self.signers.roots(mesh)?, options)
    }

    /// Another mesh configuration, whose roots the authority takes with its next look.
    pub fn set_mesh(&self, mesh: &Shared<MeshConfig>, authority: &Authority) {
        match self.signers.roots(mesh) {
            Ok(roots) => authority.supply(roots),
            Err(error) => tracing::error!("{error}\nthe roots that were in force stay"),
        }
        self.mesh.store(Arc::new(mesh.clone()));
    }
}

#[tonic::async_trait]
impl ExternalAuthority for ClusterSigners {
    async fn sign(&self, request: ExternalRequest<'_>) -> Result<Issued, AuthorityError> {
        let signer = self.signers.of(request.signer)?;
        let root = roots(&self.mesh.load(), &signer)?;
        let chain = self.signer.sign(request.csr, &signer, request.ttl).await.map_err(AuthorityError::External)?;
        Ok(Issued { chain: vec![chain], root })
    }

    fn longest(&self, signer: AskedSigner<'_>) -> Option<Duration> {
        self.signers.of(signer).ok().and_then(|name| self.signers.longest.get(&name).copied())
    }
}

#[cfg(test)]
mod tests {
    use meltemi_config::mesh::CertificateData;

    use super::*;

    fn signers(default: &str, domain: &str) -> Signers {
        let (control_plane, longest) = (None, BTreeMap::new());
        Signers { default: default.to_owned(), domain: domain.to_owned(), control_plane, longest }
    }

    #[test]
    fn a_request_goes_to_the_signer_that_it_names_or_to_everybodys() {
        use AskedSigner::{ControlPlanes, Everybodys, Named};
        assert_eq!(signers("a.io/all", "").of(Everybodys).unwrap(), "a.io/all");
        assert_eq!(signers("a.io/all", "b.io").of(Named("own")).unwrap(), "b.io/own");
        assert_eq!(signers("a.io/all", "b.io").of(ControlPlanes).unwrap(), "a.io/all");
        let own = Signers { control_plane: Some("c.io/server".to_owned()), ..signers("", "b.io") };
        assert_eq!(own.of(ControlPlanes).unwrap(), "c.io/server");
        let includes = |signer: &str| signers("a.io/all", "b.io").include(&[signer.into()]);
        assert!(includes("a.io/all") && includes("b.io/own") && !includes("b.iox/own") && !includes("a.io/other"));
        assert!(own.include(&["c.io/server".into()]));
        assert!(signers("", "b.io").of(Everybodys).is_err() && signers("", "b.io").of(ControlPlanes).is_err());
        assert!(signers("a.io/all", "").of(Named("own")).is_err());
    }

    #[test]
    fn a_signer_without_a_root_in_the_mesh_configuration_signs_nothing() {
        let error = roots(&MeshConfig::default(), "a.io/all").unwrap_err().to_string();
        assert!(error.contains("certSigners name a.io/all"), "{error}");
        let error = signers("", "b.io").roots(&MeshConfig::default()).err().unwrap().to_string();
        assert!(error.contains("certSigners name b.io/…"), "{error}");
    }

    #[test]
    fn the_roots_of_the_mesh_are_those_of_its_signers_each_once() {
        let root = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().replace("\r\n", "\n")
        };
        let data = |pem: &str, signer: &str| CertificateData {
            pem: Some(pem.into()),
            cert_signers: vec![signer.into()],
            ..CertificateData::default()
        };
        let (first, second, other) = (root("first"), root("second"), root("other"));
        let ca_certificates =
            vec![data(&first, "a.io/all"), data(&other, "x.io/all"), data(&format!("{first}{second}"), "b.io/own")];
        let mesh = MeshConfig { ca_certificates, ..MeshConfig::default() };
        let all = roots_where(&mesh, |own| signers("a.io/all", "b.io").include(own)).unwrap();
        assert_eq!(all, format!("{first}{second}"));
        assert_eq!(roots(&mesh, "a.io/all").unwrap(), first);
        let options = AuthorityOptions::new("cluster.local".parse().unwrap());
        let authority = Authority::supplied(&signers("a.io/all", "b.io").roots(&mesh).unwrap(), options).unwrap();
        assert_eq!(&*authority.root_pem(), all);
    }
}
