//! The ProxyConfig kind: settings of proxies chosen by label. The larger ProxyConfig of MeshConfig is
//! `mesh::ProxyConfig`.

use std::collections::BTreeMap;

use crate::security::LabelSelector;
use crate::wire::{Str, message};

message! {
    /// `networking.istio.io/v1beta1` ProxyConfig.
    struct ProxyConfigResource {
        selector: Option<LabelSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<Str, Str>,
        image: Option<ProxyImage>,
    }

    struct ProxyImage {
        image_type: Str,
    }
}
