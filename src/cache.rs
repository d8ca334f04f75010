//! Programs that a session has compiled, by what they look like: the same query again, or with other literals in its
//! comparisons, is not compiled again.

use crate::data::Fact;
use crate::executable::Executable;
use crate::lower::parameter::Parameter;
use quearn_stage::graph::{Graph, Literal, Node, Op, Scalar};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Programs that are kept, at most; the oldest goes first.
const KEPT: usize = 256;

/// What a rewritten graph looks like, but for the values of its parameters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    nodes: Vec<(Op, Vec<Input>)>,
    /// The nodes themselves, where operations name nodes beside their inputs.
    exact: Vec<Node>,
    outputs: Vec<(String, usize)>,
    /// What the rewrites relied on.
    facts: Vec<Fact>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Input {
    /// Another node, by its place in the list.
    Node(usize),
    /// A literal of that type.
    Parameter(Scalar),
}

impl Key {
    /// The key of a graph with these parameters, to which rewrites have come by these facts.
    pub fn new(graph: &Graph, parameters: &[Parameter], facts: &[Fact]) -> Key {
        let masked: HashMap<(Node, usize), &Literal> =
            parameters.iter().map(|p| ((p.node, p.side), &p.literal)).collect();
        let reachable = graph.reachable();
        // A literal that is nothing but a parameter is no node: equal literals are one node, different ones are two.
        let operands = |&n: &Node| graph.dependencies(n).into_iter().enumerate().map(move |(side, i)| ((n, side), i));
        let used = reachable.iter().flat_map(operands).filter(|(at, _)| !masked.contains_key(at)).map(|(_, i)| i);
        let used: HashSet<Node> = used.chain(graph.outputs().iter().map(|(_, n)| *n)).collect();
        let listed: Vec<Node> = reachable.into_iter().filter(|n| used.contains(n)).collect();
        let places: HashMap<Node, usize> = listed.iter().copied().zip(0..).collect();
        let input = |node: Node, side: usize, i: Node| match masked.get(&(node, side)) {
            Some(literal) => Input::Parameter(literal.scalar()),
            None => Input::Node(places[&i]),
        };
        let entry = |&node: &Node| {
            let inputs = graph.inputs(node).iter().enumerate().map(|(side, &i)| input(node, side, i));
            (graph.op(node).clone(), inputs.collect())
        };
        let names_nodes = |n: &Node| graph.op(*n).region().is_some() || matches!(graph.op(*n), Op::Param { .. });
        let exact = if listed.iter().any(names_nodes) { listed.clone() } else { vec![] };
        Key {
            exact,
            nodes: listed.iter().map(entry).collect(),
            outputs: graph.outputs().iter().map(|(name, n)| (name.clone(), places[n])).collect(),
            facts: facts.to_vec(),
        }
    }
}

/// The programs of a session.
#[derive(Default)]
pub struct ProgramCache(Mutex<Programs>);

#[derive(Default)]
struct Programs {
    by_key: HashMap<Key, Arc<Executable>>,
    oldest: VecDeque<Key>,
}

impl ProgramCache {
    /// The program of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Executable>> {
        self.lock().by_key.get(key).cloned()
    }

    /// Keeps a program, in place of one of that key if there is one.
    pub fn insert(&self, key: Key, program: Arc<Executable>) {
        let mut programs = self.lock();
        if programs.by_key.insert(key.clone(), program).is_none() {
            programs.oldest.push_back(key);
        }
        while programs.oldest.len() > KEPT {
            if let Some(key) = programs.oldest.pop_front() {
                programs.by_key.remove(&key);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Programs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
