//! BackendTLSPolicy and XBackendTrafficPolicy: how backends are to be spoken to.

use std::time::Duration;

use super::SessionPersistence;
use crate::wire::{Str, enumeration, message};

message! {
    /// `gateway.networking.k8s.io` BackendTLSPolicy.
    struct BackendTlsPolicy {
        target_refs: Vec<LocalPolicyTarget>,
        validation: BackendTlsValidation,
        /// An implementation's own; there are none of ours.
        options: std::collections::BTreeMap<Str, Str>,
    }

    /// Names an object of the policy's own namespace, or one port of it.
    struct LocalPolicyTarget {
        group: Str,
        kind: Str,
        name: Str,
        /// The name of a port.
        section_name: Option<Str>,
    }

    struct BackendTlsValidation {
        ca_certificate_refs: Vec<LocalObjectReference>,
        /// `System`, and nothing else.
        #[serde(rename = "wellKnownCACertificates")]
        well_known_ca_certificates: Option<Str>,
        /// What is asked for by SNI, and what the certificate is for where no `subjectAltNames` say otherwise.
        hostname: Str,
        subject_alt_names: Vec<SubjectAltName>,
    }

    struct LocalObjectReference {
        group: Str,
        kind: Str,
        name: Str,
    }

    /// One of the two others, which `name_type` names.
    struct SubjectAltName {
        #[serde(rename = "type")]
        name_type: Option<SubjectAltNameType>,
        hostname: Str,
        uri: Str,
    }

    /// `gateway.networking.x-k8s.io` XBackendTrafficPolicy.
    struct XBackendTrafficPolicy {
        target_refs: Vec<LocalPolicyTarget>,
        retry_constraint: Option<RetryConstraint>,
        session_persistence: Option<SessionPersistence>,
    }

    struct RetryConstraint {
        budget: Option<RetryBudgetDetails>,
        min_retry_rate: Option<RequestRate>,
    }

    struct RetryBudgetDetails {
        /// Of the active requests, 0 to 100; default 20.
        percent: Option<i32>,
        /// Default: 10 s.
        #[serde(with = "crate::wire::gateway_duration")]
        interval: Option<Duration>,
    }

    struct RequestRate {
        /// Default: 10.
        count: Option<u32>,
        /// Default: 1 s.
        #[serde(with = "crate::wire::gateway_duration")]
        interval: Option<Duration>,
    }
}

enumeration! {
    enum SubjectAltNameType {
        #[default]
        Hostname = "Hostname",
        Uri = "URI",
    }
}

impl BackendTlsValidation {
    /// The names of which the certificate must have one; empty: the host name's.
    pub fn names(&self) -> Vec<Str> {
        let name = |own: &SubjectAltName| match own.name_type {
            Some(SubjectAltNameType::Hostname) => Some(own.hostname.clone()),
            Some(SubjectAltNameType::Uri) => Some(own.uri.clone()),
            None => None,
        };
        self.subject_alt_names.iter().filter_map(name).collect()
    }
}
