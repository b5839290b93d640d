//! The mesh's roots as discovery pushes them, so that a new one is trusted here before anything is signed under it. The
//! answer tells discovery how far it has got.
//!
//! Only discovery of ours has such a secret. Istio's counts a request for it as an error of a credential, and its own agent never makes
//! one: the roots of the authority's answer are all there are then. Ours answers a stream when it opens, Istio's with its first
//! response, so who has not answered is not asked.
//!
//! Where other trust domains have roots of their own, the secret says so as Envoy has it: by the validator for SPIFFE. Envoy then reads
//! roots and revocation lists from each domain's bundle, and nothing beside.

use crate::identity::{IdentityKeeper, TrustBundle};
use crate::sds::ROOT_CA;
use crate::upstream::agent_stream;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, SpiffeCertValidatorConfig};
use meltemi_xds::client::{Client, Event, Options};
use meltemi_xds::types::SECRET;
use std::collections::BTreeMap;
use std::sync::Arc;

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// Follows discovery until dropped.
pub async fn follow(mut options: Options, keeper: Arc<IdentityKeeper>) {
    if !keeper.takes_bundles() {
        return;
    }
    options.node = agent_stream(options.node);
    let (client, mut events) = Client::spawn(options);
    while let Some(event) = events.next().await {
        let update = match event {
            Event::Connected => {
                client.subscribe(SECRET, [ROOT_CA]);
                continue;
            }
            Event::Disconnected(_) => continue,
            Event::Update(update) => update,
        };
        let mut bundles = update.resources.iter().map(|resource| match resource.body.unpack::<Secret>() {
            Ok(secret) => bundle(secret),
            Err(error) => Err(error.to_string()),
        });
        // A control plane that has no such secret says that it is gone; the authority's answer has roots, too.
        let adopted = bundles.try_for_each(|bundle| keeper.adopt(bundle?).map_err(|e| e.to_string()));
        match adopted {
            Ok(()) => update.reply.accept(),
            Err(reason) => {
                tracing::warn!(reason, "roots of the mesh are refused");
                update.reply.reject(reason);
            }
        }
    }
}

fn bundle(secret: Secret) -> Result<TrustBundle, String> {
    let Some(Type::ValidationContext(context)) = secret.r#type else {
        return Err(format!("secret {:?} is no validation context", secret.name));
    };
    let roots_pem = text(context.trusted_ca)?;
    let crl_pem = if context.crl.is_some() { text(context.crl)? } else { String::new() };
    let domains = context.custom_validator_config.map(domains).transpose()?.unwrap_or_default();
    Ok(TrustBundle { roots_pem, crl_pem, domains })
}

fn domains(validator: TypedExtensionConfig) -> Result<BTreeMap<String, String>, String> {
    let config = validator.typed_config.filter(|_| validator.name == VALIDATOR);
    let config = config.ok_or_else(|| format!("the validator {:?} is unknown", validator.name))?;
    let config: SpiffeCertValidatorConfig = config.unpack().map_err(|e| e.to_string())?;
    config.trust_domains.into_iter().map(|domain| Ok((domain.name, text(domain.trust_bundle)?))).collect()
}

/// The validator over these trust domains; none without any.
pub(crate) fn validator(domains: &BTreeMap<String, String>, crl_pem: &str) -> Option<TypedExtensionConfig> {
    let domain = |(name, roots_pem): (&String, &String)| {
        let specifier = Some(Specifier::InlineString(format!("{roots_pem}\n{crl_pem}")));
        let trust_bundle = Some(DataSource { specifier, ..DataSource::default() });
        TrustDomain { name: name.clone(), trust_bundle, ..TrustDomain::default() }
    };
    let config = SpiffeCertValidatorConfig {
        trust_domains: domains.iter().map(domain).collect(),
        ..SpiffeCertValidatorConfig::default()
    };
    let any = (!domains.is_empty()).then(|| Any::pack(&config))?;
    Some(TypedExtensionConfig { name: VALIDATOR.to_owned(), typed_config: Some(any) })
}

fn text(source: Option<DataSource>) -> Result<String, String> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.into()).map_err(|e| e.to_string()),
        Some(Specifier::InlineString(text)) => Ok(text),
        _ => Err("only inline sources are taken".to_owned()),
    }
}

#[cfg(test)]
mod tests;
