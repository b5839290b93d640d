use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn extract(format: Propagation, headers: &[(&str, &str)]) -> Option<TraceContext> {
    TraceContext::extract(&[format], |name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v))
}

fn inject(context: &TraceContext, format: Propagation) -> Vec<(String, String)> {
    let mut out = Vec::new();
    context.inject(&[format], |name, value| out.push((name.to_owned(), value)));
    out
}

#[test]
fn traceparent() {
    let check = |value: &str, expected: Option<bool>| {
        let context = extract(Propagation::W3c, &[("traceparent", value)]);
        assert_eq!(context.as_ref().map(TraceContext::is_sampled), expected, "{value}");
        if let Some(context) = context {
            assert_eq!((context.trace_id_hex().as_str(), context.span_id), (TRACE, 0x00f0_67aa_0ba9_02b7));
        }
    };
    check(&format!("00-{TRACE}-{SPAN}-01"), Some(true));
    check(&format!("00-{TRACE}-{SPAN}-00"), Some(false));
    check(&format!("00-{TRACE}-{SPAN}-03"), Some(true));
    check(&format!("cc-{TRACE}-{SPAN}-01-what-the-future-holds"), Some(true));
    check(&format!("cc-{TRACE}-{SPAN}-01what"), None);
    check(&format!("00-{TRACE}-{SPAN}-01-extra"), None);
    check(&format!("ff-{TRACE}-{SPAN}-01"), None);
    check(&format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None);
    check(&format!("00-{}-{SPAN}-01", "0".repeat(32)), None);
    check(&format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
    check(&format!("00-{TRACE}-{SPAN}"), None);
    check(&format!("00-{TRACE}-{SPAN}-é"), None);
    check("", None);
}

#[test]
fn b3_single_and_multi() {
    let check = |value: &str, expected: Option<(Option<bool>, bool, Option<u64>)>| {
        let context = extract(Propagation::B3Single, &[("b3", value)]);
        assert_eq!(context.map(|c| (c.sampled, c.debug, c.parent_id)), expected, "{value}");
    };
    check(&format!("{TRACE}-{SPAN}"), Some((None, false, None)));
    check(&format!("{TRACE}-{SPAN}-1"), Some((Some(true), false, None)));
    check(&format!("{TRACE}-{SPAN}-0-{SPAN}"), Some((Some(false), false, Some(0x00f0_67aa_0ba9_02b7))));
    check(&format!("{TRACE}-{SPAN}-d"), Some((Some(true), true, None)));
    check(&format!("{}-{SPAN}", &TRACE[..16]), Some((None, false, None)));
    check(&format!("{TRACE}-{SPAN}-2"), None);
    check(&format!("{TRACE}-{SPAN}-1-{SPAN}-x"), None);
    check("0", None);
    check("-", None);

    let multi = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")];
    let context = extract(Propagation::B3Multi, &multi).unwrap();
    assert!(context.debug && context.is_sampled());
    assert_eq!(extract(Propagation::B3Multi, &multi[..1]), None);
}

#[test]
fn what_is_written_reads_back_the_same() {
    for format in [Propagation::W3c, Propagation::B3Single, Propagation::B3Multi] {
        for sampled in [true, false] {
            let mut context = TraceContext::root(sampled).child();
            if format == Propagation::W3c {
                context.state = Some("vendor=1".to_owned());
            }
            let headers = inject(&context, format);
            let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut read = extract(format, &headers).unwrap();
            if format == Propagation::W3c {
                read.parent_id = context.parent_id; // not on the wire
            }
            assert_eq!(read, context);
        }
    }
}

#[test]
fn a_short_b3_trace_id_stays_short() {
    let context = extract(Propagation::B3Single, &[("b3", &format!("{SPAN}-{SPAN}-1"))]).unwrap();
    assert_eq!(inject(&context, Propagation::B3Single)[0].1, format!("{SPAN}-{SPAN}-1"));
}

#[test]
fn sampling_decisions() {
    let none = Sampling { client: 0, random: 0, overall: 10_000 };
    let check = |s: Sampling, forced, client, roll, expected| {
        assert_eq!(s.decide(forced, client, roll), expected, "{s:?} {forced} {client} {roll}");
    };
    check(none, false, false, 0, TraceReason::NotTraced);
    check(none, true, false, 0, TraceReason::Forced);
    check(none, false, true, 0, TraceReason::NotTraced);
    check(Sampling { client: 10_000, ..none }, false, true, 9999, TraceReason::Client);
    check(Sampling { random: 100, ..none }, false, false, 99, TraceReason::Sampled);
    check(Sampling { random: 100, ..none }, false, false, 100, TraceReason::NotTraced);
    check(Sampling { overall: 0, ..Sampling::default() }, true, true, 0, TraceReason::NotTraced);
}

#[test]
fn no_header_panics() {
    let alphabet: Vec<char> = "0123456789abcdefABCDEF-dé 1".chars().collect();
    for _ in 0..50_000 {
        let length = rand::random::<u8>() as usize % 80;
        let text: String = (0..length).map(|_| alphabet[rand::random::<u8>() as usize % alphabet.len()]).collect();
        for (format, name) in [(Propagation::W3c, "traceparent"), (Propagation::B3Single, "b3")] {
            if let Some(context) = extract(format, &[(name, &text)]) {
                assert!(context.trace_id != 0 && context.span_id != 0, "{text}");
            }
        }
    }
}
