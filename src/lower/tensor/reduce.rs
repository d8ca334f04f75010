//! Reductions along axes: sums, means, minima and maxima; softmax; position of the maximum.

use super::eval::{At, Coord, Eval};
use super::math;
use super::nest::Nest;
use super::pool::{highest, lowest};
use super::scalar::fail_if;
use super::spec::{Size, Spec};
use quearn_stage::graph::{Node, ReduceOp, Scalar};
use quearn_stage::low::{self, CastOp, FailKind, OvfOp, Prim, Ty, V};

/// A reduction with its epilogue.
#[derive(Clone, Debug)]
pub struct Reduce {
    /// The reduction.
    pub node: Node,
    /// What is stored.
    pub root: Node,
    /// What is reduced.
    pub x: Node,
    /// Fold.
    pub op: ReduceOp,
    /// Reduced axes of `x`, outermost in memory first.
    pub axes: Vec<usize>,
    /// For each axis of `x` that of the result, if there is one.
    pub kept: Vec<Option<usize>>,
    /// Extents of `x`.
    pub sizes: Vec<Size>,
    /// The reduced axis that is folded in vectors: the one along which `x` is contiguous.
    pub vector: Option<usize>,
    /// Where the result goes.
    pub out: Spec,
    /// How the result is visited: in vectors only if no reduced axis is.
    pub nest: Nest,
}

impl Reduce {
    /// Elements of `x` that one work item reads, about.
    pub fn elements(&self) -> u64 {
        self.nest.elements() * self.axes.iter().map(|&i| self.sizes[i].now().unwrap_or(4096)).product::<u64>()
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        self.nest.emit(ev, lo, hi, &mut |at| self.element(ev, at));
    }

