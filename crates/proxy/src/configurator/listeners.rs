//! What a listener needs beyond itself: an address of its own, and files that can be written.

use meltemi_plan::{AccessLog, AccessLogSink, Address, Listener, NetworkFilter};
use std::fs::OpenOptions;
use std::path::Path;

use super::Problem;

/// Refuses an address that another listener has: the kernel would spread connections over both. A port that is to be chosen is
/// another one for each listener that binds it; TCP and UDP have each their own.
pub(super) fn check_address<'a>(
    listener: &Listener,
    others: impl Iterator<Item = &'a Listener>,
) -> Result<(), Problem> {
    let clashes = |other: &&'a Listener| other.name != listener.name && other.quic.is_some() == listener.quic.is_some();
    for other in others.filter(clashes) {
        if let Some(address) = addresses(listener).find(|own| addresses(other).any(|taken| taken == *own))
            && !(listener.bind_to_port && address.socket().is_some_and(|address| address.port() == 0))
        {
            return Err(format!("has duplicate address {address}, which listener {:?} has", other.name));
        }
    }
    Ok(())
}

fn addresses(listener: &Listener) -> impl Iterator<Item = &Address> {
    std::iter::once(&listener.address).chain(&listener.additional_addresses)
}

/// Opens each access log's file once, as Envoy does when it takes a listener.
pub(super) fn check_access_logs(listener: &Listener) -> Result<(), Problem> {
    listener.access_logs.iter().try_for_each(check_access_log)?;
    for filter in super::chains(listener).flat_map(|chain| &chain.filters) {
        let logs = match filter {
            NetworkFilter::HttpConnectionManager(hcm) => &hcm.access_logs,
            NetworkFilter::TcpProxy(tcp) => &tcp.access_logs,
            _ => continue,
        };
        logs.iter().try_for_each(check_access_log)?;
    }
    Ok(())
}

fn check_access_log(log: &AccessLog) -> Result<(), Problem> {
    match &log.sink {
        AccessLogSink::File(path) => can_append(path).map_err(|e| format!("unable to open file {path:?}: {e}")),
        AccessLogSink::Stdout | AccessLogSink::Stderr => Ok(()),
    }
}

fn can_append(path: &Path) -> std::io::Result<()> {
    // A pipe is left alone: opening it would wait for its reader.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(());
    }
    OpenOptions::new().create(true).append(true).open(path).map(drop)
}
