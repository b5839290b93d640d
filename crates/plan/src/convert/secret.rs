//! SDS secrets.

use super::common::{optional_source, required};
use super::tls::{tls_certificate, validation_context};
use crate::error::{At, Result, refuse};
use crate::tls::{Secret, SecretKind};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use std::sync::Arc;

pub fn encoded_secret(bytes: &[u8]) -> Result<Secret> {
    // Decoding drops fields that are too new for our types.
    crate::support::check(bytes, "envoy.extensions.transport_sockets.tls.v3.Secret")?;
    secret(&meltemi_proto::decode_secret(bytes)?)
}

pub fn secret(value: &proto::Secret) -> Result<Secret> {
    use proto::secret::Type;
    crate::support::check(&meltemi_proto::encode(value), "envoy.extensions.transport_sockets.tls.v3.Secret")?;
    let kind = match required(&value.r#type, "type")? {
        Type::TlsCertificate(certificate) => {
            SecretKind::Certificate(Arc::new(tls_certificate(certificate).at("tls_certificate")?))
        }
        Type::ValidationContext(context) => {
            SecretKind::Validation(Arc::new(validation_context(context).at("validation_context")?))
        }
        Type::GenericSecret(generic) => {
            SecretKind::Generic(optional_source(generic.secret.as_ref()).at("generic_secret.secret")?)
        }
        Type::SessionTicketKeys(_) => return refuse("session_ticket_keys: is not supported"),
    };
    Ok(Secret { name: value.name.as_str().into(), kind })
}
