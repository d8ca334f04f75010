//! Steps along an axis and loops: back through time.
//!
//! The steps are taken once more, in the same direction, and what is carried is collected before each of them. Steps in
//! the other direction then compute each step again from what was collected and pass adjoints back through it: carried are
//! the adjoints of what was carried, and the sums of those of what the steps read as a whole (weights).

use super::Done;
use crate::autodiff::Error;
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Adjoint, Call, Reverse, pull_back_to};
use quearn_stage::graph::{Dim, Graph, Node, Op, Region, Steps, Ty};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One of several values: its adjoint is part of theirs.
pub(super) fn item(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Item(index) = call.op else { return Ok(()) };
    let adjoint = r.e.full(call.tensor(), call.node)?;
    r.give_item(call.inputs[0], index, adjoint)
}

pub(super) fn steps(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Steps(steps) = &call.op else { return Ok(()) };
    let walk = Walk { node: call.node, steps: steps.clone(), inputs: call.inputs.clone() };
    let results = results(r, call)?;
    walk.back(r, &results)
}

/// A loop of a known number of rounds is steps along the numbers of its rounds.
pub(super) fn loop_(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Loop(region) = &call.op else { return Ok(()) };
    let trips = match r.e.graph.op(call.inputs[0]) {
        Op::Const(trips) => trips.as_int(),
        _ => None,
    };
    let Some(count) = trips.and_then(|trips| u64::try_from(trips).ok()).filter(|trips| *trips > 0) else {
        return Err(Error::no_rule(r.e.graph, call.node, "the number of rounds must be a positive constant"));
    };
    let (round, carried) = (region.params[0], &region.params[1..]);
    let order: Vec<Node> = carried.iter().copied().chain([round]).collect();
    let copy = Copied::of(r.e, region, &order)?;
    let region = Region { results: copy.all(&region.results), params: copy.all(&order) };
    let rounds = r.e.node(Op::Iota(count), &[])?;
    let inputs: Vec<Node> = call.inputs[1..].iter().copied().chain([rounds]).collect();
    let steps = Steps { carried: carried.len(), region, count, axis: 0, back: false };
    let results = results(r, call)?;
    Walk { node: call.node, steps, inputs }.back(r, &results)
}

/// The adjoints of the values of a node, by position.
fn results(r: &mut Reverse<'_, '_>, call: &Call) -> Result<BTreeMap<usize, Node>, Error> {
    Ok(match &call.adjoint {
        Adjoint::Items(items) => items.clone(),
        Adjoint::Tensor(one) => BTreeMap::from([(0, r.e.full(*one, call.node)?)]),
    })
}

/// A copy of a region with parameters of its own.
struct Copied {
    of: HashMap<Node, Node>,
}

/// The nodes of a region that depend on its parameters, inputs before users.
fn inside(graph: &Graph, region: &Region) -> BTreeSet<Node> {
    let mut depends: HashMap<Node, bool> = region.params.iter().map(|p| (*p, true)).collect();
    let mut stack: Vec<(Node, bool)> = region.results.iter().map(|r| (*r, false)).collect();
    while let Some((node, ready)) = stack.pop() {
        if depends.contains_key(&node) {
            continue;
        }
        let below = graph.dependencies(node);
        if ready {
            let any = below.iter().any(|n| depends.get(n).copied().unwrap_or(false));
            depends.insert(node, any);
        } else {
            stack.push((node, true));
            stack.extend(below.into_iter().map(|n| (n, false)));
        }
    }
    depends.into_iter().filter(|(_, depends)| *depends).map(|(node, _)| node).collect()
}

impl Copied {
    /// New parameters in this order, and the nodes over them.
    fn of(e: &mut Emit<'_>, region: &Region, params: &[Node]) -> Result<Copied, Error> {
        let types: Vec<Ty> = params.iter().map(|p| e.graph.ty(*p).clone()).collect();
        let made = new_params(e, &types)?;
        Copied::over(e, region, params.iter().copied().zip(made).collect())
    }

