//! The text that Prometheus reads: the registry's metrics, those of the certificate service and of the process, each
//! with what it means.

use std::fmt::{Display, Write as _};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use meltemi_ca::{Authority, Stage};
use meltemi_telemetry::metrics::Filter;

use crate::State;

/// What the kernel counts a process's time in, on every architecture that we know.
const TICKS_PER_SECOND: f64 = 100.0;

static HELP: &[(&str, &str)] = &[
    ("citadel_server_authentication_failure_count", "Certificate requests refused for want of a valid credential."),
    ("citadel_server_ca_reload_count", "New files of the authority that were put in force."),
    ("citadel_server_ca_reload_err_count", "New files of the authority that were refused; what was in force stayed."),
    (
        "citadel_server_cert_chain_expiry_seconds",
        "Seconds until the signing certificate ends, or another of its chain; negative once it has.",
    ),
    (
        "citadel_server_cert_chain_expiry_timestamp",
        "The unix timestamp, in seconds, when the signing certificate ends, or another of its chain.",
    ),
    ("citadel_server_csr_count", "Certificate signing requests received."),
    ("citadel_server_csr_parsing_err_count", "Certificate signing requests that could not be read or have a weak key."),
    ("citadel_server_csr_sign_err_count", "Certificate signing requests that could not be signed."),
    ("citadel_server_root_cert_expiry_seconds", "Seconds until the first root certificate ends; negative once it has."),
    (
        "citadel_server_root_cert_expiry_timestamp",
        "The unix timestamp, in seconds, when the first root certificate ends.",
    ),
    ("citadel_server_root_certs", "Root certificates that workloads are to trust."),
    (
        "citadel_server_root_rotation_stage",
        "Where a change of roots is: 0 none, 1 a new root is distributed, 2 it signs and the old one is trusted.",
    ),
    ("citadel_server_success_cert_issuance_count", "Certificates issued."),
    ("galley_validation_failed", "Documents that were refused, by kind."),
    ("galley_validation_passed", "Documents that were taken, by kind."),
    ("istio_build", "The version of this program."),
    ("istiod_managed_clusters", "Clusters whose registry this control plane reads."),
    ("pilot_debounce_time", "Seconds between the first change of a batch and its push."),
    ("pilot_inbound_updates", "Changes that came in, by type."),
    ("pilot_jwks_resolver_network_fetch_fail_total", "Fetches of keys for tokens that failed."),
    ("pilot_jwks_resolver_network_fetch_success_total", "Fetches of keys for tokens that succeeded."),
    ("pilot_proxy_convergence_time", "Seconds between a change and its being sent to a proxy."),
    ("pilot_proxy_queue_time", "Seconds that a change waited for a proxy to answer an earlier push."),
    ("pilot_push_triggers", "Pushes, by what set them off."),
    ("pilot_pushcontext_init_seconds", "Seconds in which the snapshot after a change was made."),
    ("pilot_services", "Services known."),
    ("pilot_total_xds_rejects", "Responses that proxies rejected, by type."),
    ("pilot_virt_services", "Virtual services known."),
    ("pilot_xds", "Connected proxies, by version."),
    ("pilot_xds_cds_refused_connections", "Streams refused for what they said of themselves."),
    ("pilot_xds_config_size_bytes", "Sizes of responses, by type."),
    ("pilot_xds_expired_nonce", "Answers to a response that a later one had replaced, by type."),
    ("pilot_xds_full_connections", "Streams refused because as many as may be were served."),
    ("pilot_xds_proxy_pushes", "Changes sent to a proxy, of whatever types."),
    ("pilot_xds_push_time", "Seconds in which a response was made, by type."),
    ("pilot_xds_pushes", "Responses sent, by type."),
    ("pilot_xds_send_time", "Seconds until the transport took a response."),
    ("process_cpu_seconds_total", "Seconds of processor time, of user and system."),
    ("process_open_fds", "Open file descriptors."),
    ("process_resident_memory_bytes", "Resident memory in bytes."),
    ("process_start_time_seconds", "When the process started, in seconds since the epoch."),
    ("sidecar_injection_failure_total", "Requests for injection that failed."),
    ("sidecar_injection_requests_total", "Requests for injection."),
    ("sidecar_injection_skip_total", "Requests for injection of pods that are not to be injected."),
    (
        "sidecar_injection_success_total",
        "Requests for injection that were answered with what is to change, if anything.",
    ),
    ("sidecar_injection_time_seconds", "Seconds that a request for injection took."),
];

