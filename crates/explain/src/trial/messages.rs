//! Envoy's RBAC and what chooses requests for external authorization, evaluated field by field from the JSON of their messages:
//! slow, and without a look at how translation makes them or how the proxy compiles them.
//!
//! Owns what each matcher means for a [`Call`]. A matcher that is not known here is an error, never a guess.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use meltemi_matchers::FullRegex;
use serde_json::{Map, Value};

use super::call::Call;
use super::{Step, Verdict};

/// A message has something whose meaning is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no evaluation of {0}")]
pub struct Unreadable(pub String);

type Read = Result<bool, Unreadable>;

/// Evaluates messages. Compiles each regular expression of them once.
#[derive(Default)]
pub struct Evaluator {
    regexes: RefCell<HashMap<String, FullRegex>>,
}

impl Evaluator {
    /// What filters say of a call, one after the other, up to the first that denies it.
    pub fn decide(&self, filters: &[Value], call: &Call) -> Result<Vec<Step>, Unreadable> {
        let mut reading = Reading { regexes: &self.regexes, call, found: call.found.clone() };
        let mut steps: Vec<Step> = Vec::new();
        for filter in filters {
            if steps.last().is_some_and(Step::is_denial) {
                break;
            }
            steps.extend(reading.filter(filter)?);
        }
        Ok(steps)
    }

    /// Whether a permission or a principal holds for a call, with what filters found before it.
    pub fn holds(&self, matcher: &Value, call: &Call) -> Read {
        Reading { regexes: &self.regexes, call, found: call.found.clone() }.holds(matcher)
    }
}

