use super::*;

fn shell(script: &str, folder: &std::path::Path) -> Program {
    Program {
        label: "pod/app".to_owned(),
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![("WORD".to_owned(), "hello".to_owned())],
        folder: folder.to_owned(),
        log: folder.join("app.log"),
        verbose: false,
    }
}

#[tokio::test]
async fn a_program_that_ends_is_shown_and_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (events, mut shown) = mpsc::channel(16);
    let (stop, stopping) = watch::channel(false);
    let supervised =
        tokio::spawn(supervise(shell("echo $WORD; exit 3", folder.path()), events, stopping, Life::default()));
    for run in 1..=2 {
        let event = shown.recv().await.expect("an event");
        let Event::Line { text } = event else { panic!("{event:?}") };
        let pause = 0.2 * f64::from(run);
        let expected = format!("pod/app: ended with code 3; starting it again in {pause:.1} s (run {run})\n  hello");
        assert_eq!(text, expected);
    }
    stop.send_replace(true);
    supervised.await.expect("no panic");
    assert_eq!(std::fs::read_to_string(folder.path().join("app.log")).expect("a log"), "hello\nhello\n");
}

#[tokio::test]
async fn a_program_that_does_not_listen_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let (events, _shown) = mpsc::channel(16);
    let (stop, stopping) = watch::channel(false);
    let script = "trap '' TERM; sleep 1000 & echo $! > child; while :; do sleep 1; done";
    let supervised = tokio::spawn(supervise(shell(script, folder.path()), events, stopping, Life::default()));
    let child = loop {
        let text = std::fs::read_to_string(folder.path().join("child")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<i32>() {
            break Pid::from_raw(pid);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    stop.send_replace(true);
    supervised.await.expect("no panic");
    // Killed, and gone or waiting for its new parent to notice.
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "{state}");
}

#[tokio::test]
async fn a_program_that_crashes_again_and_again_is_never_steady() {
    let folder = tempfile::tempdir().expect("a folder");
    let (events, mut shown) = mpsc::channel(16);
    let (stop, stopping) = watch::channel(false);
    let life = Life::default();
    assert!(!life.is_steady(Duration::ZERO), "not started");
    // Runs, but each time shorter than it waited before.
    let crashing = shell("sleep 0.1; exit 1", folder.path());
    let supervised = tokio::spawn(supervise(crashing, events, stopping, life.clone()));
    shown.recv().await.expect("the first end");
    let seen = async {
        loop {
            assert!(!life.is_steady(Duration::ZERO));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1200), seen).await.is_err());
    stop.send_replace(true);
    supervised.await.expect("no panic");
}

#[tokio::test]
async fn a_program_that_runs_is_steady_at_once_and_after_a_crash_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (events, _shown) = mpsc::channel(16);
    let (stop, stopping) = watch::channel(false);
    let life = Life::default();
    let script = "if [ -e crashed ]; then exec sleep 1000; else touch crashed; exit 1; fi";
    let supervised = tokio::spawn(supervise(shell(script, folder.path()), events, stopping, life.clone()));
    let steady = async {
        while !life.is_steady(Duration::from_millis(300)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), steady).await.expect("steady in the end");
    stop.send_replace(true);
    supervised.await.expect("no panic");
    assert!(!life.is_steady(Duration::ZERO), "stopped");
}
