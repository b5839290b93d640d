use super::*;
use crate::cluster::fake::Fake;
use crate::decide::tests::injected;

/// Asks a daemon whose cluster has one pod.
async fn ask(namespace: &str, name: &str, uid: &str) -> Result<Option<Pod>, QueryError> {
    let folder = tempfile::tempdir().unwrap();
    let listener = listen(folder.path()).unwrap();
    let mode = std::fs::metadata(socket(folder.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let serving = tokio::spawn(answer(listener, Arc::new(Fake { pods: vec![injected()], ..Fake::default() })));
    let name = PodName { namespace: namespace.into(), name: name.into(), uid: uid.into() };
    let daemon = Daemon::at(folder.path());
    let answered = tokio::task::spawn_blocking(move || daemon.pod(&name)).await.unwrap();
    serving.abort();
    answered
}

#[tokio::test]
async fn a_pod_is_told_of_whole() {
    assert_eq!(ask("shop", "web-0", "u1").await.unwrap(), Some(injected()));
    assert_eq!(ask("shop", "web-0", "").await.unwrap(), Some(injected()));
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another() {
    assert_eq!(ask("shop", "web-0", "u2").await.unwrap(), None);
    assert_eq!(ask("shop", "web-1", "").await.unwrap(), None);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told() {
    let error = ask("unreachable", "web-0", "").await.unwrap_err().to_string();
    assert_eq!(error, "the node's daemon cannot tell: no connection");
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let listener = listen(folder.path()).unwrap();
    let serving = tokio::spawn(answer(listener, Arc::new(Fake::default())));
    let path = socket(folder.path());
    let text = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"who\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert!(text.await.unwrap().contains("cannot be read"));
    serving.abort();
}

#[tokio::test]
async fn a_socket_of_an_earlier_daemon_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    drop(listen(folder.path()).unwrap());
    listen(folder.path()).unwrap();
}
