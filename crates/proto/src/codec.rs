//! The only place where prost's codecs are called.
//!
//! The named functions exist for the large messages, so that their codecs are compiled here once and not in every crate that
//! calls the generic ones.

use bytes::Bytes;
use prost::{Message, Name};

use crate::Any;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, Secret, UpstreamTlsContext};
use crate::type_url;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("malformed {message}: {cause}")]
    Malformed { message: String, cause: String },
    #[error("expected {expected}, found Any of type {found:?}")]
    WrongType { expected: String, found: String },
}

/// Decodes `bytes` as an `M`.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|cause| DecodeError::Malformed { message: M::full_name(), cause: cause.to_string() })
}

/// Decodes a `google.protobuf.Struct`, as peers exchange it outside any `Any`.
pub fn decode_struct(bytes: &[u8]) -> Result<prost_types::Struct, DecodeError> {
    prost_types::Struct::decode(bytes).map_err(|cause| DecodeError::Malformed {
        message: "google.protobuf.Struct".to_owned(),
        cause: cause.to_string(),
    })
}

/// Encodes `message`. Equal messages give equal bytes.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

impl Any {
    /// Decodes the packed message, which must be an `M`.
    pub fn unpack<M: Message + Name + Default>(&self) -> Result<M, DecodeError> {
        if !self.is::<M>() {
            return Err(DecodeError::WrongType { expected: type_url::<M>(), found: self.type_url.clone() });
        }
        // Without copying byte fields: they become slices of `self.value`.
        M::decode(self.value.clone())
            .map_err(|cause| DecodeError::Malformed { message: M::full_name(), cause: cause.to_string() })
    }
}

/// Whatever has a string in field 1.
#[derive(Clone, PartialEq, ::prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Any {
    /// Field 1 of a packed message that has a string there, as every named xDS resource has. The rest is skipped.
    pub fn leading_string(&self) -> Option<String> {
        Named::decode(self.value.clone()).ok().map(|named| named.name)
    }
}

macro_rules! named {
    ($($message:ident: $decode:ident, $unpack:ident, $pack:ident;)*) => {$(
        #[doc = concat!("[`decode`] of a `", stringify!($message), "`, compiled once. Holds nothing of `bytes`.")]
        pub fn $decode(bytes: &[u8]) -> Result<$message, DecodeError> {
            decode(bytes)
        }
        #[doc = concat!("[`Any::unpack`] of a `", stringify!($message), "`, compiled once.")]
        pub fn $unpack(any: &Any) -> Result<$message, DecodeError> {
            any.unpack()
        }
        #[doc = concat!("[`Any::pack`] of a `", stringify!($message), "`, compiled once.")]
        pub fn $pack(message: &$message) -> Any {
            Any::pack(message)
        }
    )*};
}

named! {
    Bootstrap: decode_bootstrap, unpack_bootstrap, pack_bootstrap;
    Cluster: decode_cluster, unpack_cluster, pack_cluster;
    ClusterLoadAssignment: decode_load_assignment, unpack_load_assignment, pack_load_assignment;
    Listener: decode_listener, unpack_listener, pack_listener;
    RouteConfiguration: decode_route_configuration, unpack_route_configuration, pack_route_configuration;
    VirtualHost: decode_virtual_host, unpack_virtual_host, pack_virtual_host;
    HttpConnectionManager: decode_http_connection_manager, unpack_http_connection_manager, pack_http_connection_manager;
    Secret: decode_secret, unpack_secret, pack_secret;
    DownstreamTlsContext: decode_downstream_tls_context, unpack_downstream_tls_context, pack_downstream_tls_context;
    UpstreamTlsContext: decode_upstream_tls_context, unpack_upstream_tls_context, pack_upstream_tls_context;
}
