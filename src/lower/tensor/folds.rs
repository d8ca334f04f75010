//! Plans reductions, poolings, softmax, positions of maxima, and what is joined or added at places.

use super::nest::{Nest, Vectors};
use super::places::slice;
use super::plan::Kind;
use super::planner::{Planner, Result};
use super::pool::Pool;
use super::reduce::{Along, Lines, Reduce};
use super::scatter::Scatter;
use super::spec::{Size, Spec};
use quearn_stage::graph::{self, Node, Pool2d};

/// Elements along an axis whose extent is not known now, about.
const MANY: u64 = 4096;

impl Planner<'_, '_> {
    pub(super) fn reduce(
        &mut self,
        node: Node,
        root: Node,
        op: graph::ReduceOp,
        axes: &[usize],
        keep: bool,
    ) -> Result<()> {
        let x = self.inputs(node)[0];
        let sizes = self.sizes(x)?;
        let rank = sizes.len();
        let unit = match self.plan.home(x) {
            Some(spec) => spec.unit_axis(),
            None if self.images.contains(&x) => Some(1),
            None => rank.checked_sub(1),
        };
        let vector = unit.filter(|u| axes.contains(u) && sizes[*u] != Size::Now(1));
        let mut next = 0;
        let kept = (0..rank).map(|i| {
            let reduced = axes.contains(&i);
            let place = next;
            next += usize::from(!reduced || keep);
            (!reduced).then_some(place)
        });
        let kept: Vec<Option<usize>> = kept.collect();
        let mut axes = axes.to_vec();
        axes.sort_by_key(|&i| (unit == Some(i), i));
        let out = self.destination(root, true)?;
        let each = axes.iter().map(|&i| sizes[i].now().unwrap_or(MANY)).product();
        let nest = Nest::of_folds(&out, &[], vector.is_none().into(), each);
        let reduce = Reduce { node, root, x, op, axes, kept, sizes, vector, out: out.clone(), nest };
        self.finish(node, root, out, "reduce", Kind::Reduce(Box::new(reduce)));
        Ok(())
    }

    pub(super) fn lines(&mut self, node: Node, axis: usize, along: Along) -> Result<()> {
        let x = self.inputs(node)[0];
        let size = self.sizes(x)?[axis].clone();
        let out = self.destination(node, along != Along::Softmax || !self.images.contains(&x))?;
        let (fixed, unit) = match along {
            Along::ArgMax => (None, self.plan.home(x).and_then(Spec::unit_axis)),
            _ => (Some(axis), out.unit_axis()),
        };
        let in_vectors = match along {
            Along::ArgMax => unit.is_some_and(|unit| unit != axis),
            _ => unit != Some(axis),
        };
        let nest = Nest::new(&out, fixed.as_slice(), in_vectors.into());
        let lines = Lines { along, node, x, axis, size, out: out.clone(), nest };
        self.finish(node, node, out, along.name(), Kind::Lines(Box::new(lines)));
        Ok(())
    }

    pub(super) fn scatter_add(&mut self, node: Node) -> Result<()> {
        let [data, index, values] = [0, 1, 2].map(|i| self.inputs(node)[i]);
        // Every part looks at all indices.
        self.stored(index)?;
        let (sizes, index_sizes) = (self.sizes(data)?, self.sizes(index)?);
        let out = self.destination(node, true)?;
        let scatter = Scatter { node, data, index, values, sizes, index_sizes, out: out.clone() };
        self.finish(node, node, out, "scatter_add", Kind::Scatter(Box::new(scatter)));
        Ok(())
    }

    pub(super) fn concat(&mut self, node: Node, axis: usize) -> Result<()> {
        let whole = self.joined_spec(node)?;
        let mut first = 0;
        for &operand in self.inputs(node) {
            if self.slices.get(&operand).is_none_or(|(concat, _)| *concat != node) {
                let part = self.slice(operand, &whole, axis, first);
                self.map(node, operand, part);
            }
            first += self.extent(operand, axis);
        }
        self.plan.homes.insert(node, whole);
        Ok(())
    }

    pub(super) fn stack(&mut self, node: Node) -> Result<()> {
        let whole = self.joined_spec(node)?;
        let last = whole.axes.len() - 1;
        for (i, &operand) in self.inputs(node).iter().enumerate() {
            let mut part = slice(&whole, last, i as u64, 1);
            part.axes.pop();
            self.map(node, operand, part);
        }
        self.plan.homes.insert(node, whole);
        Ok(())
    }

    pub(super) fn pool2d(&mut self, node: Node, root: Node, pool: &Pool2d) -> Result<()> {
        let x = self.inputs(node)[0];
        let image = [self.extent(x, 2), self.extent(x, 3)];
        let out = self.destination(root, false)?;
        let nest = Nest::new(&out, &[], Vectors::Along(1));
        let pool = Pool { node, root, x, pool: pool.clone(), image, out: out.clone(), nest };
        self.finish(node, root, out, "pool", Kind::Pool(Box::new(pool)));
        Ok(())
    }
}
