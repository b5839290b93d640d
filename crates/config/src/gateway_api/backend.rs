//! XBackend: a host outside the cluster as what routes send to, with how it is spoken to.

use super::{BackendTlsValidation, SecretReference};
use crate::wire::{Str, enumeration, message};

message! {
    /// `gateway.networking.x-k8s.io` XBackend.
    struct XBackend {
        #[serde(rename = "type")]
        backend_type: Str,
        external_hostname: Option<ExternalHostname>,
        port: XBackendPort,
        /// HTTP, HTTP2, TCP, MCP.
        protocol: Str,
        tls: Option<XBackendTls>,
    }

    struct ExternalHostname {
        hostname: Str,
    }

    struct XBackendPort {
        name: Option<Str>,
        port: u32,
    }

    struct XBackendTls {
        mode: XBackendTlsMode,
        /// What the mesh shows; of the mode `ClientAndServer`.
        client_certificate_ref: Option<SecretReference>,
        /// Without a host name, the backend's is asked for.
        validation: BackendTlsValidation,
    }
}

enumeration! {
    enum XBackendTlsMode {
        #[default]
        ServerOnly = "ServerOnly",
        ClientAndServer = "ClientAndServer",
        None = "None",
    }
}
