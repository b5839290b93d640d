//! `meltemi iptables`: istio-iptables' flags over [`meltemi_netfilter`].

use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use meltemi_netfilter::{Bypass, Capture, Dns, Family, Interception, List, Program};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -b '*' -d 15090,15021,15020
  meltemi iptables -i '*' -b '*' --redirect-dns --dry-run     # prints the rules
  meltemi iptables --cleanup                                  # takes them away

Exit codes: 0 done; 1 iptables is missing or refused; 2 wrong usage")]
pub struct Arguments {
    /// Port to which outbound TCP goes
    #[arg(short = 'p', long, default_value_t = 15001, value_name = "PORT", env = "ENVOY_PORT")]
    envoy_port: u16,
    /// Port to which inbound TCP goes
    #[arg(short = 'z', long, default_value_t = 15006, value_name = "PORT", env = "INBOUND_CAPTURE_PORT")]
    inbound_capture_port: u16,
    /// Port of HBONE tunnels, never captured
    #[arg(short = 'e', long, default_value_t = 15008, value_name = "PORT", env = "INBOUND_TUNNEL_PORT")]
    inbound_tunnel_port: u16,
    /// Users whose traffic is not captured [default: 1337]
    #[arg(short = 'u', long, value_name = "UIDS", env = "PROXY_UID")]
    proxy_uid: Option<String>,
    /// Groups whose traffic is not captured [default: as --proxy-uid]
    #[arg(short = 'g', long, value_name = "GIDS", env = "PROXY_GID")]
    proxy_gid: Option<String>,
    /// Sockets with this mark are not captured; replaces users and groups, as a namespace of a single user needs
    #[arg(long, value_name = "MARK", env = "MELTEMI_SOCKET_MARK", conflicts_with_all = ["proxy_uid", "proxy_gid"])]
    proxy_mark: Option<u32>,
    /// How inbound connections are captured: REDIRECT or TPROXY
    #[arg(short = 'm', long, default_value = "REDIRECT", value_name = "MODE", env = "INBOUND_INTERCEPTION_MODE")]
    istio_inbound_interception_mode: String,
    /// Inbound ports to capture, or '*'
    #[arg(short = 'b', long, default_value = "", value_name = "PORTS", env = "INBOUND_PORTS_INCLUDE")]
    istio_inbound_ports: String,
    /// Inbound ports not to capture, when all are
    #[arg(short = 'd', long, default_value = "", value_name = "PORTS", env = "INBOUND_PORTS_EXCLUDE")]
    istio_local_exclude_ports: String,
    /// Outbound address ranges to capture, or '*'
    #[arg(short = 'i', long, default_value = "", value_name = "RANGES", env = "OUTBOUND_IPRANGES_INCLUDE")]
    istio_service_cidr: String,
    /// Outbound address ranges not to capture
    #[arg(short = 'x', long, default_value = "", value_name = "RANGES", env = "OUTBOUND_IPRANGES_EXCLUDE")]
    istio_service_exclude_cidr: String,
    /// Outbound ports to capture wherever they lead
    #[arg(short = 'q', long, default_value = "", value_name = "PORTS", env = "OUTBOUND_PORTS_INCLUDE")]
    istio_outbound_ports: String,
    /// Outbound ports not to capture
    #[arg(short = 'o', long, default_value = "", value_name = "PORTS", env = "OUTBOUND_PORTS_EXCLUDE")]
    istio_local_outbound_ports_exclude: String,
    /// Interfaces of virtual machines whose inbound traffic counts as outbound
    #[arg(short = 'k', long, default_value = "", value_name = "NAMES", env = "KUBE_VIRT_INTERFACES")]
    kube_virt_interfaces: String,
    /// Interfaces whose traffic is not captured
    #[arg(short = 'c', long, default_value = "", value_name = "NAMES", env = "EXCLUDE_INTERFACES")]
    istio_exclude_interfaces: String,
    /// Groups whose outbound traffic is captured, or '*'
    #[arg(long, default_value = "*", value_name = "GROUPS", env = "OUTBOUND_OWNER_GROUPS_INCLUDE")]
    outbound_owner_groups: String,
    /// Groups whose outbound traffic is not captured
    #[arg(long, default_value = "", value_name = "GROUPS", env = "OUTBOUND_OWNER_GROUPS_EXCLUDE")]
    outbound_owner_groups_exclude: String,
    /// Mark for TPROXY
    #[arg(short = 't', long, default_value_t = 1337, value_name = "MARK", env = "INBOUND_TPROXY_MARK")]
    istio_inbound_tproxy_mark: u32,
    /// Send DNS queries to the proxy (port 15053): those to the servers in /etc/resolv.conf
    #[arg(long, env = "REDIRECT_DNS")]
    redirect_dns: bool,
    /// Send every DNS query to the proxy
    #[arg(long, env = "CAPTURE_ALL_DNS")]
    capture_all_dns: bool,
    /// Drop packets that connection tracking calls invalid
    #[arg(long, env = "INVALID_DROP")]
    drop_invalid: bool,
    /// Make rules for IPv6 too, even where no address of it is in use
    #[arg(long, env = "DUAL_STACK")]
    dual_stack: bool,
    /// The IPv4 range that counts as loopback
    #[arg(long, default_value = "127.0.0.1/32", value_name = "RANGE", env = "HOST_IPV4_LOOPBACK_CIDR")]
    host_ipv4_loopback_cidr: ipnet::IpNet,
    /// Which iptables to use: legacy or nft [default: the host's]
    #[arg(long, value_name = "NAME", env = "FORCE_IPTABLES_BINARY", value_parser = ["legacy", "nft"])]
    force_iptables_binary: Option<String>,
    /// Print the rules, for iptables-restore, and change nothing
    #[arg(short = 'n', long, env = "DRY_RUN")]
    dry_run: bool,
    /// Take away what an earlier run left, and add nothing
    #[arg(long, visible_alias = "cleanup-only", env = "CLEANUP_ONLY")]
    cleanup: bool,
    /// Accepted as istio-iptables has it; rules are always brought up to date
    #[arg(long, env = "RECONCILE", hide = true)]
    reconcile: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let capture = arguments.capture()?;
    let ipv6 = arguments.dual_stack || meltemi_netfilter::ipv6_in_use();
    let families: &[Family] = if ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] };
    if arguments.dry_run {
        for family in families {
            print!("{}", capture.rules(*family).restore_text());
        }
        return Ok(());
    }
    let flavour = match arguments.force_iptables_binary.as_deref() {
        Some("legacy") => Some("legacy"),
        Some(_) => Some("nft"),
        None => None,
    };
    let program = Program { flavour, lock_file: None };
    if arguments.cleanup {
        meltemi_netfilter::cleanup(&capture, families, &program)?;
    } else {
        meltemi_netfilter::apply(&capture, families, &program)?;
    }
    Ok(())
}

