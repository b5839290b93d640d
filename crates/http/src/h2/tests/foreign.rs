//! Against the `h2` crate.

use http::{HeaderMap, Request, Response};

use super::*;

fn grpc_status() -> HeaderMap {
    [(crate::name::GRPC_STATUS, HeaderValue::from_static("0"))].into_iter().collect()
}

#[test]
fn its_client_is_served() {
    local(async {
        let (near, far) = Stream::pair(16 * 1024);
        let seen = Seen::default();
        spawn_local(serve(far, Options::default(), Rc::clone(&seen)));
        let (send, connection) = ::h2::client::handshake(near).await.unwrap();
        spawn_local(async move { connection.await.unwrap() });
        let mut tasks = Vec::new();
        for n in 0..40usize {
            let mut send = send.clone().ready().await.unwrap();
            tasks.push(spawn_local(async move {
                let request = Request::post(format!("https://host/{n}"))
                    .header("x-n", n % 5)
                    .header("cookie", "a=1")
                    .header("cookie", "b=2")
                    .body(())
                    .unwrap();
                let (response, mut body) = send.send_request(request, false).unwrap();
                body.send_data(vec![b'x'; n * 2_000].into(), false).unwrap();
                body.send_trailers(grpc_status()).unwrap();
                let response = response.await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["x-n"], (n % 5).to_string().as_str());
                assert_eq!(response.headers()["cookie"], "a=1; b=2");
                let mut body = response.into_body();
                let mut length = 0;
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    length += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                assert_eq!(length, n * 2_000);
                assert_eq!(body.trailers().await.unwrap(), Some(grpc_status()));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(seen.borrow().iter().all(|head| head.scheme == crate::Scheme::Https && &*head.authority == "host"));
    });
}

#[test]
fn its_server_is_asked() {
    local(async {
        let (near, far) = Stream::pair(16 * 1024);
        spawn_local(async move {
            let mut connection = ::h2::server::Builder::new().max_concurrent_streams(7).handshake(far).await.unwrap();
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted.unwrap();
                spawn_local(async move {
                    assert_eq!(request.uri().path(), "/a");
                    let value = request.headers()["x-n"].clone();
                    let response = Response::builder().header("x-n", value).body(()).unwrap();
                    let mut send = respond.send_response(response, false).unwrap();
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        let data: Bytes = data.unwrap();
                        body.flow_control().release_capacity(data.len()).unwrap();
                        send.send_data(data, false).unwrap();
                    }
                    let trailers = body.trailers().await.unwrap().unwrap_or_default();
                    send.send_trailers(trailers).unwrap();
                });
            }
        });
        let connection = connect(near, &Options::default()).await;
        let mut tasks = Vec::new();
        for n in 0..40usize {
            let connection = Rc::clone(&connection);
            tasks.push(spawn_local(async move {
                let mut head = post("/a");
                head.headers.append(http::HeaderName::from_static("x-n"), HeaderValue::from(n as u64 % 5));
                let body = vec![Frame::Data(vec![b'x'; n * 2_000].into()), Frame::Trailers(status_ok())];
                let answer = ask(&connection, &head, body).await.unwrap();
                assert_eq!((answer.status, answer.body.len()), (200, n * 2_000));
                assert_eq!(answer.headers.get_str("x-n"), Some((n % 5).to_string().as_str()));
                assert_eq!(answer.trailers, Some(status_ok()));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}
