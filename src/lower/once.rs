//! What is made once, not in every run.
//!
//! A program is a *request* if which rows it reads depends on a scalar input, such as the key of one customer. It runs
//! many times over the same tables, and most of what it needs is the same each time: build sides, groups, sorted rows,
//! expressions over dictionaries. What depends on no input is made by the function that also packs weights, when these
//! or the tables change. A program that is no request does all of its work in each run.

use quearn_stage::graph::{Graph, Node, Op, Ty};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

/// Which nodes depend on what is given for a run.
#[derive(Debug, Default)]
pub struct Requests {
    is_request: bool,
    /// By node: does it depend on an input that is no weight?
    depends: Vec<bool>,
}

/// A scalar that is given: it stands in expressions over rows as a constant does.
pub fn is_scalar_input(graph: &Graph, node: Node) -> bool {
    matches!(graph.op(node), Op::Input { .. }) && graph.ty(node).as_tensor().is_some_and(|(_, shape)| shape.is_empty())
}

impl Requests {
    /// Looks at all nodes of a graph.
    pub fn of(graph: &Graph) -> Requests {
        let nodes = || (0..graph.len() as u32).map(Node);
        let follow = |starts: &dyn Fn(Node) -> bool| {
            let mut depends: Vec<bool> = vec![false; graph.len()];
            for node in nodes() {
                let inputs = graph.dependencies(node);
                depends[node.index()] = starts(node) || inputs.iter().any(|input| depends[input.index()]);
            }
            depends
        };
        let is_given = |node: Node| matches!(graph.op(node), Op::Input { weight: false, .. });
        let by_key = follow(&|node| is_given(node) && is_scalar_input(graph, node));
        let is_request =
            graph.reachable().iter().any(|node| matches!(graph.ty(*node), Ty::Table { .. }) && by_key[node.index()]);
        Requests { is_request, depends: follow(&is_given) }
    }

    /// Is the program a request?
    pub fn is_request(&self) -> bool {
        self.is_request
    }

    /// Is a value, or are the rows of a table, the same in every run?
    pub fn is_constant(&self, node: Node) -> bool {
        !self.depends[node.index()]
    }
}

/// What was lowered, so that it is lowered once: by the function that prepares, or by the main function. The main function
/// may use what the other has made, not the other way round.
#[derive(Debug)]
pub struct Memo<K, T>(RefCell<HashMap<K, (bool, T)>>);

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Memo(RefCell::default())
    }
}

impl<K: Eq + Hash, T: Clone> Memo<K, T> {
    /// What was lowered, if it is there in time.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, prepares: bool) -> Option<T>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.borrow().get(key).filter(|(early, _)| *early || !prepares).map(|(_, known)| known.clone())
    }

    /// Keeps what was lowered.
    pub fn insert(&self, key: K, prepares: bool, value: T) {
        self.0.borrow_mut().insert(key, (prepares, value));
    }
}
