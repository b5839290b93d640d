//! Header fields in the order they came.

use http::{HeaderName, HeaderValue};

use crate::spelling::Spelling;

/// An ordered list of header fields. Lookup is linear: a message has a dozen, and comparing short names beats hashing them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// How HTTP/1 peers see the names; `None`: in lower case.
    spelling: Option<Box<Spelling>>,
}

impl Headers {
    pub const fn new() -> Self {
        Self { fields: Vec::new(), spelling: None }
    }

    pub fn with_capacity(fields: usize) -> Self {
        Self { fields: Vec::with_capacity(fields), spelling: None }
    }

    pub(crate) fn spell(&mut self, spelling: Option<Spelling>) {
        self.spelling = spelling.map(Box::new);
    }

    pub(crate) fn spelling(&self) -> Option<&Spelling> {
        self.spelling.as_deref()
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of names and values, as Envoy counts them for its limits.
    pub fn byte_size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }

    /// The first value. `name` is a `HeaderName` or a `str` (compared without case).
    pub fn get<K: ?Sized>(&self, name: &K) -> Option<&HeaderValue>
    where
        HeaderName: PartialEq<K>,
    {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The first value if it is visible ASCII.
    pub fn get_str<K: ?Sized>(&self, name: &K) -> Option<&str>
    where
        HeaderName: PartialEq<K>,
    {
        self.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn get_all<'s, 'n, K: ?Sized>(&'s self, name: &'n K) -> impl Iterator<Item = &'s HeaderValue> + use<'s, 'n, K>
    where
        HeaderName: PartialEq<K>,
    {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, v)| v)
    }

    pub fn contains<K: ?Sized>(&self, name: &K) -> bool
    where
        HeaderName: PartialEq<K>,
    {
        self.get(name).is_some()
    }

    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.push((name, value));
    }

    /// Sets the field to one value: replaces the first occurrence in place, drops the others.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        let Some(first) = self.fields.iter().position(|(n, _)| *n == name) else {
            self.fields.push((name, value));
            return;
        };
        let mut index = self.fields.len();
        while index > first + 1 {
            index -= 1;
            if self.fields[index].0 == name {
                self.fields.remove(index);
            }
        }
        self.fields[first].1 = value;
    }

    /// Removes every occurrence and returns the first value.
    pub fn remove<K: ?Sized>(&mut self, name: &K) -> Option<HeaderValue>
    where
        HeaderName: PartialEq<K>,
    {
        let first = self.fields.iter().position(|(n, _)| n == name)?;
        let (_, value) = self.fields.remove(first);
        if self.fields[first..].iter().any(|(n, _)| n == name) {
            self.fields.retain(|(n, _)| n != name);
        }
        Some(value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.fields.retain(|(n, v)| keep(n, v));
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&HeaderName, &HeaderValue)> + '_ {
        self.fields.iter().map(|(n, v)| (n, v))
    }

    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&HeaderName, &mut HeaderValue)> + '_ {
        self.fields.iter_mut().map(|(n, v)| (&*n, v))
    }

    pub fn extend(&mut self, other: Self) {
        self.fields.extend(other.fields);
    }

    pub fn clear(&mut self) {
        self.fields.clear();
    }

    /// All values of `name` joined with `,`, as matchers see a repeated field. No copy when there is one.
    pub fn joined<K: ?Sized>(&self, name: &K) -> Option<std::borrow::Cow<'_, [u8]>>
    where
        HeaderName: PartialEq<K>,
    {
        let mut values = self.get_all(name);
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(std::borrow::Cow::Borrowed(first.as_bytes()));
        };
        let mut all = first.as_bytes().to_vec();
        for value in std::iter::once(second).chain(values) {
            all.push(b',');
            all.extend_from_slice(value.as_bytes());
        }
        Some(std::borrow::Cow::Owned(all))
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        Self { fields: fields.into_iter().collect(), spelling: None }
    }
}

impl IntoIterator for Headers {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<(HeaderName, HeaderValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}

#[cfg(test)]
mod tests;
