//! What becomes of a request at the other end: whether the endpoint's own proxy takes it.

use std::net::SocketAddr;

use serde_json::Map;

use super::{Candidate, Question, policies, steps, words};
use crate::policy;
use crate::request::{Request, Security};
use crate::walk::{Failure, walk};

/// As many endpoints of a cluster are asked; replicas answer alike.
const MAX_ASKED: usize = 10;

/// The policies that the proxies of these endpoints hold a request against; as replicas have the same, those of the first.
pub(super) fn named(question: &Question<'_>, candidates: &[Candidate]) -> Option<String> {
    let mesh = question.mesh?;
    let address = |candidate: &Candidate| Some(candidate.address.parse::<SocketAddr>().ok()?.ip());
    let mut addresses = candidates.iter().take(MAX_ASKED).filter_map(address);
    let node = addresses.find_map(|address| mesh.sidecar_at(address))?;
    words::policies(&mesh.snapshot, &mesh.snapshot.workload(node))
}

/// Fills in why endpoints do not take the request, and what their policies say of it.
pub(super) fn ask(question: &Question<'_>, request: &Request, keeps_token: bool, candidates: &mut [Candidate]) {
    let Some(mesh) = question.mesh.filter(|_| !request.inbound) else { return };
    for candidate in candidates.iter_mut().take(MAX_ASKED) {
        let Ok(address) = candidate.address.parse::<SocketAddr>() else { continue };
        let Some(node) = mesh.sidecar_at(address.ip()) else { continue };
        let sent = mesh.sent(node);
        let arriving = arriving(question, request, (address, &candidate.security), keeps_token);
        let outcome = walk(&sent, &arriving);
        let workload = mesh.snapshot.workload(node);
        candidate.policies =
            policy::decide(&outcome, &arriving, &|issuer| policies::of_issuer(mesh, &workload, issuer));
        let failed = outcome.failure.map(|failure| match failure {
            Failure::NoFilterChain | Failure::Tls | Failure::Mtls => {
                let whose =
                    question.origins.peer_authentication(&node.namespace, question.root_namespace, &node.labels);
                let whose = whose.map(|place| format!(" ({})", place.title())).unwrap_or_default();
                steps::failed(failure, &arriving) + &whose
            }
            _ => steps::failed(failure, &arriving),
        });
        candidate.problem = policies::verdict(&candidate.policies).or(failed);
    }
}

/// The request as it comes to an endpoint.
fn arriving(
    question: &Question<'_>,
    request: &Request,
    (address, security): (SocketAddr, &str),
    keeps_token: bool,
) -> Request {
    let security = match security {
        "plaintext" => request.security,
        "mutual TLS" => Security::Mtls,
        _ => Security::Tls,
    };
    let principal = if security == Security::Mtls { question.identity.to_owned() } else { String::new() };
    let claims = if keeps_token { request.claims.clone() } else { Map::new() };
    Request { inbound: true, destination: address, security, alpn: None, principal, claims, ..request.clone() }
}
