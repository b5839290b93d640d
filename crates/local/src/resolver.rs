//! The cluster's DNS, at the bridge's address: what kube-dns is on Kubernetes.
//!
//! Answers A for services and `istiod`; every other name does not exist, for the fabric has no way out. Proxies answer
//! their workloads from what discovery tells them and ask here for the rest.
//! Cost: one map lookup a query; the map is replaced whole.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;

#[cfg(test)]
mod tests;

/// Lower-case names without the last dot.
pub(crate) type Names = BTreeMap<String, Vec<Ipv4Addr>>;

#[derive(Clone, Default)]
pub(crate) struct Zone(Arc<Mutex<Arc<Names>>>);

impl Zone {
    pub fn replace(&self, names: Names) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    fn names(&self) -> Arc<Names> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const TTL_SECONDS: u32 = 5;
/// As many addresses as fit in 512 bytes with a name of full length.
const MAX_ANSWERS: usize = 15;

/// Answers queries until the runtime ends.
pub(crate) async fn serve(socket: UdpSocket, zone: Zone) {
    let mut buffer = [0u8; 1500];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = respond(&buffer[..length], &zone.names()) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

/// The first question's name, type, and where it ends. Compression has no place in a question.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || name.len() > 255 {
            return None;
        }
        let label = std::str::from_utf8(query.get(at..at + length)?).ok()?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&label.to_ascii_lowercase());
        at += length;
    }
    let word = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
    (word(at + 2)? == CLASS_IN).then_some(())?;
    Some((name, word(at)?, at + 4))
}

fn respond(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    // A response must not be answered: two servers would do it for ever.
    let is_query = *query.get(2)? & 0x80 == 0;
    let (name, kind, end) = is_query.then(|| question(query))??;
    let found = names.get(&name);
    let addresses: &[Ipv4Addr] = match (found, kind) {
        (Some(addresses), TYPE_A) => &addresses[..addresses.len().min(MAX_ANSWERS)],
        _ => &[],
    };
    let nonexistent = u8::from(found.is_none()) * 3;
    let mut answer = Vec::with_capacity(end + addresses.len() * 16);
    answer.extend_from_slice(&query[..2]);
    // Response, authoritative, recursion desired as asked; recursion available, so that nobody asks elsewhere.
    answer.extend_from_slice(&[0x84 | (query[2] & 0x01), 0x80 | nonexistent]);
    answer.extend_from_slice(&[0, 1, 0, u8::try_from(addresses.len()).unwrap_or_default(), 0, 0, 0, 0]);
    answer.extend_from_slice(query.get(HEADER..end)?);
    for address in addresses {
        answer.extend_from_slice(&[0xC0, 12]);
        answer.extend_from_slice(&TYPE_A.to_be_bytes());
        answer.extend_from_slice(&CLASS_IN.to_be_bytes());
        answer.extend_from_slice(&TTL_SECONDS.to_be_bytes());
        answer.extend_from_slice(&4u16.to_be_bytes());
        answer.extend_from_slice(&address.octets());
    }
    Some(answer)
}