    /// The nodes of a region over other nodes in the place of its parameters.
    fn over(e: &mut Emit<'_>, region: &Region, params: HashMap<Node, Node>) -> Result<Copied, Error> {
        let mut copy = Copied { of: params };
        for node in inside(e.graph, region) {
            if !copy.of.contains_key(&node) {
                copy.node(e, node)?;
            }
        }
        Ok(copy)
    }

    fn node(&mut self, e: &mut Emit<'_>, node: Node) -> Result<(), Error> {
        let (op, inputs) = (e.graph.op(node).clone(), self.all(e.graph.inputs(node)));
        let op = match op.region() {
            Some(region) => {
                let inner = Copied::inner(e, region, self)?;
                op.with_region(Region { params: inner.all(&region.params), results: inner.all(&region.results) })
            }
            None => op,
        };
        let made = e.node(op, &inputs)?;
        self.of.insert(node, made);
        Ok(())
    }

    /// A copy of a region inside of this one.
    fn inner(e: &mut Emit<'_>, region: &Region, around: &Copied) -> Result<Copied, Error> {
        let types: Vec<Ty> = region.params.iter().map(|p| e.graph.ty(*p).clone()).collect();
        let made = new_params(e, &types)?;
        let mut of = around.of.clone();
        of.extend(region.params.iter().copied().zip(made));
        let mut copy = Copied { of };
        for node in inside(e.graph, region) {
            if !region.params.contains(&node) {
                copy.node(e, node)?;
            }
        }
        // What depends on the outer parameters alone has been copied with them.
        Ok(copy)
    }

    fn get(&self, node: Node) -> Node {
        self.of.get(&node).copied().unwrap_or(node)
    }

    fn all(&self, nodes: &[Node]) -> Vec<Node> {
        nodes.iter().map(|node| self.get(*node)).collect()
    }
}

fn new_params(e: &mut Emit<'_>, types: &[Ty]) -> Result<Vec<Node>, Error> {
    let region = e.graph.free_region();
    let param = |(index, ty): (usize, &Ty)| e.node(Op::Param { region, index: index as u32, ty: ty.clone() }, &[]);
    types.iter().enumerate().map(param).collect()
}

/// Steps that adjoints go back through.
struct Walk {
    node: Node,
    steps: Steps,
    inputs: Vec<Node>,
}

/// The steps back: what is carried, then what is walked along.
#[derive(Default)]
struct Back {
    inputs: Vec<Node>,
    types: Vec<Ty>,
    /// How many of them are carried.
    held: usize,
}

/// What takes part in steps back.
struct Parts {
    /// Floats that are carried, by position.
    floats: Vec<usize>,
    /// What is walked along and wants an adjoint, by position.
    walked: Vec<usize>,
    /// What is read from outside and wants an adjoint, which is summed up step by step.
    read: Vec<Node>,
    /// Matrices that are read as right operands of products only, with these: their adjoints are one product behind the
    /// steps.
    products: Vec<(Node, Vec<Node>)>,
}

impl Parts {
    fn of(walk: &Walk, r: &Reverse<'_, '_>) -> Parts {
        let Steps { region, carried, .. } = &walk.steps;
        let graph = &*r.e.graph;
        let is_float = |i: &usize| graph.ty(region.params[*i]).as_tensor().is_some_and(|(t, _)| t.scalar.is_float());
        let (mut read, mut products) = (vec![], vec![]);
        for node in walk.read(graph).into_iter().filter(|n| r.wants(*n)) {
            match walk.products(r.e, node) {
                Some(all) => products.push((node, all)),
                None => read.push(node),
            }
        }
        Parts {
            floats: (0..*carried).filter(is_float).collect(),
            walked: (*carried..walk.inputs.len()).filter(|&i| r.wants(walk.inputs[i])).collect(),
            read,
            products,
        }
    }
}

impl Back {
    /// A further operand, and the type of the parameter that stands for it.
    fn push(&mut self, input: Node, ty: Ty) -> usize {
        self.inputs.push(input);
        self.types.push(ty);
        self.inputs.len() - 1
    }
}

