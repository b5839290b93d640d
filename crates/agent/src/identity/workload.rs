//! A certificate by SPIFFE's Workload API, as SPIRE's agent and others serve it on a Unix socket.
//!
//! Of several identities the one that Istio would give is taken, else the first, which the specification calls the default.
//! Bundles of other trust domains verify those alone: none vouches for workloads of our own.

use super::external::{Ended, MAX_RESPONSE_BYTES, connect};
use super::{IdentityKeeper, TrustBundle, der};
use meltemi_proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use meltemi_proto::{X509svid, X509svidRequest, X509svidResponse};
use meltemi_tls::{Identity, SpiffeError, TrustDomain};
use std::collections::BTreeMap;
use std::path::Path;
use tonic::Request;
use tonic::metadata::MetadataValue;

/// Without it servers refuse, so that nobody is made to ask by mistake (SPIFFE Workload Endpoint).
pub(super) const HEADER: &str = "workload.spiffe.io";
/// Before the name of a trust domain.
pub(super) const SCHEME: &str = "spiffe://";

/// Takes what comes until the stream ends. What is refused leaves in force what was.
pub(super) async fn stream(socket: &Path, keeper: &IdentityKeeper) -> Result<(), Ended> {
    let mut client = SpiffeWorkloadApiClient::new(connect(socket).await?).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
    let mut answers = client.fetch_x509svid(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
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
    let domains = federated(answer, &svid.spiffe_id, &roots_pem)?;
    let bundle = TrustBundle { roots_pem, crl_pem, domains };
    keeper.install(chain, key, bundle).map(|_| ()).map_err(|e| e.to_string())
}

/// Roots by trust domain, where there are others than our own.
fn federated(answer: &X509svidResponse, id: &str, roots_pem: &str) -> Result<BTreeMap<String, String>, String> {
    let mut domains = BTreeMap::new();
    for (name, bundle) in &answer.federated_bundles {
        let at = |reason: String| format!("federated_bundles[{name:?}]: {reason}");
        let domain: TrustDomain =
            name.strip_prefix(SCHEME).unwrap_or(name).parse().map_err(|e: SpiffeError| at(e.to_string()))?;
        domains.insert(domain.as_str().to_owned(), der::certificates(bundle).map_err(at)?);
    }
    if !domains.is_empty() {
        let own = id.strip_prefix(SCHEME).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        domains.insert(own.to_owned(), roots_pem.to_owned());
    }
    Ok(domains)
}

/// The certificate must be of the one identity that it comes as (SPIFFE X.509-SVID, section 2).
fn check(svid: &X509svid, chain: &str, key: &str) -> Result<(), String> {
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).map_err(|e| e.to_string())?;
    match identity.info().uri_sans.as_slice() {
        [one] if *one == svid.spiffe_id => Ok(()),
        others => Err(format!("spiffe_id {:?}: the certificate is of {others:?}", svid.spiffe_id)),
    }
}