pub(super) fn text(state: &State) -> String {
    let mut out = explained(&state.stats.registry.prometheus(&Filter::default()));
    let counters = &state.certificates;
    for (name, value) in [
        ("citadel_server_csr_count", &counters.requests),
        ("citadel_server_authentication_failure_count", &counters.authentication_failures),
        ("citadel_server_csr_parsing_err_count", &counters.unreadable),
        ("citadel_server_csr_sign_err_count", &counters.signing_failures),
        ("citadel_server_success_cert_issuance_count", &counters.issued),
    ] {
        write(&mut out, name, "counter", value.load(Ordering::Relaxed));
    }
    authority(&mut out, &state.options.authority);
    process(&mut out);
    out
}

/// When certificates of the authority end, and how it fares in following its files.
fn authority(out: &mut String, authority: &Authority) {
    let ends = [
        ("citadel_server_root_cert_expiry", authority.root_not_after()),
        ("citadel_server_cert_chain_expiry", Some(authority.not_after())),
    ];
    for (name, end) in ends {
        let Some(since) = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) else { continue };
        write(out, &format!("{name}_timestamp"), "gauge", since.as_secs());
        // Less than nothing once it has ended.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write(out, &format!("{name}_seconds"), "gauge", since.as_secs_f64() - now.as_secs_f64());
    }
    let status = authority.status();
    let (taken, refused) = (&authority.reloads.taken, &authority.reloads.refused);
    write(out, "citadel_server_ca_reload_count", "counter", taken.load(Ordering::Relaxed));
    write(out, "citadel_server_ca_reload_err_count", "counter", refused.load(Ordering::Relaxed));
    write(out, "citadel_server_root_certs", "gauge", status.roots.len());
    let stage = match status.stage {
        Stage::Single => 0,
        Stage::Distributing => 1,
        Stage::Signing => 2,
    };
    write(out, "citadel_server_root_rotation_stage", "gauge", stage);
}

/// Puts before each type what the metric means.
fn explained(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4096);
    for line in text.split_inclusive('\n') {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            help(&mut out, name);
        }
        out.push_str(line);
    }
    out
}

fn help(out: &mut String, name: &str) {
    if let Ok(place) = HELP.binary_search_by(|(known, _)| (*known).cmp(name)) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {}", HELP[place].1);
    }
}

fn write(out: &mut String, name: &str, kind: &str, value: impl Display) {
    help(out, name);
    let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
}

/// What every exporter tells of its process, from `/proc`; what cannot be read is left out.
fn process(out: &mut String) {
    // After the name, which is in parentheses and may hold anything: the third field of stat(5) comes first.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        write(out, "process_cpu_seconds_total", "counter", (user + system) / TICKS_PER_SECOND);
    }
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64());
    if let (Some(started), Some(up), Ok(now)) = (fields.get(19), up, now) {
        write(out, "process_start_time_seconds", "gauge", now - up + started / TICKS_PER_SECOND);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    if let Some(kilobytes) = resident {
        let kilobytes: u64 = kilobytes;
        write(out, "process_resident_memory_bytes", "gauge", kilobytes * 1024);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Less the one by which they are listed.
        write(out, "process_open_fds", "gauge", open.count().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_in_order_and_stands_before_each_type() {
        assert!(HELP.is_sorted_by(|a, b| a.0 < b.0));
        let text = explained("# TYPE pilot_xds gauge\npilot_xds 1\n# TYPE other counter\nother 2\n");
        assert_eq!(
            text,
            "# HELP pilot_xds Connected proxies, by version.\n# TYPE pilot_xds gauge\npilot_xds 1\n# TYPE other counter\nother 2\n"
        );
    }

    #[test]
    fn the_process_tells_of_itself() {
        let mut text = String::new();
        process(&mut text);
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).expect(name);
            line.parse().expect("a number")
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_secs_f64();
        assert!((-1.0..3600.0).contains(&(now - value("process_start_time_seconds"))), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") >= 3.0, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