/// How a permission or a principal is made of others.
pub enum Node<'a> {
    All(&'a [Value]),
    One(&'a [Value]),
    Not(&'a Value),
    Leaf(&'a str, &'a Value),
}

impl<'a> Node<'a> {
    pub fn of(matcher: &'a Value) -> Result<Self, Unreadable> {
        let (kind, inner) = only(matcher)?;
        Ok(match kind {
            "and_rules" => Self::All(list(inner, "rules")),
            "and_ids" => Self::All(list(inner, "ids")),
            "or_rules" => Self::One(list(inner, "rules")),
            "or_ids" => Self::One(list(inner, "ids")),
            "not_rule" | "not_id" => Self::Not(inner),
            kind => Self::Leaf(kind, inner),
        })
    }
}

/// A call, with what filters have found out so far.
struct Reading<'a> {
    regexes: &'a RefCell<HashMap<String, FullRegex>>,
    call: &'a Call,
    found: Map<String, Value>,
}

impl Reading<'_> {
    fn filter(&mut self, filter: &Value) -> Result<Vec<Step>, Unreadable> {
        let config = &filter["typed_config"];
        match text_at(config, "@type").rsplit_once('/').map_or("", |(_, name)| name) {
            "envoy.extensions.filters.http.rbac.v3.RBAC" => self.rbac("envoy.filters.http.rbac", config),
            "envoy.extensions.filters.network.rbac.v3.RBAC" => self.rbac("envoy.filters.network.rbac", config),
            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
            | "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => match &config["filter_enabled_metadata"] {
                Value::Null => Ok(vec![Step::Asked(true)]),
                chosen => Ok(vec![Step::Asked(self.metadata(chosen)?)]),
            },
            other => Err(Unreadable(format!("the filter {other}"))),
        }
    }

    /// Rules in shadow are evaluated first; what they find is there for the filters behind.
    fn rbac(&mut self, own: &str, config: &Value) -> Result<Vec<Step>, Unreadable> {
        let mut steps = Vec::new();
        if config["shadow_rules"].is_object() {
            let verdict = self.rules(&config["shadow_rules"])?;
            let prefix = text_at(config, "shadow_rules_stat_prefix");
            let found = self.found.entry(own).or_insert_with(|| Value::Object(Map::new()));
            let result = if verdict.allowed { "allowed" } else { "denied" };
            found[format!("{prefix}shadow_engine_result")] = result.into();
            if let Some(policy) = &verdict.policy {
                found[format!("{prefix}shadow_effective_policy_id")] = policy.as_str().into();
            }
            steps.push(Step::Shadow(verdict));
        }
        if config["rules"].is_object() {
            steps.push(Step::Rules(self.rules(&config["rules"])?));
        }
        Ok(steps)
    }

    /// The first policy by name that has both a permission and a principal that hold.
    fn rules(&self, rules: &Value) -> Result<Verdict, Unreadable> {
        let mut matched = Vec::new();
        for (name, policy) in rules["policies"].as_object().into_iter().flatten() {
            if let Some(unknown) = policy.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| {
                // There is more to a policy than these two, and it would narrow what matches.
                !matches!(key.as_str(), "permissions" | "principals")
            }) {
                return Err(Unreadable(format!("{unknown} of a policy")));
            }
            let permitted = self.one(list(policy, "permissions"))?;
            if self.one(list(policy, "principals"))? && permitted {
                matched.push(name.clone());
            }
        }
        matched.sort();
        let policy = matched.into_iter().next();
        let allowed = match text_at(rules, "action") {
            "" | "ALLOW" => policy.is_some(),
            "DENY" => policy.is_none(),
            "LOG" => true,
            other => return Err(Unreadable(format!("the action {other}"))),
        };
        Ok(Verdict { allowed, policy })
    }

    fn one(&self, matchers: &[Value]) -> Read {
        matchers.iter().try_fold(false, |holds, matcher| Ok(self.holds(matcher)? || holds))
    }

    fn holds(&self, matcher: &Value) -> Read {
        match Node::of(matcher)? {
            Node::All(all) => all.iter().try_fold(true, |holds, one| Ok(self.holds(one)? && holds)),
            Node::One(any) => self.one(any),
            Node::Not(inner) => Ok(!self.holds(inner)?),
            Node::Leaf(kind, inner) => self.leaf(kind, inner),
        }
    }

    fn leaf(&self, kind: &str, value: &Value) -> Read {
        let call = self.call;
        let port = u64::from(call.destination.port());
        Ok(match kind {
            "any" => value == true,
            "destination_ip" => contains(value, call.destination.ip())?,
            "destination_port" => value.as_u64() == Some(port),
            "destination_port_range" => {
                number(value, "start") <= i128::from(port) && i128::from(port) < number(value, "end")
            }
            "requested_server_name" => self.text(value, &call.server_name)?,
            "authenticated" => self.authenticated(&value["principal_name"])?,
            "direct_remote_ip" => contains(value, call.source)?,
            "remote_ip" | "source_ip" => contains(value, call.remote)?,
            "header" => self.header(value)?,
            "url_path" => call.is_http && self.text(&value["path"], path_only(&call.path))?,
            "uri_template" => call.is_http && self.template(&value["typed_config"])?,
            "metadata" => self.metadata(value)?,
            "sourced_metadata" if value["metadata_source"].is_null() => self.metadata(&value["metadata_matcher"])?,
            "filter_state" if value["key"] == "io.istio.peer_principal" => {
                let known = call.certificate.as_ref().and_then(|certificate| certificate.spiffe());
                known.map_or(Ok(false), |peer| self.text(&value["string_match"], peer))?
            }
            other => return Err(Unreadable(format!("the matcher {other}"))),
        })
    }

    /// A certificate is known by each URI, each DNS name, and its subject.
    fn authenticated(&self, name: &Value) -> Read {
        let Some(certificate) = &self.call.certificate else { return Ok(false) };
        if name.is_null() {
            return Ok(true);
        }
        let names = certificate.uri_sans.iter().chain(&certificate.dns_sans).chain([&certificate.subject]);
        names.into_iter().try_fold(false, |holds, known| Ok(self.text(name, known)? || holds))
    }

    /// Each of a field's values by itself. One that is absent has no value to compare, inverted or not.
    fn header(&self, matcher: &Value) -> Read {
        if !self.call.is_http {
            return Ok(false);
        }
        let name = text_at(matcher, "name").to_ascii_lowercase();
        let mut values: Vec<&str> = match name.as_str() {
            ":method" => vec![&self.call.method],
            ":authority" | "host" => present(&self.call.host),
            ":path" => present(&self.call.path),
            name if name.starts_with(':') => return Err(Unreadable(format!("the header {name}"))),
            name => self.call.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect(),
        };
        if values.is_empty() && matcher["treat_missing_header_as_empty"] == true {
            values.push("");
        }
        let inverted = matcher["invert_match"] == true;
        if let Some(present) = matcher["present_match"].as_bool() {
            return Ok((values.is_empty() != present) != inverted);
        }
        let mut hit = false;
        for value in &values {
            hit |= match (&matcher["string_match"], &matcher["range_match"]) {
                (wanted @ Value::Object(_), _) => self.text(wanted, value)?,
                (_, range @ Value::Object(_)) => value
                    .parse::<i64>()
                    .is_ok_and(|n| number(range, "start") <= i128::from(n) && i128::from(n) < number(range, "end")),
                _ => return Err(Unreadable(format!("the header matcher {matcher}"))),
            };
        }
        Ok(!values.is_empty() && hit != inverted)
    }

    fn template(&self, config: &Value) -> Read {
        match text_at(config, "path_template") {
            named if named.contains('{') => Err(Unreadable(format!("the path template {named}"))),
            template => Ok(fits(template, path_only(&self.call.path))),
        }
    }

    fn metadata(&self, matcher: &Value) -> Read {
        let mut found = self.found.get(text_at(matcher, "filter"));
        for segment in list(matcher, "path") {
            found = found.and_then(|found| found.get(text_at(segment, "key")));
        }
        Ok(self.value(&matcher["value"], found)? != (matcher["invert"] == true))
    }

    /// `envoy.type.matcher.v3.StringMatcher`.
    fn text(&self, matcher: &Value, found: &str) -> Read {
        let fold =
            |text: &str| if matcher["ignore_case"] == true { text.to_ascii_lowercase() } else { text.to_owned() };
        let found = fold(found);
        for (key, wanted) in matcher.as_object().into_iter().flatten() {
            let wanted_text = fold(wanted.as_str().unwrap_or_default());
            return Ok(match key.as_str() {
                "ignore_case" => continue,
                "exact" => found == wanted_text,
                "prefix" => found.starts_with(&wanted_text),
                "suffix" => found.ends_with(&wanted_text),
                "contains" => found.contains(&wanted_text),
                "safe_regex" => {
                    let regex = text_at(wanted, "regex");
                    let mut known = self.regexes.borrow_mut();
                    if !known.contains_key(regex) {
                        let compiled =
                            FullRegex::new(regex).map_err(|error| Unreadable(format!("{regex:?}: {error}")))?;
                        known.insert(regex.to_owned(), compiled);
                    }
                    known.get(regex).is_some_and(|regex| regex.matches(found.as_bytes()))
                }
                other => return Err(Unreadable(format!("the string matcher {other}"))),
            });
        }
        Err(Unreadable(format!("the string matcher {matcher}")))
    }

    /// `envoy.type.matcher.v3.ValueMatcher`.
    fn value(&self, matcher: &Value, found: Option<&Value>) -> Read {
        let (kind, wanted) = only(matcher)?;
        Ok(match kind {
            "null_match" => found == Some(&Value::Null),
            "bool_match" => found.and_then(Value::as_bool) == wanted.as_bool(),
            "present_match" => found.is_some() == (wanted == true),
            "string_match" => match found.and_then(Value::as_str) {
                Some(found) => self.text(wanted, found)?,
                None => false,
            },
            "list_match" => {
                let elements = found.and_then(Value::as_array).into_iter().flatten();
                elements.into_iter().try_fold(false, |hit, one| Ok(self.value(&wanted["one_of"], Some(one))? || hit))?
            }
            "or_match" => {
                let several = list(wanted, "value_matchers").iter();
                several.into_iter().try_fold(false, |hit, one| Ok(self.value(one, found)? || hit))?
            }
            other => return Err(Unreadable(format!("the value matcher {other}"))),
        })
    }
}

