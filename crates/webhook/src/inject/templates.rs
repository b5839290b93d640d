//! The templates that come with the injector, each of which is whole by itself: a user may take one as the start of another.

use std::collections::BTreeMap;

/// Parts that the templates share, as `define`s.
const SHARED: &str = include_str!("templates/shared.yaml");

const TEMPLATES: [(&str, &str); 4] = [
    ("sidecar", include_str!("templates/sidecar.yaml")),
    ("gateway", include_str!("templates/gateway.yaml")),
    ("grpc-agent", include_str!("templates/grpc-agent.yaml")),
    ("grpc-simple", include_str!("templates/grpc-simple.yaml")),
];

/// By name, as `templates` of the injector's configuration has them.
#[must_use]
pub fn built_in() -> BTreeMap<String, String> {
    TEMPLATES.iter().map(|(name, text)| ((*name).to_owned(), format!("{SHARED}{text}"))).collect()
}
