//! The mesh's roots as discovery pushes them, so that a new one is trusted here before anything is signed under it. The
//! answer tells discovery how far it has got.

use crate::identity::{IdentityKeeper, TrustBundle};
use crate::sds::ROOT_CA;
use crate::upstream::agent_stream;
use meltemi_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use meltemi_xds::client::{Client, Event, Options};
use meltemi_xds::types::SECRET;
use std::sync::Arc;

/// Follows discovery until dropped.
pub async fn follow(mut options: Options, keeper: Arc<IdentityKeeper>) {
    if !keeper.takes_bundles() {
        return;
    }
    options.node = agent_stream(options.node);
    let (client, mut events) = Client::spawn(options);
    client.subscribe(SECRET, [ROOT_CA]);
    while let Some(event) = events.next().await {
        let Event::Update(update) = event else { continue };
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
    Ok(TrustBundle { roots_pem, crl_pem })
}

fn text(source: Option<DataSource>) -> Result<String, String> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.into()).map_err(|e| e.to_string()),
        _ => Err("only inline sources are taken".to_owned()),
    }
}

#[cfg(test)]
mod tests;
