use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn names(range: std::ops::Range<usize>) -> Vec<(Arc<str>, Mark)> {
    range.map(|i| (format!("n{i}").into(), Mark::default().explicit().holding("1"))).collect()
}

#[test]
fn sessions_that_hold_the_same_share_one_list_however_they_came_to_it() {
    let shelf = Arc::new(Shelf::default());
    let (mut a, mut b) = (Holdings::new(shelf.clone()), Holdings::new(shelf.clone()));
    a.edit(names(0..100));
    b.edit(names(50..100));
    b.edit(names(0..50));
    assert!(Arc::ptr_eq(&a.list, &b.list));
    assert_eq!(shelf.len(), 1);
    a.edit(vec![("n7".into(), Mark::default().explicit().holding("2"))]);
    assert!(a.get("n7").holds("2") && b.get("n7").holds("1"), "a change is one's own");
    b.edit(vec![("n7".into(), Mark::default().explicit().holding("2"))]);
    assert!(Arc::ptr_eq(&a.list, &b.list));
    drop(b);
    let place = a.list.entries.as_ptr();
    a.edit(vec![("n8".into(), Mark::default().explicit().told_absent())]);
    assert_eq!(a.list.entries.as_ptr(), place, "what nobody else has is changed in place");
    assert_eq!((a.held(), a.explicit(), a.held_or_missing()), (99, 100, 99));
    drop(a);
    assert!(shelf.is_empty());
}

#[test]
fn a_mark_says_what_was_asked_for_and_what_is_held() {
    let mark = Mark::default();
    assert!(!mark.is_held() && !mark.is_explicit() && !mark.is_missing());
    assert!(mark.explicit().is_missing() && !mark.explicit().told_absent().is_missing());
    let held = mark.explicit().holding("v");
    assert!(held.is_held() && held.is_explicit() && held.holds("v") && !held.holds("w"));
    assert!(held.implicit().is_held() && held.implicit().unknown() == mark);
    assert!(!held.told_absent().is_held());
}

fn change() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..40_usize, 0..5_u8), 1..30)
}

fn mark(kind: u8) -> Mark {
    match kind {
        0 => Mark::default(),
        1 => Mark::default().explicit(),
        2 => Mark::default().told_absent(),
        kind => Mark::default().explicit().holding(&kind.to_string()),
    }
}

proptest! {
    /// Two sessions on one shelf that take the same edits in other portions are as maps would be.
    #[test]
    fn holdings_are_a_map(edits in prop::collection::vec((any::<bool>(), change()), 1..40)) {
        let shelf = Arc::new(Shelf::default());
        let mut sessions = [Holdings::new(shelf.clone()), Holdings::new(shelf)];
        let mut maps = [BTreeMap::new(), BTreeMap::new()];
        for (which, edit) in edits {
            let (session, map) = (&mut sessions[usize::from(which)], &mut maps[usize::from(which)]);
            for (name, kind) in &edit {
                map.insert(format!("n{name}"), mark(*kind));
            }
            session.edit(edit.iter().map(|(name, kind)| (format!("n{name}").into(), mark(*kind))).collect());
            map.retain(|_, mark| *mark != Mark::default());
        }
        for (session, map) in sessions.iter().zip(&maps) {
            let found: Vec<(String, Mark)> = session.iter().map(|(name, mark)| (name.to_string(), mark)).collect();
            prop_assert_eq!(found, map.clone().into_iter().collect::<Vec<_>>());
            let count = |test: fn(Mark) -> bool| map.values().filter(|mark| test(**mark)).count();
            prop_assert_eq!(session.held(), count(Mark::is_held));
            prop_assert_eq!(session.explicit(), count(Mark::is_explicit));
            prop_assert_eq!(session.held_or_missing(), count(Mark::is_held) + count(Mark::is_missing));
        }
    }
}
