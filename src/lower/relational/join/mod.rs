//! Equi-joins: the right side is built into a directory of rows, the left side probes it inside its own pipeline.
//!
//! | file | what it holds |
//! |---|---|
//! | [`directory`] | how keys find rows: the structures and the choice between them |
//! | [`unique`] | which keys have one row at most |
//! | [`flags`] | keys of which only the occurrence matters, and how they end the search for a match early |
//! | [`build`] | the pipeline that writes the rows of the right side out, and the step that arranges them |
//! | [`probe`] | the code that looks up the current row of the left side |

pub mod build;
pub mod directory;
pub mod flags;
pub mod probe;
pub mod unique;

use super::env::Env;
use super::expr::{arith, column, elem_of, eval, text};
use super::layout::RowLayout;
use super::pipeline;
use super::value::Value;
use crate::lower::context::Cx;
use crate::lower::error::Result;
use directory::{Access, Slots};
use quearn_stage::graph::{JoinKind, Node, Op, infer};
use std::rc::Rc;

pub use probe::{ask, probe};
pub use unique::is_unique;

/// A join of the graph, taken apart.
#[derive(Clone, Debug)]
pub struct Join {
    /// The node.
    pub node: Node,
    /// Which rows come out.
    pub kind: JoinKind,
    /// Probe side.
    pub left: Node,
    /// Build side.
    pub right: Node,
    /// Key expressions of the left and the right side.
    pub keys: Vec<(Node, Node)>,
    /// A further condition on a pair.
    pub residual: Option<Node>,
}

impl Join {
    /// The parts of a join node.
    pub fn of(cx: &Cx<'_>, node: Node) -> Join {
        let Op::Join { kind, keys } = cx.graph.op(node) else { unreachable!("a join") };
        let (inputs, keys) = (cx.graph.inputs(node), *keys);
        let pairs = inputs[2..2 + keys].iter().zip(&inputs[2 + keys..2 + 2 * keys]);
        Join {
            node,
            kind: kind.clone(),
            left: inputs[0],
            right: inputs[1],
            keys: pairs.map(|(l, r)| (*l, *r)).collect(),
            residual: inputs.get(2 + 2 * keys).copied(),
        }
    }

    fn right_keys(&self) -> Vec<Node> {
        self.keys.iter().map(|k| k.1).collect()
    }

    /// Does only the existence of a match matter, whatever the row holds?
    fn existence(&self) -> bool {
        self.kind.is_one_sided() && self.residual.is_none()
    }
}

/// What the probe side has to know of a built join.
#[derive(Debug)]
pub struct Probe {
    /// The join.
    pub join: Join,
    /// What a row of the build side holds; empty if it is a stored table's own.
    layout: Rc<RowLayout>,
    /// Field of each key.
    fields: Vec<usize>,
    /// How keys find rows.
    pub access: Access,
    /// Where the directory is.
    pub slots: Slots,
    /// Does a combination of keys have one row at most?
    unique: bool,
}

impl Probe {
    /// Bytes a row of the build side.
    pub fn width(&self) -> i64 {
        self.layout.width()
    }
}

/// An upper bound of the rows of a join.
pub fn row_bound(cx: &Cx<'_>, node: Node) -> u64 {
    let join = Join::of(cx, node);
    let left = pipeline::row_bound(cx, join.left);
    if join.kind.is_one_sided() || is_unique(cx, join.right, &join.right_keys()) {
        return left;
    }
    let pairs = left.saturating_mul(pipeline::row_bound(cx, join.right));
    if join.kind == JoinKind::Left { pairs.saturating_add(left) } else { pairs }
}

/// A key value in the type in which both sides meet; strings as text, since the codes of two dictionaries do not agree.
fn key<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node, partner: Node) -> Result<Value<'b>> {
    let (own, other) = (elem_of(cx, node)?.scalar, elem_of(cx, partner)?.scalar);
    let to = infer::promote(own, other).unwrap_or(own);
    arith::promote(env, text::as_text(cx, env, eval(cx, env, node)?), own, to)
}

/// Keys that are known not to be NULL.
fn plain<'b>(keys: &[Value<'b>]) -> Vec<Value<'b>> {
    keys.iter().map(|k| k.with_valid(None)).collect()
}

/// Emits the pipeline that builds the right side of a join, when it is first asked for.
pub fn prepare(cx: &Cx<'_>, node: Node) -> Result<Rc<Probe>> {
    let join = Join::of(cx, node);
    let built: Vec<Node> = join.right_keys().into_iter().chain([join.right]).collect();
    cx.once(&built, || lower(cx, node, join))
}

fn lower(cx: &Cx<'_>, node: Node, join: Join) -> Result<Rc<Probe>> {
    if let Some(probe) = cx.joins.get(&node, cx.prepares()) {
        return Ok(probe);
    }
    let probe = match directory::positional(cx, &join)? {
        Some(access) => {
            Probe { layout: Rc::default(), fields: vec![], access, slots: Slots::new(cx), unique: true, join }
        }
        None => build::build(cx, join)?,
    };
    let probe = Rc::new(probe);
    cx.joins.insert(node, cx.prepares(), Rc::clone(&probe));
    Ok(probe)
}

/// The pairs that a residual condition is over.
fn pairs_of(cx: &Cx<'_>, residual: Node) -> Option<Node> {
    let inputs = cx.graph.inputs(residual);
    match cx.graph.op(residual) {
        Op::Column(_) => Some(inputs[0]).filter(|&table| matches!(cx.graph.op(table), Op::Product)),
        _ => inputs.iter().find_map(|&i| pairs_of(cx, i)),
    }
}

/// The columns of the build side that its rows keep.
fn kept(cx: &Cx<'_>, join: &Join) -> Vec<(String, quearn_stage::graph::Elem)> {
    if join.existence() {
        return vec![];
    }
    let fields = column::fields(cx, join.right).iter().filter(|f| cx.needed.contains(join.right, &f.name));
    fields.map(|f| (f.name.clone(), f.elem)).collect()
}