    fn element<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let coords = self.kept.iter().map(|k| k.map_or(Coord::from(ev.b.i64(0)), |k| at.coords[k])).collect();
        let vec = at.vec.and_then(|v| self.kept.iter().position(|k| *k == Some(v)));
        let inner = At { coords, vec, ..at.clone() };
        let lanes = if self.vector.is_some() { ev.lanes() } else { at.lanes };
        let init = self.start(ev, lanes);
        let folded = self.fold_axes(ev, 0, &inner, init);
        let folded = if self.vector.is_some() { self.across(ev, folded) } else { folded };
        let value = match self.op {
            ReduceOp::Mean => folded / self.count(ev, folded.ty()),
            _ => folded,
        };
        ev.finish(self.node, value, self.root, &self.out, at);
    }

    fn count<'b>(&self, ev: &Eval<'_, 'b>, ty: Ty) -> V<'b> {
        let n = self.axes.iter().fold(ev.b.i64(1), |n, &i| n * ev.env.size(&self.sizes[i]));
        n.cast(CastOp::SiToFp, ty.prim).splat(ty.lanes)
    }

    fn start<'b>(&self, ev: &Eval<'_, 'b>, lanes: u16) -> V<'b> {
        let ty = ev.ty(self.node, lanes);
        match self.op {
            ReduceOp::Sum | ReduceOp::Mean => ev.b.zero(ty),
            ReduceOp::Prod if ty.prim.is_float() => ev.b.float(ty, 1.0),
            ReduceOp::Prod => ev.b.int(ty, 1),
            ReduceOp::Min => highest(ev, ty),
            ReduceOp::Max => lowest(ev, ty),
        }
    }

    fn fold_axes<'b>(&self, ev: &Eval<'_, 'b>, depth: usize, at: &At<'b>, acc: V<'b>) -> V<'b> {
        let b = ev.b;
        let Some(&axis) = self.axes.get(depth) else {
            let value = ev.eval(self.x, at);
            return self.fold(ev, acc, value, at.mask);
        };
        let n = ev.env.size(&self.sizes[axis]);
        let entered = |i: V<'b>| {
            let mut at = at.clone();
            at.coords[axis] = i.into();
            at
        };
        if self.vector != Some(axis) {
            let body = |i: V<'b>, acc: &[V<'b>]| vec![self.fold_axes(ev, depth + 1, &entered(i), acc[0])];
            return b.for_carry(b.i64(0), n, 1, &[acc], body)[0];
        }
        let body = |i: V<'b>, mask: Option<V<'b>>, acc: &[V<'b>]| {
            let at = At { vec: Some(axis), lanes: ev.lanes(), mask, ..entered(i) };
            vec![self.fold_axes(ev, depth + 1, &at, acc[0])]
        };
        ev.fold_vectors(n, &[acc], &body)[0]
    }

    /// Folds a value into the accumulator, except in masked lanes.
    fn fold<'b>(&self, ev: &Eval<'_, 'b>, acc: V<'b>, value: V<'b>, mask: Option<V<'b>>) -> V<'b> {
        let of = ev.plan.scalar(self.x);
        let value = match acc.ty().prim {
            Prim::I64 => value.sext(Prim::I64),
            _ => value,
        };
        let folded = match self.op {
            ReduceOp::Sum if !of.is_float() => {
                let message = ev.plan.describe(self.node);
                fail_if(ev.b, acc.overflows(OvfOp::Add, value), mask, FailKind::Overflow, &message);
                acc + value
            }
            ReduceOp::Sum | ReduceOp::Mean => acc + value,
            ReduceOp::Prod if !of.is_float() => {
                let message = ev.plan.describe(self.node);
                fail_if(ev.b, acc.overflows(OvfOp::Mul, value), mask, FailKind::Overflow, &message);
                acc * value
            }
            ReduceOp::Prod => acc * value,
            ReduceOp::Min => keep_nan(acc, value, acc.min(value), of),
            ReduceOp::Max => keep_nan(acc, value, acc.max(value), of),
        };
        mask.map_or(folded, |m| m.select(folded, acc))
    }

    /// The lanes of an accumulator folded into one.
    fn across<'b>(&self, ev: &Eval<'_, 'b>, acc: V<'b>) -> V<'b> {
        let float = ev.plan.scalar(self.x).is_float();
        match self.op {
            // The machine has no product across lanes, and sums of integers are watched.
            ReduceOp::Prod | ReduceOp::Sum if self.op == ReduceOp::Prod || !float => {
                (1..acc.ty().lanes).fold(acc.extract(0), |sum, i| self.fold(ev, sum, acc.extract(i), None))
            }
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod => acc.reduce(low::ReduceOp::Add),
            ReduceOp::Min | ReduceOp::Max => {
                let op = if self.op == ReduceOp::Min { low::ReduceOp::Min } else { low::ReduceOp::Max };
                let best = acc.reduce(op);
                if !float {
                    return best;
                }
                let nan = acc.ne(acc).reduce(low::ReduceOp::Or);
                nan.select(math::like(best, f64::NAN), best)
            }
        }
    }
}

/// A minimum or maximum in which NaN wins.
fn keep_nan<'b>(acc: V<'b>, value: V<'b>, folded: V<'b>, of: Scalar) -> V<'b> {
    if !of.is_float() {
        return folded;
    }
    acc.ne(acc).select(acc, value.ne(value).select(value, folded))
}

/// What is done along each line of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Along {
    /// Softmax.
    Softmax,
    /// Running sums.
    CumSum,
    /// The position of the first largest element.
    ArgMax,
}

impl Along {
    /// Name of the stage.
    pub fn name(self) -> &'static str {
        match self {
            Along::Softmax => "softmax",
            Along::CumSum => "cum_sum",
            Along::ArgMax => "arg_max",
        }
    }
}

/// An operation along one axis.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What is done.
    pub along: Along,
    /// The node.
    pub node: Node,
    /// Operand.
    pub x: Node,
    /// Axis of the operand.
    pub axis: usize,
    /// Extent of the axis.
    pub size: Size,
    /// Where the result goes.
    pub out: Spec,
    /// How the lines along the axis are visited.
    pub nest: Nest,
}

