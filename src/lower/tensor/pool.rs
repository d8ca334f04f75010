//! Pooling: a window of each image plane folded into one element, vectors of channels at a time.

use super::eval::{At, Coord, Eval};
use super::nest::Nest;
use super::spec::Spec;
use quearn_stage::graph::{Node, Pool2d, PoolKind};
use quearn_stage::low::{CastOp, Prim, Ty, V};

/// A pooling with its epilogue.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The pooling.
    pub node: Node,
    /// What is stored.
    pub root: Node,
    /// What is pooled.
    pub x: Node,
    /// Attributes.
    pub pool: Pool2d,
    /// Extents of the image.
    pub image: [u64; 2],
    /// Where the result goes.
    pub out: Spec,
    /// How the result is visited.
    pub nest: Nest,
}

/// Windows of up to so many elements are written out.
pub(super) const UNROLLED: u64 = 16;

impl Pool {
    /// Elements of `x` that one work item reads, about.
    pub fn elements(&self) -> u64 {
        self.nest.elements() * self.pool.kernel[0] * self.pool.kernel[1]
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        self.nest.emit(ev, lo, hi, &mut |at| {
            let value = if self.is_inside() { self.whole_window(ev, at) } else { self.clipped_window(ev, at) };
            ev.finish(self.node, value, self.root, &self.out, at);
        });
    }

    /// Does every window lie in the image?
    fn is_inside(&self) -> bool {
        let out = [2, 3].map(|i: usize| self.out.axes[i].size.now().unwrap_or(0));
        let reach = |i: usize| out[i].saturating_sub(1) * self.pool.stride[i] + self.pool.kernel[i];
        self.pool.padding == [0, 0] && (0..2).all(|i| reach(i) <= self.image[i])
    }

    fn element<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>, y: Coord<'b>, x: Coord<'b>) -> V<'b> {
        let mut inner = at.clone();
        inner.coords[2] = y;
        inner.coords[3] = x;
        ev.eval(self.x, &inner)
    }

    fn fold<'b>(&self, acc: V<'b>, value: V<'b>) -> V<'b> {
        match self.pool.kind {
            PoolKind::Avg => acc + value,
            PoolKind::Max if acc.ty().prim.is_float() => larger(acc, value),
            PoolKind::Max => acc.max(value),
        }
    }

    fn start<'b>(&self, ev: &Eval<'_, 'b>, lanes: u16) -> V<'b> {
        let ty = ev.ty(self.x, lanes);
        match self.pool.kind {
            PoolKind::Avg => ev.b.zero(ty),
            PoolKind::Max => lowest(ev, ty),
        }
    }

    fn whole_window<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) -> V<'b> {
        let [kh, kw] = self.pool.kernel.map(|k| k as i64);
        let y0 = at.coords[2].value() * self.pool.stride[0] as i64;
        let x0 = at.coords[3].value() * self.pool.stride[1] as i64;
        let sum = if (kh * kw) as u64 <= UNROLLED {
            let all = (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x)));
            let mut values = all.map(|(y, x)| self.element(ev, at, Coord::from(y0).plus(y), Coord::from(x0).plus(x)));
            let first = values.next().unwrap_or_else(|| self.start(ev, at.lanes));
            values.fold(first, |acc, v| self.fold(acc, v))
        } else {
            let end = |from: V<'b>, k: i64| from + k;
            self.window(ev, at, [y0, x0], [end(y0, kh), end(x0, kw)])
        };
        match self.pool.kind {
            PoolKind::Avg => sum * super::math::like(sum, 1.0 / (kh * kw) as f64),
            PoolKind::Max => sum,
        }
    }

    fn clipped_window<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) -> V<'b> {
        let b = ev.b;
        let start = |i: usize| at.coords[2 + i].value() * self.pool.stride[i] as i64 - self.pool.padding[i] as i64;
        let from = [0, 1].map(|i| start(i).max(b.i64(0)));
        let to = [0, 1].map(|i| (start(i) + self.pool.kernel[i] as i64).min(b.i64(self.image[i] as i64)));
        let sum = self.window(ev, at, from, to);
        if self.pool.kind == PoolKind::Max {
            return sum;
        }
        let count = (to[0] - from[0]) * (to[1] - from[1]);
        sum / count.cast(CastOp::SiToFp, sum.ty().prim).splat(at.lanes)
    }

    fn window<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>, from: [V<'b>; 2], to: [V<'b>; 2]) -> V<'b> {
        let init = self.start(ev, at.lanes);
        ev.b.for_carry(from[0], to[0], 1, &[init], |y, acc| {
            ev.b.for_carry(from[1], to[1], 1, acc, |x, acc| {
                vec![self.fold(acc[0], self.element(ev, at, y.into(), x.into()))]
            })
        })[0]
    }
}

/// A maximum of floats in which NaN stays: it fails the comparison as a value and passes the test against itself.
pub(super) fn larger<'b>(acc: V<'b>, value: V<'b>) -> V<'b> {
    (value.gt(acc) | value.ne(value)).select(value, acc)
}

/// The smallest value of a type: what a maximum starts from.
pub fn lowest<'b>(ev: &Eval<'_, 'b>, ty: Ty) -> V<'b> {
    match ty.prim {
        Prim::I32 => ev.b.int(ty, i32::MIN.into()),
        Prim::I64 => ev.b.int(ty, i64::MIN.into()),
        _ => ev.b.float(ty, f64::NEG_INFINITY),
    }
}

/// The largest value of a type: what a minimum starts from.
pub fn highest<'b>(ev: &Eval<'_, 'b>, ty: Ty) -> V<'b> {
    match ty.prim {
        Prim::I32 => ev.b.int(ty, i32::MAX.into()),
        Prim::I64 => ev.b.int(ty, i64::MAX.into()),
        _ => ev.b.float(ty, f64::INFINITY),
    }
}
