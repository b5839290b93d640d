//! Which of many keys a text begins with.

/// A radix tree of keys: the values of every key that a text begins with, shortest first.
///
/// A look-up reads no more of the text than the longest such key and does not grow with the number of keys; building costs the
/// keys' bytes.
#[derive(Debug, Clone)]
pub struct PrefixTree<T> {
    /// The root, whose label is empty, is the first.
    nodes: Vec<Node<T>>,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
struct Node<T> {
    /// What stands between the parent's key and this one; lower case where case is ignored.
    label: Box<[u8]>,
    /// By the first byte of their labels.
    children: Vec<(u8, u32)>,
    value: Option<T>,
}

impl<T> Node<T> {
    fn new(label: &[u8]) -> Self {
        Self { label: label.into(), children: Vec::new(), value: None }
    }
}

impl<T: Default> PrefixTree<T> {
    /// `ignore_case` folds ASCII.
    pub fn new(ignore_case: bool) -> Self {
        Self { nodes: vec![Node::new(b"")], ignore_case }
    }

    /// The value of `key`, made when it is new.
    pub fn entry(&mut self, key: &str) -> &mut T {
        let folded = if self.ignore_case { key.to_ascii_lowercase() } else { key.to_owned() };
        let (mut at, mut rest) = (0, folded.as_bytes());
        while let Some(first) = rest.first() {
            let place = self.nodes[at].children.binary_search_by_key(first, |(byte, _)| *byte);
            match place {
                Err(place) => {
                    let leaf = self.push(Node::new(rest));
                    self.nodes[at].children.insert(place, (*first, leaf));
                    (at, rest) = (leaf as usize, &[]);
                }
                Ok(place) => {
                    at = self.nodes[at].children[place].1 as usize;
                    let label = &self.nodes[at].label;
                    let shared = label.iter().zip(rest).take_while(|(have, wanted)| have == wanted).count();
                    if shared < label.len() {
                        self.split(at, shared);
                    }
                    rest = &rest[shared..];
                }
            }
        }
        self.nodes[at].value.get_or_insert_default()
    }

    fn push(&mut self, node: Node<T>) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("keys of less than 4 GiB")
    }

    /// What follows the first bytes of a node's label becomes its only child.
    fn split(&mut self, at: usize, keep: usize) {
        let node = &mut self.nodes[at];
        let mut lower = Node::new(&node.label[keep..]);
        node.label = node.label[..keep].into();
        lower.children = std::mem::take(&mut node.children);
        lower.value = node.value.take();
        let first = lower.label[0];
        let lower = self.push(lower);
        self.nodes[at].children.push((first, lower));
    }
}

impl<T> PrefixTree<T> {
    /// The lengths and the values of the keys that `text` begins with, shortest first.
    pub fn prefixes_of<'t, 'x>(&'t self, text: &'x [u8]) -> PrefixesOf<'t, 'x, T> {
        PrefixesOf { tree: self, text, at: Some(0), length: 0 }
    }

    fn child(&self, node: &Node<T>, rest: &[u8]) -> Option<usize> {
        let fold = |byte: u8| if self.ignore_case { byte.to_ascii_lowercase() } else { byte };
        let first = fold(*rest.first()?);
        let place = node.children.binary_search_by_key(&first, |(byte, _)| *byte).ok()?;
        let at = node.children[place].1 as usize;
        let label = &self.nodes[at].label;
        let head = rest.get(..label.len())?;
        head.iter().zip(label.iter()).all(|(have, wanted)| fold(*have) == *wanted).then_some(at)
    }
}

/// See [`PrefixTree::prefixes_of`].
#[derive(Debug)]
pub struct PrefixesOf<'t, 'x, T> {
    tree: &'t PrefixTree<T>,
    text: &'x [u8],
    at: Option<usize>,
    /// Of the key of the node at hand.
    length: usize,
}

impl<'t, T> Iterator for PrefixesOf<'t, '_, T> {
    type Item = (usize, &'t T);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(at) = self.at {
            let (node, length) = (&self.tree.nodes[at], self.length);
            self.at = self.tree.child(node, &self.text[length..]);
            self.length += self.at.map_or(0, |next| self.tree.nodes[next].label.len());
            if let Some(value) = &node.value {
                return Some((length, value));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
