//! RBAC rules, and metadata matchers that they share with routes and access logs.

use super::common::{cidr, enumeration, list, port, required, resolve, string_matcher, unknown_type, unpack};
use super::header::header_matcher;
use crate::error::{At, Result, refuse};
use crate::rbac::{MetadataMatcher, Permission, Principal, Rbac, RbacAction, RbacPolicy, ValueMatcher};
use meltemi_matchers::{PathMatcher, PathTemplate};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::rbac::v3 as proto;
use meltemi_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use meltemi_proto::envoy::r#type::matcher::v3 as matcher;
use std::sync::Arc;

pub(crate) fn rbac(value: &proto::Rbac) -> Result<Rbac> {
    let action = match enumeration::<proto::rbac::Action>(value.action).at("action")? {
        proto::rbac::Action::Allow => RbacAction::Allow,
        proto::rbac::Action::Deny => RbacAction::Deny,
        proto::rbac::Action::Log => RbacAction::Log,
    };
    let policies = value
        .policies
        .iter()
        .map(|(name, value)| policy(name, value).at(&format!("policies[{name:?}]")))
        .collect::<Result<_>>()?;
    Ok(Rbac { action, policies })
}

fn policy(name: &str, value: &proto::Policy) -> Result<RbacPolicy> {
    if value.permissions.is_empty() || value.principals.is_empty() {
        return refuse("permissions and principals must each have at least one entry");
    }
    Ok(RbacPolicy {
        name: name.into(),
        permissions: list(&value.permissions, "permissions", permission)?,
        principals: list(&value.principals, "principals", principal)?,
    })
}

fn permission(value: &proto::Permission) -> Result<Permission> {
    use proto::permission::Rule;
    Ok(match required(&value.rule, "rule")? {
        Rule::AndRules(set) => Permission::And(list(&set.rules, "rules", permission).at("and_rules")?),
        Rule::OrRules(set) => Permission::Or(list(&set.rules, "rules", permission).at("or_rules")?),
        Rule::NotRule(rule) => Permission::Not(Box::new(permission(rule).at("not_rule")?)),
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return refuse("any: must be true"),
        Rule::Header(header) => Permission::Header(header_matcher(header).at("header")?),
        Rule::UrlPath(path) => Permission::Path(path_matcher(path).at("url_path")?),
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr(range).at("destination_ip")?),
        Rule::DestinationPort(number) => Permission::DestinationPort(port(*number).at("destination_port")?),
        Rule::DestinationPortRange(range) => match (u32::try_from(range.start), u32::try_from(range.end)) {
            (Ok(start), Ok(end)) if start < end && end <= 65536 => Permission::DestinationPortRange { start, end },
            _ => return refuse("destination_port_range: not a range of ports"),
        },
        Rule::Metadata(metadata) => Permission::Metadata(metadata_matcher(metadata).at("metadata")?),
        Rule::SourcedMetadata(sourced) => Permission::Metadata(sourced_metadata(sourced).at("sourced_metadata")?),
        Rule::RequestedServerName(name) => Permission::ServerName(string_matcher(name).at("requested_server_name")?),
        Rule::Matcher(_) => return refuse("matcher: is not supported"),
        Rule::UriTemplate(extension) => Permission::Template(template(extension).at("uri_template")?),
    })
}

fn template(value: &core::TypedExtensionConfig) -> Result<PathTemplate> {
    let any = resolve(required(&value.typed_config, "typed_config")?).at("typed_config")?;
    if !any.is::<UriTemplateMatchConfig>() {
        return unknown_type(&any).at("typed_config");
    }
    let config: UriTemplateMatchConfig = unpack(&any).at("typed_config")?;
    PathTemplate::new(&config.path_template).at("path_template").at("typed_config")
}

