//! What a tensor program does, before any code is written: which nodes are materialised, where, in which layout, and
//! by which stages; everything else is fused into its consumers.
//!
//! Graph semantics are those of PyTorch (channels first). Images are laid out with channels innermost and with a halo
//! of zeros where a convolution needs padding, so that no inner loop tests bounds. Operands of a concatenation are
//! written in place, into slices of its result.

use super::attention::Attention;
use super::blocked::Blocked;
use super::contract::Contract;
use super::depthwise::Depthwise;
use super::filters::Sum;
use super::foreign::Call;
use super::gemm::{Gemm, Pack};
use super::nest::{Nest, Vectors};
use super::pool::Pool;
use super::reduce::{Lines, Reduce};
use super::scatter::Scatter;
use super::spec::{BufferId, Size, Spec, storage};
use super::steps::{By, Walk};
use super::target::Target;
use super::trees::Trees;
use super::unpool::Unpool;
use super::winograd::{FilterTransform, ImageTransform, ResultTransform};
use crate::lower::error::LowerError;
use quearn_stage::graph::{Dim, Graph, Node, Op, Scalar, Shape, Steps};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Where a buffer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// An input or weight; `itemed` if its leading dimension is the one that the program runs over.
    Input {
        /// Name.
        name: String,
        /// Bytes of one item, if it has items.
        item_bytes: Option<i64>,
    },
    /// A result of the program.
    Output {
        /// Position in the graph's outputs.
        index: usize,
        /// Bytes of one item, if it has items.
        item_bytes: Option<i64>,
    },
    /// A part of the arena, reused when nobody needs it any more.
    Arena,
    /// Made when the weights are bound, and kept.
    Prepared,
    /// Numbers that are part of the program.
    Table(Rc<[u64]>),
    /// On the stack of a stage while it runs.
    Stack,
    /// A function of another library.
    Function {
        /// Name.
        name: String,
    },
    /// Given by the caller: a column of a tile.
    Leaf(Node),
    /// What lies so many bytes behind the start of another buffer. A function is handed its address, so that stages on
    /// different parts, such as the steps of a recurrent network, share one.
    Part {
        /// The buffer that it is a part of.
        of: BufferId,
        /// Bytes before it.
        offset: i64,
    },
    /// Another place in a buffer at each step.
    Moving {
        /// The buffer.
        of: BufferId,
        /// The steps.
        walk: Node,
        /// How far it has moved.
        by: By,
        /// Bytes of one move.
        stride: i64,
    },
}

/// Memory of one or more tensors.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Where it is.
    pub place: Place,
    /// Size, or size of one item.
    pub bytes: u64,
    /// Is that the size of one of several items?
    pub per_item: bool,
    /// What it holds, for `explain`.
    pub label: String,
}

/// A piece of the program that writes one buffer, in parallel.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Short name for functions.
    pub name: String,
    /// Nodes computed by it, for `explain`.
    pub nodes: Vec<Node>,
    /// What it does.
    pub kind: Kind,
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Evaluates nodes of one shape at every index.
    Map {
        /// Nodes, and where they go. Inputs come before users.
        results: Vec<(Node, Spec)>,
        /// How the results are visited.
        nest: Nest,
    },
    /// A convolution or matrix product.
    Gemm(Box<Gemm>),
    /// A matrix product whose operands are packed block by block.
    Blocked(Box<Blocked>),
    /// Parts of a product that sums over the rows of the program.
    Contract(Box<Contract>),
    /// Their sum.
    ContractSum(Box<Contract>),
    /// A convolution with a filter for each channel.
    Depthwise(Box<Depthwise>),
    /// The tiles of an image, transformed for Winograd's algorithm.
    ImageTransform(Box<ImageTransform>),
    /// Filters, transformed for it.
    FilterTransform(Box<FilterTransform>),
    /// Its results, transformed back.
    ResultTransform(Box<ResultTransform>),
    /// Attention.
    Attention(Box<Attention>),
    /// A pooling.
    Pool(Box<Pool>),
    /// The adjoint of a pooling by maxima.
    Unpool(Box<Unpool>),
    /// A reduction.
    Reduce(Box<Reduce>),
    /// Sums of parts added up.
    Sum(Box<Sum>),
    /// A softmax, running sums, or positions of maxima.
    Lines(Box<Lines>),
    /// Decision trees.
    Trees(Box<Trees>),
    /// Values added at places that are known later.
    Scatter(Box<Scatter>),
    /// The zeros around an image.
    Halo(Spec),
    /// Packing of a weight.
    Pack(Box<Pack>),
    /// A call of a function of another library.
    Foreign(Box<Call>),
    /// Stages that are run for each step along an axis.
    Steps(Box<Walk>),
}

impl Stage {
    /// Evaluates a node at every index.
    pub fn map(root: Node, out: Spec) -> Stage {
        let nest = Nest::new(&out, &[], Vectors::Innermost, 1);
        Stage::maps(vec![(root, out)], nest)
    }

