//! A certificate by SPIFFE's Workload API, as SPIRE's agent and others serve it on a Unix socket.
//!
//! Of several identities the one that Istio would give is taken, else the first, which the specification calls the default.
//! Bundles of other trust domains are left aside, and that is told: proxies have one list of roots, in
//! which another domain's authority would vouch for our own workloads.

use super::external::{Ended, MAX_RESPONSE_BYTES, connect};
use super::{IdentityKeeper, TrustBundle, der};
use meltemi_proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use meltemi_proto::{X509svid, X509svidRequest, X509svidResponse};
use meltemi_tls::Identity;
use std::path::Path;
use tonic::Request;
use tonic::metadata::MetadataValue;

/// Without it servers refuse, so that nobody is made to ask by mistake (SPIFFE Workload Endpoint).
pub(super) const HEADER: &str = "workload.spiffe.io";

/// Takes what comes until the stream ends. What is refused leaves in force what was.
pub(super) async fn stream(socket: &Path, keeper: &IdentityKeeper) -> Result<(), Ended> {
    let mut client = SpiffeWorkloadApiClient::new(connect(socket).await?).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
    let mut answers = client.fetch_x509svid(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if !answer.federated_bundles.is_empty() {
            let domains = answer.federated_bundles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            tracing::warn!(domains, "bundles of other trust domains are not used");
        }
        if let Err(reason) = take(&answer, keeper) {
            tracing::warn!(reason, "certificates of the Workload API are refused");
        }
    }
    Ok(())
}

pub(super) fn take(answer: &X509svidResponse, keeper: &IdentityKeeper) -> Result<(), String> {
    let own = answer.svids.iter().find(|svid| svid.spiffe_id == keeper.spiffe_id);
    let svid = own.or(answer.svids.first()).ok_or("svids: none")?;
    let chain = der::certificates(&svid.x509_svid).map_err(|e| format!("x509_svid: {e}"))?;
    let key = der::block("PRIVATE KEY", &svid.x509_svid_key);
    check(svid, &chain, &key)?;
    let roots_pem = der::certificates(&svid.bundle).map_err(|e| format!("bundle: {e}"))?;
    let crl_pem = answer.crl.iter().map(|list| der::block("X509 CRL", list).to_string()).collect();
    let bundle = TrustBundle { roots_pem, crl_pem, ..TrustBundle::default() };
    keeper.install(chain, key, bundle).map(|_| ()).map_err(|e| e.to_string())
}

/// The certificate must be of the one identity that it comes as (SPIFFE X.509-SVID, section 2).
fn check(svid: &X509svid, chain: &str, key: &str) -> Result<(), String> {
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).map_err(|e| e.to_string())?;
    match identity.info().uri_sans.as_slice() {
        [one] if *one == svid.spiffe_id => Ok(()),
        others => Err(format!("spiffe_id {:?}: the certificate is of {others:?}", svid.spiffe_id)),
    }
}
