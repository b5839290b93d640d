use std::cell::{Cell, RefCell};

use super::*;

/// What is told, and when, of a replica that serves in some of the seconds after its start.
async fn told(served: impl Fn(u64) -> bool, seconds: u64) -> Vec<(u64, Served)> {
    let (begun, told, deaf) = (Instant::now(), RefCell::new(Vec::new()), Cell::new(true));
    let serves = async || {
        let now = begun.elapsed().as_secs();
        if served(now) { Ok(()) } else { Err("it sleeps".to_owned()) }
    };
    let tell = |served| {
        // The first is not heard, and must come again, a second later.
        if deaf.replace(false) {
            return false;
        }
        told.borrow_mut().push((begun.elapsed().as_secs(), served));
        true
    };
    let _ = tokio::time::timeout(Duration::from_secs(seconds), watch(serves, tell)).await;
    told.into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_long_is_told_with_what_is_lacking() {
    let lack = || Err("it sleeps".to_owned());
    assert_eq!(told(|second| second >= 1, 9).await, [(2, Ok(()))], "a short one is not");
    assert_eq!(told(|_| false, 60).await, [(10, lack())], "and that once");
    assert_eq!(told(|second| second >= 20, 60).await, [(10, lack()), (20, Ok(()))]);
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_once_each() {
    let told = told(|second| !(5..8).contains(&second), 60).await;
    assert_eq!(told, [(1, Ok(())), (5, Err("it sleeps".to_owned())), (8, Ok(()))]);
}
