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
    let supervised = tokio::spawn(supervise(shell("echo $WORD; exit 3", folder.path()), events, stopping));
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
    let supervised = tokio::spawn(supervise(shell(script, folder.path()), events, stopping));
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
