//! TLS contexts, certificates and validation contexts.

use super::common::{
    config_source, data_source, enumeration, list, names, optional_duration, optional_source, required, string_matcher,
};
use super::spiffe;
use crate::error::{At, PlanError, Result, refuse};
use crate::tls::{
    Curve, DownstreamTls, SanKind, SanMatcher, SecretRef, TlsCertificate, TlsCommon, TlsVersion, UpstreamTls,
    Validation, ValidationContext,
};
use base64::Engine;
use meltemi_base::Compliance;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use proto::common_tls_context::ValidationContextType;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn downstream_tls(value: &proto::DownstreamTlsContext) -> Result<DownstreamTls> {
    let common = common(required(&value.common_tls_context, "common_tls_context")?, TlsVersion::V1_3)
        .at("common_tls_context")?;
    if common.certificates.is_empty() {
        return refuse("common_tls_context: no TLS certificate is configured");
    }
    let require = value.require_client_certificate.unwrap_or(false);
    if require && common.validation == Validation::None {
        return refuse("require_client_certificate: needs a validation context");
    }
    optional_duration(value.session_timeout.as_ref()).at("session_timeout")?;
    Ok(DownstreamTls { common, require_client_certificate: require })
}

pub(crate) fn upstream_tls(value: &proto::UpstreamTlsContext) -> Result<UpstreamTls> {
    if value.sni.len() > 255 {
        return refuse("sni: must have at most 255 bytes");
    }
    if value.auto_sni_san_validation && !value.auto_host_sni && value.sni.is_empty() {
        return refuse("auto_sni_san_validation: needs sni or auto_host_sni");
    }
    let default = proto::CommonTlsContext::default();
    // Envoy's client default maximum is TLS 1.2; TLS 1.3 is what every peer since speaks, so an unset maximum is 1.3.
    let common =
        common(value.common_tls_context.as_ref().unwrap_or(&default), TlsVersion::V1_3).at("common_tls_context")?;
    Ok(UpstreamTls { common, sni: value.sni.as_str().into() })
}

fn common(value: &proto::CommonTlsContext, newest: TlsVersion) -> Result<TlsCommon> {
    let params = value.tls_params.clone().unwrap_or_default();
    let mut certificates = list(&value.tls_certificates, "tls_certificates", |certificate| {
        Ok(SecretRef::Inline(Arc::new(tls_certificate(certificate)?)))
    })?;
    let sds = "tls_certificate_sds_secret_configs";
    certificates.extend(list(&value.tls_certificate_sds_secret_configs, sds, |config| {
        let (name, source) = sds_secret(config)?;
        Ok(SecretRef::Sds { name, source })
    })?);
    let (min_version, max_version) = versions(&params, newest).at("tls_params")?;
    Ok(TlsCommon {
        min_version,
        max_version,
        cipher_suites: names(&params.cipher_suites),
        curves: list(&params.ecdh_curves, "ecdh_curves", |name| curve(name)).at("tls_params")?,
        compliance: compliance(&params.compliance_policies).at("tls_params.compliance_policies")?,
        alpn: names(&value.alpn_protocols),
        certificates,
        validation: validation(value)?,
    })
}

fn compliance(policies: &[i32]) -> Result<Option<Compliance>> {
    use proto::tls_parameters::CompliancePolicy;
    match policies {
        [] => Ok(None),
        [policy] => match enumeration::<CompliancePolicy>(*policy)? {
            CompliancePolicy::Fips202205 => Ok(Some(Compliance::Fips140_3)),
            other => refuse(format!("{} is not supported", other.as_str_name())),
        },
        _ => refuse("must have at most one"),
    }
}

fn versions(value: &proto::TlsParameters, newest: TlsVersion) -> Result<(TlsVersion, TlsVersion)> {
    use proto::tls_parameters::TlsProtocol;
    let version = |value: i32, auto: TlsVersion, field: &str| match enumeration::<TlsProtocol>(value).at(field)? {
        TlsProtocol::TlsAuto => Ok(auto),
        TlsProtocol::TlSv12 => Ok(TlsVersion::V1_2),
        TlsProtocol::TlSv13 => Ok(TlsVersion::V1_3),
        // rustls has no older versions: a minimum below 1.2 is served by 1.2, a maximum below it cannot be.
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 if field == "tls_minimum_protocol_version" => Ok(TlsVersion::V1_2),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            Err(PlanError::new("TLS versions before 1.2 are not supported").under(field))
        }
    };
    let min = version(value.tls_minimum_protocol_version, TlsVersion::V1_2, "tls_minimum_protocol_version")?;
    let max = version(value.tls_maximum_protocol_version, newest, "tls_maximum_protocol_version")?;
    if min > max { refuse("tls_maximum_protocol_version: is below the minimum") } else { Ok((min, max)) }
}

type SdsRef = (Arc<str>, Option<crate::common::ConfigSource>);

