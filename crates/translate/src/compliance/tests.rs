use super::*;

fn enforced(policy: Option<Compliance>, suites: &[&str]) -> TlsParameters {
    let mut parameters = TlsParameters {
        tls_maximum_protocol_version: TlsProtocol::TlSv12 as i32,
        cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        ecdh_curves: vec!["X25519".to_owned()],
        ..TlsParameters::default()
    };
    enforce(&mut parameters, policy);
    parameters
}

#[test]
fn without_a_policy_settings_stay() {
    let parameters = enforced(None, &["AES128-GCM-SHA256"]);
    assert_eq!(
        (parameters.cipher_suites, parameters.ecdh_curves),
        (vec!["AES128-GCM-SHA256".into()], vec!["X25519".into()])
    );
}

#[test]
fn fips_140_2_is_tls_1_2_and_of_suites_those_that_both_name() {
    let suites = ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"];
    for (asked, kept) in [(&suites[..], &suites[..1]), (&suites[1..], &ECDHE_AES_GCM[..]), (&[], &ECDHE_AES_GCM[..])] {
        let parameters = enforced(Some(Compliance::Fips140_2), asked);
        let versions = (parameters.tls_minimum_protocol_version, parameters.tls_maximum_protocol_version);
        assert_eq!(versions, (TlsProtocol::TlSv12 as i32, TlsProtocol::TlSv12 as i32));
        assert_eq!(
            (parameters.cipher_suites, parameters.ecdh_curves),
            (kept.iter().map(|s| (*s).to_owned()).collect(), vec!["P-256".to_owned()])
        );
    }
}

#[test]
fn fips_140_3_is_the_proxy_s_own_policy_and_pqc_one_group() {
    let fips = enforced(Some(Compliance::Fips140_3), &[]);
    assert_eq!(fips.compliance_policies, [CompliancePolicy::Fips202205 as i32]);
    let quantum = enforced(Some(Compliance::PostQuantum), &["AES128-GCM-SHA256"]);
    let versions = (quantum.tls_minimum_protocol_version, quantum.tls_maximum_protocol_version);
    assert_eq!(versions, (TlsProtocol::TlSv13 as i32, TlsProtocol::TlSv13 as i32));
    assert_eq!(quantum.ecdh_curves, ["X25519MLKEM768"]);
}
