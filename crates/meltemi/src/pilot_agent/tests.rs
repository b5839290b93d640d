use std::io::BufRead;
use std::net::TcpListener;
use std::thread::JoinHandle;

use clap::Parser;

use super::*;

#[derive(Parser)]
enum Line {
    Wait(Wait),
    Request(Request),
}

/// Answers connections one by one, and gives what it was asked.
fn serve(answers: &'static [&'static str]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = std::thread::spawn(move || {
        let serve_one = |answer: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut asked = String::new();
            reader.read_line(&mut asked).unwrap();
            let mut line = String::new();
            let mut length = 0;
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                length = line.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            format!("{}|{}", asked.trim(), String::from_utf8(body).unwrap())
        };
        answers.iter().map(serve_one).collect()
    });
    (port, task)
}

fn waited(line: &[&str]) -> Result<()> {
    let Line::Wait(arguments) = Line::parse_from(["meltemi", "wait"].iter().chain(line)) else { panic!() };
    wait(&arguments)
}

fn requested(line: &[&str]) -> Result<()> {
    let Line::Request(arguments) = Line::parse_from(["meltemi", "request"].iter().chain(line)) else { panic!() };
    request(&arguments)
}

#[test]
fn waiting_ends_when_the_answer_is_200() {
    let (port, task) = serve(&["HTTP/1.1 503 No\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nLIVE"]);
    let url = format!("http://127.0.0.1:{port}/healthz/ready");
    waited(&["--url", &url, "--periodMillis", "1", "--requestTimeoutMillis", "30000"]).unwrap();
    assert_eq!(task.join().unwrap(), ["GET /healthz/ready HTTP/1.1|", "GET /healthz/ready HTTP/1.1|"]);
}

#[test]
fn waiting_ends_in_time_and_says_why() {
    let (port, task) = serve(&["HTTP/1.1 503 No\r\n\r\n"]);
    let url = format!("http://127.0.0.1:{port}/");
    let error = waited(&["--url", &url, "--timeoutSeconds", "0", "--requestTimeoutMillis", "30000"]).unwrap_err();
    assert_eq!(error.to_string(), format!("the proxy is not ready after 0 s: {url} answered with 503"));
    task.join().unwrap();
}

#[test]
fn a_url_that_can_never_answer_is_refused_at_once() {
    for url in ["https://127.0.0.1/", "localhost:15021", "/healthz/ready", "http://"] {
        let refused = Line::try_parse_from(["meltemi", "wait", "--url", url]).err().expect(url);
        assert_eq!(refused.exit_code(), 2, "{url}");
    }
}

#[test]
fn a_request_has_method_path_and_body_and_fails_with_the_status() {
    let (port, task) = serve(&["HTTP/1.1 200 OK\r\n\r\nok", "HTTP/1.1 404 Not Found\r\n\r\n"]);
    let port = format!("--debug-port={port}");
    requested(&[&port, "POST", "drain", "now"]).unwrap();
    let error = requested(&[&port, "GET", "/nothing?x=1"]).unwrap_err().to_string();
    assert!(error.ends_with("/nothing?x=1 answered with 404"), "{error}");
    assert_eq!(task.join().unwrap(), ["POST /drain HTTP/1.1|now", "GET /nothing?x=1 HTTP/1.1|"]);
}

#[test]
fn answers_are_read_whole_or_refused() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    assert_eq!(parse(chunked), Some((200, b"abcde".to_vec())));
    for wrong in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nab",
    ] {
        assert_eq!(parse(wrong), None);
    }
}
