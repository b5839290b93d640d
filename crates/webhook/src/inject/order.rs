//! The order of containers.

use serde_json::Value;

use super::names::{CORE_DUMP_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER, VALIDATION_CONTAINER};
use super::pod;

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// The proxy is the last container, so that `kubectl exec` goes to the application, or the first, so that it starts first.
/// Among the init containers, ours come first where the proxy is one of them; else rules come last, so that what runs
/// before them is not captured, and their validation first, so that nothing runs without it.
pub fn containers(pod: &mut Value, proxy_first: bool) {
    use End::{First, Last};
    move_to(pod, "containers", PROXY_CONTAINER, if proxy_first { First } else { Last });
    let is_native = pod::find(pod::list(pod, "initContainers"), PROXY_CONTAINER).is_some();
    let moves: &[(&str, End)] = if is_native {
        &[
            (CORE_DUMP_CONTAINER, First),
            (PROXY_CONTAINER, First),
            (VALIDATION_CONTAINER, First),
            (INIT_CONTAINER, First),
        ]
    } else {
        &[(VALIDATION_CONTAINER, First), (INIT_CONTAINER, Last), (CORE_DUMP_CONTAINER, Last)]
    };
    for (name, end) in moves {
        move_to(pod, "initContainers", name, *end);
    }
}

fn move_to(pod: &mut Value, list: &str, name: &str, end: End) {
    let Some(position) = pod::list(pod, list).iter().position(|container| pod::name_of(container) == name) else {
        return;
    };
    let containers = pod::list_mut(pod, list);
    let container = containers.remove(position);
    let target = match end {
        End::First => 0,
        End::Last => containers.len(),
    };
    containers.insert(target, container);
}

/// Users customise the proxy among the containers; where it is an init container, that is where the customisation belongs.
pub fn make_native(pod: &mut Value) {
    let containers = pod::list(pod, "containers");
    let Some(position) = containers.iter().position(|container| pod::name_of(container) == PROXY_CONTAINER) else {
        return;
    };
    let proxy = pod::list_mut(pod, "containers").remove(position);
    pod::list_mut(pod, "initContainers").push(proxy);
}