impl Walk {
    /// Gives what the steps begin with, walk along and read their shares of the adjoints of their results.
    fn back(&self, r: &mut Reverse<'_, '_>, results: &BTreeMap<usize, Node>) -> Done {
        let Steps { region, carried, .. } = &self.steps;
        let parts = Parts::of(self, r);
        let states = self.states(r.e)?;
        let mut back = Back::default();
        for &i in &parts.floats {
            let begin = match results.get(&i) {
                Some(adjoint) => *adjoint,
                None => self.zeros(r.e, region.params[i])?,
            };
            back.push(begin, required(r.e.graph.ty(region.params[i])));
        }
        for &node in &parts.read {
            let zeros = self.zeros(r.e, node)?;
            back.push(zeros, required(r.e.graph.ty(node)));
        }
        back.held = back.inputs.len();
        for (i, &param) in region.params.iter().enumerate() {
            let whole = if i < *carried { states[i] } else { self.inputs[i] };
            back.push(whole, r.e.graph.ty(param).clone());
        }
        let mut collected = vec![];
        for (&i, &adjoint) in results.range(*carried..) {
            let ty = required(r.e.graph.ty(region.results[i]));
            collected.push((i, back.push(adjoint, ty)));
        }
        let params = new_params(r.e, &back.types)?;
        let ends = parts.floats.iter().enumerate().map(|(at, &i)| (i, params[at]));
        let seeds = ends.chain(collected.iter().map(|&(i, at)| (i, params[at]))).collect();
        let results = self.body(r.e, &parts, &params, back.held, seeds)?;
        let made = self.walk(r.e, back.held, Region { params, results }, &back.inputs, !self.steps.back)?;
        self.give(r, &parts, &made)
    }

    /// The results of the body of the steps back: adjoints of what is carried, sums, adjoints of slices, and the operands
    /// of products that are summed up behind the steps.
    fn body(
        &self,
        e: &mut Emit<'_>,
        parts: &Parts,
        params: &[Node],
        held: usize,
        seeds: Vec<(usize, Node)>,
    ) -> Result<Vec<Node>, Error> {
        let region = &self.steps.region;
        let arguments = region.params.iter().copied().zip(params[held..].iter().copied());
        let body = Copied::over(e, region, arguments.collect())?;
        let seeds: Vec<(Node, Node)> =
            seeds.into_iter().map(|(i, adjoint)| (body.get(region.results[i]), adjoint)).collect();
        let slices = parts.floats.iter().chain(&parts.walked).map(|&i| params[held + i]);
        let leaves: Vec<Node> = slices.chain(parts.read.iter().copied()).collect();
        let products: Vec<Node> = parts.products.iter().flat_map(|(_, all)| all).copied().collect();
        let taps = body.all(&products);
        let found = pull_back_to(e, &seeds, &leaves, &taps)?;
        let mut full = vec![];
        for (part, &node) in found.into_iter().zip(leaves.iter().chain(&taps)) {
            full.push(e.gradient(part, node)?);
        }
        let (by_state, rest) = full.split_at(parts.floats.len());
        let (by_slice, rest) = rest.split_at(parts.walked.len());
        let (by_read, by_product) = rest.split_at(parts.read.len());
        let mut results = by_state.to_vec();
        for (at, &part) in by_read.iter().enumerate() {
            results.push(e.add(params[parts.floats.len() + at], part)?);
        }
        results.extend(by_slice);
        for (&product, &adjoint) in taps.iter().zip(by_product) {
            results.extend([e.graph.inputs(product)[0], adjoint]);
        }
        Ok(results)
    }

    /// Gives everybody their share, of what the steps back have made.
    fn give(&self, r: &mut Reverse<'_, '_>, parts: &Parts, made: &[Node]) -> Done {
        let begins = parts.floats.iter().map(|&i| self.inputs[i]);
        let inputs = begins.chain(parts.read.iter().copied()).chain(parts.walked.iter().map(|&i| self.inputs[i]));
        let inputs: Vec<Node> = inputs.collect();
        let (shares, mut operands) = made.split_at(inputs.len());
        inputs.into_iter().zip(shares).try_for_each(|(input, part)| r.give(input, *part))?;
        for (matrix, products) in &parts.products {
            for _ in products {
                let (pair, rest) = operands.split_at(2);
                operands = rest;
                let part = self.product_of_all(r.e, [pair[0], pair[1]])?;
                r.give(*matrix, part)?;
            }
        }
        Ok(())
    }

