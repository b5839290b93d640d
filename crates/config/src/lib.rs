//! Every kind of document that Meltemi reads, as serde types; the table of kinds; parsing with file, line and field
//! path; validation with the meaning of Istio's webhook; and the table that says which field takes effect.
//!
//! Owns: the documents as values. Must never do I/O, look at a clock, or know what a proxy is. A parse costs one pass
//! over the text and one over the tree; validation is linear in the document.

mod cel;
pub mod crd;
pub mod extensions;
pub mod gateway_api;
mod kind;
pub mod kube;
pub mod legacy;
pub mod mesh;
pub mod mixer;
pub mod names;
pub mod networking;
mod object;
mod parse;
mod path;
mod problem;
pub mod rate_limit;
pub mod resilience;
pub mod schema;
pub mod security;
mod shape;
pub mod support;
pub mod telemetry;
mod validate;
pub mod wire;

pub use kind::{Kind, KindInfo, Shape};
pub use object::{Key, Meta, Object, OwnerReference, Resource, Spec};
pub use parse::{
    DEFAULT_NAMESPACE, Document, MAX_DOCUMENTS, Settings, decode, objects, parse_documents, parse_documents_in,
    parse_mesh_config, parse_mesh_networks, parse_part, parse_proxy_config, parse_rate_limit_configuration,
    parse_value, split_documents,
};
pub use problem::{ConfigError, Problem, Severity, Source, nearest};
pub use validate::{
    ALWAYS_REJECT, Finding, GRPC_STATUSES, Validation, is_cipher_suite, mesh_config, mesh_networks, proxy_config,
    validate,
};
pub use wire::{Double, IntOrString, Str, format_duration, parse_duration};
