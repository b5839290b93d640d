//! A capture together with how it is put in force.
//!
//! Owns: the order of rules and routes, what a dry run prints, and whether all is in place. Everything happens in the
//! network namespace of the calling thread ([`crate::within`] is the way into another).

use thiserror::Error;

use crate::apply::{ApplyError, Program, Rules};
use crate::capture::{Capture, Interception, List};
use crate::nftables;
use crate::routes::{self, RouteError};
use crate::ruleset::Family;

/// What writes the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    Iptables(Program),
    /// `nft`, with tables of our own.
    Nftables,
}

#[derive(Debug, Clone)]
pub struct Installation {
    pub capture: Capture,
    /// Rules for IPv6 as well.
    pub ipv6: bool,
    pub backend: Backend,
    /// The routing table for packets that TPROXY marked.
    pub route_table: u32,
}

/// Istio's `INBOUND_TPROXY_ROUTE_TABLE`.
const ROUTE_TABLE: u32 = 133;

#[derive(Debug, Error)]
pub enum InstallError {
    #[error(transparent)]
    Rules(#[from] ApplyError),
    #[error(transparent)]
    Routes(#[from] RouteError),
}

impl Installation {
    pub fn new(capture: Capture, ipv6: bool, backend: Backend) -> Self {
        Installation { capture, ipv6, backend, route_table: ROUTE_TABLE }
    }

    fn families(&self) -> &'static [Family] {
        Family::of(self.ipv6)
    }

    /// What would be given to `iptables-restore`, or to `nft -f`.
    pub fn text(&self) -> String {
        match &self.backend {
            Backend::Iptables(_) => {
                self.families().iter().map(|family| self.capture.rules(*family).restore_text()).collect()
            }
            Backend::Nftables => nftables::script(&self.capture.nftables(self.ipv6), self.capture.tables()),
        }
    }

    /// What [`Installation::cleanup`] would do where this capture is in force: calls of `iptables`, or a script for `nft -f`.
    pub fn removal_text(&self) -> String {
        let Backend::Iptables(program) = &self.backend else { return nftables::removal(self.capture.tables()) };
        let of = |family: &Family| {
            let (name, rules) = (program.command(*family), self.capture.rules(*family));
            rules.removal().into_iter().map(move |arguments| format!("{name} {arguments}\n"))
        };
        self.families().iter().flat_map(of).collect()
    }

    /// Puts the capture in force. Running it again changes nothing but counters; another capture's rules are replaced.
    pub fn apply(&self) -> Result<(), InstallError> {
        if self.ipv6 {
            routes::add_inbound_source()?;
        }
        if let Some(mark) = self.routed_mark() {
            for family in self.families() {
                routes::add(*family, mark, self.route_table)?;
            }
        }
        crate::apply::put(&self.capture, &self.backend, self.ipv6)?;
        Ok(())
    }

    /// Takes away what a capture left, whatever its settings were.
    pub fn cleanup(&self) -> Result<(), InstallError> {
        crate::apply::take_away(&self.capture, &self.backend, self.ipv6)?;
        if let Interception::Tproxy { mark } = self.capture.interception {
            for family in self.families() {
                routes::remove(*family, mark, self.route_table)?;
            }
        }
        if self.ipv6 {
            routes::remove_inbound_source()?;
        }
        Ok(())
    }

    /// What of the capture is not in force: chains that are not there or have another number of rules, each with its
    /// table. None where all is well.
    pub fn missing(&self) -> Result<Vec<String>, InstallError> {
        Ok(crate::apply::missing(&self.capture, &self.backend, self.ipv6)?)
    }

    /// The mark that needs a route: none where nothing inbound is captured.
    fn routed_mark(&self) -> Option<u32> {
        let captures_inbound = self.capture.inbound_ports != List::Only(Vec::new());
        self.capture.tproxy_mark().filter(|_| captures_inbound)
    }
}
