//! Where a redirected connection was going before netfilter changed it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use nix::sys::socket::{getsockopt, sockopt};

use crate::stream::Stream;

/// The destination before a REDIRECT, or `None` if the connection was not redirected. A TPROXY listener needs none of this:
/// its accepted sockets' local address is the original destination.
pub fn original_dst(stream: &Stream) -> Option<SocketAddr> {
    let tcp = stream.tcp()?;
    let fd = tcp.as_fd();
    let address = if tcp.local_addr().ok()?.is_ipv4() { v4(&fd)? } else { v6(&fd).or_else(|| v4(&fd))? };
    Some(address)
}

fn v4(fd: &impl AsFd) -> Option<SocketAddr> {
    let raw = getsockopt(fd, sockopt::OriginalDst).ok()?;
    Some((Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port)).into())
}

fn v6(fd: &impl AsFd) -> Option<SocketAddr> {
    let raw = getsockopt(fd, sockopt::Ip6tOriginalDst).ok()?;
    Some((Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port)).into())
}
