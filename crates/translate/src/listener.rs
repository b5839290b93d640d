//! Listeners: what a proxy accepts connections on, and which filter chain takes each.
//!
//! Owns the decisions ([`spec`]) and their rendering. The decisions are the generator's input; rendering sees nothing else.

mod access_log;
mod filters;
mod hcm;
mod render;
pub(crate) mod spec;
mod tls;
mod tracing;

pub(crate) use filters::{CORS as CORS_FILTER, FAULT as FAULT_FILTER};
pub(crate) use spec::{InboundRoute, Origin, TlsVersion};