impl Arguments {
    fn capture(&self) -> anyhow::Result<Capture> {
        let interception = match self.istio_inbound_interception_mode.as_str() {
            "" | "REDIRECT" => Interception::Redirect,
            "TPROXY" => Interception::Tproxy { mark: self.istio_inbound_tproxy_mark },
            other => anyhow::bail!("-m: mode `{other}` is neither REDIRECT nor TPROXY"),
        };
        let groups = match self.outbound_owner_groups.trim() {
            "*" => List::All,
            names => List::Only(Capture::parse_names("--outbound-owner-groups", names)?),
        };
        let excluded = &self.outbound_owner_groups_exclude;
        Ok(Capture {
            outbound_port: self.envoy_port,
            inbound_port: self.inbound_capture_port,
            tunnel_port: self.inbound_tunnel_port,
            bypass: self.bypass()?,
            interception,
            inbound_ports: Capture::parse_port_list("-b", &self.istio_inbound_ports)?,
            inbound_ports_exclude: Capture::parse_ports("-d", &self.istio_local_exclude_ports)?,
            outbound_ports: Capture::parse_ports("-q", &self.istio_outbound_ports)?,
            outbound_ports_exclude: Capture::parse_ports("-o", &self.istio_local_outbound_ports_exclude)?,
            outbound_ranges: Capture::parse_range_list("-i", &self.istio_service_cidr)?,
            outbound_ranges_exclude: Capture::parse_ranges("-x", &self.istio_service_exclude_cidr)?,
            owner_groups: groups,
            owner_groups_exclude: Capture::parse_names("--outbound-owner-groups-exclude", excluded)?,
            virtual_interfaces: Capture::parse_names("-k", &self.kube_virt_interfaces)?,
            exclude_interfaces: Capture::parse_names("-c", &self.istio_exclude_interfaces)?,
            dns: self.dns()?,
            drop_invalid: self.drop_invalid,
            loopback_v4: self.host_ipv4_loopback_cidr,
            ..Capture::default()
        })
    }

    fn bypass(&self) -> anyhow::Result<Bypass> {
        if let Some(mark) = self.proxy_mark {
            return Ok(Bypass::Mark(mark));
        }
        let uids = self.proxy_uid.as_deref().unwrap_or("1337");
        let gids = self.proxy_gid.as_deref().unwrap_or(uids);
        Ok(Bypass::Owner { uids: Capture::parse_names("-u", uids)?, gids: Capture::parse_names("-g", gids)? })
    }

    fn dns(&self) -> anyhow::Result<Dns> {
        match (self.redirect_dns, self.capture_all_dns) {
            (_, true) => Ok(Dns::All),
            (false, false) => Ok(Dns::Off),
            (true, false) => {
                let text = std::fs::read_to_string("/etc/resolv.conf").context("--redirect-dns: /etc/resolv.conf")?;
                Ok(Dns::Servers(name_servers(&text)))
            }
        }
    }
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}
