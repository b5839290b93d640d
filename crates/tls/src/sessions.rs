//! Sessions that a client may resume. Most of a proxy's clusters are never called: a store of rustls takes some 4 KiB when it is
//! made, this one when there is a session to keep.

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::sync::OnceLock;

/// Sessions kept by each TLS context.
const SESSIONS: usize = 64;

/// The sessions of one context. Never shared by two: a session stands for the verification of its first handshake.
#[derive(Debug, Default)]
pub(crate) struct Sessions(OnceLock<ClientSessionMemoryCache>);

impl Sessions {
    fn kept(&self) -> &ClientSessionMemoryCache {
        self.0.get_or_init(|| ClientSessionMemoryCache::new(SESSIONS))
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.kept().set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.get()?.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.kept().set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.get()?.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        if let Some(kept) = self.0.get() {
            kept.remove_tls12_session(server);
        }
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.kept().insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.get()?.take_tls13_ticket(server)
    }
}
