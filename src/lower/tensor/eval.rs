//! Evaluation of a tensor at an index: how operations that are not materialised fuse into their consumers.
//!
//! A node is either in memory (its [`Spec`] is known to the plan), or in a register of the kernel that is being
//! written, or it is expanded on the spot from its inputs. An index may hold one axis along which a vector of
//! neighbouring elements is evaluated at once.

use super::plan::Plan;
use super::random;
use super::scalar::{self, Place};
use super::spec::{BufferId, Size, Spec, compute, storage};
use crate::lower::error::LowerError;
use quearn_stage::graph::{Dim, Node, Op, Region, Scalar};
use quearn_stage::low::{Builder, CastOp, FailKind, Prim, Ty, V};
use std::cell::RefCell;

/// How generated code finds its data.
pub trait Env<'b> {
    /// Address of a buffer.
    fn buffer(&self, buffer: BufferId) -> V<'b>;
    /// An extent.
    fn size(&self, size: &Size) -> V<'b>;
    /// A number that is handed in when the code is called, so that code that differs in it only can be shared.
    fn number(&self, number: i64) -> V<'b>;
    /// Are weights to be run through backwards? At the steps of a walk this changes from step to step.
    fn turn(&self, backwards: bool) -> V<'b>;
    /// Handle of the run, for calls of the runtime.
    fn run(&self) -> V<'b>;
    /// Does a buffer stay as it is while the function runs, the one that is written by it aside?
    fn invariant(&self, buffer: BufferId) -> bool;
}

/// One coordinate of an index: a constant is kept apart, so that neighbours share the rest of their address.
#[derive(Clone, Copy)]
pub struct Coord<'b> {
    at: V<'b>,
    plus: i64,
}

impl<'b> From<V<'b>> for Coord<'b> {
    fn from(at: V<'b>) -> Coord<'b> {
        Coord { at, plus: 0 }
    }
}

impl<'b> Coord<'b> {
    /// A constant further on.
    pub fn plus(self, by: i64) -> Coord<'b> {
        Coord { plus: self.plus + by, ..self }
    }

    /// Further on by a value.
    pub fn moved(self, by: V<'b>) -> Coord<'b> {
        Coord { at: self.at + by, ..self }
    }

    /// The coordinate.
    pub fn value(self) -> V<'b> {
        self.at + self.plus
    }
}

/// An index, with `lanes` neighbours along the axis `vec`.
#[derive(Clone)]
pub struct At<'b> {
    /// One coordinate an axis; for the vector axis that of lane 0.
    pub coords: Vec<Coord<'b>>,
    /// The vector axis.
    pub vec: Option<usize>,
    /// Lanes of the result.
    pub lanes: u16,
    /// The lanes that exist.
    pub mask: Option<V<'b>>,
}

/// Elements further on, or back where an axis runs backwards.
pub fn step<'b>(base: V<'b>, index: V<'b>, stride: i64) -> V<'b> {
    if stride < 0 { base.index(index * -1, -stride) } else { base.index(index, stride) }
}

/// What a vector, given its first element and which of its lanes are inside, makes of the values so far.
pub type Step<'f, 'b> = &'f dyn Fn(V<'b>, Option<V<'b>>, &[V<'b>]) -> Vec<V<'b>>;

/// What the expansion of nodes needs.
pub struct Eval<'a, 'b> {
    /// Where code goes.
    pub b: &'b Builder,
    /// Where tensors are.
    pub plan: &'a Plan<'a>,
    /// Where buffers are.
    pub env: &'a dyn Env<'b>,
    /// The values of some nodes at the present index.
    pub known: Vec<(Node, V<'b>)>,
    /// The first thing that could not be expanded.
    pub error: &'a RefCell<Option<LowerError>>,
}

impl<'a, 'b> Eval<'a, 'b> {
    /// The same with the values of further nodes known.
    pub fn knowing(&self, values: impl IntoIterator<Item = (Node, V<'b>)>) -> Eval<'a, 'b> {
        let known = values.into_iter().chain(self.known.iter().copied()).collect();
        Eval { known, ..*self }
    }

    /// Lanes of a vector of 4-byte elements.
    pub fn lanes(&self) -> u16 {
        self.plan.target.lanes()
    }

    /// The type that an element of `node` is computed in, with `lanes` lanes.
    pub fn ty(&self, node: Node, lanes: u16) -> Ty {
        Ty::vector(compute(self.plan.scalar(node)).unwrap_or(Prim::F32), lanes)
    }

    fn unsupported(&self, node: Node, what: impl Into<String>, lanes: u16) -> V<'b> {
        self.error.borrow_mut().get_or_insert(self.plan.unsupported(node, what));
        self.b.zero(self.ty(node, lanes))
    }

