use meltemi_config::networking::{DestinationRule, VirtualService};

use super::*;

fn rule(namespace: &str, name: &str, host: &str) -> Object {
    let meta = Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() };
    Object::new(meta, DestinationRule { host: host.into(), ..Default::default() }.into_spec())
}

#[test]
fn a_set_is_asked_by_type_namespace_and_name() {
    let set = ConfigSet::from_objects([rule("b", "x", "1"), rule("a", "y", "2"), rule("a", "x", "3")]);
    let names: Vec<_> = set.list::<DestinationRule>().map(|(m, s)| (&*m.namespace, &*m.name, &*s.host)).collect();
    assert_eq!(names, [("a", "x", "3"), ("a", "y", "2"), ("b", "x", "1")]);
    assert_eq!(set.list_in::<DestinationRule>("a").count(), 2);
    assert_eq!(set.list::<VirtualService>().count(), 0);
    assert_eq!(set.lookup::<DestinationRule>("b", "x").map(|(_, s)| &*s.host), Some("1"));
    assert_eq!(set.len(), 3);
}

#[test]
fn a_diff_names_what_changed_and_shares_the_rest() {
    let old = ConfigSet::from_objects([rule("a", "same", "1"), rule("a", "changed", "1"), rule("b", "gone", "1")]);
    let mut new = old.clone();
    assert!(old.diff(&new).is_empty());
    new.insert(rule("a", "changed", "2"));
    new.insert(rule("c", "new", "1"));
    new.insert(rule("a", "same", "1"));
    let gone = Key::new(Kind::DestinationRule, "b", "gone");
    assert!(new.remove(&gone).is_some());
    let key = |ns, n| Key::new(Kind::DestinationRule, ns, n);
    let changes = old.diff(&new);
    assert_eq!(changes.upserted, BTreeSet::from([key("a", "changed"), key("c", "new")]));
    assert_eq!(changes.removed, BTreeSet::from([gone]));
    assert_eq!(old.get(&key("a", "changed")).and_then(|o| o.spec_as::<DestinationRule>()).map(|s| &*s.host), Some("1"));
}

#[test]
fn merged_changes_end_in_the_last_state() {
    let key = Key::new(Kind::Gateway, "a", "b");
    let up = ChangeSet { upserted: BTreeSet::from([key.clone()]), ..Default::default() };
    let down = ChangeSet { removed: BTreeSet::from([key]), ..Default::default() };
    let mut changes = up.clone();
    changes.merge(down.clone());
    assert_eq!(changes, down);
    changes.merge(up.clone());
    assert_eq!(changes, up);
}
