//! What `COMPLIANCE_POLICY` leaves of TLS settings, whatever else is asked for; by Istio's rules, and said in full, so that an Envoy
//! whose own defaults are wider keeps them too.

use meltemi_base::Compliance;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::TlsParameters;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::{CompliancePolicy, TlsProtocol};

/// Of TLS 1.2.
const ECDHE_AES_GCM: [&str; 4] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];

pub fn enforce(parameters: &mut TlsParameters, policy: Option<Compliance>) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    match policy {
        None => {}
        Some(Compliance::Fips140_2) => {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv12 as i32;
            parameters.tls_maximum_protocol_version = TlsProtocol::TlSv12 as i32;
            parameters.cipher_suites.retain(|suite| ECDHE_AES_GCM.contains(&suite.as_str()));
            if parameters.cipher_suites.is_empty() {
                parameters.cipher_suites = owned(&ECDHE_AES_GCM);
            }
            parameters.ecdh_curves = owned(&["P-256"]);
        }
        Some(Compliance::Fips140_3) => {
            parameters.compliance_policies = vec![CompliancePolicy::Fips202205 as i32];
        }
        Some(Compliance::PostQuantum) => {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv13 as i32;
            parameters.tls_maximum_protocol_version = TlsProtocol::TlSv13 as i32;
            parameters.cipher_suites = owned(&ECDHE_AES_GCM);
            parameters.ecdh_curves = owned(&["X25519MLKEM768"]);
        }
    }
}

#[cfg(test)]
mod tests;