    /// The elements of `node` at an index, in their compute type, `at.lanes` of them.
    pub fn eval(&self, node: Node, at: &At<'b>) -> V<'b> {
        if let Some((_, value)) = self.known.iter().find(|(known, _)| *known == node) {
            return *value;
        }
        match self.plan.home(node) {
            Some(spec) => self.load(spec, at),
            None => self.computed(node, at),
        }
    }

    /// The elements of `node` computed from its inputs.
    fn computed(&self, node: Node, at: &At<'b>) -> V<'b> {
        self.expand(node, at).unwrap_or_else(|| {
            let what = format!("{} of {}", self.plan.graph.op(node).name(), self.plan.graph.ty(node));
            self.unsupported(node, what, at.lanes)
        })
    }

    fn expand(&self, node: Node, at: &At<'b>) -> Option<V<'b>> {
        let graph = self.plan.graph;
        let inputs = graph.inputs(node);
        let of = self.plan.scalar(node);
        let message = self.plan.describe(node);
        let place = Place { mask: at.mask, message: &message };
        match graph.op(node) {
            Op::Const(literal) => scalar::constant(self.b, literal, at.lanes),
            Op::Iota(_) => {
                let first = at.coords[0].value().splat(at.lanes);
                Some(if at.vec.is_some() { first + self.b.iota(first.ty()) } else { first })
            }
            Op::Unary(op) => {
                let from = self.plan.scalar(inputs[0]);
                scalar::unary(*op, self.operand(node, 0, at, from)?, from, place)
            }
            Op::Binary(op) => {
                let (x, y) = (self.operand(node, 0, at, of)?, self.operand(node, 1, at, of)?);
                scalar::binary(*op, x, y, of, place)
            }
            Op::Compare(op) => {
                let common = scalar::promote(self.plan.scalar(inputs[0]), self.plan.scalar(inputs[1]));
                let (x, y) = (self.operand(node, 0, at, common)?, self.operand(node, 1, at, common)?);
                Some(scalar::compare(*op, x, y))
            }
            Op::Select | Op::If => {
                let cond = self.operand(node, 0, at, Scalar::Bool)?;
                Some(cond.select(self.operand(node, 1, at, of)?, self.operand(node, 2, at, of)?))
            }
            Op::Cast(to) => {
                let from = self.plan.scalar(inputs[0]);
                scalar::cast(self.operand(node, 0, at, from)?, from, *to, place)
            }
            Op::Random(to) => {
                let [seed, stream, counter] = [0, 1, 2].map(|i| self.operand(node, i, at, Scalar::I64));
                Some(random::random([seed?, stream?, counter?], *to))
            }
            Op::BatchNorm { eps } => Some(self.batch_norm(inputs, f64::from_bits(*eps), at)),
            Op::Transpose(perm) => {
                let mut coords = at.coords.clone();
                for (i, &from) in perm.iter().enumerate() {
                    coords[from] = at.coords[i];
                }
                Some(self.eval(inputs[0], &At { coords, vec: at.vec.map(|v| perm[v]), ..at.clone() }))
            }
            Op::Slice { axis, start, step: 1, .. } => {
                let mut coords = at.coords.clone();
                coords[*axis] = coords[*axis].plus(*start as i64);
                Some(self.eval(inputs[0], &At { coords, ..at.clone() }))
            }
            Op::Broadcast(_) => Some(self.eval(inputs[0], &self.broadcast(node, inputs[0], at))),
            Op::Gather => self.gather(node, at),
            Op::Loop(region) => self.repeat(node, region, at).first().copied(),
            Op::Item(i) => match graph.op(inputs[0]) {
                Op::Loop(region) => self.repeat(inputs[0], region, at).get(*i).copied(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Operand `i` of an elementwise operation, broadcast to its shape and converted to type `to`.
    fn operand(&self, node: Node, i: usize, at: &At<'b>, to: Scalar) -> Option<V<'b>> {
        let operand = self.plan.graph.inputs(node)[i];
        let from = self.plan.scalar(operand);
        let value = self.eval(operand, &self.broadcast(node, operand, at));
        let message = self.plan.describe(node);
        scalar::cast(value, from, to, Place { mask: at.mask, message: &message })
    }

    /// The index into an operand that is broadcast to the shape of `node`.
    fn broadcast(&self, node: Node, operand: Node, at: &At<'b>) -> At<'b> {
        let (outer, inner) = (self.plan.shape(node), self.plan.shape(operand));
        let skipped = outer.len() - inner.len();
        let stretched = |i: usize| inner[i] == Dim::Const(1) && outer[i + skipped] != Dim::Const(1);
        let coord = |i: usize| if stretched(i) { self.b.i64(0).into() } else { at.coords[i + skipped] };
        let coords = (0..inner.len()).map(coord).collect();
        let vec = at.vec.and_then(|v| v.checked_sub(skipped)).filter(|&v| !stretched(v));
        At { coords, vec, ..at.clone() }
    }

    fn batch_norm(&self, inputs: &[Node], eps: f64, at: &At<'b>) -> V<'b> {
        let x = self.eval(inputs[0], at);
        let vec = (at.vec == Some(1)).then_some(0);
        let channel = At { coords: vec![at.coords[1]], vec, ..at.clone() };
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| self.eval(inputs[i], &channel));
        let factor = scale / (var + self.b.float(var.ty(), eps)).un(quearn_stage::low::UnOp::Sqrt);
        (x - mean) * factor + bias
    }

    /// The values that an elementwise loop carries in the end.
    fn repeat(&self, node: Node, region: &Region, at: &At<'b>) -> Vec<V<'b>> {
        let [trips, init @ ..] = self.plan.graph.inputs(node) else { return vec![] };
        let trips = self.eval(*trips, &At { coords: vec![], vec: None, lanes: 1, mask: None }).sext(Prim::I64);
        let init: Vec<V<'b>> = init.iter().map(|&n| self.eval(n, at)).collect();
        self.b.for_carry(self.b.i64(0), trips, 1, &init, |round, carried| {
            let values = std::iter::once(round.splat(at.lanes)).chain(carried.iter().copied());
            let inner = self.knowing(region.params.iter().copied().zip(values));
            region.results.iter().map(|&r| inner.eval(r, at)).collect()
        })
    }

    /// `data[index[i…], ..]` with a test of the index.
    fn gather(&self, node: Node, at: &At<'b>) -> Option<V<'b>> {
        let [data, index] = self.plan.graph.inputs(node) else { return None };
        let spec = self.plan.home(*data)?;
        let rank = self.plan.shape(*index).len();
        let on_index = at.vec.filter(|&v| v < rank);
        let index_at = match on_index {
            Some(_) => At { coords: at.coords[..rank].to_vec(), ..at.clone() },
            None => At { coords: at.coords[..rank].to_vec(), vec: None, lanes: 1, mask: None },
        };
        let row = self.eval(*index, &index_at).sext(Prim::I64);
        let count = self.env.size(&spec.axes[0].size).splat(row.ty().lanes);
        let bad = row.lt(self.b.zero(row.ty())) | row.ge(count);
        let message = self.plan.describe(node);
        scalar::fail_if(self.b, bad, index_at.mask, FailKind::OutOfRange, &message);
        let inner = Spec { axes: spec.axes[1..].to_vec(), ..spec.clone() };
        let rest = at.coords[rank..].to_vec();
        if on_index.is_none() {
            let base = step(self.address(&inner, &rest), row, spec.axes[0].stride);
            let vec = at.vec.map(|v| v - rank);
            let at = At { coords: rest, vec, ..at.clone() };
            return Some(self.load_at(&inner, base, &at, self.env.invariant(spec.buffer)));
        }
        let offsets = row * self.b.int(row.ty(), spec.axes[0].stride.into());
        Some(self.load_lanes(spec, self.address(&inner, &rest), offsets, at))
    }

    /// Address of the element at `coords`.
    pub fn address(&self, spec: &Spec, coords: &[Coord<'b>]) -> V<'b> {
        let base = self.env.buffer(spec.buffer);
        let steps = spec.axes.iter().zip(coords).filter(|(axis, _)| axis.stride != 0);
        let (at, plus) = steps.fold((base, spec.offset), |(at, plus), (axis, coord)| {
            (step(at, coord.at, axis.stride), plus + coord.plus * axis.stride)
        });
        at.at(plus)
    }

    /// The elements of a stored tensor, in their compute type.
    pub fn load(&self, spec: &Spec, at: &At<'b>) -> V<'b> {
        self.load_at(spec, self.address(spec, &at.coords), at, self.env.invariant(spec.buffer))
    }

    /// The same from a tensor that this function itself has written.
    pub fn load_written(&self, spec: &Spec, at: &At<'b>) -> V<'b> {
        self.load_at(spec, self.address(spec, &at.coords), at, false)
    }

    fn load_at(&self, spec: &Spec, address: V<'b>, at: &At<'b>, invariant: bool) -> V<'b> {
        let stride = at.vec.filter(|_| at.lanes > 1).map_or(0, |v| spec.axes[v].stride);
        if stride == spec.elem_bytes() {
            return self.load_line(spec, address, at, invariant);
        }
        let Some(prim) = storage(spec.elem) else { return self.b.zero(Ty::F32) };
        if stride == 0 {
            let ty = Ty::scalar(prim);
            let one = if invariant { self.b.load_invariant(ty, address, 0) } else { self.b.load(ty, address, 0) };
            return widen(one, spec.elem).splat(at.lanes);
        }
        let lanes = self.b.iota(Ty::vector(Prim::I64, at.lanes));
        self.load_lanes(spec, address, lanes * stride, at)
    }

    /// Elements at different distances (in bytes, a vector of `i64`) from an address.
    pub fn load_lanes(&self, spec: &Spec, address: V<'b>, offsets: V<'b>, at: &At<'b>) -> V<'b> {
        let Some(prim) = storage(spec.elem) else { return self.b.zero(Ty::F32) };
        let mask = at.mask.unwrap_or_else(|| self.b.int(Ty::vector(Prim::Bool, at.lanes), 1));
        let ty = Ty::vector(prim, at.lanes);
        let invariant = self.env.invariant(spec.buffer);
        widen(self.b.gather(ty, address, offsets, 1, mask, invariant), spec.elem)
    }

    /// Neighbouring elements from an address on; `invariant` if nothing writes them while the function runs.
    pub fn load_line(&self, spec: &Spec, address: V<'b>, at: &At<'b>, invariant: bool) -> V<'b> {
        let Some(prim) = storage(spec.elem) else { return self.b.zero(Ty::F32) };
        widen(self.read(Ty::vector(prim, at.lanes), address, at.mask, invariant), spec.elem)
    }

    /// Writes elements in the compute type of `spec.elem`.
    pub fn store(&self, spec: &Spec, at: &At<'b>, value: V<'b>) {
        let address = self.address(spec, &at.coords);
        let value = narrow(value, spec.elem);
        let stride = at.vec.map_or(0, |v| spec.axes[v].stride);
        match (at.lanes, at.mask) {
            (1, _) => self.b.store(address, 0, value),
            (_, mask) if stride == spec.elem_bytes() => self.write(address, mask, value),
            (lanes, None) => (0..lanes).for_each(|i| self.b.store(address, stride * i64::from(i), value.extract(i))),
            (lanes, Some(mask)) => (0..lanes).for_each(|i| {
                self.b.if_(mask.extract(i), || self.b.store(address, stride * i64::from(i), value.extract(i)));
            }),
        }
    }

    /// Evaluates `root` where `node` has the value `value`, and stores it.
    pub fn finish(&self, node: Node, value: V<'b>, root: Node, out: &Spec, at: &At<'b>) {
        let result = if node == root { value } else { self.knowing([(node, value)]).computed(root, at) };
        self.store_as(root, out, at, result);
    }

    /// Evaluates nodes into memory, that of their own or a copy. All are read before any is written: a result may lie where
    /// an operand of another one does.
    pub fn fill(&self, results: &[(Node, Spec)], at: &At<'b>) {
        let mut values: Vec<(Node, V<'b>)> = vec![];
        for (root, out) in results {
            let ev = self.knowing(values.iter().copied());
            let copied = self.plan.home(*root).is_some_and(|home| home != out);
            values.push((*root, if copied { ev.eval(*root, at) } else { ev.computed(*root, at) }));
        }
        results.iter().zip(values).for_each(|((root, out), (_, value))| self.store_as(*root, out, at, value));
    }

    /// Stores a value of `node`, whose type may be wider in memory than in the graph.
    pub fn store_as(&self, node: Node, out: &Spec, at: &At<'b>, value: V<'b>) {
        let from = super::spec::intermediate(self.plan.scalar(node));
        let to = super::spec::intermediate(out.elem);
        debug_assert_eq!(from, to, "a tensor is stored in another type");
        self.store(out, at, value);
    }

    /// Runs `body(i, mask)` for vectors of neighbours that cover `lo..hi`; the last one may be masked.
    pub fn vectors(&self, lo: V<'b>, hi: V<'b>, body: impl FnMut(V<'b>, Option<V<'b>>)) {
        self.vectors_of(self.lanes(), lo, hi, body);
    }

    /// The same for vectors of so many lanes.
    pub fn vectors_of(&self, lanes: u16, lo: V<'b>, hi: V<'b>, mut body: impl FnMut(V<'b>, Option<V<'b>>)) {
        let count = lanes;
        let lanes = i64::from(lanes);
        let whole = (hi - lo).bin(quearn_stage::low::BinOp::AShr, self.b.i64(lanes.ilog2().into())) * lanes;
        let main_end = lo + whole;
        self.b.for_carry(lo, main_end, lanes, &[], |i, _| {
            body(i, None);
            vec![]
        });
        self.b.if_(main_end.lt(hi), || body(main_end, Some(self.first_lanes(count, hi - main_end))));
    }

    /// Carries values through the vectors of `n` elements; the last one may be masked.
    pub fn fold_vectors(&self, n: V<'b>, init: &[V<'b>], body: Step<'_, 'b>) -> Vec<V<'b>> {
        let lanes = i64::from(self.lanes());
        let whole = n / lanes * lanes;
        let acc = self.b.for_carry(self.b.i64(0), whole, lanes, init, |i, acc| body(i, None, acc));
        let rest = || body(whole, Some(self.lanes_below(n - whole)), &acc);
        self.b.if_else(whole.lt(n), rest, || acc.clone())
    }

    /// The mask of the lanes below `count`.
    pub fn lanes_below(&self, count: V<'b>) -> V<'b> {
        self.first_lanes(self.lanes(), count)
    }

    /// For each vector of a panel of columns, from `column` on, the lanes that are columns; none where panels are whole.
    pub fn column_masks(&self, lanes: u16, vectors: u64, cols: u64, column: V<'b>) -> Vec<Option<V<'b>>> {
        let short = !cols.is_multiple_of(vectors * u64::from(lanes));
        let mask = |v: u64| self.first_lanes(lanes, self.b.i64((cols - v * u64::from(lanes)) as i64) - column);
        (0..vectors).map(|v| short.then(|| mask(v))).collect()
    }

    /// As [`Eval::lanes_below`], in vectors of so many lanes.
    pub fn first_lanes(&self, lanes: u16, count: V<'b>) -> V<'b> {
        self.b.iota(Ty::vector(Prim::I32, lanes)).lt(count.sext(Prim::I32).splat(lanes))
    }

    /// Neighbouring elements in memory, those that the mask has.
    pub fn read(&self, ty: Ty, address: V<'b>, mask: Option<V<'b>>, invariant: bool) -> V<'b> {
        match mask {
            Some(mask) => self.b.masked_load(ty, address, mask, invariant),
            None if invariant => self.b.load_invariant(ty, address, 0),
            None => self.b.load(ty, address, 0),
        }
    }

    /// Writes them.
    pub fn write(&self, address: V<'b>, mask: Option<V<'b>>, value: V<'b>) {
        match mask {
            Some(mask) => self.b.masked_store(address, mask, value),
            None => self.b.store(address, 0, value),
        }
    }
}

/// From the stored to the computed type.
fn widen(value: V<'_>, elem: Scalar) -> V<'_> {
    match elem {
        Scalar::U8 => value.zext(Prim::I32),
        Scalar::I8 | Scalar::I16 => value.sext(Prim::I32),
        Scalar::F16 | Scalar::BF16 => value.cast(CastOp::FpExt, Prim::F32),
        _ => value,
    }
}

/// From the computed to the stored type.
fn narrow(value: V<'_>, elem: Scalar) -> V<'_> {
    match (elem, storage(elem)) {
        (Scalar::F16 | Scalar::BF16, Some(prim)) => value.cast(CastOp::FpTrunc, prim),
        (Scalar::U8 | Scalar::I8 | Scalar::I16, Some(prim)) => value.cast(CastOp::Trunc, prim),
        _ => value,
    }
}
