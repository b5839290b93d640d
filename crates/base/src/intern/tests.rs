use super::*;

#[test]
fn equal_text_is_one_allocation_while_somebody_holds_it() {
    let first = intern("outbound|80||a.default.svc.cluster.local");
    let second = intern(&String::from(&*first));
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &intern("other")));
}

#[test]
fn the_dead_are_forgotten() {
    let table: Table<u64> = Table::new();
    let kept = table.share(7);
    (1000..2000).for_each(|n| drop(table.share(n)));
    assert!(table.entries().by_hash.len() <= SMALL + 1);
    assert!(Arc::ptr_eq(&kept, &table.share(7)));
}

#[test]
fn values_of_one_hash_stay_apart() {
    let table: Table<str> = Table::new();
    let first: Arc<str> = "a".into();
    table.insert(1, &first);
    assert_eq!(table.find(1, |known| known == "b"), None);
    let second: Arc<str> = "b".into();
    table.insert(1, &second);
    assert_eq!(table.find(1, |known| known == "b").as_deref(), Some("b"));
}

#[test]
fn what_the_same_bytes_make_is_made_once() {
    let table: Table<Made<usize>> = Table::new();
    let make = |bytes: &[u8]| table.made_from(bytes, || if bytes.is_empty() { Err("empty") } else { Ok(bytes.len()) });
    let first = make(b"abc").unwrap();
    assert!(Shared::ptr_eq(&first, &make(b"abc").unwrap()));
    assert!(!Shared::ptr_eq(&first, &make(b"abd").unwrap()));
    assert_eq!((*first, make(b"").unwrap_err()), (3, "empty"));
}
