use std::sync::Arc;
use std::time::Duration;

use meltemi_plan::access_log::Comparison;
use meltemi_plan::{AccessLog, AccessLogSink, Format, Fraction, JsonFormat};

use super::*;
use crate::testing;

fn text_log(path: &std::path::Path, format: &str, filter: Option<AccessLogFilter>) -> AccessLog {
    let format = Format::parse(format).unwrap();
    AccessLog {
        name: "file".into(),
        filter,
        sink: AccessLogSink::File(Arc::from(path)),
        format: AccessLogFormat::Text { format, omit_empty: false },
    }
}

fn temporary(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("meltemi-access-log-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn lines_of_all_workers_reach_the_file_whole() {
    let context = testing::context();
    let path = temporary("lines");
    let logs = Arc::new(AccessLogs::new(&[text_log(&path, "%RESPONSE_CODE% %BYTES_SENT%\n", None)], &context.logs));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let logs = logs.clone();
            std::thread::spawn(move || {
                let mut info = testing::info();
                info.response_code = Some(200);
                (0..500).for_each(|i| {
                    info.bytes_sent = i;
                    logs.log(&Scope::new(&info));
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    context.logs.flush();
    let written = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(written.lines().count(), 2000);
    assert!(written.lines().all(|l| l.strip_prefix("200 ").is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n < 500))));
    assert_eq!(context.registry.total("envoy_filesystem_write_buffered", &[]), 2000);
}

#[test]
fn a_file_that_was_moved_is_opened_anew() {
    let context = testing::context();
    let (path, moved) = (temporary("moved"), temporary("moved.1"));
    let logs = AccessLogs::new(&[text_log(&path, "%BYTES_SENT%\n", None)], &context.logs);
    let mut info = testing::info();
    let mut log = |bytes| {
        info.bytes_sent = bytes;
        logs.log(&Scope::new(&info));
        context.logs.flush();
    };
    log(1);
    std::fs::rename(&path, &moved).unwrap();
    log(2);
    context.logs.reopen();
    log(3);
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "1\n2\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
    for file in [path, moved] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn json_lines_end_with_a_newline_and_may_be_sorted() {
    let info = testing::info();
    let leaf = |text: &str| JsonFormat::Format(Format::parse(text).unwrap());
    let format = JsonFormat::Object(vec![("b".into(), leaf("%BYTES_SENT%")), ("a".into(), leaf("%PROTOCOL%"))]);
    let line = |sorted| {
        let mut out = Vec::new();
        let format = AccessLogFormat::Json { format: format.clone(), omit_empty: false, sorted };
        write_line(&format, &Scope::new(&info), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(line(false), "{\"b\":0,\"a\":null}\n");
    assert_eq!(line(true), "{\"a\":null,\"b\":0}\n");
}

#[test]
fn filters() {
    let mut info = testing::info();
    info.response_code = Some(503);
    info.duration = Some(Duration::from_millis(20));
    info.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    let request = testing::request(&[("x-request-id", "00000005-0000-4000-8000-000000000000")]);
    let scope = Scope { request: Some(&request), ..Scope::new(&info) };
    let check = |filter: AccessLogFilter, expected| assert_eq!(passes(&filter, &scope), expected, "{filter:?}");
    let status = |op, value| AccessLogFilter::StatusCode { op, value };
    check(status(Comparison::AtLeast, 500), true);
    check(status(Comparison::AtMost, 500), false);
    check(AccessLogFilter::Duration { op: Comparison::AtLeast, value: 21 }, false);
    check(AccessLogFilter::NotHealthCheck, true);
    check(AccessLogFilter::Traceable, false);
    check(AccessLogFilter::ResponseFlags(vec![]), true);
    check(AccessLogFilter::ResponseFlags(vec!["UF".into()]), true);
    check(AccessLogFilter::ResponseFlags(vec!["NR".into()]), false);
    check(AccessLogFilter::And(vec![status(Comparison::Equal, 503), AccessLogFilter::Traceable]), false);
    check(AccessLogFilter::Or(vec![status(Comparison::Equal, 503), AccessLogFilter::Traceable]), true);
    check(AccessLogFilter::GrpcStatus { statuses: vec![14], exclude: false }, true);
    check(AccessLogFilter::LogType { types: vec!["DownstreamEnd".into()], exclude: true }, true);
    // The request id decides: 5 of 10.
    let fraction = |numerator| AccessLogFilter::Fraction {
        fraction: Fraction { numerator, denominator: 10 },
        independent_random: false,
    };
    check(fraction(5), false);
    check(fraction(6), true);
}
