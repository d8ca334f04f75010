//! The adjoint of a pooling by maxima: what each window has goes to its first largest element, vectors of channels at a
//! time.
//!
//! Where windows lie side by side and cover the image, each element is written once, with what is computed from it.
//! Otherwise a plane is set to zero, and the windows add to it one after the other.

use super::eval::{At, Coord, Eval};
use super::nest::{Nest, Vectors};
use super::places::Layout;
use super::plan::{Kind, shape_of};
use super::planner::{Planner, Result};
use super::pool::{UNROLLED, larger, lowest};
use super::spec::Spec;
use quearn_stage::graph::{Dim, Graph, Node, Pool2d};
use quearn_stage::low::V;

/// The adjoint of a pooling with its epilogue.
#[derive(Clone, Debug)]
pub struct Unpool {
    /// The node.
    pub node: Node,
    /// What is stored: the node itself unless windows are a grid.
    pub root: Node,
    /// What was pooled.
    pub x: Node,
    /// What windows have.
    pub y: Node,
    /// Attributes of the pooling.
    pub pool: Pool2d,
    /// Extents of the image and of the result of the pooling.
    pub extents: [[u64; 2]; 2],
    /// Do windows cover the image once?
    pub grid: bool,
    /// Where the result goes.
    pub out: Spec,
    /// How windows are visited, or planes.
    pub nest: Nest,
}

/// Do the windows of a pooling of `x` cover it once, so that what is made of the adjoint can be computed with it?
pub(super) fn is_grid(graph: &Graph, pool: &Pool2d, x: Node) -> bool {
    let image = shape_of(graph, x).get(2..).unwrap_or_default();
    let divides = |(dim, kernel): (&Dim, &u64)| dim.as_const().is_some_and(|n| n.is_multiple_of(*kernel));
    pool.kernel == pool.stride
        && pool.padding == [0, 0]
        && pool.kernel.iter().product::<u64>() <= UNROLLED
        && image.iter().zip(&pool.kernel).all(divides)
}

impl Planner<'_, '_> {
    pub(super) fn max_unpool2d(&mut self, node: Node, root: Node, pool: &Pool2d) -> Result<()> {
        let [x, y] = [0, 1].map(|i| self.inputs(node)[i]);
        let grid = is_grid(self.graph(), pool, x);
        let out = self.destination(root, false)?;
        let windows = Layout::Channels([0, 0]).axes(&self.sizes(y)?, out.elem_bytes());
        let windows = Spec { axes: windows, halo: [0, 0], ..out.clone() };
        let planes: &[usize] = if grid { &[] } else { &[2, 3] };
        let nest = Nest::new(&windows, planes, Vectors::Along(1), pool.kernel.iter().product());
        let extents = [x, y].map(|node| [2, 3].map(|axis: usize| self.extent(node, axis)));
        let unpool = Unpool { node, root, x, y, pool: pool.clone(), extents, grid, out: out.clone(), nest };
        self.finish(node, root, out, "unpool", Kind::Unpool(Box::new(unpool)));
        Ok(())
    }
}

impl Unpool {
    /// Elements of `x` that one work item reads, about.
    pub fn elements(&self) -> u64 {
        self.nest.elements() * self.pool.kernel.iter().product::<u64>()
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        self.nest.emit(ev, lo, hi, &mut |at| if self.grid { self.window(ev, at) } else { self.plane(ev, at) });
    }

    /// A window of a grid.
    fn window<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let [kh, kw] = self.pool.kernel.map(|k| k as i64);
        let [y, x] = [at.coords[2].value() * kh, at.coords[3].value() * kw];
        let place = |(i, j): (i64, i64)| moved(at, Coord::from(y).plus(i), Coord::from(x).plus(j));
        let places: Vec<At<'b>> = (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))).map(place).collect();
        let values: Vec<V<'b>> = places.iter().map(|at| ev.eval(self.x, at)).collect();
        let Some(largest) = values.iter().copied().reduce(larger) else { return };
        let mut left = ev.eval(self.y, at);
        for (at, value) in places.iter().zip(values) {
            let (given, kept) = self.share(ev, value.eq(largest), left);
            left = kept;
            ev.finish(self.node, given, self.root, &self.out, at);
        }
    }

    /// What an element gets of what is left, and what is left then.
    fn share<'b>(&self, ev: &Eval<'_, 'b>, is_largest: V<'b>, left: V<'b>) -> (V<'b>, V<'b>) {
        let zero = ev.b.zero(left.ty());
        (is_largest.select(left, zero), is_largest.select(zero, left))
    }

    /// A plane of an image, or a vector of them.
    fn plane<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let [image, windows] = self.extents.map(|extents| extents.map(|n| b.i64(n as i64)));
        let zero = b.i64(0);
        let nothing = b.zero(ev.ty(self.node, at.lanes));
        b.for_(zero, image[0], |y| {
            b.for_(zero, image[1], |x| ev.store_as(self.node, &self.out, &moved(at, y.into(), x.into()), nothing));
        });
        b.for_(zero, windows[0], |y| b.for_(zero, windows[1], |x| self.add(ev, at, [y, x], image)));
    }

    /// Adds what the window `[y, x]` has to the plane.
    fn add<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>, window: [V<'b>; 2], image: [V<'b>; 2]) {
        let b = ev.b;
        let start = [0, 1].map(|i: usize| window[i] * self.pool.stride[i] as i64 - self.pool.padding[i] as i64);
        let from = start.map(|start| start.max(b.i64(0)));
        let to = [0, 1].map(|i: usize| (start[i] + self.pool.kernel[i] as i64).min(image[i]));
        let each = |init: V<'b>, body: &dyn Fn(&At<'b>, V<'b>) -> V<'b>| {
            b.for_carry(from[0], to[0], 1, &[init], |y, acc| {
                b.for_carry(from[1], to[1], 1, acc, |x, acc| vec![body(&moved(at, y.into(), x.into()), acc[0])])
            })[0]
        };
        let largest = each(lowest(ev, ev.ty(self.x, at.lanes)), &|at, acc| larger(acc, ev.eval(self.x, at)));
        let [y, x] = window.map(Coord::from);
        each(ev.eval(self.y, &moved(at, y, x)), &|at, left| {
            let (given, kept) = self.share(ev, ev.eval(self.x, at).eq(largest), left);
            ev.store_as(self.node, &self.out, at, ev.load_written(&self.out, at) + given);
            kept
        });
    }
}

/// The same channels at another pixel.
fn moved<'b>(at: &At<'b>, y: Coord<'b>, x: Coord<'b>) -> At<'b> {
    let mut at = at.clone();
    at.coords[2] = y;
    at.coords[3] = x;
    at
}
