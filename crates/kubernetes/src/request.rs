//! Certificates signed by a signer of the cluster: `certificates.k8s.io/v1` CertificateSigningRequest, made, approved, waited for
//! and taken away again (Istio's `ISTIOD_RA_KUBERNETES_API`).

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::reason;

/// What a workload's certificate is for.
const USAGES: [&str; 4] = ["digital signature", "key encipherment", "server auth", "client auth"];
/// Signers take seconds, and more where a person has a say.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The shortest that the API takes.
const SHORTEST: u64 = 600;
/// Requests under way at once; more wait.
const MOST_REQUESTS: usize = 64;

/// Has a cluster's signers sign.
pub struct RequestSigner {
    requests: Api<CertificateSigningRequest>,
    turns: Semaphore,
}

impl RequestSigner {
    pub fn new(client: Client) -> Self {
        Self { requests: Api::all(client), turns: Semaphore::new(MOST_REQUESTS) }
    }

    /// The certificate with what leads to its root, in PEM.
    pub async fn sign(&self, csr: &str, signer: &str, lifetime: Duration) -> Result<String, String> {
        let signing = async {
            // Never closed.
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            let made = self.make(csr, signer, lifetime).await.map_err(|error| reason(&error))?;
            let name = made.metadata.name.unwrap_or_default();
            let signed = timeout(PATIENCE, self.approved(&name)).await;
            // It has served its purpose; where it stays, the cluster takes it away within an hour.
            if let Err(error) = self.requests.delete(&name, &DeleteParams::default()).await {
                tracing::debug!(name, "CertificateSigningRequest not deleted: {}", reason(&error));
            }
            signed.unwrap_or_else(|_| Err(format!("{signer} did not sign in time")))
        };
        timeout(2 * PATIENCE, signing).await.unwrap_or_else(|_| Err("no turn in time".to_owned()))
    }

    async fn make(&self, csr: &str, signer: &str, lifetime: Duration) -> kube::Result<CertificateSigningRequest> {
        let seconds = i32::try_from(lifetime.as_secs().max(SHORTEST)).unwrap_or(i32::MAX);
        let spec = CertificateSigningRequestSpec {
            request: ByteString(csr.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            usages: Some(USAGES.map(str::to_owned).to_vec()),
            expiration_seconds: Some(seconds),
            ..CertificateSigningRequestSpec::default()
        };
        let metadata = ObjectMeta { generate_name: Some("csr-workload-".to_owned()), ..ObjectMeta::default() };
        let request = CertificateSigningRequest { metadata, spec, status: None };
        self.requests.create(&PostParams::default(), &request).await
    }

    /// Whoever asks has proven who it is, and the request names it: there is nothing left to decide.
    async fn approved(&self, name: &str) -> Result<String, String> {
        let condition = json!({
            "type": "Approved", "status": "True", "reason": "WorkloadProven",
            "message": "the mesh has proven the workload that the request names",
        });
        let patch = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
        let approval = self.requests.patch_subresource("approval", name, &PatchParams::default(), &patch).await;
        approval.map_err(|error| reason(&error))?;
        loop {
            let status = self.requests.get(name).await.map_err(|error| reason(&error))?.status.unwrap_or_default();
            if let Some(chain) = status.certificate.filter(|chain| !chain.0.is_empty()) {
                return String::from_utf8(chain.0).map_err(|error| error.to_string());
            }
            let refusal = status.conditions.into_iter().flatten().find(|found| found.type_ != "Approved");
            if let Some(refusal) = refusal {
                return Err(format!("{}: {}", refusal.type_, refusal.message.unwrap_or_default()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
