//! Steps along an axis and loops: back through time.
//!
//! The steps are taken once more, in the same direction, and what is carried is collected before each of them. Steps in
//! the other direction then compute each step again from what was collected and pass adjoints back through it: carried are
//! the adjoints of what was carried, and the sums of those of what the steps read as a whole (weights).

use super::Done;
use crate::autodiff::Error;
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Adjoint, Call, Reverse, pull_back_to};
use quearn_stage::graph::{Graph, Node, Op, Region, Steps, Ty};
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
    fn carried(&self) -> std::ops::Range<usize> {
        0..self.steps.carried
    }

    /// Gives what the steps begin with, walk along and read their shares of the adjoints of their results.
    fn back(&self, r: &mut Reverse<'_, '_>, results: &BTreeMap<usize, Node>) -> Done {
        let Steps { region, carried, .. } = &self.steps;
        let is_float =
            |e: &Emit<'_>, node: Node| e.graph.ty(node).as_tensor().is_some_and(|(t, _)| t.scalar.is_float());
        let floats: Vec<usize> = self.carried().filter(|&i| is_float(r.e, region.params[i])).collect();
        let walked: Vec<usize> = (*carried..self.inputs.len()).filter(|&i| r.wants(self.inputs[i])).collect();
        let read: Vec<Node> = self.read(r.e.graph).into_iter().filter(|n| r.wants(*n)).collect();
        let states = self.states(r.e)?;
        let mut back = Back::default();
        for &i in &floats {
            let begin = match results.get(&i) {
                Some(adjoint) => *adjoint,
                None => self.zeros(r.e, region.params[i])?,
            };
            back.push(begin, required(r.e.graph.ty(region.params[i])));
        }
        for &node in &read {
            let zeros = self.zeros(r.e, node)?;
            back.push(zeros, required(r.e.graph.ty(node)));
        }
        let held = back.inputs.len();
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
        let arguments = region.params.iter().copied().zip(params[held..].iter().copied());
        let body = Copied::over(r.e, region, arguments.collect())?;
        let mut seeds: Vec<(Node, Node)> = vec![];
        for (at, &i) in floats.iter().enumerate() {
            seeds.push((body.get(region.results[i]), params[at]));
        }
        seeds.extend(collected.iter().map(|&(i, at)| (body.get(region.results[i]), params[at])));
        let slice = |i: usize| params[held + i];
        let leaves: Vec<Node> = floats.iter().chain(&walked).map(|&i| slice(i)).chain(read.iter().copied()).collect();
        let found = pull_back_to(r.e, &seeds, &leaves)?;
        let mut full = vec![];
        for (part, &leaf) in found.into_iter().zip(&leaves) {
            full.push(r.e.gradient(part, leaf)?);
        }
        let (by_state, rest) = full.split_at(floats.len());
        let (by_slice, by_read) = rest.split_at(walked.len());
        let mut next = by_state.to_vec();
        for (at, &part) in by_read.iter().enumerate() {
            next.push(r.e.add(params[floats.len() + at], part)?);
        }
        next.extend(by_slice);
        let kept = self.walk(r.e, held, Region { params, results: next }, &back.inputs, !self.steps.back)?;
        let inputs = floats.iter().map(|&i| self.inputs[i]).chain(read).chain(walked.iter().map(|&i| self.inputs[i]));
        inputs.zip(kept).try_for_each(|(input, part)| r.give(input, part))
    }

    /// What the steps read from outside.
    fn read(&self, graph: &Graph) -> BTreeSet<Node> {
        let inside = inside(graph, &self.steps.region);
        let used = inside.iter().flat_map(|n| graph.inputs(*n)).chain(&self.steps.region.results);
        used.copied().filter(|n| !inside.contains(n)).collect()
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
