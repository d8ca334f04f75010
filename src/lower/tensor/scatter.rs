//! Values added at places that are known later.
//!
//! The rows of the result are dealt out in a fixed number of parts. A part copies its rows, then goes through all indices
//! in order and adds what falls to it. So no two workers write one row, and sums do not depend on how many workers there
//! are.

use super::eval::{At, Coord, Eval};
use super::scalar::fail_if;
use super::spec::{Size, Spec};
use quearn_stage::graph::Node;
use quearn_stage::low::{FailKind, Prim, V};

/// Parts that the rows are dealt out in.
pub const PARTS: i64 = 64;

/// `data` with `values` added at the rows `index`.
#[derive(Clone, Debug)]
pub struct Scatter {
    /// The node.
    pub node: Node,
    /// What is added to.
    pub data: Node,
    /// Rows of `data`.
    pub index: Node,
    /// What is added.
    pub values: Node,
    /// Extents of `data`.
    pub sizes: Vec<Size>,
    /// Extents of `index`.
    pub index_sizes: Vec<Size>,
    /// Where the result goes.
    pub out: Spec,
}

impl Scatter {
    /// Writes the code for the parts `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let b = ev.b;
        let rows = ev.env.size(&self.sizes[0]);
        let each = (rows + (PARTS - 1)) / PARTS;
        b.for_(lo, hi, |part| {
            let (first, end) = (part * each, rows.min(part * each + each));
            b.if_(first.lt(end), || {
                b.for_(first, end, |row| {
                    self.inner(ev, vec![row.into()], &mut |at| {
                        ev.store_as(self.node, &self.out, at, ev.eval(self.data, at));
                    });
                });
                self.add(ev, vec![], [first, end, rows]);
            });
        });
    }

    /// Goes through the indices from this one on, axis by axis.
    fn add<'b>(&self, ev: &Eval<'_, 'b>, index: Vec<Coord<'b>>, range: [V<'b>; 3]) {
        let b = ev.b;
        if let Some(size) = self.index_sizes.get(index.len()) {
            b.for_(b.i64(0), ev.env.size(size), |i| {
                let inner = index.iter().copied().chain([i.into()]).collect();
                self.add(ev, inner, range);
            });
            return;
        }
        let [first, end, rows] = range;
        let at = At { coords: index.clone(), vec: None, lanes: 1, mask: None };
        let row = ev.eval(self.index, &at).sext(Prim::I64);
        let outside = row.lt(b.i64(0)) | row.ge(rows);
        fail_if(b, outside, None, FailKind::OutOfRange, &ev.plan.describe(self.node));
        b.if_(row.ge(first) & row.lt(end), || {
            self.inner(ev, vec![row.into()], &mut |at| {
                let coords = index.iter().chain(&at.coords[1..]).copied().collect();
                let vec = at.vec.map(|axis| axis - 1 + index.len());
                let value = ev.eval(self.values, &At { coords, vec, ..at.clone() });
                ev.store_as(self.node, &self.out, at, ev.load_written(&self.out, at) + value);
            });
        });
    }

    /// Runs `body` for the elements of a row, in vectors along the last axis.
    fn inner<'b>(&self, ev: &Eval<'_, 'b>, coords: Vec<Coord<'b>>, body: &mut dyn FnMut(&At<'b>)) {
        let b = ev.b;
        let axis = coords.len();
        let last = axis + 1 == self.sizes.len();
        let Some(size) = self.sizes.get(axis) else {
            return body(&At { coords, vec: None, lanes: 1, mask: None });
        };
        let entered = |i: V<'b>| coords.iter().copied().chain([i.into()]).collect::<Vec<Coord<'b>>>();
        if last {
            ev.vectors(b.i64(0), ev.env.size(size), |i, mask| {
                body(&At { coords: entered(i), vec: Some(axis), lanes: ev.lanes(), mask });
            });
        } else {
            b.for_(b.i64(0), ev.env.size(size), |i| self.inner(ev, entered(i), body));
        }
    }
}
