//! `meltemi iptables`: istio-iptables' flags over [`meltemi_netfilter`].
//!
//! A setting may come by flag or by the environment. Istio derives a variable's name from the flag's; those that are named
//! otherwise in the settings' own document (`INBOUND_PORTS_INCLUDE` for `--istio-inbound-ports`) are understood as well.

mod validation;

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use meltemi_base::causes;
use meltemi_netfilter::{Backend, Bypass, Capture, Dns, Installation, Interception, List, Program};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -b '*' -d 15090,15021,15020
  meltemi iptables -i '*' -b '*' --redirect-dns --dry-run     # prints the rules
  meltemi iptables -i '*' -b '*' --native-nftables            # by nft instead of iptables
  meltemi iptables -i '*' -b '*' --skip-rule-apply --run-validation   # are they in force?
  meltemi iptables --cleanup-only                             # takes them away

Exit codes: 0 done; 1 iptables or nft is missing or refused; 2 wrong usage; 126 the rules are not in force")]
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
    #[arg(short = 'm', long, default_value_t = settled("INBOUND_INTERCEPTION_MODE", "REDIRECT"), value_name = "MODE", env = "ISTIO_INBOUND_INTERCEPTION_MODE")]
    istio_inbound_interception_mode: String,
    /// Inbound ports to capture, or '*'
    #[arg(short = 'b', long, default_value_t = settled("INBOUND_PORTS_INCLUDE", ""), value_name = "PORTS", env = "ISTIO_INBOUND_PORTS")]
    istio_inbound_ports: String,
    /// Inbound ports not to capture, when all are
    #[arg(short = 'd', long, default_value_t = settled("INBOUND_PORTS_EXCLUDE", ""), value_name = "PORTS", env = "ISTIO_LOCAL_EXCLUDE_PORTS")]
    istio_local_exclude_ports: String,
    /// Outbound address ranges to capture, or '*'
    #[arg(short = 'i', long, default_value_t = settled("OUTBOUND_IPRANGES_INCLUDE", ""), value_name = "RANGES", env = "ISTIO_SERVICE_CIDR")]
    istio_service_cidr: String,
    /// Outbound address ranges not to capture
    #[arg(short = 'x', long, default_value_t = settled("OUTBOUND_IPRANGES_EXCLUDE", ""), value_name = "RANGES", env = "ISTIO_SERVICE_EXCLUDE_CIDR")]
    istio_service_exclude_cidr: String,
    /// Outbound ports to capture wherever they lead
    #[arg(short = 'q', long, default_value_t = settled("OUTBOUND_PORTS_INCLUDE", ""), value_name = "PORTS", env = "ISTIO_OUTBOUND_PORTS")]
    istio_outbound_ports: String,
    /// Outbound ports not to capture
    #[arg(short = 'o', long, default_value_t = settled("OUTBOUND_PORTS_EXCLUDE", ""), value_name = "PORTS", env = "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE")]
    istio_local_outbound_ports_exclude: String,
    /// Interfaces of virtual machines whose inbound traffic counts as outbound
    #[arg(short = 'k', long, default_value = "", value_name = "NAMES", env = "KUBE_VIRT_INTERFACES")]
    kube_virt_interfaces: String,
    /// Interfaces whose traffic is not captured
    #[arg(short = 'c', long, default_value_t = settled("EXCLUDE_INTERFACES", ""), value_name = "NAMES", env = "ISTIO_EXCLUDE_INTERFACES")]
    istio_exclude_interfaces: String,
    /// Groups whose outbound traffic is captured, or '*'
    #[arg(long, default_value_t = settled("OUTBOUND_OWNER_GROUPS_INCLUDE", "*"), value_name = "GROUPS", env = "ISTIO_OUTBOUND_OWNER_GROUPS")]
    outbound_owner_groups: String,
    /// Groups whose outbound traffic is not captured
    #[arg(long, default_value_t = settled("OUTBOUND_OWNER_GROUPS_EXCLUDE", ""), value_name = "GROUPS", env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE")]
    outbound_owner_groups_exclude: String,
    /// Mark for TPROXY
    #[arg(short = 't', long, default_value_t = settled("INBOUND_TPROXY_MARK", "1337"), value_name = "MARK", env = "ISTIO_INBOUND_TPROXY_MARK")]
    istio_inbound_tproxy_mark: String,
    /// Routing table for TPROXY
    #[arg(short = 'r', long, default_value_t = settled("INBOUND_TPROXY_ROUTE_TABLE", "133"), value_name = "TABLE", env = "ISTIO_INBOUND_TPROXY_ROUTE_TABLE")]
    istio_inbound_tproxy_route_table: String,
    /// Send DNS queries to the proxy (port 15053): those to the servers in /etc/resolv.conf [also: ISTIO_META_DNS_CAPTURE]
    #[arg(long, env = "REDIRECT_DNS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    redirect_dns: Option<bool>,
    /// Send every DNS query to the proxy, when any are
    #[arg(long, env = "CAPTURE_ALL_DNS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    capture_all_dns: Option<bool>,
    /// Drop packets that connection tracking calls invalid [also: INVALID_DROP]
    #[arg(long, env = "DROP_INVALID", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    drop_invalid: Option<bool>,
    /// Make rules for IPv6 too, even where no address of it is in use [also: ISTIO_DUAL_STACK]
    #[arg(long, env = "DUAL_STACK", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    dual_stack: Option<bool>,
    /// The IPv4 range that counts as loopback
    #[arg(long, default_value_t = settled("HOST_IPV4_LOOPBACK_CIDR", "127.0.0.1/32"), value_name = "RANGE", env = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR")]
    host_ipv4_loopback_cidr: String,
    /// Write tables of nftables with nft, instead of rules of iptables
    #[arg(long, env = "NATIVE_NFTABLES", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    native_nftables: Option<bool>,
    /// Which iptables to use: legacy or nft [default: the host's]
    #[arg(long, value_name = "NAME", env = "FORCE_IPTABLES_BINARY", value_parser = ["", "legacy", "nft"])]
    force_iptables_binary: Option<String>,
    /// The network namespace in which to work, such as /var/run/netns/NAME [default: this process's]
    #[arg(long, value_name = "PATH", env = "NETWORK_NAMESPACE")]
    network_namespace: Option<PathBuf>,
    /// Print the rules, for iptables-restore or nft, or with --cleanup-only what takes them away, and change nothing
    #[arg(short = 'n', long, env = "DRY_RUN", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    dry_run: Option<bool>,
    /// Change no rule, as where a CNI plugin did so before
    #[arg(long, env = "SKIP_RULE_APPLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    skip_rule_apply: Option<bool>,
    /// Connect to a port of nobody's and see that the connection arrives at the proxy's; run as the proxy's user
    #[arg(long, env = "RUN_VALIDATION", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    run_validation: Option<bool>,
    /// The port of nobody's
    #[arg(long, default_value_t = 15002, value_name = "PORT", env = "IPTABLES_PROBE_PORT")]
    iptables_probe_port: u16,
    /// How long the validation may take, such as 5s
    #[arg(long, default_value = "5s", value_name = "TIME", env = "PROBE_TIMEOUT", value_parser = duration)]
    probe_timeout: Duration,
    /// Take away what an earlier run left, and add nothing
    #[arg(long, visible_alias = "cleanup", env = "CLEANUP_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    cleanup_only: Option<bool>,
    /// Accepted as istio-iptables has it: rules that differ are always replaced
    #[arg(long, env = "RECONCILE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, hide = true)]
    reconcile: Option<bool>,
    /// Accepted as istio-iptables has it: rules are always applied
    #[arg(long, env = "FORCE_APPLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, hide = true)]
    force_apply: Option<bool>,
    /// Accepted as istio-iptables has it: a lock of the node's is always waited for
    #[arg(long, env = "CNI_MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean, hide = true)]
    cni_mode: Option<bool>,
    /// Accepted as istio-iptables has it: only errors are told of
    #[arg(long = "log_output_level", value_name = "LEVELS", hide = true)]
    log_output_level: Option<String>,
    #[arg(long = "log_as_json", hide = true)]
    log_as_json: bool,
}

