//! Addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cel::evaluate::{Budget, Failure, Outcome};
use crate::cel::value::Value;

pub(super) const FUNCTIONS: &[&str] = &["cidr", "ip", "isCIDR", "isIP"];
pub(super) const METHODS: &[&str] = &[
    "containsCIDR",
    "containsIP",
    "family",
    "ip",
    "isGlobalUnicast",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isUnspecified",
    "masked",
    "prefixLength",
];

/// An IPv4 address in IPv6's clothes, and an address with a zone, are none.
fn address(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    address(ip)?;
    let canonical = length == "0" || !length.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

pub(super) fn function(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    let [Value::Text(text)] = arguments else { return None };
    Some(match name {
        "isIP" => Ok(Value::Bool(address(text).is_some())),
        "isCIDR" => Ok(Value::Bool(network(text).is_some())),
        "ip" => address(text).map(Value::Ip).ok_or_else(|| Failure(format!("{text:?} is no IP address"))),
        _ => network(text).map(Value::Cidr).ok_or_else(|| Failure(format!("{text:?} is no CIDR"))),
    })
}

pub(super) fn method(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    match arguments {
        [Value::Ip(ip)] => about_address(name, *ip).map(Ok),
        [Value::Cidr(net)] => about_network(name, net).map(Ok),
        [Value::Cidr(net), other] => within(name, net, other),
        _ => None,
    }
}

fn about_address(name: &str, ip: IpAddr) -> Option<Value> {
    let local_unicast = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let local_multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Some(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLinkLocalUnicast" => Value::Bool(local_unicast),
        "isLinkLocalMulticast" => Value::Bool(local_multicast),
        "isGlobalUnicast" => {
            Value::Bool(!(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || local_unicast || broadcast))
        }
        _ => return None,
    })
}

fn about_network(name: &str, net: &IpNet) -> Option<Value> {
    Some(match name {
        "ip" => Value::Ip(net.addr()),
        "masked" => Value::Cidr(net.trunc()),
        "prefixLength" => Value::Int(net.prefix_len().into()),
        _ => return None,
    })
}

fn within(name: &str, net: &IpNet, other: &Value) -> Option<Outcome> {
    let inside = match (name, other) {
        ("containsIP", Value::Ip(ip)) => Some(net.contains(ip)),
        ("containsIP", Value::Text(text)) => address(text).map(|ip| net.contains(&ip)),
        ("containsCIDR", Value::Cidr(inner)) => Some(net.contains(inner)),
        ("containsCIDR", Value::Text(text)) => network(text).map(|inner| net.contains(&inner)),
        _ => return None,
    };
    Some(inside.map(Value::Bool).ok_or_else(|| "no address or network".into()))
}
