use super::*;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind as Proto, MessageDescriptor};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const SOURCE: &str = include_str!("../../support.txt");

type Rows = BTreeMap<String, BTreeMap<String, (char, String)>>;

/// message → field → (mark, reason)
fn source() -> Rows {
    let mut rows = Rows::new();
    let mut current = String::new();
    for line in SOURCE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(rest) = line.strip_prefix("  ") else {
            current = line.to_owned();
            assert!(rows.insert(current.clone(), BTreeMap::new()).is_none(), "{current} appears twice");
            continue;
        };
        let (mark, rest) = rest.split_at(1);
        let fields = rows.get_mut(&current).unwrap();
        let mut put = |name: &str, mark: char, reason: &str| {
            let twice = fields.insert(name.to_owned(), (mark, reason.to_owned()));
            assert!(twice.is_none(), "{current}.{name} is classified twice");
        };
        match mark {
            "+" => rest.split_whitespace().for_each(|name| put(name, '+', "")),
            "-" | "~" => {
                let (name, reason) = rest.trim().split_once(": ").expect("a reason");
                put(name, mark.chars().next().unwrap(), reason);
            }
            other => panic!("unknown mark {other} in {line}"),
        }
    }
    rows
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(&include_bytes!("../../../proto/src/descriptors.bin")[..]).unwrap()
}

fn kind(field: &FieldDescriptor, names: &[&str]) -> String {
    let message_kind = |message: &MessageDescriptor, map: bool| {
        let name = message.full_name();
        let index = names.iter().position(|have| *have == name);
        match (name, index, map) {
            ("google.protobuf.Any", _, true) => "AnyMap".to_owned(),
            ("google.protobuf.Any", _, false) => "Any".to_owned(),
            (_, Some(index), true) => format!("MessageMap({index})"),
            (_, Some(index), false) => format!("Message({index})"),
            _ if name.starts_with("google.protobuf.") && name.ends_with("Value") && name != "google.protobuf.Value" => {
                "Wrapper".to_owned()
            }
            _ if name.starts_with("google.protobuf.") => "Leaf".to_owned(),
            _ => "Opaque".to_owned(),
        }
    };
    match field.kind() {
        Proto::Message(entry) if field.is_map() => match entry.map_entry_value_field().kind() {
            Proto::Message(value) => message_kind(&value, true),
            _ => "Leaf".to_owned(),
        },
        Proto::Message(message) => message_kind(&message, false),
        _ => "Leaf".to_owned(),
    }
}

/// The table as Rust.
fn generated(rows: &Rows, pool: &DescriptorPool) -> String {
    let names: Vec<&str> = rows.keys().map(String::as_str).collect();
    let mut out = String::from(
        "//! Generated from `support.txt`; never edited by hand.\n\n#![cfg_attr(rustfmt, rustfmt_skip)]\n\n\
         use super::Class::{Honoured as H, Ignored as I, Refused as R};\n\
         use super::Kind::{Any, AnyMap, Leaf, Message as Sub, MessageMap, Opaque, Wrapper};\n\
         use super::{Class, Field, Kind, Message};\n\n\
         const fn f(number: u32, name: &'static str, kind: Kind, repeated: bool, class: Class) -> Field {\n    \
         Field { number, name, kind, repeated, class }\n}\n\n\
         pub(super) static MESSAGES: &[Message] = &[\n",
    );
    for (name, fields) in rows {
        let descriptor = pool.get_message_by_name(name).unwrap_or_else(|| panic!("no message {name}"));
        write!(out, "    Message {{ name: {name:?}, fields: &[").unwrap();
        let mut all: Vec<FieldDescriptor> = descriptor.fields().collect();
        all.sort_by_key(FieldDescriptor::number);
        for field in all {
            let (mark, reason) = &fields[field.name()];
            let class = match mark {
                '+' => "H".to_owned(),
                '-' => format!("R({reason:?})"),
                _ => format!("I({reason:?})"),
            };
            let kind = kind(&field, &names).replacen("Message(", "Sub(", usize::from(!field.is_map()));
            let repeated = field.is_list();
            write!(out, "f({}, {:?}, {kind}, {repeated}, {class}), ", field.number(), field.name()).unwrap();
        }
        out.push_str("] },\n");
    }
    out.push_str("];\n");
    out
}

#[test]
fn every_field_of_every_message_is_classified() {
    let (rows, pool) = (source(), pool());
    for (name, fields) in &rows {
        let descriptor = pool.get_message_by_name(name).unwrap_or_else(|| panic!("no message {name}"));
        for field in descriptor.fields() {
            assert!(fields.contains_key(field.name()), "{name}.{} is not classified in support.txt", field.name());
        }
        for field in fields.keys() {
            assert!(descriptor.get_field_by_name(field).is_some(), "{name} has no field {field}");
        }
    }
}

#[test]
fn messages_of_honoured_fields_are_in_the_table() {
    let (rows, pool) = (source(), pool());
    for (name, fields) in &rows {
        for field in pool.get_message_by_name(name).unwrap().fields() {
            if fields[field.name()].0 != '+' {
                continue;
            }
            let value = match field.kind() {
                Proto::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                other => other,
            };
            if let Proto::Message(inner) = value
                && !inner.full_name().starts_with("google.protobuf.")
            {
                assert!(rows.contains_key(inner.full_name()), "{} of {name}.{}", inner.full_name(), field.name());
            }
        }
    }
}

