use super::*;
use crate::Transport;
use crate::testing::{hosts, plan, round_robin};
use meltemi_telemetry::Registry;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn cluster() -> Arc<Cluster> {
    let plan = plan(ClusterKind::Static, round_robin(), Some(hosts(&[1])));
    Cluster::new(Arc::new(plan), vec![Transport::Plain], &Registry::new(), None)
}

#[tokio::test]
async fn clusters_of_one_interval_share_a_task_that_ends_with_the_last() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (background, first, second) = (Background::default(), cluster(), cluster());
    for cluster in [&first, &second] {
        background.sweep(Duration::from_millis(2), cluster, |_| _ = RUNS.fetch_add(1, Relaxed));
        background.sweep(Duration::from_secs(3600), cluster, |_| panic!("not due"));
    }
    assert_eq!(background.sweeps.lock().len(), 2);
    let until = |done: fn(&Lists) -> bool| {
        let lists = background.sweeps.clone();
        tokio::time::timeout(Duration::from_secs(10), async move {
            while !done(&lists) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    until(|_| RUNS.load(Relaxed) >= 4).await.unwrap();
    drop(first);
    until(|lists| lists.lock().values().next().is_some_and(|list| list.len() == 1)).await.unwrap();
    drop(second);
    until(|lists| lists.lock().len() == 1).await.unwrap();
}
