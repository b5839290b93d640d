//! Of lists and maps. Values are immutable here: `set`, `unset` and `merge` give a changed copy, which is what templates
//! assign.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{Result, Value};

use super::super::functions::{Function, arg, list, map, number, refuse, text};
use super::bool_of;

type Map = BTreeMap<Arc<str>, Value>;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("append", |args| Ok(joined([&list(args, 0)?, &[arg(args, 1)?.clone()]]))),
    ("chunk", |args| {
        let size = usize::try_from(number(args, 0)?).unwrap_or_default().max(1);
        Ok(list(args, 1)?.chunks(size).map(|part| Value::from(part.to_vec())).collect::<Vec<_>>().into())
    }),
    ("concat", |args| {
        let lists = (0..args.len()).map(|position| list(args, position)).collect::<Result<Vec<_>>>()?;
        Ok(lists.iter().flat_map(|list| list.iter().cloned()).collect::<Vec<_>>().into())
    }),
    ("compact", |args| Ok(kept(&list(args, 0)?, Value::is_truthy))),
    ("deepCopy", |args| Ok(arg(args, 0)?.clone())),
    ("dict", dictionary),
    ("dig", dig),
    ("first", |args| Ok(list(args, 0)?.first().cloned().unwrap_or(Value::Nil))),
    ("get", |args| Ok(map(args, 0)?.get(&*text(args, 1)?).cloned().unwrap_or_else(|| "".into()))),
    ("has", |args| bool_of(list(args, 1)?.contains(arg(args, 0)?))),
    ("hasKey", |args| bool_of(map(args, 0)?.contains_key(&*text(args, 1)?))),
    ("initial", |args| {
        let list = list(args, 0)?;
        Ok(list[..list.len().saturating_sub(1)].to_vec().into())
    }),
    ("keys", |args| Ok(map(args, 0)?.keys().map(|key| Value::from(&**key)).collect::<Vec<_>>().into())),
    ("last", |args| Ok(list(args, 0)?.last().cloned().unwrap_or(Value::Nil))),
    ("list", |args| Ok(args.to_vec().into())),
    ("merge", |args| merged(args, false)),
    ("mergeOverwrite", |args| merged(args, true)),
    ("pick", |args| {
        let names = (1..args.len()).map(|position| text(args, position)).collect::<Result<Vec<_>>>()?;
        let picked = map(args, 0)?
            .iter()
            .filter(|(name, _)| names.iter().any(|wanted| **wanted == ***name))
            .map(owned)
            .collect::<Map>();
        Ok(picked.into())
    }),
    ("pluck", |args| {
        let name = text(args, 0)?;
        let maps = (1..args.len()).map(|position| map(args, position)).collect::<Result<Vec<_>>>()?;
        Ok(maps.iter().filter_map(|map| map.get(&*name).cloned()).collect::<Vec<_>>().into())
    }),
    ("prepend", |args| Ok(joined([&[arg(args, 1)?.clone()], &list(args, 0)?]))),
    ("rest", |args| Ok(list(args, 0)?.get(1..).unwrap_or_default().to_vec().into())),
    ("reverse", |args| Ok(list(args, 0)?.iter().rev().cloned().collect::<Vec<_>>().into())),
    ("set", |args| {
        let mut changed = (*map(args, 0)?).clone();
        changed.insert(text(args, 1)?.into(), arg(args, 2)?.clone());
        Ok(changed.into())
    }),
    ("slice", |args| {
        let list = list(args, 0)?;
        let place = |position: usize, default: usize| -> Result<usize> {
            match args.get(position) {
                Some(_) => Ok(usize::try_from(number(args, position)?).unwrap_or(usize::MAX)),
                None => Ok(default),
            }
        };
        let (start, end) = (place(1, 0)?, place(2, list.len())?);
        list.get(start..end).map_or_else(|| refuse("slice: not within the list"), |part| Ok(part.to_vec().into()))
    }),
    ("sortAlpha", |args| {
        let mut texts: Vec<String> = list(args, 0)?.iter().map(Value::to_string).collect();
        texts.sort();
        Ok(texts.into_iter().map(Value::from).collect::<Vec<_>>().into())
    }),
    ("toStrings", |args| {
        Ok(list(args, 0)?.iter().map(|value| value.to_string().into()).collect::<Vec<Value>>().into())
    }),
    ("tuple", |args| Ok(args.to_vec().into())),
    ("uniq", |args| {
        let mut unique: Vec<Value> = Vec::new();
        for value in list(args, 0)?.iter().filter(|value| !matches!(value, Value::Nil)) {
            if !unique.contains(value) {
                unique.push(value.clone());
            }
        }
        Ok(unique.into())
    }),
    ("unset", |args| {
        let mut changed = (*map(args, 0)?).clone();
        changed.remove(&*text(args, 1)?);
        Ok(changed.into())
    }),
    ("values", |args| Ok(map(args, 0)?.values().cloned().collect::<Vec<_>>().into())),
    ("without", |args| Ok(kept(&list(args, 0)?, |value| !args[1..].contains(value)))),
];

fn owned((name, value): (&Arc<str>, &Value)) -> (Arc<str>, Value) {
    (name.clone(), value.clone())
}

fn joined(parts: [&[Value]; 2]) -> Value {
    parts.concat().into()
}

fn kept(list: &[Value], is_kept: impl Fn(&Value) -> bool) -> Value {
    list.iter().filter(|value| is_kept(value)).cloned().collect::<Vec<_>>().into()
}

fn dictionary(args: &[Value]) -> Result<Value> {
    let entries =
        args.chunks(2).map(|pair| (Arc::from(pair[0].to_string()), pair.get(1).cloned().unwrap_or("".into())));
    Ok(entries.collect::<Map>().into())
}

/// `dig "a" "b" default map`.
fn dig(args: &[Value]) -> Result<Value> {
    let [keys @ .., default, root] = args else { return refuse("dig needs a key, a default and a map") };
    let mut value = root.clone();
    for key in keys {
        match value.field(&key.to_string()) {
            Some(found) => value = found.clone(),
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}

/// Maps into one, map by map; the first to say something wins, or the last.
fn merged(args: &[Value], last_wins: bool) -> Result<Value> {
    let mut merged = Map::new();
    for position in 0..args.len() {
        lay(&mut merged, map(args, position)?.as_ref(), last_wins);
    }
    Ok(merged.into())
}

fn lay(base: &mut Map, over: &Map, last_wins: bool) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Map(present)), Value::Map(given)) => lay(Arc::make_mut(present), given, last_wins),
            (Some(present), _) if !last_wins && present.is_truthy() => {}
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}
