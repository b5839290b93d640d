use std::os::unix::fs::symlink;

use super::*;
use crate::cluster::fake::Fake;
use crate::decide::tests::injected;
use crate::plugin::tests::Recorded;

fn settings(action: Action) -> Settings {
    Settings {
        action,
        sidecar_annotation: "sidecar.istio.io/status".into(),
        init_container: "istio-validation".into(),
        exit_code: 126,
        message: String::new(),
        selectors: Selectors::default(),
        processes: PathBuf::new(),
        backend: Backend::Nftables,
    }
}

fn broken() -> Pod {
    let failure = Failure { container: "istio-validation".into(), exit_code: 126, message: "no rules\n".into() };
    Pod { failures: vec![failure], addresses: vec!["10.77.0.2".into()], ..injected() }
}

fn label() -> Action {
    Action::Label { key: "cni.istio.io/uninitialized".into(), value: "true".into() }
}

/// Follows the pods of a cluster until `count` things are done to it.
async fn repaired(settings: Settings, cluster: Fake, kernel: Recorded, count: usize) -> (Arc<Fake>, Arc<Recorded>) {
    let (cluster, kernel) = (Arc::new(cluster), Arc::new(kernel));
    let stats = Arc::new(Stats::new());
    let repair = Repair { cluster: cluster.clone(), kernel: kernel.clone(), settings, stats, done: HashMap::new() };
    let running = tokio::spawn(repair.run());
    let enough = async {
        while cluster.done().len() + kernel.applied.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.unwrap();
    running.abort();
    (cluster, kernel)
}

#[test]
fn a_pod_is_broken_by_the_code_of_its_validation() {
    assert!(is_broken(&broken(), &settings(Action::Delete)));
    assert!(!is_broken(&injected(), &settings(Action::Delete)));
    let with = |change: fn(&mut Pod)| {
        let mut pod = broken();
        change(&mut pod);
        is_broken(&pod, &settings(Action::Delete))
    };
    assert!(!with(|pod| pod.annotations.clear()));
    assert!(!with(|pod| pod.failures[0].exit_code = 1));
    assert!(!with(|pod| pod.failures[0].container = "other".into()));
    let any =
        Settings { exit_code: 0, init_container: String::new(), message: " no rules ".into(), ..settings(label()) };
    assert!(is_broken(&broken(), &any));
    assert!(!is_broken(&broken(), &Settings { message: "other".into(), ..any }));
}

#[tokio::test]
async fn a_broken_pod_is_deleted_and_written_about() {
    let cluster = Fake { pods: vec![injected(), broken()], ..Fake::default() };
    let (cluster, _) = repaired(settings(Action::Delete), cluster, Recorded::default(), 2).await;
    assert_eq!(cluster.done(), ["delete web-0", "warn web-0 DeleteBrokenPod"]);
}

#[tokio::test]
async fn a_broken_pod_is_labelled_once() {
    let mut labelled = Pod { name: "web-1".into(), uid: "u2".into(), ..broken() };
    labelled.labels.insert("cni.istio.io/uninitialized".into(), "true".into());
    let cluster = Fake { pods: vec![labelled, broken(), broken()], ..Fake::default() };
    let (cluster, _) = repaired(settings(label()), cluster, Recorded::default(), 2).await;
    assert_eq!(cluster.done(), ["label web-0 cni.istio.io/uninitialized=true", "warn web-0 LabelBrokenPod"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again() {
    let cluster = Fake { pods: vec![broken()], failures: 2.into(), ..Fake::default() };
    let (cluster, _) = repaired(settings(Action::Delete), cluster, Recorded::default(), 4).await;
    let warning = "warn web-0 DeleteBrokenPod";
    assert_eq!(cluster.done(), [warning, warning, "delete web-0", warning]);
}

/// A folder as `/proc` is, with one process in a namespace that has both addresses.
fn processes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let process = |number: &str, namespace: &str, trie: &str, table: &str| {
        let path = folder.path().join(number);
        std::fs::create_dir_all(path.join("ns")).unwrap();
        std::fs::create_dir_all(path.join("net")).unwrap();
        symlink(namespace, path.join("ns/net")).unwrap();
        std::fs::write(path.join("net/fib_trie"), trie).unwrap();
        std::fs::write(path.join("net/if_inet6"), table).unwrap();
    };
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.77.0.0\n        /24 link UNICAST\nLocal:\n     \
                |-- 10.77.0.2\n        /32 host LOCAL\n     |-- 10.77.0.255\n        /32 link BROADCAST\n";
    let table = "fd770000000000000000000000000002 02 40 00 80     eth0\n";
    process("1", "net:[1]", "Main:\n     |-- 10.77.0.2\n        /32 link UNICAST\n", "");
    process("30", "net:[2]", trie, table);
    process("7", "net:[2]", trie, table);
    std::fs::create_dir(folder.path().join("sys")).unwrap();
    folder
}

#[test]
fn the_namespace_of_a_pod_is_found_by_its_addresses() {
    let folder = processes();
    let found = |address: &str| namespace_of(folder.path(), &[address.to_owned()]);
    assert_eq!(found("10.77.0.2"), Some(folder.path().join("7/ns/net")));
    assert_eq!(found("fd77::2"), Some(folder.path().join("7/ns/net")));
    assert_eq!(found("10.77.0.255"), None);
    assert_eq!(found("no address"), None);
}

#[tokio::test]
async fn a_broken_pod_is_mended_where_it_runs() {
    let folder = processes();
    let settings = Settings { processes: folder.path().to_owned(), ..settings(Action::Mend) };
    let cluster = Fake { pods: vec![broken(), broken()], ..Fake::default() };
    let (_, kernel) = repaired(settings, cluster, Recorded::default(), 1).await;
    let applied = kernel.applied.lock().unwrap();
    assert_eq!(applied.len(), 1);
    assert_eq!(applied[0].0, folder.path().join("7/ns/net"));
}
