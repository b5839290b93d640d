use std::fs;
use std::os::unix::fs::symlink;

use meltemi_config::networking::DestinationRule;
use meltemi_config::{Key, Kind};

use super::*;

fn rule(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {name}\nspec:\n  host: {host}\n"
    )
}

fn quick() -> FileStoreOptions {
    FileStoreOptions { debounce: Duration::from_millis(20), poll: Duration::from_millis(500), ..Default::default() }
}

fn hosts(set: &ConfigSet) -> Vec<(String, String)> {
    set.list::<DestinationRule>().map(|(m, s)| (m.name.to_string(), s.host.to_string())).collect()
}

fn shown(store: &FileStore, dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    store.problems().iter().map(|p| p.to_string().replace(&prefix, "")).collect()
}

fn key(name: &str) -> Key {
    Key::new(Kind::DestinationRule, "default", name)
}

async fn next(changes: &mut Changes) -> (Vec<Key>, Vec<Key>) {
    let waited = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    let (_, changes) = waited.expect("a change").expect("a store");
    (changes.upserted.into_iter().collect(), changes.removed.into_iter().collect())
}

/// Waits for a state that comes without a change of the set.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came");
}

#[tokio::test]
async fn files_that_appear_change_and_vanish_are_followed() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("a.yaml"), rule("a", "one")).expect("write");
    fs::write(dir.path().join("ignored.txt"), "not read").expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into())]);
    let mut changes = store.changes();
    fs::write(dir.path().join("a.yaml"), rule("a", "two")).expect("write");
    assert_eq!(next(&mut changes).await, (vec![key("a")], vec![]));
    fs::create_dir(dir.path().join("sub")).expect("mkdir");
    fs::write(dir.path().join("sub/b.json"), r#"{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"b"},"spec":{"host":"x"}}"#)
        .expect("write");
    assert_eq!(next(&mut changes).await, (vec![key("b")], vec![]));
    fs::remove_file(dir.path().join("a.yaml")).expect("remove");
    assert_eq!(next(&mut changes).await, (vec![], vec![key("a")]));
    assert_eq!(hosts(&store.snapshot()), [("b".into(), "x".into())]);
    assert_eq!(shown(&store, dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_broken_document_keeps_its_last_good_version_in_force() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a.yaml");
    fs::write(&file, format!("{}---\n{}", rule("a", "one"), rule("b", "one"))).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    let mut changes = store.changes();

    // An unknown field in `a`; `b` changes in the same save and takes effect.
    fs::write(&file, format!("{}  hots: x\n---\n{}", rule("a", "two"), rule("b", "two"))).expect("write");
    assert_eq!(next(&mut changes).await, (vec![key("b")], vec![]));
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into()), ("b".into(), "two".into())]);
    let expected = "a.yaml:7: error: DestinationRule default/a: spec.hots: unknown field; did you mean `host`?";
    assert_eq!(shown(&store, dir.path()), [expected]);

    // A syntax error: the name cannot be read, so whatever is missing stays.
    fs::write(&file, format!("{}---\nkind: [\n", rule("b", "three"))).expect("write");
    assert_eq!(next(&mut changes).await, (vec![key("b")], vec![]));
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into()), ("b".into(), "three".into())]);
    assert_eq!(shown(&store, dir.path()).len(), 1);

    // Repaired: what the file no longer holds is gone.
    fs::write(&file, rule("b", "three")).expect("write");
    assert_eq!(next(&mut changes).await, (vec![], vec![key("a")]));
    assert_eq!(shown(&store, dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_document_that_was_never_good_is_only_reported() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("a.yaml"), rule("a", "\"\"")).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    assert!(store.snapshot().is_empty());
    let shown = shown(&store, dir.path());
    assert!(
        shown.len() == 1 && shown[0].starts_with("a.yaml:6: error: DestinationRule default/a: spec.host: "),
        "{shown:?}"
    );
}

