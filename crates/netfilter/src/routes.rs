//! The routes that captured packets need, by rtnetlink.
//!
//! Owns: one policy rule and one local route for TPROXY in each family, and the address `::6` on loopback, which the proxy
//! binds as it does 127.0.0.6. Everything is added where it is not there yet, and removed where it is. Cost: one socket
//! and one short message for each.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use thiserror::Error;

use crate::ruleset::Family;

#[cfg(test)]
mod tests;

#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct RouteError {
    what: String,
    source: io::Error,
}

/// Message types and constants of `linux/rtnetlink.h` and `linux/fib_rules.h`.
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;

const REQUEST_WITH_ANSWER: u16 = 0x1 | 0x4;
const CREATE_EXCLUSIVELY: u16 = 0x400 | 0x200;
const ERROR: u16 = 2;

const SCOPE_HOST: u8 = 254;
const ROUTE_LOCAL: u8 = 2;
const PROTOCOL_BOOT: u8 = 3;
const ACTION_TO_TABLE: u8 = 1;

const ADDRESS: u16 = 1;
const LOCAL_ADDRESS: u16 = 2;
const OUTGOING_INTERFACE: u16 = 4;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const TABLE: u16 = 15;

/// Right before the main table's rule. Given, since the kernel would choose another each time and double the rule.
const PRIORITY: u32 = 32_765;

const HEADER_LENGTH: usize = 16;

/// The IPv6 address that stands for 127.0.0.6.
const INBOUND_SOURCE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6];

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// An attribute as rtnetlink has it: length, type, value, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_LENGTH + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    // Sequence and port: one message a socket, so neither tells anything.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// The kernel's error in an answer, 0 for none.
fn answered_error(answer: &[u8]) -> io::Result<i32> {
    let malformed = || io::Error::other("the kernel's answer cannot be read");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(HEADER_LENGTH..HEADER_LENGTH + 4).and_then(|bytes| bytes.try_into().ok());
    match (kind, error) {
        (Some(ERROR), Some(error)) => Ok(-i32::from_ne_bytes(error)),
        _ => Err(malformed()),
    }
}

fn ask(message: &[u8], tolerated: &[Errno]) -> io::Result<()> {
    let netlink: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(netlink.as_raw_fd(), message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answered_error(answer.get(..length).unwrap_or_default())?;
    if error == 0 || tolerated.iter().any(|errno| io::Error::from(*errno).raw_os_error() == Some(error)) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(error))
}

fn add_message(what: &str, kind: u16, body: &[u8]) -> Result<(), RouteError> {
    ask(&message(kind, REQUEST_WITH_ANSWER | CREATE_EXCLUSIVELY, body), &[Errno::EEXIST])
        .map_err(|source| RouteError { what: format!("adding {what}"), source })
}

fn remove_message(what: &str, kind: u16, body: &[u8]) -> Result<(), RouteError> {
    ask(&message(kind, REQUEST_WITH_ANSWER, body), &[Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENODEV])
        .map_err(|source| RouteError { what: format!("removing {what}"), source })
}

fn loopback() -> Result<u32, RouteError> {
    if_nametoindex("lo").map_err(|errno| RouteError { what: "the interface lo".to_owned(), source: errno.into() })
}

/// `ip rule … fwmark MARK lookup TABLE`.
fn rule(family: Family, mark: u32, table: u32) -> Vec<u8> {
    let mut body = vec![family_number(family), 0, 0, 0, short_table(table), 0, 0, ACTION_TO_TABLE, 0, 0, 0, 0];
    body.extend(attribute(RULE_PRIORITY, &PRIORITY.to_ne_bytes()));
    body.extend(attribute(RULE_MARK, &mark.to_ne_bytes()));
    body.extend(attribute(TABLE, &table.to_ne_bytes()));
    body
}

/// `ip route … local default dev lo table TABLE`.
fn local_route(family: Family, table: u32, interface: u32) -> Vec<u8> {
    let (number, table_byte) = (family_number(family), short_table(table));
    let mut body = vec![number, 0, 0, 0, table_byte, PROTOCOL_BOOT, SCOPE_HOST, ROUTE_LOCAL, 0, 0, 0, 0];
    body.extend(attribute(TABLE, &table.to_ne_bytes()));
    body.extend(attribute(OUTGOING_INTERFACE, &interface.to_ne_bytes()));
    body
}

/// `ip address … ::6/128 dev lo`.
fn inbound_source(interface: u32) -> Vec<u8> {
    let mut body = vec![family_number(Family::V6), 128, 0, SCOPE_HOST];
    body.extend_from_slice(&interface.to_ne_bytes());
    body.extend(attribute(LOCAL_ADDRESS, &INBOUND_SOURCE));
    body.extend(attribute(ADDRESS, &INBOUND_SOURCE));
    body
}

/// A table's number where the message has one byte for it; the attribute says those that do not fit.
fn short_table(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(0)
}

/// Sends packets that carry `mark` to this host, whatever their destination.
pub(crate) fn add(family: Family, mark: u32, table: u32) -> Result<(), RouteError> {
    let interface = loopback()?;
    add_message(&format!("the rule for mark {mark}"), NEW_RULE, &rule(family, mark, table))?;
    add_message(&format!("the route of table {table}"), NEW_ROUTE, &local_route(family, table, interface))
}

pub(crate) fn remove(family: Family, mark: u32, table: u32) -> Result<(), RouteError> {
    let interface = loopback()?;
    remove_message(&format!("the rule for mark {mark}"), DELETE_RULE, &rule(family, mark, table))?;
    remove_message(&format!("the route of table {table}"), DELETE_ROUTE, &local_route(family, table, interface))
}

pub(crate) fn add_inbound_source() -> Result<(), RouteError> {
    add_message("::6 to lo", NEW_ADDRESS, &inbound_source(loopback()?))
}

pub(crate) fn remove_inbound_source() -> Result<(), RouteError> {
    remove_message("::6 from lo", DELETE_ADDRESS, &inbound_source(loopback()?))
}
