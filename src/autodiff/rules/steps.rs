//! Steps along an axis and loops: back through time.
//!
//! The steps are taken once more, in the same direction, and what the way back reads of them is collected: what is carried
//! before each of them, and results of products. Steps in the other direction then compute the rest of each step again and
//! pass adjoints back through it: carried are the adjoints of what was carried, and the sums of those of what the steps read
//! as a whole (weights).

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
    /// What is walked along where the way back reads it: what is carried or walked along, and what is not worth computing
    /// again.
    sources: Vec<Node>,
}

/// The body of the steps back.
struct Body {
    /// What it is given: what is carried, the sources, and adjoints of what was collected.
    params: Vec<Node>,
    /// Adjoints of what is carried, sums, and what is collected.
    results: Vec<Node>,
    /// How many of both are carried.
    held: usize,
    /// Results with the adjoints of slices.
    slices: Vec<usize>,
    /// The operands of the products behind the steps.
    operands: Vec<[Operand; 2]>,
}

/// An operand of a product behind the steps.
#[derive(Clone, Copy)]
enum Operand {
    /// A source, by position.
    Source(usize),
    /// A result of the steps back.
    Result(usize),
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
            sources: [region.params.clone(), walk.costly(r.e)].concat(),
        }
    }

    /// How many values the steps back carry.
    fn held(&self) -> usize {
        self.floats.len() + self.read.len()
    }
}

impl Body {
    /// The position of a result that is collected, which may be there already.
    fn collect(&mut self, node: Node) -> usize {
        let found = self.results.iter().skip(self.held).position(|n| *n == node);
        found.map(|at| at + self.held).unwrap_or_else(|| {
            self.results.push(node);
            self.results.len() - 1
        })
    }

    /// The sources that are read or operands of products.
    fn wanted(&self, read: &BTreeSet<usize>) -> BTreeSet<usize> {
        let source = |operand: &Operand| match operand {
            Operand::Source(i) => Some(*i),
            Operand::Result(_) => None,
        };
        self.operands.iter().flatten().filter_map(source).chain(read.iter().copied()).collect()
    }

    /// The left operand of a product.
    fn operand(&mut self, sources: usize, node: Node) -> Operand {
        let source = self.params[self.held..][..sources].iter().position(|n| *n == node);
        source.map_or_else(|| Operand::Result(self.collect(node)), Operand::Source)
    }
}

impl Walk {
    /// Gives what the steps begin with, walk along and read their shares of the adjoints of their results.
    fn back(&self, r: &mut Reverse<'_, '_>, results: &BTreeMap<usize, Node>) -> Done {
        let Steps { region, carried, .. } = &self.steps;
        let parts = Parts::of(self, r);
        let mut begins = vec![];
        for &i in &parts.floats {
            begins.push(match results.get(&i) {
                Some(adjoint) => *adjoint,
                None => self.zeros(r.e, region.params[i])?,
            });
        }
        for &node in &parts.read {
            begins.push(self.zeros(r.e, node)?);
        }
        let (ends, adjoints): (Vec<usize>, Vec<Node>) = results.range(*carried..).map(|(i, n)| (*i, *n)).unzip();
        let whole = self.body(r.e, &parts, &ends)?;
        let (body, read) = self.over_sources(r.e, &parts, &whole)?;
        let sources = self.collected(r.e, &parts, &body.wanted(&read))?;
        let walked = (0..sources.len()).filter(|i| read.contains(i)).filter_map(|i| sources[i]);
        let inputs: Vec<Node> = begins.into_iter().chain(walked).chain(adjoints).collect();
        let Body { params, results, held, slices, operands } = body;
        let made = self.walk(r.e, held, Region { params, results }, &inputs, !self.steps.back)?;
        self.give(r, &parts, &made, &slices)?;
        let operands = operands.iter().map(|pair| {
            pair.map(|operand| match operand {
                Operand::Source(i) => sources[i],
                Operand::Result(i) => made.get(i).copied(),
            })
        });
        let products = parts.products.iter().flat_map(|(matrix, products)| products.iter().map(|_| *matrix));
        for (matrix, pair) in products.zip(operands) {
            if let [Some(left), Some(right)] = pair {
                let part = self.product_of_all(r.e, [left, right])?;
                r.give(matrix, part)?;
            }
        }
        Ok(())
    }

    /// A body that computes a whole step, and adjoints from those of what is carried and of the results `ends`.
    fn body(&self, e: &mut Emit<'_>, parts: &Parts, ends: &[usize]) -> Result<Body, Error> {
        let region = &self.steps.region;
        let held = parts.floats.iter().map(|&i| region.params[i]).chain(parts.read.iter().copied());
        let given = region.params.iter().copied();
        let adjoints = ends.iter().map(|&i| region.results[i]);
        let mut types: Vec<Ty> = held.map(|n| required(e.graph.ty(n))).collect();
        types.extend(given.map(|n| e.graph.ty(n).clone()));
        types.extend(adjoints.map(|n| required(e.graph.ty(n))));
        let params = new_params(e, &types)?;
        let (held, rest) = params.split_at(parts.held());
        let (given, adjoints) = rest.split_at(region.params.len());
        let body = Copied::over(e, region, region.params.iter().copied().zip(given.iter().copied()).collect())?;
        let seeds = parts.floats.iter().zip(held).chain(ends.iter().zip(adjoints));
        let seeds: Vec<(Node, Node)> = seeds.map(|(&i, adjoint)| (body.get(region.results[i]), *adjoint)).collect();
        let slices = parts.floats.iter().chain(&parts.walked).map(|&i| given[i]);
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
        for (&sum, &part) in held[parts.floats.len()..].iter().zip(by_read) {
            results.push(e.add(sum, part)?);
        }
        let params = [held, &body.all(&parts.sources), adjoints].concat();
        let mut body = Body { params, results, held: held.len(), slices: vec![], operands: vec![] };
        body.slices = by_slice.iter().map(|part| body.collect(*part)).collect();
        for (&product, &adjoint) in taps.iter().zip(by_product) {
            let left = body.operand(parts.sources.len(), e.graph.inputs(product)[0]);
            let right = Operand::Result(body.collect(adjoint));
            body.operands.push([left, right]);
        }
        Ok(body)
    }