#[tokio::test]
async fn of_two_documents_with_one_name_the_first_stays_and_the_other_is_reported() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("a.yaml"), rule("r", "one")).expect("write");
    fs::write(dir.path().join("b.yaml"), format!("---\n{}", rule("r", "two"))).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    assert_eq!(hosts(&store.snapshot()), [("r".into(), "one".into())]);
    let shown = shown(&store, dir.path());
    assert_eq!(
        shown,
        ["b.yaml:2: error: DestinationRule default/r: already defined at a.yaml:1; the first one stays in force"]
    );
    let mut changes = store.changes();
    fs::remove_file(dir.path().join("a.yaml")).expect("remove");
    assert_eq!(next(&mut changes).await, (vec![key("r")], vec![]));
}

#[tokio::test]
async fn kubernetes_swap_of_a_mounted_config_map_is_one_change() {
    let dir = tempfile::tempdir().expect("dir");
    let root = dir.path();
    for (version, host) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(root.join(version)).expect("mkdir");
        fs::write(root.join(version).join("a.yaml"), rule("a", host)).expect("write");
    }
    symlink("..1", root.join("..data")).expect("link");
    symlink("..data/a.yaml", root.join("a.yaml")).expect("link");
    let store = FileStore::open_with(root, quick()).expect("open");
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into())]);
    let mut changes = store.changes();
    symlink("..2", root.join("..tmp")).expect("link");
    fs::rename(root.join("..tmp"), root.join("..data")).expect("swap");
    assert_eq!(next(&mut changes).await, (vec![key("a")], vec![]));
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "two".into())]);
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_and_its_objects_stay() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a.yaml");
    fs::write(&file, rule("a", "one")).expect("write");
    let store = FileStore::open_with(dir.path(), FileStoreOptions { max_file_bytes: 200, ..quick() }).expect("open");
    fs::write(&file, format!("{}# {}\n", rule("a", "two"), "x".repeat(300))).expect("write");
    until(|| !store.problems().is_empty()).await;
    assert_eq!(shown(&store, dir.path()), ["a.yaml:0: error: larger than 200 bytes"]);
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into())]);
    fs::write(&file, rule("a", "one")).expect("write");
    until(|| store.problems().is_empty()).await;
}

#[tokio::test]
async fn a_file_that_is_not_utf_8_is_reported_at_its_line_and_its_objects_stay() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a.yaml");
    fs::write(&file, rule("a", "one")).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    fs::write(&file, [rule("a", "two").as_bytes(), b"# \xff\n"].concat()).expect("write");
    until(|| !store.problems().is_empty()).await;
    assert_eq!(shown(&store, dir.path()), ["a.yaml:7: error: not UTF-8: a byte 0xff"]);
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into())]);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let missing = dir.path().join("nowhere");
    assert!(matches!(FileStore::open(&missing), Err(StoreError::Missing(p)) if p == missing));
}

#[tokio::test]
async fn a_single_file_can_be_the_store() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("only");
    fs::write(&file, rule("a", "one")).expect("write");
    let store = FileStore::open_with(&file, quick()).expect("open");
    let mut changes = store.changes();
    let next_version = dir.path().join("new");
    fs::write(&next_version, rule("a", "two")).expect("write");
    fs::rename(&next_version, &file).expect("rename");
    assert_eq!(next(&mut changes).await, (vec![key("a")], vec![]));
}

#[tokio::test]
async fn a_file_that_is_only_truncated_so_far_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a.yaml");
    fs::write(&file, rule("a", "one")).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    let mut changes = store.changes();
    fs::write(&file, "").expect("truncate");
    // Whoever has seen this one has looked at the other, too.
    fs::write(dir.path().join("b.yaml"), rule("b", "x")).expect("write");
    assert_eq!(next(&mut changes).await, (vec![key("b")], vec![]));
    assert_eq!(hosts(&store.snapshot()), [("a".into(), "one".into()), ("b".into(), "x".into())]);
    // Two seconds later it is empty on purpose.
    assert_eq!(next(&mut changes).await, (vec![], vec![key("a")]));
}

#[tokio::test]
async fn of_many_quick_writes_of_one_length_the_last_is_in_force() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("a.yaml");
    fs::write(&file, rule("a", "v000")).expect("write");
    let store = FileStore::open_with(dir.path(), quick()).expect("open");
    for version in 1..=200 {
        fs::write(&file, rule("a", &format!("v{version:03}"))).expect("write");
        if version % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    until(|| hosts(&store.snapshot()) == [("a".into(), "v200".into())]).await;
}
