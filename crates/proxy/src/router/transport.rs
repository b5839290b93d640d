//! TLS contexts as a request needs them: the cluster's, with the ALPN that a filter or the protocol asks for.
//!
//! Derived contexts are kept by each worker, so that their sessions resume and their pools are found again.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use meltemi_http::pool::Mode;
use meltemi_tls::ClientTls;

/// What distinguishes derived contexts of one base.
#[derive(PartialEq, Eq, Hash)]
struct Wanted {
    base: usize,
    alpn: Vec<Vec<u8>>,
    sni: Option<Arc<str>>,
}

struct Derived {
    tls: Arc<ClientTls>,
    /// Keeps the base's address from being used again while we key by it.
    _base: Arc<ClientTls>,
    id: u64,
}

/// Contexts derived by one worker.
#[derive(Default)]
pub struct TransportCache {
    derived: RefCell<HashMap<Wanted, Derived>>,
}

/// More than this, and somebody varies SNI per request: start over.
const MOST: usize = 4096;

impl TransportCache {
    /// The context to use and a number that tells its connections from those of another.
    pub fn tls(
        &self,
        base: &Arc<ClientTls>,
        mode: Mode,
        alpn: Option<&Arc<[Vec<u8>]>>,
        sni: Option<&str>,
    ) -> (Arc<ClientTls>, u64) {
        let fallback = || match mode {
            Mode::Http2 => vec![b"h2".to_vec()],
            Mode::Http1 => vec![b"http/1.1".to_vec()],
            Mode::Alpn => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let configured = !base.config().alpn_protocols.is_empty();
        let alpn = match alpn {
            Some(alpn) => alpn.to_vec(),
            None if configured && sni.is_none() => return (Arc::clone(base), 0),
            None if configured => base.config().alpn_protocols.clone(),
            None => fallback(),
        };
        let mut derived = self.derived.borrow_mut();
        if derived.len() > MOST {
            derived.clear();
        }
        let id = derived.len() as u64 + 1;
        let wanted = Wanted { base: Arc::as_ptr(base) as usize, alpn: alpn.clone(), sni: sni.map(Arc::from) };
        let entry = derived.entry(wanted).or_insert_with(|| Derived {
            tls: Arc::new(base.with(Some(alpn), sni)),
            _base: Arc::clone(base),
            id,
        });
        (Arc::clone(&entry.tls), entry.id)
    }

    /// Forgets everything; called when the world changes.
    pub fn clear(&self) {
        self.derived.borrow_mut().clear();
    }
}