/// The one field that is set.
fn only(message: &Value) -> Result<(&str, &Value), Unreadable> {
    let mut fields = message.as_object().into_iter().flatten();
    match (fields.next(), fields.next()) {
        (Some((key, inner)), None) => Ok((key, inner)),
        _ => Err(Unreadable(format!("{message}, which sets not just one field"))),
    }
}

fn list<'a>(message: &'a Value, key: &str) -> &'a [Value] {
    message[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_at<'a>(message: &'a Value, key: &str) -> &'a str {
    message[key].as_str().unwrap_or_default()
}

/// 64-bit integers are text in JSON; one that is not there is zero.
fn number(message: &Value, key: &str) -> i128 {
    match &message[key] {
        Value::String(text) => text.parse().unwrap_or_default(),
        number => number.as_i64().map(i128::from).unwrap_or_default(),
    }
}

/// An empty host or path stands for none.
fn present(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { vec![text] }
}

fn path_only(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// The first bits of both are the same.
fn contains(range: &Value, address: IpAddr) -> Read {
    let prefix = text_at(range, "address_prefix");
    let unreadable = || Unreadable(format!("the range {range}"));
    let length = usize::try_from(range["prefix_len"].as_u64().unwrap_or_default()).map_err(|_| unreadable())?;
    let prefix = bits(prefix.parse().map_err(|_| unreadable())?);
    let address = bits(address);
    if length > prefix.len() {
        return Err(unreadable());
    }
    Ok(prefix.len() == address.len() && prefix[..length] == address[..length])
}

fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.into_iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

/// `*` is any part of a segment but none, `**` anything. Unlike in Envoy, they stand for whatever a client may write
/// (CVE-2025-46821).
fn fits(template: &str, path: &str) -> bool {
    let ends = |stop: Option<char>| {
        let within = stop.and_then(|stop| path.find(stop)).unwrap_or(path.len());
        path.char_indices().map(|(at, _)| at).chain([path.len()]).filter(move |at| *at <= within)
    };
    if let Some(rest) = template.strip_prefix("**") {
        return ends(None).any(|end| fits(rest, &path[end..]));
    }
    if let Some(rest) = template.strip_prefix('*') {
        return ends(Some('/')).any(|end| end > 0 && fits(rest, &path[end..]));
    }
    match (template.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some(wanted), Some(own)) if wanted == own => fits(&template[wanted.len_utf8()..], &path[own.len_utf8()..]),
        _ => false,
    }
}
