//! The open blocks of a function that is being built, and the values that may be shared in them.

use super::inst::{Block, Op, Value};
use super::ty::Ty;
use foldhash::{HashMap, HashMapExt};

/// An operation and the type of its result: two that are equal give one value.
pub(super) type Key = (Op, Ty);

/// An open block.
struct Scope {
    block: Block,
    /// What was made in it, and may not be shared behind it.
    made: Vec<Key>,
}

/// A value to share, and how many scopes there are around the one that it was made in.
#[derive(Clone, Copy)]
struct Shared {
    value: Value,
    depth: usize,
}

/// The open blocks, outermost first.
pub(super) struct Scopes {
    open: Vec<Scope>,
    /// Values of all of them, so that one look-up finds a value.
    shared: HashMap<Key, Shared>,
}

impl Scopes {
    /// A function's outermost block.
    pub(super) fn new(entry: Block) -> Scopes {
        Scopes { open: vec![Scope { block: entry, made: vec![] }], shared: HashMap::new() }
    }

    /// Opens a block in the innermost one.
    pub(super) fn open(&mut self, block: Block) {
        self.open.push(Scope { block, made: vec![] });
    }

    /// Closes the innermost block: what was made in it is shared no longer.
    pub(super) fn close(&mut self) {
        let depth = self.depth();
        let made = self.open.pop().into_iter().flat_map(|scope| scope.made);
        for key in made {
            // A load may have been hoisted meanwhile.
            if self.shared.get(&key).is_some_and(|shared| shared.depth == depth) {
                self.shared.remove(&key);
            }
        }
    }

    /// The innermost block.
    pub(super) fn here(&self) -> Block {
        self.open.last().expect("the entry scope is never popped").block
    }

    /// Blocks around the innermost one.
    pub(super) fn depth(&self) -> usize {
        self.open.len() - 1
    }

    /// The value of an operation in any open block.
    pub(super) fn find(&self, key: &Key) -> Option<Value> {
        self.shared.get(key).map(|shared| shared.value)
    }

    /// The value of an operation in the outermost block.
    pub(super) fn find_outermost(&self, key: &Key) -> Option<Value> {
        self.shared.get(key).filter(|shared| shared.depth == 0).map(|shared| shared.value)
    }

    /// Shares the value of an operation in the block with `depth` others around it.
    pub(super) fn share(&mut self, key: Key, value: Value, depth: usize) {
        self.open[depth].made.push(key.clone());
        self.shared.insert(key, Shared { value, depth });
    }
}