fn sds_secret(value: &proto::SdsSecretConfig) -> Result<SdsRef> {
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    let source = value.sds_config.as_ref().map(config_source).transpose().at("sds_config")?;
    Ok((value.name.as_str().into(), source))
}

fn validation(value: &proto::CommonTlsContext) -> Result<Validation> {
    match value.validation_context_type.as_ref() {
        None => Ok(Validation::None),
        Some(ValidationContextType::ValidationContext(context)) => {
            Ok(Validation::Static(Arc::new(validation_context(context).at("validation_context")?)))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let (name, source) = sds_secret(config).at("validation_context_sds_secret_config")?;
            Ok(Validation::Sds { name, source })
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined_context(combined).at("combined_validation_context")
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            refuse("validation_context_certificate_provider: is not supported")
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
            refuse("validation_context_certificate_provider_instance: is not supported")
        }
    }
}

fn combined_context(value: &proto::common_tls_context::CombinedCertificateValidationContext) -> Result<Validation> {
    let default = required(&value.default_validation_context, "default_validation_context")?;
    let default = Arc::new(validation_context(default).at("default_validation_context")?);
    let config = required(&value.validation_context_sds_secret_config, "validation_context_sds_secret_config")?;
    let (name, source) = sds_secret(config).at("validation_context_sds_secret_config")?;
    Ok(Validation::Combined { default, name, source })
}

pub(crate) fn tls_certificate(value: &proto::TlsCertificate) -> Result<TlsCertificate> {
    Ok(TlsCertificate {
        chain: data_source(required(&value.certificate_chain, "certificate_chain")?).at("certificate_chain")?,
        key: data_source(required(&value.private_key, "private_key")?).at("private_key")?,
        password: optional_source(value.password.as_ref()).at("password")?,
        ocsp_staple: optional_source(value.ocsp_staple.as_ref()).at("ocsp_staple")?,
        watched_directory: value.watched_directory.as_ref().map(|watched| Arc::from(Path::new(&watched.path))),
    })
}

pub(crate) fn validation_context(value: &proto::CertificateValidationContext) -> Result<ValidationContext> {
    use proto::certificate_validation_context::TrustChainVerification;
    let mut sans = list(&value.match_typed_subject_alt_names, "match_typed_subject_alt_names", san)?;
    sans.extend(list(&value.match_subject_alt_names, "match_subject_alt_names", |matcher| {
        Ok(SanMatcher { kind: SanKind::Any, matcher: string_matcher(matcher)? })
    })?);
    let trusted_ca = optional_source(value.trusted_ca.as_ref()).at("trusted_ca")?;
    let verification = enumeration::<TrustChainVerification>(value.trust_chain_verification);
    Ok(ValidationContext {
        trusted_ca,
        system_roots: value.system_root_certs.is_some(),
        watched_directory: value.watched_directory.as_ref().map(|watched| Arc::from(Path::new(&watched.path))),
        spki: list(&value.verify_certificate_spki, "verify_certificate_spki", |hash| spki(hash))?,
        hashes: list(&value.verify_certificate_hash, "verify_certificate_hash", |hash| sha256(hash))?,
        sans,
        crl: optional_source(value.crl.as_ref()).at("crl")?,
        accept_untrusted: verification.at("trust_chain_verification")? == TrustChainVerification::AcceptUntrusted,
        trust_domains: spiffe::trust_domains(value)?,
    })
}

fn san(value: &proto::SubjectAltNameMatcher) -> Result<SanMatcher> {
    use proto::subject_alt_name_matcher::SanType;
    let kind = match enumeration::<SanType>(value.san_type).at("san_type")? {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::IpAddress,
        SanType::OtherName => return refuse("san_type: OTHER_NAME is not supported"),
        SanType::Unspecified => return refuse("san_type: is required"),
    };
    Ok(SanMatcher { kind, matcher: string_matcher(required(&value.matcher, "matcher")?).at("matcher")? })
}

/// By the names that BoringSSL knows, of those that the provider has.
fn curve(name: &str) -> Result<Curve> {
    match name {
        "X25519" | "x25519" => Ok(Curve::X25519),
        "P-256" | "prime256v1" => Ok(Curve::P256),
        "P-384" | "secp384r1" => Ok(Curve::P384),
        "X25519MLKEM768" => Ok(Curve::X25519MlKem768),
        "P-224" | "P-521" | "secp224r1" | "secp521r1" | "X25519Kyber768Draft00" => {
            refuse(format!("{name} is not supported"))
        }
        _ => refuse(format!("{name:?} is not a known curve")),
    }
}

/// Base64 of a SHA-256.
fn spki(text: &str) -> Result<[u8; 32]> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    bytes.try_into().or_else(|_| refuse("is not a SHA-256 in base64"))
}

/// 64 hexadecimal digits, with or without colons.
fn sha256(text: &str) -> Result<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return refuse("is not a SHA-256 in hexadecimal");
    }
    for (slot, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *slot = (high << 4 | low) as u8,
            _ => return refuse("is not a SHA-256 in hexadecimal"),
        }
    }
    Ok(hash)
}
