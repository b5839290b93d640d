use super::*;

/// Sends at these milliseconds; gives when each batch was complete and what it held.
async fn batches(sends: &'static [u64]) -> Vec<(u64, Vec<u64>)> {
    let (sender, mut changes) = mpsc::channel(8);
    let start = Instant::now();
    tokio::spawn(async move {
        for at in sends {
            tokio::time::sleep_until(start + Duration::from_millis(*at)).await;
            sender.send(vec![*at]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let debounce = Debounce { quiet: Duration::from_millis(100), longest: Duration::from_millis(1000) };
    let mut found = Vec::new();
    while let Some(batch) = debounce.next(&mut changes, |all: &mut Vec<u64>, more| all.extend(more)).await {
        assert_eq!(batch.merged, batch.change.len());
        found.push((start.elapsed().as_millis() as u64, batch.change));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn batch_ends_when_it_is_quiet() {
    assert_eq!(batches(&[0, 50, 120, 400]).await, [(220, vec![0, 50, 120]), (500, vec![400])]);
}

#[tokio::test(start_paused = true)]
async fn batch_ends_at_the_latest_when_changes_never_stop() {
    const SENDS: &[u64] = &[0, 90, 180, 270, 360, 450, 540, 630, 720, 810, 900, 990, 1080];
    let found = batches(SENDS).await;
    assert_eq!(found[0], (1000, SENDS[..12].to_vec()));
    assert_eq!(found[1], (1180, vec![1080]));
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_end_is_not_lost() {
    let (sender, mut changes) = mpsc::channel(8);
    sender.send(1).await.unwrap();
    sender.send(2).await.unwrap();
    drop(sender);
    let debounce = Debounce::default();
    let batch = debounce.next(&mut changes, |sum: &mut i32, more| *sum += more).await.unwrap();
    assert_eq!(batch.change, 3);
    assert!(debounce.next(&mut changes, |_, _| ()).await.is_none());
}
