//! Persistent sessions: a client goes back to the endpoint that served it first, a draining one too.
//!
//! Asked for by a service's labels, as in Istio; endpoints drain by their state in Kubernetes or by a label of their own.

use std::sync::Arc;

use crate::endpoint::{Endpoint, Health};
use crate::labels::Labels;
use crate::service::Service;

/// Istiod's `PILOT_PERSISTENT_SESSION_LABEL` and its kin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sessions {
    /// `PILOT_ENABLE_PERSISTENT_SESSION_FILTER`.
    pub enabled: bool,
    /// The service's label `COOKIE` or `COOKIE:PATH`; empty: none.
    pub cookie_label: Arc<str>,
    /// The service's label that names a header; empty: none.
    pub header_label: Arc<str>,
    /// The label of a workload that drains, whatever its value; empty: none.
    pub draining_label: Arc<str>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            enabled: false,
            cookie_label: "istio.io/persistent-session".into(),
            header_label: "istio.io/persistent-session-header".into(),
            draining_label: "istio.io/draining".into(),
        }
    }
}

/// How a client says which endpoint is its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PersistentSession {
    Cookie { name: Arc<str>, path: Arc<str> },
    Header(Arc<str>),
}

fn value<'a>(labels: &'a Labels, label: &str) -> Option<&'a str> {
    labels.get(label).map(|value| &**value).filter(|value| !label.is_empty() && !value.is_empty())
}

impl Sessions {
    /// The sessions that the service's clients have.
    pub fn of(&self, service: &Service) -> Option<PersistentSession> {
        if !self.enabled {
            return None;
        }
        if let Some(cookie) = value(&service.labels, &self.cookie_label) {
            let (name, path) = cookie.split_once(':').unwrap_or((cookie, "/"));
            return Some(PersistentSession::Cookie { name: name.into(), path: path.into() });
        }
        value(&service.labels, &self.header_label).map(|name| PersistentSession::Header(name.into()))
    }

    /// Whether clusters of the service let sessions reach endpoints that drain. Whether sessions are enabled does not matter.
    pub fn reach_draining(&self, service: &Service) -> bool {
        [&self.cookie_label, &self.header_label].into_iter().any(|label| value(&service.labels, label).is_some())
    }

    /// Whether the service's endpoints are told of while they drain: only for sessions by cookie, as in Istio.
    pub fn keep_draining(&self, service: &Service) -> bool {
        value(&service.labels, &self.cookie_label).is_some()
    }
}

/// Whether the endpoint drains, by its health or by the label that says so.
pub fn is_draining(endpoint: &Endpoint, label: &str) -> bool {
    endpoint.health == Health::Draining || value(&endpoint.labels, label).is_some()
}

#[cfg(test)]
mod tests;