fn principal(value: &proto::Principal) -> Result<Principal> {
    use proto::principal::Identifier;
    Ok(match required(&value.identifier, "identifier")? {
        Identifier::AndIds(set) => Principal::And(list(&set.ids, "ids", principal).at("and_ids")?),
        Identifier::OrIds(set) => Principal::Or(list(&set.ids, "ids", principal).at("or_ids")?),
        Identifier::NotId(id) => Principal::Not(Box::new(principal(id).at("not_id")?)),
        Identifier::Any(true) => Principal::Any,
        Identifier::Any(false) => return refuse("any: must be true"),
        Identifier::Authenticated(who) => Principal::Authenticated(
            who.principal_name.as_ref().map(string_matcher).transpose().at("authenticated.principal_name")?,
        ),
        Identifier::SourceIp(range) => Principal::RemoteIp(cidr(range).at("source_ip")?),
        Identifier::DirectRemoteIp(range) => Principal::DirectRemoteIp(cidr(range).at("direct_remote_ip")?),
        Identifier::RemoteIp(range) => Principal::RemoteIp(cidr(range).at("remote_ip")?),
        Identifier::Header(header) => Principal::Header(header_matcher(header).at("header")?),
        Identifier::UrlPath(path) => Principal::Path(path_matcher(path).at("url_path")?),
        Identifier::Metadata(metadata) => Principal::Metadata(metadata_matcher(metadata).at("metadata")?),
        Identifier::SourcedMetadata(sourced) => Principal::Metadata(sourced_metadata(sourced).at("sourced_metadata")?),
        Identifier::FilterState(state) => filter_state(state).at("filter_state")?,
        Identifier::Custom(_) => return refuse("custom: is not supported"),
    })
}

fn filter_state(value: &matcher::FilterStateMatcher) -> Result<Principal> {
    match required(&value.matcher, "matcher")? {
        matcher::filter_state_matcher::Matcher::StringMatch(found) => Ok(Principal::FilterState {
            key: value.key.as_str().into(),
            matcher: string_matcher(found).at("string_match")?,
        }),
        matcher::filter_state_matcher::Matcher::AddressMatch(_) => refuse("address_match: is not supported"),
    }
}

fn sourced_metadata(value: &proto::SourcedMetadata) -> Result<MetadataMatcher> {
    if value.metadata_source != proto::MetadataSource::Dynamic as i32 {
        return refuse("metadata_source: only DYNAMIC is supported");
    }
    metadata_matcher(required(&value.metadata_matcher, "metadata_matcher")?).at("metadata_matcher")
}

fn path_matcher(value: &matcher::PathMatcher) -> Result<PathMatcher> {
    let matcher::path_matcher::Rule::Path(path) = required(&value.rule, "path")?;
    Ok(PathMatcher(string_matcher(path).at("path")?))
}

pub(crate) fn metadata_matcher(value: &matcher::MetadataMatcher) -> Result<MetadataMatcher> {
    if value.path.is_empty() {
        return refuse("path: at least one key is needed");
    }
    Ok(MetadataMatcher {
        filter: value.filter.as_str().into(),
        path: list(&value.path, "path", |segment| {
            let matcher::metadata_matcher::path_segment::Segment::Key(key) = required(&segment.segment, "key")?;
            Ok(Arc::from(key.as_str()))
        })?,
        value: value_matcher(required(&value.value, "value")?).at("value")?,
        invert: value.invert,
    })
}

fn value_matcher(value: &matcher::ValueMatcher) -> Result<ValueMatcher> {
    use matcher::value_matcher::MatchPattern;
    Ok(match required(&value.match_pattern, "match_pattern")? {
        MatchPattern::NullMatch(_) => ValueMatcher::Null,
        MatchPattern::DoubleMatch(double) => match required(&double.match_pattern, "double_match.match_pattern")? {
            matcher::double_matcher::MatchPattern::Exact(exact) => ValueMatcher::Exact(*exact),
            matcher::double_matcher::MatchPattern::Range(range) => {
                ValueMatcher::Range { start: range.start, end: range.end }
            }
        },
        MatchPattern::StringMatch(found) => ValueMatcher::String(string_matcher(found).at("string_match")?),
        MatchPattern::BoolMatch(wanted) => ValueMatcher::Bool(*wanted),
        MatchPattern::PresentMatch(wanted) => ValueMatcher::Present(*wanted),
        MatchPattern::ListMatch(list) => {
            let matcher::list_matcher::MatchPattern::OneOf(one) = required(&list.match_pattern, "list_match.one_of")?;
            ValueMatcher::AnyElement(Box::new(value_matcher(one).at("list_match.one_of")?))
        }
        MatchPattern::OrMatch(or) => {
            ValueMatcher::Or(list(&or.value_matchers, "value_matchers", value_matcher).at("or_match")?)
        }
    })
}
