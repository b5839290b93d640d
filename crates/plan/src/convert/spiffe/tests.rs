use super::*;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

fn read(context: Value) -> Result<Vec<TrustDomain>> {
    trust_domains(&from_value::<proto::CertificateValidationContext>(&context).unwrap())
}

fn validator(domains: Value) -> Value {
    json!({ "custom_validator_config": { "name": VALIDATOR, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "trust_domains": domains } } })
}

fn domain(name: &str) -> Value {
    json!({ "name": name, "trust_bundle": { "inline_string": "roots" } })
}

#[test]
fn each_trust_domain_has_roots_of_its_own() {
    let found = read(validator(json!([domain("a"), domain("b.example")]))).unwrap();
    assert_eq!(found.iter().map(|domain| &*domain.name).collect::<Vec<_>>(), ["a", "b.example"]);
    assert_eq!(read(json!({ "trusted_ca": { "inline_string": "roots" } })).unwrap(), []);
}

#[test]
fn what_envoy_refuses_or_would_not_ask_for_is_refused() {
    let mut pinned = validator(json!([domain("a")]));
    pinned["verify_certificate_hash"] = json!(["00"]);
    let mut other = validator(json!([domain("a")]));
    other["custom_validator_config"]["name"] = json!("envoy.tls.cert_validator.default");
    let of_type = json!({ "custom_validator_config": { "name": VALIDATOR, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" } } });
    for (wrong, path) in [
        (validator(json!([])), "custom_validator_config: typed_config.trust_domains"),
        (validator(json!([domain("a"), domain("a")])), "custom_validator_config: typed_config.trust_domains[1].name"),
        (validator(json!([domain("")])), "custom_validator_config.typed_config.trust_domains[0]: name"),
        (validator(json!([{ "name": "a" }])), "custom_validator_config.typed_config.trust_domains[0].trust_bundle"),
        (of_type, "custom_validator_config.typed_config"),
        (other, "custom_validator_config: name"),
        (pinned, "verify_certificate_hash"),
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}