#[test]
fn the_compiled_table_is_what_support_txt_says() {
    let expected = generated(&source(), &pool());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/support/table.rs");
    if std::env::var_os("MELTEMI_BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == expected, "run with MELTEMI_BLESS=1");
}

/// A message with one field set, wrapped as deep as its root.
fn with_field(descriptor: &MessageDescriptor, field: &FieldDescriptor) -> Option<Vec<u8>> {
    use prost_reflect::{DynamicMessage, MapKey, Value};
    let mut message = DynamicMessage::new(descriptor.clone());
    let one = |kind: Proto| match kind {
        Proto::Message(inner) => {
            let mut value = DynamicMessage::new(inner.clone());
            // An empty wrapper or leaf counts as unset.
            if inner.full_name().starts_with("google.protobuf.") {
                let first = inner.fields().next()?;
                value.set_field(&first, scalar(&first)?);
            }
            Some(Value::Message(value))
        }
        _ => scalar(field),
    };
    if field.is_map() {
        let Proto::Message(entry) = field.kind() else { return None };
        let value = match entry.map_entry_value_field().kind() {
            Proto::Message(inner) => Value::Message(DynamicMessage::new(inner)),
            _ => scalar(&entry.map_entry_value_field())?,
        };
        message.set_field(field, Value::Map([(MapKey::String("k".into()), value)].into()));
    } else if field.is_list() {
        message.set_field(field, Value::List(vec![one(field.kind())?]));
    } else {
        message.set_field(field, one(field.kind())?);
    }
    use meltemi_proto::prost::Message as _;
    Some(message.encode_to_vec())
}

fn scalar(field: &FieldDescriptor) -> Option<prost_reflect::Value> {
    use prost_reflect::Value;
    if field.is_list() || field.is_map() {
        return None;
    }
    Some(match field.kind() {
        Proto::String => Value::String("x".into()),
        Proto::Bytes => Value::Bytes(bytes::Bytes::from_static(b"x")),
        Proto::Bool => Value::Bool(true),
        Proto::Double => Value::F64(1.0),
        Proto::Float => Value::F32(1.0),
        Proto::Int32 | Proto::Sint32 | Proto::Sfixed32 => Value::I32(1),
        Proto::Int64 | Proto::Sint64 | Proto::Sfixed64 => Value::I64(1),
        Proto::Uint32 | Proto::Fixed32 => Value::U32(1),
        Proto::Uint64 | Proto::Fixed64 => Value::U64(1),
        Proto::Enum(_) => Value::EnumNumber(1),
        Proto::Message(_) => return None,
    })
}

#[test]
fn a_set_field_meets_its_class() {
    let (rows, pool) = (source(), pool());
    let (mut refused, mut ignored_count) = (0, 0);
    for (name, fields) in &rows {
        let descriptor = pool.get_message_by_name(name).unwrap();
        for field in descriptor.fields() {
            let Some(bytes) = with_field(&descriptor, &field) else { continue };
            let (mark, reason) = &fields[field.name()];
            match mark {
                '-' => {
                    refused += 1;
                    let error = check(&bytes, name).expect_err(&format!("{name}.{}", field.name()));
                    assert_eq!(error, PlanError { path: field.name().into(), reason: reason.clone() });
                }
                '~' => {
                    ignored_count += 1;
                    assert_eq!(check(&bytes, name), Ok(()), "{name}.{}", field.name());
                    assert_eq!(ignored(&bytes, name), [(Arc::from(field.name()), Arc::from(reason.as_str()))]);
                }
                _ => assert_eq!(check(&bytes, name), Ok(()), "{name}.{}", field.name()),
            }
        }
    }
    assert!(refused > 100 && ignored_count > 50, "{refused} refused, {ignored_count} ignored");
}

#[test]
fn a_refused_field_is_told_with_its_whole_path() {
    let listener: meltemi_proto::envoy::config::listener::v3::Listener = meltemi_proto::json::from_value(&serde_json::json!({
        "filter_chains": [{}, { "filters": [{ "name": "h", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "route_config": { "virtual_hosts": [{ "name": "v", "domains": ["*"], "hedge_policy": { "hedge_on_per_try_timeout": true } }] }
        } }] }]
    }))
    .unwrap();
    let error = check(&meltemi_proto::encode(&listener), "envoy.config.listener.v3.Listener").unwrap_err();
    assert_eq!(
        error.to_string(),
        "filter_chains[1].filters[0].typed_config.route_config.virtual_hosts[0].hedge_policy: hedging is not supported"
    );
}

#[test]
fn a_field_of_a_newer_envoy_is_refused() {
    // Field 1 is the name; field 2000 is nobody's.
    let bytes = [0x0a, 1, b'x', 0x82, 0x7d, 1, b'y'];
    let error = check_resource("type.googleapis.com/envoy.config.cluster.v3.Cluster", &bytes).unwrap_err();
    assert_eq!(error.to_string(), "field number 2000 is not known to this version");
}

#[test]
fn malformed_bytes_are_refused() {
    for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0xff; 12], &[0x0b], &[0, 0]] {
        assert!(check(bytes, "envoy.config.cluster.v3.Cluster").is_err(), "{bytes:?}");
    }
}
