//! Of versions, as semver.org has them, and of conditions on them, as the library that sprig uses reads them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value;

use super::super::functions::{Function, refuse, text};
use super::bool_of;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("semver", |args| {
        let text = text(args, 0)?;
        let Some(version) = Version::parse(&text) else { return refuse(format!("{text:?} is no version")) };
        Ok(version.fields(&text))
    }),
    ("semverCompare", |args| {
        let (condition, text) = (text(args, 0)?, text(args, 1)?);
        let Some(version) = Version::parse(&text) else { return refuse(format!("{text:?} is no version")) };
        match condition.split("||").map(all_of).collect::<Option<Vec<_>>>() {
            Some(any) => bool_of(any.iter().any(|all| all.iter().all(|one| one.holds(&version)))),
            None => refuse(format!("{condition:?} is no condition on versions")),
        }
    }),
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Version {
    /// Major, minor, patch.
    numbers: [u64; 3],
    prerelease: String,
    metadata: String,
}

impl Version {
    /// What is missing of the numbers is zero.
    fn parse(text: &str) -> Option<Self> {
        let (version, count) = Self::partial(text)?;
        (count > 0).then_some(version)
    }

    /// The version, and how many of its numbers were given before the end or a wildcard.
    fn partial(text: &str) -> Option<(Self, usize)> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, metadata) = text.split_once('+').map_or((text, ""), |(text, metadata)| (text, metadata));
        let (numbers, prerelease) = text.split_once('-').map_or((text, ""), |(text, prerelease)| (text, prerelease));
        let is_label = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        let parts: Vec<&str> = numbers.split('.').collect();
        if parts.len() > 3 || !is_label(metadata) || !is_label(prerelease) {
            return None;
        }
        let mut version =
            Version { prerelease: prerelease.to_owned(), metadata: metadata.to_owned(), ..Self::default() };
        let wildcard = parts.iter().position(|part| ["x", "X", "*"].contains(part)).unwrap_or(parts.len());
        for (number, part) in version.numbers.iter_mut().zip(&parts[..wildcard]) {
            *number = part.parse().ok()?;
        }
        Some((version, wildcard))
    }

    fn fields(&self, original: &str) -> Value {
        let [major, minor, patch] = self.numbers.map(Value::Uint);
        let fields = [
            ("Major", major),
            ("Minor", minor),
            ("Patch", patch),
            ("Prerelease", (&*self.prerelease).into()),
            ("Metadata", (&*self.metadata).into()),
            ("Original", original.into()),
        ];
        fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect::<BTreeMap<Arc<str>, Value>>().into()
    }

    /// Precedence, in which metadata does not count (semver.org, 11).
    fn order(&self, other: &Self) -> Ordering {
        let prerelease = match (self.prerelease.is_empty(), other.prerelease.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => prerelease_order(&self.prerelease, &other.prerelease),
        };
        self.numbers.cmp(&other.numbers).then(prerelease)
    }
}

fn prerelease_order(one: &str, other: &str) -> Ordering {
    let (mut ours, mut theirs) = (one.split('.'), other.split('.'));
    loop {
        let order = match (ours.next(), theirs.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(our), Some(their)) => match (our.parse::<u64>(), their.parse::<u64>()) {
                (Ok(our), Ok(their)) => our.cmp(&their),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => our.cmp(their),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// Longer ones first.
const OPERATORS: [(&str, Operator); 12] = [
    (">=", Operator::GreaterOrEqual),
    ("=>", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=<", Operator::LessOrEqual),
    ("!=", Operator::NotEqual),
    ("~>", Operator::Tilde),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    ("", Operator::Equal),
];

#[derive(Debug)]
struct Condition {
    operator: Operator,
    version: Version,
    /// How many numbers were given: the others may be any.
    given: usize,
}

/// Conditions that must all hold, separated by commas or spaces; `1.2 - 1.4` stands for two.
fn all_of(text: &str) -> Option<Vec<Condition>> {
    let text = text.replace(" - ", " <=").replace(',', " ");
    let mut conditions: Vec<Condition> = Vec::new();
    let mut operator = String::new();
    for word in text.split_whitespace() {
        // An operator may stand apart from its version.
        operator.push_str(word);
        if word.trim_start_matches(['<', '>', '=', '!', '~', '^']).is_empty() {
            continue;
        }
        conditions.push(Condition::parse(&std::mem::take(&mut operator))?);
    }
    if text.contains(" <=")
        && let [first, second] = &mut conditions[..]
        && first.operator == Operator::Equal
        && second.operator == Operator::LessOrEqual
    {
        first.operator = Operator::GreaterOrEqual;
    }
    (!conditions.is_empty() && operator.is_empty()).then_some(conditions)
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        let (operator, rest) =
            OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)))?;
        let (version, given) = Version::partial(rest)?;
        Some(Condition { operator, version, given })
    }

    fn holds(&self, version: &Version) -> bool {
        // Who does not name a pre-release does not want one.
        if !version.prerelease.is_empty() && self.version.prerelease.is_empty() {
            return false;
        }
        let order = version.order(&self.version);
        match self.operator {
            Operator::Equal if self.given == 3 => order == Ordering::Equal,
            Operator::Equal | Operator::Tilde => self.is_within(version, order),
            Operator::NotEqual if self.given == 3 => order != Ordering::Equal,
            Operator::NotEqual => self.first(version) != self.first(&self.version),
            Operator::Greater if self.given == 3 => order == Ordering::Greater,
            Operator::Greater => self.first(version) > self.first(&self.version),
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual if self.given == 3 => order != Ordering::Greater,
            Operator::LessOrEqual => self.first(version) <= self.first(&self.version),
            Operator::Caret => self.is_compatible(version, order),
        }
    }

    /// The numbers that this condition gives.
    fn first<'a>(&self, version: &'a Version) -> &'a [u64] {
        &version.numbers[..self.given]
    }

    /// `~1.2.3`: no less, and of the same minor version; of `~1`, of the same major one.
    fn is_within(&self, version: &Version, order: Ordering) -> bool {
        let same = self.given.min(2);
        order != Ordering::Less && version.numbers[..same] == self.version.numbers[..same]
    }

    /// `^1.2.3`: no less, and the first number that is not zero is the same.
    fn is_compatible(&self, version: &Version, order: Ordering) -> bool {
        let numbers = self.version.numbers;
        let leading = numbers.iter().position(|number| *number != 0).map_or(3, |at| at + 1);
        let same = leading.min(self.given);
        order != Ordering::Less && version.numbers[..same] == numbers[..same]
    }
}
