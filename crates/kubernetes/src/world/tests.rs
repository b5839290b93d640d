use meltemi_config::kube::{ConfigMap, Namespace};
use meltemi_config::{Meta, Severity, Source, Spec};
use meltemi_store::ConfigStore as _;

use super::*;

fn namespace(name: &str, label: &str) -> Object {
    let labels = [("mesh".into(), label.into())].into();
    let meta = Meta { name: name.into(), labels, ..Meta::default() };
    Object::new(meta, Spec::Namespace(Namespace::default().into()))
}

fn map(namespace: &str, name: &str, text: &str) -> Object {
    let meta = Meta { name: name.into(), namespace: namespace.into(), ..Meta::default() };
    let data = [("mesh".into(), text.into())].into();
    Object::new(meta, Spec::ConfigMap(ConfigMap { data, ..ConfigMap::default() }.into()))
}

fn said(object: Object) -> Event {
    Event::Said(taken(object))
}

fn taken(object: Object) -> Decoded {
    Decoded::Taken(Box::new(object), Vec::new())
}

fn refused(key: &Key) -> Decoded {
    refused_as(key, "u1")
}

fn refused_as(key: &Key, uid: &str) -> Decoded {
    let source = Source { file: "cluster".into(), line: 1 };
    let (path, message) = (String::new(), "wrong".to_owned());
    let object = Some(key.clone());
    let problem = Problem { severity: Severity::Error, source, object, path, message, suggestion: None };
    Decoded::Refused((key.clone(), uid.into()), vec![problem])
}

fn world() -> (World, Arc<MemoryStore>) {
    let view = Arc::new(MemoryStore::default());
    (World::new([Kind::Namespace, Kind::ConfigMap], view.clone()), view)
}

fn names(view: &MemoryStore) -> Vec<String> {
    view.snapshot().of_kind(Kind::ConfigMap).map(|object| object.key().to_string()).collect()
}

#[test]
fn it_is_ready_when_every_kind_has_been_listed() {
    let (mut world, view) = world();
    let ready = world.ready();
    world.replace(Kind::ConfigMap, vec![taken(map("a", "x", ""))]);
    world.apply(Kind::Namespace, [said(namespace("a", "in"))]);
    assert!(!*ready.borrow(), "an event is no list");
    assert_eq!(world.waiting().collect::<Vec<_>>(), [Kind::Namespace]);
    world.vanish(Kind::Namespace);
    assert!(*ready.borrow());
    assert_eq!(names(&view), ["ConfigMap a/x"]);
}

#[test]
fn a_list_takes_away_what_is_not_in_it_and_nothing_else() {
    let (mut world, view) = world();
    world.replace(Kind::ConfigMap, vec![taken(map("a", "x", "1")), taken(map("a", "y", "1"))]);
    let before = view.snapshot();
    world.replace(Kind::ConfigMap, vec![taken(map("a", "x", "1")), taken(map("a", "z", "1"))]);
    assert_eq!(names(&view), ["ConfigMap a/x", "ConfigMap a/z"]);
    let changes = before.diff(&view.snapshot());
    assert_eq!((changes.upserted.len(), changes.removed.len()), (1, 1), "{changes:?}");
}

#[test]
fn a_wrong_object_leaves_the_last_good_one_in_force_and_is_reported() {
    let (mut world, view) = world();
    let problems = world.problems();
    let key = Key::new(Kind::ConfigMap, "a", "x");
    world.replace(Kind::ConfigMap, vec![taken(map("a", "x", "1"))]);
    world.apply(Kind::ConfigMap, [Event::Said(refused(&key)), said(map("a", "y", "1"))]);
    assert_eq!(names(&view), ["ConfigMap a/x", "ConfigMap a/y"]);
    assert_eq!(problems.borrow().len(), 1);
    world.replace(Kind::ConfigMap, vec![refused(&key)]);
    assert_eq!(names(&view), ["ConfigMap a/x"], "a list says it again");
    world.apply(Kind::ConfigMap, [Event::Deleted(key)]);
    assert_eq!((names(&view).len(), problems.borrow().len()), (0, 0));
}

#[test]
fn what_is_of_another_revision_now_is_gone() {
    let (mut world, view) = world();
    world.replace(Kind::ConfigMap, vec![taken(map("a", "x", "1"))]);
    world.apply(Kind::ConfigMap, [Event::Said(Decoded::Foreign(Key::new(Kind::ConfigMap, "a", "x")))]);
    assert!(names(&view).is_empty());
}

#[test]
fn only_selected_namespaces_are_in_force_whichever_comes_first() {
    let (mut world, view) = world();
    let labels = [("mesh".into(), "in".into())].into();
    let selector = MeshLabelSelector { match_labels: labels, ..MeshLabelSelector::default() };
    world.select(std::slice::from_ref(&selector));
    world.replace(
        Kind::ConfigMap,
        vec![taken(map("a", "x", "")), taken(map("b", "x", "")), taken(map("istio-system", "istio", ""))],
    );
    assert_eq!(names(&view), ["ConfigMap istio-system/istio"], "the mesh configuration is always read");
    world.apply(Kind::Namespace, [said(namespace("a", "in")), said(namespace("b", "out"))]);
    assert_eq!(names(&view), ["ConfigMap a/x", "ConfigMap istio-system/istio"]);
    assert_eq!(world.namespaces().into_iter().collect::<Vec<_>>(), ["a".into()] as [Str; 1]);
    world.apply(Kind::Namespace, [said(namespace("a", "out")), said(namespace("b", "in"))]);
    assert_eq!(names(&view), ["ConfigMap b/x", "ConfigMap istio-system/istio"]);
    world.apply(Kind::ConfigMap, [said(map("a", "y", "")), said(map("b", "y", ""))]);
    assert_eq!(names(&view), ["ConfigMap b/x", "ConfigMap b/y", "ConfigMap istio-system/istio"]);
    world.select(&[]);
    assert_eq!(names(&view).len(), 5);
}

#[test]
fn an_object_that_is_made_again_as_wrong_as_before_is_another() {
    let (mut world, _) = world();
    let key = Key::new(Kind::ConfigMap, "a", "x");
    let mut told = world.problems();
    world.apply(Kind::ConfigMap, [Event::Said(refused_as(&key, "u1"))]);
    assert_eq!(world.uid_of_wrong(&key).as_deref(), Some("u1"));
    told.mark_unchanged();
    world.apply(Kind::ConfigMap, [Event::Deleted(key.clone()), Event::Said(refused_as(&key, "u2"))]);
    assert!(told.has_changed().unwrap());
    assert_eq!(world.uid_of_wrong(&key).as_deref(), Some("u2"));
    told.mark_unchanged();
    world.apply(Kind::ConfigMap, [Event::Said(refused_as(&key, "u2"))]);
    assert!(!told.has_changed().unwrap());
    world.apply(Kind::ConfigMap, [Event::Deleted(key.clone())]);
    assert_eq!(world.uid_of_wrong(&key), None);
}