    /// `transpose(a) b`, summed up over all steps and rows: one product that is as deep as there are rows in all.
    fn product_of_all(&self, e: &mut Emit<'_>, operands: [Node; 2]) -> Made {
        let mut flat = vec![];
        for node in operands {
            let mut order: Vec<usize> = (0..e.shape(node).len()).collect();
            let axis = order.remove(self.steps.axis);
            order.insert(0, axis);
            let steps_first = e.transpose(node, order)?;
            let extents: Vec<u64> = e.shape(steps_first).iter().filter_map(Dim::as_const).collect();
            let (columns, rows) = extents.split_last().map_or((1, 1), |(last, rows)| (*last, rows.iter().product()));
            flat.push(e.reshape(steps_first, vec![Dim::Const(rows), Dim::Const(columns)])?);
        }
        let left = e.swap_last(flat[0])?;
        e.matmul(left, flat[1])
    }

    /// What the steps read from outside.
    fn read(&self, graph: &Graph) -> BTreeSet<Node> {
        let inside = inside(graph, &self.steps.region);
        let used = inside.iter().flat_map(|n| graph.inputs(*n)).chain(&self.steps.region.results);
        used.copied().filter(|n| !inside.contains(n)).collect()
    }

    /// The products that a matrix from outside is the right operand of, if it is nothing else.
    fn products(&self, e: &Emit<'_>, matrix: Node) -> Option<Vec<Node>> {
        let inside = inside(e.graph, &self.steps.region);
        let uses = |n: &&Node| e.graph.inputs(**n).contains(&matrix);
        let users: Vec<Node> = inside.iter().filter(uses).copied().collect();
        let known =
            |n: Node| e.shape(n).len() >= self.steps.axis && e.shape(n).iter().all(|dim| dim.as_const().is_some());
        let is_product = |n: &Node| {
            let inputs = e.graph.inputs(*n);
            *e.graph.op(*n) == Op::MatMul && inputs[1] == matrix && inside.contains(&inputs[0]) && known(inputs[0])
        };
        let only = e.shape(matrix).len() == 2 && !self.steps.region.results.contains(&matrix);
        (only && users.iter().all(is_product)).then_some(users)
    }

    fn zeros(&self, e: &mut Emit<'_>, like: Node) -> Made {
        let zero = e.number_like(like, 0.0)?;
        e.full(zero, like)
    }

    /// What is carried before each step.
    fn states(&self, e: &mut Emit<'_>) -> Result<Vec<Node>, Error> {
        let Steps { region, carried, axis, back, .. } = &self.steps;
        for &param in &region.params[..*carried] {
            if e.shape(param).len() < *axis {
                let reason = format!("what it carries has no place for axis {axis}");
                return Err(Error::no_rule(e.graph, self.node, reason));
            }
        }
        let copy = Copied::of(e, region, &region.params)?;
        let results = [copy.all(&region.results), copy.all(&region.params[..*carried])].concat();
        let region = Region { params: copy.all(&region.params), results };
        let all = self.walk(e, *carried, region, &self.inputs, *back)?;
        Ok(all[self.steps.region.results.len()..].to_vec())
    }

    /// Steps with another body, and all that they give.
    fn walk(
        &self,
        e: &mut Emit<'_>,
        carried: usize,
        region: Region,
        inputs: &[Node],
        back: bool,
    ) -> Result<Vec<Node>, Error> {
        let (count, results) = (self.steps.count, region.results.len());
        let steps = Steps { region, count, carried, axis: self.steps.axis, back };
        let node = e.node(Op::Steps(steps), inputs)?;
        if results == 1 {
            return Ok(vec![node]);
        }
        (0..results).map(|i| e.node(Op::Item(i), &[node])).collect()
    }
}

/// The type without NULL.
fn required(ty: &Ty) -> Ty {
    match ty {
        Ty::Tensor { elem, shape } => Ty::Tensor { elem: elem.scalar.required(), shape: shape.clone() },
        other => other.clone(),
    }
}