    /// The same body with parameters for the sources that it reads, and which these are.
    fn over_sources(&self, e: &mut Emit<'_>, parts: &Parts, whole: &Body) -> Result<(Body, BTreeSet<usize>), Error> {
        let region = Region { params: whole.params.clone(), results: whole.results.clone() };
        let inside = inside(e.graph, &region);
        let computed = inside.iter().filter(|n| !region.params.contains(n));
        let used: BTreeSet<Node> =
            computed.flat_map(|n| e.graph.dependencies(*n)).chain(region.results.iter().copied()).collect();
        let sources = whole.held..whole.held + parts.sources.len();
        let read: BTreeSet<usize> =
            sources.clone().filter(|i| used.contains(&region.params[*i])).map(|i| i - whole.held).collect();
        let kept: Vec<Node> = (0..region.params.len())
            .filter(|i| !sources.contains(i) || read.contains(&(i - whole.held)))
            .map(|i| region.params[i])
            .collect();
        let copy = Copied::of(e, &Region { params: kept.clone(), results: region.results.clone() }, &kept)?;
        let (params, results) = (copy.all(&kept), copy.all(&region.results));
        let Body { held, ref slices, ref operands, .. } = *whole;
        Ok((Body { params, results, held, slices: slices.clone(), operands: operands.clone() }, read))
    }

    /// Gives what the steps begin with, read and walk along their shares of what the steps back have made.
    fn give(&self, r: &mut Reverse<'_, '_>, parts: &Parts, made: &[Node], slices: &[usize]) -> Done {
        let begins = parts.floats.iter().map(|&i| self.inputs[i]);
        let held: Vec<Node> = begins.chain(parts.read.iter().copied()).collect();
        held.into_iter().zip(made).try_for_each(|(input, part)| r.give(input, *part))?;
        parts.walked.iter().zip(slices).try_for_each(|(&i, &at)| r.give(self.inputs[i], made[at]))
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

    /// Results of operations that are not worth doing again, and what is made of them element by element before somebody
    /// else reads them.
    fn costly(&self, e: &Emit<'_>) -> Vec<Node> {
        let graph = &*e.graph;
        let inside = inside(graph, &self.steps.region);
        let users = |node: Node| inside.iter().filter(|user| graph.dependencies(**user).contains(&node)).count();
        let mut found = BTreeSet::new();
        for &node in &inside {
            let fits = e.scalar(node).is_float() && !e.nullable(node) && e.shape(node).len() >= self.steps.axis;
            let follows = |n: &Node| found.contains(n) && e.shape(*n) == e.shape(node) && users(*n) == 1;
            let is_costly = match graph.op(node) {
                Op::MatMul | Op::Conv2d(_) | Op::TreeEnsemble(_) | Op::Foreign { .. } | Op::Steps(_) => true,
                Op::Item(_) => matches!(graph.op(graph.inputs(node)[0]), Op::Steps(_)),
                Op::Unary(_) | Op::Binary(_) | Op::Select => graph.inputs(node).iter().any(follows),
                _ => false,
            };
            if is_costly && fits && graph.ty(node).as_tensor().is_some() {
                found.insert(node);
            }
        }
        found.into_iter().collect()
    }

    /// The sources at all steps: what is walked along, and those that are wanted beside it, which the steps are taken once
    /// more to collect.
    fn collected(&self, e: &mut Emit<'_>, parts: &Parts, wanted: &BTreeSet<usize>) -> Result<Vec<Option<Node>>, Error> {
        let Steps { region, carried, axis, back, .. } = &self.steps;
        let mut sources: Vec<Option<Node>> = vec![None; parts.sources.len()];
        sources[*carried..region.params.len()]
            .iter_mut()
            .zip(&self.inputs[*carried..])
            .for_each(|(to, n)| *to = Some(*n));
        let missing: Vec<usize> = wanted.iter().copied().filter(|i| sources[*i].is_none()).collect();
        if missing.is_empty() {
            return Ok(sources);
        }
        for &i in missing.iter().filter(|i| **i < *carried) {
            if e.shape(region.params[i]).len() < *axis {
                let reason = format!("what it carries has no place for axis {axis}");
                return Err(Error::no_rule(e.graph, self.node, reason));
            }
        }
        let copy = Copied::of(e, region, &region.params)?;
        let more: Vec<Node> = missing.iter().map(|i| copy.get(parts.sources[*i])).collect();
        let results = [copy.all(&region.results), more].concat();
        let region = Region { params: copy.all(&region.params), results };
        let all = self.walk(e, *carried, region, &self.inputs, *back)?;
        let all = all[self.steps.region.results.len()..].iter();
        missing.iter().zip(all).for_each(|(i, whole)| sources[*i] = Some(*whole));
        Ok(sources)
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
