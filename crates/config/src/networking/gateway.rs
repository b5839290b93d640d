//! Gateway: servers at the edge of the mesh. `ServerTlsSettings` is also Sidecar's.

use std::collections::BTreeMap;

use crate::wire::{Str, enumeration, message};

message! {
    /// `networking.istio.io` Gateway.
    struct Gateway {
        servers: Vec<Server>,
        /// Labels of the gateway's pods; empty selects all.
        selector: BTreeMap<Str, Str>,
    }

    struct Server {
        port: Option<Port>,
        bind: Str,
        /// `host`, `ns/host`, `*/host`, `./host`.
        hosts: Vec<Str>,
        tls: Option<ServerTlsSettings>,
        default_endpoint: Str,
        name: Str,
    }

    /// A port of a Gateway server or of a Sidecar listener.
    struct Port {
        number: u32,
        /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, MYSQL, REDIS; any case.
        protocol: Str,
        name: Str,
        /// Deprecated and without effect on a Gateway.
        target_port: u32,
    }

    struct ServerTlsSettings {
        https_redirect: bool,
        mode: ServerTlsMode,
        server_certificate: Str,
        private_key: Str,
        ca_certificates: Str,
        ca_crl: Str,
        subject_alt_names: Vec<Str>,
        credential_name: Str,
        credential_names: Vec<Str>,
        ca_cert_credential_name: Str,
        tls_certificates: Vec<TlsCertificate>,
        verify_certificate_spki: Vec<Str>,
        verify_certificate_hash: Vec<Str>,
        min_protocol_version: TlsProtocol,
        max_protocol_version: TlsProtocol,
        cipher_suites: Vec<Str>,
        insecure_skip_verify: Option<bool>,
    }

    struct TlsCertificate {
        server_certificate: Str,
        private_key: Str,
        ca_certificates: Str,
    }
}

enumeration! {
    enum ServerTlsMode {
        #[default]
        Passthrough = "PASSTHROUGH",
        Simple = "SIMPLE",
        Mutual = "MUTUAL",
        AutoPassthrough = "AUTO_PASSTHROUGH",
        IstioMutual = "ISTIO_MUTUAL",
        OptionalMutual = "OPTIONAL_MUTUAL",
    }

    enum TlsProtocol {
        #[default]
        Auto = "TLS_AUTO",
        V1_0 = "TLSV1_0",
        V1_1 = "TLSV1_1",
        V1_2 = "TLSV1_2",
        V1_3 = "TLSV1_3",
    }
}
