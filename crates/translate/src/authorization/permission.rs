//! What of a rule is about the destination: address, port, SNI, host, method, path, and metadata of other filters.

use meltemi_config::wire::Str;
use meltemi_matchers::PathTemplate;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::TypedExtensionConfig;
use meltemi_proto::envoy::config::rbac::v3::Permission;
use meltemi_proto::envoy::config::rbac::v3::permission::{Rule, Set};
use meltemi_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use meltemi_proto::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};

use super::matcher;
use super::rule::{Context, Matcher, Transport, Unsupported, each, each_of_http};
use crate::wire;

/// Before the name of an Envoy filter, in the key of a condition on its metadata.
const METADATA: &str = "experimental.";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationAttribute {
    Ip,
    Port,
    ServerName,
    /// A key of the metadata that an Envoy filter leaves.
    Metadata {
        filter: String,
        key: String,
    },
    Host,
    Method,
    Path,
}

impl DestinationAttribute {
    /// `None` where the key is not about the destination.
    pub fn of_condition(key: &str) -> Option<Self> {
        match key {
            "destination.ip" => Some(Self::Ip),
            "destination.port" => Some(Self::Port),
            "connection.sni" => Some(Self::ServerName),
            _ => {
                // `experimental.envoy.filters.<filter>[<key>]`
                let name = key.strip_prefix(METADATA).filter(|name| name.starts_with("envoy.filters."))?;
                let (filter, key) = name.strip_suffix(']').unwrap_or(name).split_once('[')?;
                Some(Self::Metadata { filter: filter.into(), key: key.into() })
            }
        }
    }
}

impl Matcher for Permission {
    type Attribute = DestinationAttribute;

    fn any() -> Self {
        permission(Rule::Any(true))
    }

    fn all_of(rules: Vec<Self>) -> Self {
        permission(Rule::AndRules(Set { rules }))
    }

    fn one_of(rules: Vec<Self>) -> Self {
        permission(Rule::OrRules(Set { rules }))
    }

    fn negated(self) -> Self {
        permission(Rule::NotRule(Box::new(self)))
    }

    fn of(
        attribute: &DestinationAttribute,
        values: &[Str],
        context: &Context<'_>,
    ) -> Result<Option<Self>, Unsupported> {
        match attribute {
            DestinationAttribute::Ip => {
                each(values, context, |value| Some(permission(Rule::DestinationIp(wire::cidr(value)?))))
            }
            DestinationAttribute::Port => each(values, context, |value| {
                let port = value.parse::<u16>().ok().filter(|_| !value.starts_with('+'))?;
                Some(permission(Rule::DestinationPort(port.into())))
            }),
            DestinationAttribute::ServerName => {
                each(values, context, |value| Some(permission(Rule::RequestedServerName(matcher::text(value)))))
            }
            DestinationAttribute::Metadata { filter, key } => {
                Ok((!values.is_empty()).then(|| metadata(filter, key, values)))
            }
            DestinationAttribute::Host => each_of_http(values, context, |value| {
                permission(Rule::Header(matcher::header(":authority", value, matcher::Case::Ignored)))
            }),
            DestinationAttribute::Method => each_of_http(values, context, |value| {
                permission(Rule::Header(matcher::header(":method", value, matcher::Case::Kept)))
            }),
            DestinationAttribute::Path => {
                each(values, context, |value| path(value).filter(|_| context.transport == Transport::Http))
            }
        }
    }
}

fn permission(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

#[expect(deprecated, reason = "what Istio sends; its successor is the same and newer than some proxies")]
fn metadata(filter: &str, key: &str, values: &[Str]) -> Permission {
    // In brackets: an element of a list.
    let one = |value: &Str| match value.strip_prefix('[').filter(|_| value.ends_with(']')) {
        Some(_) => matcher::element(matcher::value(matcher::text(value.trim_matches(['[', ']'])))),
        None => matcher::value(matcher::text(value)),
    };
    permission(Rule::Metadata(matcher::metadata(filter, &[key], matcher::one_value(values.iter().map(one).collect()))))
}

/// `{*}` stands for one segment, `{**}` for any number. `None` for a template that no proxy takes, for which it would refuse all of
/// its listener.
fn path(value: &str) -> Option<Permission> {
    if value.contains("{*}") || value.contains("{**}") {
        let template = UriTemplateMatchConfig { path_template: value.replace("{*}", "*").replace("{**}", "**") };
        PathTemplate::new(&template.path_template).ok()?;
        return Some(permission(Rule::UriTemplate(TypedExtensionConfig {
            name: "uri-template".into(),
            typed_config: Some(Any::pack(&template)),
        })));
    }
    Some(permission(Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(matcher::text(value))) })))
}