    /// Evaluates nodes of one shape at every index, each of which reads the others, if at all, at the same index.
    pub fn maps(results: Vec<(Node, Spec)>, nest: Nest) -> Stage {
        let nodes = results.iter().map(|(root, _)| *root).collect();
        Stage { name: "map".into(), nodes, kind: Kind::Map { results, nest } }
    }
}

/// The leading dimension that a program runs over, and how much of it at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// The dimension; `None` for a program that is one item.
    pub dim: Option<Dim>,
    /// Its extent in one pass over the stages.
    pub size: Size,
}

/// What [`Plan::operands_like`] finds.
pub struct Operands {
    /// The tensors.
    pub nodes: Vec<Node>,
    /// Is something read that is not computed element by element, but for numbers and what is in memory?
    pub others: bool,
}

/// A planned program.
pub struct Plan<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// The processor.
    pub target: Target,
    /// What it runs over.
    pub items: Items,
    /// Tensors in memory.
    pub homes: HashMap<Node, Spec>,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Run once when the weights are bound.
    pub prepare: Vec<Stage>,
    /// Run for every chunk of items, in order.
    pub stages: Vec<Stage>,
    /// Inputs whose memory may become that of their next values while the program runs.
    pub changing: HashSet<BufferId>,
}

impl<'g> Plan<'g> {
    /// Where a node is in memory.
    pub fn home(&self, node: Node) -> Option<&Spec> {
        self.homes.get(&node)
    }

    /// What is read in memory, element by element and of the shape of `root`, when values that are made `of` some nodes are
    /// computed; what follows from `known` is at hand.
    pub fn operands_like(&self, root: Node, of: &[Node], known: Option<Node>) -> Operands {
        let mut operands = Operands { nodes: vec![], others: false };
        let (mut seen, mut stack): (HashSet<Node>, _) = (known.into_iter().collect(), of.to_vec());
        while let Some(next) = stack.pop() {
            if !seen.insert(next) {
                continue;
            }
            match self.home(next) {
                Some(_) if self.shape(next) == self.shape(root) => operands.nodes.push(next),
                Some(_) => {}
                None if is_elementwise(self.graph.op(next)) => stack.extend(self.graph.inputs(next)),
                None => operands.others |= !matches!(self.graph.op(next), Op::Const(_)),
            }
        }
        operands
    }

    /// Type of the elements of a node.
    pub fn scalar(&self, node: Node) -> Scalar {
        scalar_of(self.graph, node)
    }

    /// Dimensions of a node.
    pub fn shape(&self, node: Node) -> &'g [Dim] {
        shape_of(self.graph, node)
    }

    /// The node in the user's terms.
    pub fn describe(&self, node: Node) -> String {
        format!("{} {node}", self.graph.op(node).name())
    }

    /// The error that `what` cannot be done for `node`.
    pub fn unsupported(&self, node: Node, what: impl Into<String>) -> LowerError {
        LowerError::Unsupported { node: self.describe(node), what: what.into() }
    }

    /// The buffer whose memory a buffer lies in: itself, or what it is a part of.
    pub fn whole(&self, id: BufferId) -> BufferId {
        match self.buffer(id).place {
            Place::Part { of, .. } | Place::Moving { of, .. } => self.whole(of),
            _ => id,
        }
    }

    /// Buffer of an id.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }
}

/// Type of the elements of a tensor node.
pub fn scalar_of(graph: &Graph, node: Node) -> Scalar {
    graph.ty(node).as_tensor().map_or(Scalar::F32, |(elem, _)| elem.scalar)
}

/// Dimensions of a tensor node.
pub fn shape_of(graph: &Graph, node: Node) -> &[Dim] {
    graph.ty(node).as_tensor().map_or(&[], |(_, shape)| shape)
}

/// Is the operation computed element by element from elements at the same (or a broadcast) index?
pub fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::If
            | Op::Cast(_)
            | Op::Random(_)
            | Op::BatchNorm { .. }
            | Op::Broadcast(_)
    )
}

/// Do all rows along the leading dimension go through the graph on their own? Then the program can run over any part
/// of them at a time. Gives the dimension and the nodes that have it.
pub fn find_items(graph: &Graph, nodes: &[Node], roots: &[Node]) -> Option<(Dim, Vec<bool>)> {
    let dim = shape_of(graph, *roots.first()?).first()?.clone();
    let mut itemed = vec![false; graph.len()];
    let mut listed = vec![false; graph.len()];
    nodes.iter().for_each(|n| listed[n.index()] = true);
    for &node in nodes {
        // A node whose inputs are not in the list is a leaf, given from outside.
        let leaf = graph.inputs(node).iter().any(|i| !listed[i.index()]);
        itemed[node.index()] = match leaf {
            true => shape_of(graph, node).first() == Some(&dim),
            false => has_items(graph, node, &dim, &itemed)?,
        };
    }
    roots.iter().all(|r| itemed[r.index()]).then_some((dim, itemed))
}

