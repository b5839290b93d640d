//! From an IstioOperator document to the objects of a cluster: profiles, manifests, charts, revisions, images.

pub mod chart;
pub mod component;
pub mod lifecycle;
pub mod merge;
pub mod object;
pub mod operator;
pub mod overlay;
pub mod path;
pub mod profile;
pub mod render;
pub mod revision;
pub mod tag;
pub mod translate;
pub mod yaml;
