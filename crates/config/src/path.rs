//! A field path as a list of borrowed segments, from the leaf up: costs nothing until it is printed.

use std::fmt;

/// `spec.http[0].headers["x.y"]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    Root(&'a str),
    Field(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// A path that starts at a field of the document (`spec`) or, if empty, at the document itself.
    pub fn root(name: &'a str) -> Self {
        Self { parent: None, segment: Segment::Root(name) }
    }

    /// A field, or an entry of a map.
    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }

    /// An element of a list.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Root(name) => f.write_str(name),
            Segment::Index(i) => write!(f, "[{i}]"),
            Segment::Field(name)
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                let top = self.parent.is_none_or(|p| matches!(p.segment, Segment::Root("")));
                write!(f, "{}{name}", if top { "" } else { "." })
            }
            Segment::Field(name) => write!(f, "[\"{name}\"]"),
        }
    }
}
