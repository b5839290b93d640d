//! An external authority behind the cluster's API: which signer a request goes to, and by which root its certificates are
//! verified (`caCertificates` of the mesh configuration whose `certSigners` name it).

use std::sync::Arc;

use arc_swap::ArcSwap;
use meltemi_ca::{AuthorityError, CaCertificate, ExternalAuthority, ExternalRequest, Issued};
use meltemi_config::Str;
use meltemi_config::mesh::MeshConfig;
use meltemi_kubernetes::{Client, RequestSigner};
use meltemi_model::Shared;

/// Whose signers sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// The signer of workloads that name none (`K8S_SIGNER`).
    pub default: String,
    /// The domain of signers that workloads name (`CERT_SIGNER_DOMAIN`).
    pub domain: String,
}

impl Signers {
    /// Whether certificates of these signers are workloads' of the mesh.
    pub(crate) fn include(&self, signers: &[Str]) -> bool {
        let of_domain = |signer: &str| signer.strip_prefix(&*self.domain).is_some_and(|rest| rest.starts_with('/'));
        signers.iter().any(|signer| **signer == *self.default || !self.domain.is_empty() && of_domain(signer))
    }

    /// The full name of who is to sign.
    fn of(&self, asked: &str) -> Result<String, AuthorityError> {
        match (asked, self.domain.as_str()) {
            ("", _) if self.default.is_empty() => {
                Err(AuthorityError::Request("it names no signer, and there is none for all (K8S_SIGNER)".to_owned()))
            }
            ("", _) => Ok(self.default.clone()),
            (_, "") => Err(AuthorityError::Request(
                "it names a signer, whose domain is unknown (CERT_SIGNER_DOMAIN)".to_owned(),
            )),
            (asked, domain) => Ok(format!("{domain}/{asked}")),
        }
    }
}

/// The roots under which a signer's certificates are, in PEM.
fn roots(mesh: &MeshConfig, signer: &str) -> Result<String, AuthorityError> {
    let of_signer = mesh.ca_certificates.iter().filter(|data| data.cert_signers.iter().any(|own| **own == *signer));
    let mut found: Vec<CaCertificate> = Vec::new();
    for pem in of_signer.filter_map(|data| data.pem.as_ref()) {
        found.extend(CaCertificate::all("caCertificates", pem)?);
    }
    if found.is_empty() {
        let reason = format!("caCertificates of the mesh configuration has no root whose certSigners name {signer}");
        return Err(AuthorityError::External(reason));
    }
    Ok(found.iter().map(|root| &**root.pem()).collect())
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

    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    pub fn set_mesh(&self, mesh: &Shared<MeshConfig>) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_the_signer_that_it_names_or_to_everybodys() {
        let signers = |default: &str, domain: &str| Signers { default: default.to_owned(), domain: domain.to_owned() };
        assert_eq!(signers("a.io/all", "").of("").unwrap(), "a.io/all");
        assert_eq!(signers("a.io/all", "b.io").of("own").unwrap(), "b.io/own");
        let own = |signer: &str| signers("a.io/all", "b.io").include(&[signer.into()]);
        assert!(own("a.io/all") && own("b.io/own") && !own("b.iox/own") && !own("a.io/other"));
        assert!(signers("", "b.io").of("").is_err());
        assert!(signers("a.io/all", "").of("own").is_err());
    }

    #[test]
    fn a_signer_without_a_root_in_the_mesh_configuration_signs_nothing() {
        let error = roots(&MeshConfig::default(), "a.io/all").unwrap_err().to_string();
        assert!(error.contains("certSigners name a.io/all"), "{error}");
    }
}