/// What a variable says that is named after the setting, else `default`.
fn settled(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// A switch as Go reads it; a variable that is there but empty says no.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    meltemi_config::wire::parse_duration(text).map_err(str::to_owned)
}

/// A switch with a second variable that stands for it.
fn switched(flag: Option<bool>, variable: &str) -> anyhow::Result<bool> {
    let said = std::env::var(variable).ok().filter(|_| flag.is_none());
    let said = said.map(|text| boolean(&text)).transpose();
    Ok(flag.or(said.map_err(|reason| anyhow::anyhow!("{variable}: {reason}"))?).unwrap_or_default())
}

fn number(setting: &str, text: &str) -> anyhow::Result<u32> {
    text.parse().ok().with_context(|| format!("{setting}: `{text}` is not a number from 0 to {}", u32::MAX))
}

/// What the rules are not in force for, by exit code, so that an operator's tools can tell it from any other failure.
const NOT_IN_FORCE: u8 = 126;
/// As for flags that are none.
const WRONG_USAGE: u8 = 2;

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.network_namespace {
        Some(path) => meltemi_netfilter::within(path, || run_here(arguments))?,
        None => run_here(arguments),
    }
}

fn run_here(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let installation = match arguments.installation() {
        Ok(installation) => installation,
        Err(error) => {
            eprintln!("error: {}", causes(error.as_ref()));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    if arguments.dry_run.unwrap_or_default() {
        let cleanup = arguments.cleanup_only.unwrap_or_default();
        let text = if cleanup { installation.removal_text() } else { installation.text() };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.cleanup_only.unwrap_or_default() {
        installation.cleanup()?;
    } else if !arguments.skip_rule_apply.unwrap_or_default() {
        installation.apply()?;
    }
    if !arguments.run_validation.unwrap_or_default() {
        return Ok(ExitCode::SUCCESS);
    }
    let probe = validation::Probe {
        proxy_ports: [arguments.envoy_port, arguments.inbound_capture_port],
        port: arguments.iptables_probe_port,
        timeout: arguments.probe_timeout,
        ipv6: installation.ipv6,
    };
    match probe.run() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {}", causes(error.as_ref()));
            Ok(ExitCode::from(NOT_IN_FORCE))
        }
    }
}

impl Arguments {
    fn installation(&self) -> anyhow::Result<Installation> {
        let ipv6 = switched(self.dual_stack, "ISTIO_DUAL_STACK")? || meltemi_netfilter::ipv6_in_use();
        let flavour = match self.force_iptables_binary.as_deref() {
            None | Some("") => None,
            Some("legacy") => Some("legacy"),
            Some(_) => Some("nft"),
        };
        let backend = if self.native_nftables.unwrap_or_default() {
            Backend::Nftables
        } else {
            Backend::Iptables(Program { flavour, lock_file: None })
        };
        let mut installation = Installation::new(self.capture()?, ipv6, backend);
        installation.route_table = number("-r", &self.istio_inbound_tproxy_route_table)?;
        Ok(installation)
    }

    fn capture(&self) -> anyhow::Result<Capture> {
        let interception = match self.istio_inbound_interception_mode.as_str() {
            "" | "REDIRECT" => Interception::Redirect,
            "TPROXY" => Interception::Tproxy { mark: number("-t", &self.istio_inbound_tproxy_mark)? },
            other => anyhow::bail!("-m: mode `{other}` is neither REDIRECT nor TPROXY"),
        };
        let groups = match self.outbound_owner_groups.trim() {
            "*" => List::All,
            names => List::Only(Capture::parse_names("--outbound-owner-groups", names)?),
        };
        let excluded = &self.outbound_owner_groups_exclude;
        let capture = Capture {
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
            drop_invalid: switched(self.drop_invalid, "INVALID_DROP")?,
            loopback_v4: Capture::parse_loopback("--host-ipv4-loopback-cidr", &self.host_ipv4_loopback_cidr)?,
            ..Capture::default()
        };
        capture.check()?;
        Ok(capture)
    }

    fn bypass(&self) -> anyhow::Result<Bypass> {
        if let Some(mark) = self.proxy_mark {
            return Ok(Bypass::Mark(mark));
        }
        let uids = self.proxy_uid.clone().filter(|uids| !uids.is_empty()).unwrap_or_else(proxy_user);
        let gids = self.proxy_gid.clone().filter(|gids| !gids.is_empty()).unwrap_or_else(|| uids.clone());
        Ok(Bypass::Owner { uids: Capture::parse_names("-u", &uids)?, gids: Capture::parse_names("-g", &gids)? })
    }

    /// As with istio-iptables, all queries are only captured where any are.
    fn dns(&self) -> anyhow::Result<Dns> {
        match (switched(self.redirect_dns, "ISTIO_META_DNS_CAPTURE")?, self.capture_all_dns.unwrap_or_default()) {
            (false, _) => Ok(Dns::Off),
            (true, true) => Ok(Dns::All),
            (true, false) => {
                let text = std::fs::read_to_string("/etc/resolv.conf").context("--redirect-dns: /etc/resolv.conf")?;
                let servers = name_servers(&text);
                if servers.is_empty() {
                    eprintln!("warning: --redirect-dns: /etc/resolv.conf names no server, so no query is captured");
                }
                Ok(Dns::Servers(servers))
            }
        }
    }
}

/// The user whose name `ENVOY_USER` gives, where this machine knows it.
fn proxy_user() -> String {
    let name = settled("ENVOY_USER", "istio-proxy");
    let known = nix::unistd::User::from_name(&name).ok().flatten();
    known.map_or_else(|| "1337".to_owned(), |user| user.uid.to_string())
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}
