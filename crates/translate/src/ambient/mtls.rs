//! PeerAuthentication as a policy that denies plaintext.
//!
//! A node proxy has one policy of its own for workloads that are strict altogether; only one with modes of ports needs to be
//! told in full.

use meltemi_config::security::{MutualTls, MutualTlsMode, PeerAuthentication};
use meltemi_model::ConfigRef;
use meltemi_proto::istio::security::{
    Action, Authorization, Group, Match, Rules, Scope, StringMatch, string_match::MatchType,
};

/// Keeps the names apart from those of AuthorizationPolicies; no object of Kubernetes can have such a name.
const NAME_PREFIX: &str = "converted_peer_authentication_";

type Policy = ConfigRef<PeerAuthentication>;

/// `namespace` and `mesh` are the policies that the workload's own one inherits from. `None` where the node proxy's own strict
/// policy, or none, says the same.
pub fn of_peer_authentication(
    policy: &Policy,
    namespace: Option<&Policy>,
    mesh: Option<&Policy>,
    root_namespace: &str,
) -> Option<Authorization> {
    let spec = &policy.spec;
    if *policy.namespace == *root_namespace || spec.selector.is_none() || spec.port_level_mtls.is_empty() {
        return None;
    }
    let own = mode(spec.mtls.as_ref());
    let inherited = Inherited { namespace: namespace.map(mode_of), mesh: mesh.map(mode_of) };
    let mut rules = Vec::new();
    if own == MutualTlsMode::Strict {
        rules.push(plaintext(Vec::new()));
    }
    let (mut groups, mut exempt) = (Vec::new(), false);
    for (port, mtls) in &spec.port_level_mtls {
        match mtls.mode {
            MutualTlsMode::Strict if !inherited.makes_strict(own) => {
                groups.push(Group { rules: vec![plaintext(vec![*port])] });
            }
            MutualTlsMode::Permissive | MutualTlsMode::Disable if inherited.needs_exemption(own) => {
                exempt = true;
                let others = Match { not_destination_ports: vec![*port], ..Match::default() };
                rules.push(Rules { matches: vec![others] });
            }
            _ => {}
        }
    }
    let strict_everywhere = own == MutualTlsMode::Strict && !exempt;
    if strict_everywhere || rules.is_empty() && groups.is_empty() {
        return None;
    }
    // The strictness that is inherited must be said here, as the node proxy's own policy would know no exemption.
    if exempt && inherited.is_strict() {
        rules.push(plaintext(Vec::new()));
    }
    if !rules.is_empty() {
        groups.push(Group { rules });
    }
    Some(Authorization {
        name: format!("{NAME_PREFIX}{}", policy.name),
        namespace: policy.namespace.to_string(),
        scope: Scope::WorkloadSelector as i32,
        action: Action::Deny as i32,
        groups,
        dry_run: false,
    })
}

/// Clients without an identity, on these ports or on all.
fn plaintext(destination_ports: Vec<u32>) -> Rules {
    let anyone = StringMatch { match_type: Some(MatchType::Presence(())) };
    Rules { matches: vec![Match { not_principals: vec![anyone], destination_ports, ..Match::default() }] }
}

fn mode(mtls: Option<&MutualTls>) -> MutualTlsMode {
    mtls.map(|mtls| mtls.mode).unwrap_or_default()
}

fn mode_of(policy: &Policy) -> MutualTlsMode {
    mode(policy.spec.mtls.as_ref())
}

/// The modes above the workload's, where there are such policies.
struct Inherited {
    namespace: Option<MutualTlsMode>,
    mesh: Option<MutualTlsMode>,
}

impl Inherited {
    /// A strict port is strict already by the workload's mode, or by that above it.
    fn makes_strict(&self, own: MutualTlsMode) -> bool {
        match own {
            MutualTlsMode::Strict => true,
            MutualTlsMode::Unset => match self.namespace {
                None | Some(MutualTlsMode::Unset) => self.mesh == Some(MutualTlsMode::Strict),
                Some(mode) => mode == MutualTlsMode::Strict,
            },
            MutualTlsMode::Permissive | MutualTlsMode::Disable => false,
        }
    }

    /// A port that takes plaintext is an exception from what holds for the workload.
    fn needs_exemption(&self, own: MutualTlsMode) -> bool {
        match own {
            MutualTlsMode::Strict => true,
            // A namespace's policy that leaves the mode open is taken as one that is not strict, as Istio does.
            MutualTlsMode::Unset => self.namespace.or(self.mesh) == Some(MutualTlsMode::Strict),
            MutualTlsMode::Permissive | MutualTlsMode::Disable => false,
        }
    }

    fn is_strict(&self) -> bool {
        let open = matches!(self.namespace, None | Some(MutualTlsMode::Unset));
        self.namespace == Some(MutualTlsMode::Strict) || open && self.mesh == Some(MutualTlsMode::Strict)
    }
}
