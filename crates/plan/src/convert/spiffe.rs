//! `envoy.tls.cert_validator.spiffe`: roots of each trust domain.

use super::common::{data_source, list, required, resolve, unpack};
use crate::error::{At, Result, refuse};
use crate::tls::TrustDomain;
use meltemi_proto::envoy::config::core::v3::TypedExtensionConfig;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::spiffe_cert_validator_config as spiffe;
use std::collections::BTreeSet;

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// Of a validation context; none where it has no validator of its own.
pub(crate) fn trust_domains(value: &proto::CertificateValidationContext) -> Result<Vec<TrustDomain>> {
    let Some(validator) = &value.custom_validator_config else { return Ok(Vec::new()) };
    // Envoy asks neither of these of a peer then.
    for (field, pins) in [
        ("verify_certificate_hash", &value.verify_certificate_hash),
        ("verify_certificate_spki", &value.verify_certificate_spki),
    ] {
        if !pins.is_empty() {
            return refuse(format!("{field}: is not asked for beside {VALIDATOR}"));
        }
    }
    of_validator(validator).at("custom_validator_config")
}

fn of_validator(value: &TypedExtensionConfig) -> Result<Vec<TrustDomain>> {
    if value.name != VALIDATOR {
        return refuse(format!("name: {:?} is not supported; {VALIDATOR} is", value.name));
    }
    let any = resolve(required(&value.typed_config, "typed_config")?).at("typed_config")?;
    let config: proto::SpiffeCertValidatorConfig = unpack(&any).at("typed_config")?;
    let domains = list(&config.trust_domains, "trust_domains", trust_domain).at("typed_config")?;
    if domains.is_empty() {
        return refuse("typed_config.trust_domains: must not be empty");
    }
    let mut known = BTreeSet::new();
    match domains.iter().position(|domain| !known.insert(domain.name.clone())) {
        Some(twice) => refuse(format!("typed_config.trust_domains[{twice}].name: stands twice")),
        None => Ok(domains),
    }
}

fn trust_domain(value: &spiffe::TrustDomain) -> Result<TrustDomain> {
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    let bundle = data_source(required(&value.trust_bundle, "trust_bundle")?).at("trust_bundle")?;
    Ok(TrustDomain { name: value.name.as_str().into(), bundle })
}

#[cfg(test)]
mod tests;