/// Has the node items (given which of its inputs have)? `None` if the operation mixes them.
fn has_items(graph: &Graph, node: Node, dim: &Dim, itemed: &[bool]) -> Option<bool> {
    let inputs = graph.inputs(node);
    let shape = shape_of(graph, node);
    let leads = shape.first() == Some(dim);
    let flags: Vec<bool> = inputs.iter().map(|i| itemed[i.index()]).collect();
    let rank = |i: usize| shape_of(graph, inputs[i]).len();
    match graph.op(node) {
        Op::Input { weight, .. } => return Some(leads && !weight),
        Op::Column(_) | Op::Param { .. } => return Some(leads),
        // What is repeated for every item is made for the items at hand.
        Op::Broadcast(_) if leads && dim.as_const().is_none() => return Some(true),
        Op::Steps(steps) => return steps_have_items(steps, inputs, itemed),
        _ if !flags.contains(&true) => return Some(false),
        _ if !leads => return None,
        _ => {}
    }
    // Operands with items have them in front; others are the same for every item, not as many of them by chance.
    let whole = |i: usize| match rank(i) == shape.len() {
        true => flags[i] || shape_of(graph, inputs[i])[0] != *dim || dim.as_const() == Some(1),
        false => !flags[i],
    };
    let ok = match graph.op(node) {
        Op::MatMul => match (flags[0], flags[1]) {
            (true, false) => rank(1) == 2 || rank(0) == shape.len() && rank(1) < rank(0),
            (_, b) => (0..2).all(whole) && (!b || shape.len() > 2),
        },
        Op::Conv2d(_) | Op::Pool2d(_) => flags[0] && !flags[1..].contains(&true),
        Op::MaxUnpool2d(_) => !flags.contains(&false),
        Op::Softmax { axis } | Op::ArgMax { axis } | Op::CumSum { axis } | Op::Slice { axis, .. } => *axis != 0,
        Op::TreeEnsemble(_) => true,
        Op::Concat { axis } => *axis != 0 && !flags.contains(&false),
        Op::Stack => !flags.contains(&false),
        Op::Reduce { axes, .. } => !axes.contains(&0),
        Op::Reshape(_) => true,
        Op::Transpose(perm) => perm[0] == 0,
        Op::Foreign { signature, .. } => {
            signature.result.by_row && signature.operands.iter().zip(&flags).all(|(part, flag)| part.by_row == *flag)
        }
        Op::Gather => flags[1] && !flags[0],
        Op::Loop(_) => (1..inputs.len()).all(whole),
        Op::Item(_) => true,
        op if is_elementwise(op) => (0..inputs.len()).all(whole),
        _ => false,
    };
    ok.then_some(true)
}

/// The same for steps: all that passes through them has items, or nothing has, and they do not go along the items.
fn steps_have_items(steps: &Steps, inputs: &[Node], itemed: &[bool]) -> Option<bool> {
    let Steps { region, carried, axis, .. } = steps;
    let is = |n: &Node| itemed[n.index()];
    let some = inputs.iter().chain(&region.params).chain(&region.results).any(is);
    let kept = |i: usize| i < *carried || *axis != 0;
    let enter = inputs.iter().zip(&region.params).enumerate().all(|(i, (n, p))| is(n) == is(p) && (!is(n) || kept(i)));
    let leave = region.results.iter().enumerate().all(|(i, n)| is(n) && kept(i));
    (!some || enter && leave).then_some(some)
}

/// The same shape as row-major sizes, with the leading dimension as `items` where it is theirs.
pub fn sizes_of(graph: &Graph, node: Node, items: &Items, itemed: bool) -> Result<Vec<Size>, LowerError> {
    let shape: &Shape = &shape_of(graph, node).to_vec();
    let size = |(i, dim): (usize, &Dim)| match dim {
        _ if i == 0 && itemed && Some(dim) == items.dim.as_ref() => Ok(items.size.clone()),
        Dim::Const(n) => Ok(Size::Now(*n)),
        Dim::Named(name) if i == 0 && matches!(graph.op(node), Op::Input { .. }) => Ok(Size::Dim(name.clone())),
        _ => Err(LowerError::Unsupported {
            node: format!("{} {node}", graph.op(node).name()),
            what: format!("dimension {i}, whose size `{dim}` is not known when the program is built,"),
        }),
    };
    shape.iter().enumerate().map(size).collect()
}

/// Checks that tensors can hold elements of the node's type.
pub fn check_elem(graph: &Graph, node: Node) -> Result<(), LowerError> {
    let fail = |what: String| Err(LowerError::Unsupported { node: format!("{} {node}", graph.op(node).name()), what });
    match graph.ty(node).as_tensor() {
        None => fail(format!("{} in a tensor program", graph.ty(node))),
        Some((elem, _)) if elem.nullable => fail("a tensor with NULLs".into()),
        Some((elem, _)) if storage(elem.scalar).is_none() => fail(format!("a tensor of {elem}")),
        Some(_) => Ok(()),
    }
}