impl Lines {
    /// Work of one item, in elements, about.
    pub fn elements(&self) -> u64 {
        let each = if self.along == Along::Softmax { 16 } else { 1 };
        each * self.nest.elements() * self.size.now().unwrap_or(4096)
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        self.nest.emit(ev, lo, hi, &mut |at| match self.along {
            Along::Softmax if at.lanes == 1 => self.softmax_in_vectors(ev, std::slice::from_ref(at)),
            Along::Softmax => self.softmax(ev, at),
            Along::CumSum => self.cum_sum(ev, at),
            Along::ArgMax if at.lanes == 1 && self.is_along_lines(ev) => self.arg_max_in_vectors(ev, at),
            Along::ArgMax => self.arg_max(ev, at),
        });
    }

    /// Do neighbours along the axis lie side by side?
    fn is_along_lines(&self, ev: &Eval<'_, '_>) -> bool {
        ev.plan.home(self.x).and_then(Spec::unit_axis) == Some(self.axis)
    }

    fn entered<'b>(&self, at: &At<'b>, i: V<'b>) -> At<'b> {
        let mut at = at.clone();
        at.coords[self.axis] = i.into();
        at
    }

    /// Softmax of a vector of neighbouring lines at once.
    fn softmax<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let ty = ev.ty(self.node, at.lanes);
        let (zero, n) = (b.i64(0), ev.env.size(&self.size));
        let max = b
            .for_carry(zero, n, 1, &[lowest(ev, ty)], |i, acc| vec![acc[0].max(ev.eval(self.x, &self.entered(at, i)))])
            [0];
        let sum = b.for_carry(zero, n, 1, &[b.zero(ty)], |i, acc| {
            let at = self.entered(at, i);
            let e = math::exp(ev.eval(self.x, &at) - max);
            ev.store_as(self.node, &self.out, &at, e);
            vec![acc[0] + e]
        })[0];
        let scale = math::like(sum, 1.0) / sum;
        b.for_(zero, n, |i| {
            let at = self.entered(at, i);
            let e = self.stored(ev, &at);
            ev.store_as(self.node, &self.out, &at, e * scale);
        });
    }

    fn stored<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) -> V<'b> {
        ev.load_written(&self.out, at)
    }

    /// Softmax of some lines side by side, in vectors along them: while one waits for its largest element or its sum, the
    /// others go on.
    pub fn softmax_in_vectors<'b>(&self, ev: &Eval<'_, 'b>, lines: &[At<'b>]) {
        let b = ev.b;
        let ty = ev.ty(self.node, ev.lanes());
        let n = ev.env.size(&self.size);
        let vectors = |i: V<'b>, mask: Option<V<'b>>| -> Vec<At<'b>> {
            let vector = |at| At { vec: Some(self.axis), lanes: ev.lanes(), mask, ..self.entered(at, i) };
            lines.iter().map(vector).collect()
        };
        let bottom = lowest(ev, ty);
        let max = ev.fold_vectors(n, &vec![bottom; lines.len()], &|i, mask, acc| {
            let larger = |(at, acc): (&At<'b>, &V<'b>)| {
                let x = ev.eval(self.x, at);
                let x = mask.map_or(x, |m| m.select(x, bottom));
                // A NaN is left out: it reaches the sum anyway.
                x.gt(*acc).select(x, *acc)
            };
            vectors(i, mask).iter().zip(acc).map(larger).collect()
        });
        let max: Vec<V<'b>> = max.into_iter().map(|max| max.reduce(low::ReduceOp::Max).splat(ty.lanes)).collect();
        let sums = ev.fold_vectors(n, &vec![b.zero(ty); lines.len()], &|i, mask, acc| {
            let at = vectors(i, mask);
            let e: Vec<V<'b>> = at.iter().zip(&max).map(|(at, max)| math::exp(ev.eval(self.x, at) - *max)).collect();
            at.iter().zip(&e).for_each(|(at, e)| ev.store_as(self.node, &self.out, at, *e));
            let there = |e: V<'b>| mask.map_or(e, |m| m.select(e, b.zero(ty)));
            acc.iter().zip(e).map(|(acc, e)| *acc + there(e)).collect()
        });
        let scale = |sum: V<'b>| {
            let sum = sum.reduce(low::ReduceOp::Add);
            (math::like(sum, 1.0) / sum).splat(ty.lanes)
        };
        let scales: Vec<V<'b>> = sums.into_iter().map(scale).collect();
        ev.vectors(b.i64(0), n, |i, mask| {
            for (at, scale) in vectors(i, mask).iter().zip(&scales) {
                let e = self.stored(ev, at);
                ev.store_as(self.node, &self.out, at, e * *scale);
            }
        });
    }

    /// Running sums of a line, or of a vector of neighbouring lines.
    fn cum_sum<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let n = ev.env.size(&self.size);
        b.for_carry(b.i64(0), n, 1, &[b.zero(ev.ty(self.node, at.lanes))], |i, acc| {
            let at = self.entered(at, i);
            let value = ev.eval(self.x, &at);
            let sum = match ev.plan.scalar(self.x).is_float() {
                true => acc[0] + value,
                false => {
                    let value = value.sext(Prim::I64);
                    let message = ev.plan.describe(self.node);
                    fail_if(b, acc[0].overflows(OvfOp::Add, value), at.mask, FailKind::Overflow, &message);
                    acc[0] + value
                }
            };
            ev.store_as(self.node, &self.out, &at, sum);
            vec![sum]
        });
    }

    /// The position of the first largest element of a line, or of each of a vector of neighbouring lines.
    fn arg_max<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let first = self.line(ev, at);
        let best = ev.eval(self.x, &first);
        let zero = b.zero(Ty::vector(Prim::I64, at.lanes));
        let n = ev.env.size(&self.size);
        let found = b.for_carry(b.i64(1), n, 1, &[best, zero], |i, acc| {
            let x = ev.eval(self.x, &self.entered(&first, i));
            larger(x, i.splat(at.lanes), acc)
        });
        ev.store_as(self.node, &self.out, at, found[1]);
    }

    /// The same of one line, in vectors along it: each lane finds its own first largest element, then the first of them
    /// wins. Lanes that find nothing keep position 0, which only counts where everything is as low as can be.
    fn arg_max_in_vectors<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let first = self.line(ev, at);
        let bottom = lowest(ev, ev.ty(self.x, ev.lanes()));
        let short = self.size.now().is_some_and(|n| i32::try_from(n).is_ok());
        let positions = Ty::vector(if short { Prim::I32 } else { Prim::I64 }, ev.lanes());
        let init = [bottom, b.zero(positions)];
        let found = ev.fold_vectors(ev.env.size(&self.size), &init, &|i, mask, acc| {
            let at = At { vec: Some(self.axis), lanes: ev.lanes(), mask, ..self.entered(&first, i) };
            let x = ev.eval(self.x, &at);
            let x = mask.map_or(x, |m| m.select(x, bottom));
            larger(x, i.sext(positions.prim).splat(positions.lanes), acc)
        });
        let (best, position) = (found[0], found[1] + b.iota(positions));
        let most = best.reduce(low::ReduceOp::Max).splat(positions.lanes);
        let nan = best.ne(best);
        let any = nan.reduce(low::ReduceOp::Or).splat(positions.lanes);
        let wins = any.select(nan, best.eq(most));
        let position = wins.select(position, highest(ev, positions)).reduce(low::ReduceOp::Min);
        ev.store_as(self.node, &self.out, at, position.sext(Prim::I64));
    }

    /// The first element of the line of `x` whose result is at an index.
    fn line<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) -> At<'b> {
        let mut coords = at.coords.clone();
        coords.insert(self.axis, ev.b.i64(0).into());
        let vec = at.vec.map(|v| if v >= self.axis { v + 1 } else { v });
        At { coords, vec, ..at.clone() }
    }
}

/// The larger of elements and those found so far, with their positions. A NaN counts as the largest, and stays.
fn larger<'b>(x: V<'b>, i: V<'b>, found: &[V<'b>]) -> Vec<V<'b>> {
    let better = x.gt(found[0]) | (x.ne(x) & found[0].eq(found[0]));
    vec![better.select(x, found[0]), better.select(i, found[1])]
}
