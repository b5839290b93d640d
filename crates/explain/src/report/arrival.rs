//! What becomes of a request at the other end: whether the endpoint's own proxy takes it.

use std::net::SocketAddr;

use super::{Candidate, Question, steps, words};
use crate::request::{Request, Security};
use crate::walk::walk;

/// As many endpoints of a cluster are asked; replicas answer alike.
const MAX_ASKED: usize = 10;

/// The policies that the proxies of these endpoints hold a request against; as replicas have the same, those of the first.
pub(super) fn policies(question: &Question<'_>, candidates: &[Candidate]) -> Option<String> {
    let mesh = question.mesh?;
    let address = |candidate: &Candidate| Some(candidate.address.parse::<SocketAddr>().ok()?.ip());
    let mut addresses = candidates.iter().take(MAX_ASKED).filter_map(address);
    let node = addresses.find_map(|address| mesh.sidecar_at(address))?;
    words::policies(&mesh.snapshot, &mesh.snapshot.workload(node))
}

/// Fills in why endpoints do not take the request.
pub(super) fn ask(question: &Question<'_>, request: &Request, candidates: &mut [Candidate]) {
    let Some(mesh) = question.mesh.filter(|_| !request.inbound) else { return };
    for candidate in candidates.iter_mut().take(MAX_ASKED) {
        let Ok(address) = candidate.address.parse::<SocketAddr>() else { continue };
        let Some(sent) = mesh.sent_at(address.ip()) else { continue };
        let security = match candidate.security.as_str() {
            "plaintext" => request.security,
            "mutual TLS" => Security::Mtls,
            _ => Security::Tls,
        };
        let arriving =
            Request { inbound: true, destination: address, source: None, security, alpn: None, ..request.clone() };
        candidate.problem = walk(&sent, &arriving).failure.map(|failure| steps::failed(failure, &arriving));
    }
}
