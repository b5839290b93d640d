use super::*;
use crate::labels::labels_of;
use crate::testing::{node, snapshot, update};
use crate::{Snapshot, Update};
use meltemi_config::Kind;

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: a}}\nspec: {{mtls: {{mode: {mode}}}, selector: {{matchLabels: {{app: web}}}}, portLevelMtls: {{90: {{mode: STRICT}}}}}}\n"
    )
}

/// What a server has and what its clients take it to have, at a port without a mode of its own.
fn modes(snapshot: &Snapshot) -> (MtlsMode, MtlsMode) {
    let labels = labels_of([("app", "web")]);
    let server = node("sidecar", "a", &[("app", "web")]);
    (snapshot.mtls_policy(&server).mode_of(80), snapshot.mtls_of_server("a", &labels).mode_of(80))
}

fn step(snapshot: &Snapshot, step: MigrationStep) -> (Snapshot, bool) {
    let (next, change) = snapshot.next(&Update { migration: Some(step), ..Update::default() });
    (next, change.configs.iter().any(|key| key.kind == Kind::PeerAuthentication))
}

fn begun(from: &Snapshot, mode: &str) -> Snapshot {
    from.next(&Update { migration: Some(MigrationStep::Begin), ..update(&policy(mode)) }).0
}

#[test]
fn servers_take_both_until_clients_have_followed() {
    use MtlsMode::{Disable, Permissive, Strict};
    for (from, to, during) in [
        ("DISABLE", "PERMISSIVE", [(Permissive, Disable), (Permissive, Permissive), (Permissive, Permissive)]),
        ("DISABLE", "STRICT", [(Permissive, Disable), (Permissive, Strict), (Strict, Strict)]),
        ("PERMISSIVE", "DISABLE", [(Permissive, Permissive), (Permissive, Disable), (Disable, Disable)]),
        ("STRICT", "DISABLE", [(Permissive, Strict), (Permissive, Disable), (Disable, Disable)]),
    ] {
        let first = begun(&snapshot(&policy(from), &[]), to);
        let (second, clients_told) = step(&first, MigrationStep::ClientsFollow);
        let (third, servers_told) = step(&second, MigrationStep::End);
        assert_eq!([modes(&first), modes(&second), modes(&third)], during, "{from} to {to}");
        assert!(clients_told && servers_told && first.is_migrating() && !third.is_migrating(), "{from} to {to}");
        assert!(!step(&second, MigrationStep::ClientsFollow).1, "said twice");
        assert!(!step(&third, MigrationStep::End).1, "said twice");
    }
}

#[test]
fn what_turns_nothing_on_or_off_is_in_force_at_once() {
    let next = begun(&snapshot(&policy("PERMISSIVE"), &[]), "STRICT");
    assert_eq!((modes(&next), next.is_migrating()), ((MtlsMode::Strict, MtlsMode::Strict), false));
    let at_once = snapshot(&policy("DISABLE"), &[]).next(&update(&policy("STRICT"))).0;
    assert_eq!((modes(&at_once), at_once.is_migrating()), ((MtlsMode::Strict, MtlsMode::Strict), false));
}

#[test]
fn a_change_in_the_middle_of_another_goes_on_from_where_clients_are() {
    use MtlsMode::{Disable, Permissive, Strict};
    let first = begun(&snapshot(&policy("DISABLE"), &[]), "STRICT");
    let back = begun(&first, "DISABLE");
    assert_eq!(modes(&back), (Disable, Disable), "no client has changed yet");
    let (followed, _) = step(&first, MigrationStep::ClientsFollow);
    assert_eq!(modes(&begun(&followed, "DISABLE")), (Permissive, Strict));
}
