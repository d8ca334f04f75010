//! Loop nests over the elements of a tensor in the order in which they lie in memory.

use super::eval::{At, Coord, Eval};
use super::gemm::divide;
use super::spec::{Size, Spec};
use quearn_stage::low::V;

/// Elements of the innermost axis that one work item covers at most, and at least where they are worth many others.
const CHUNK: u64 = 4096;
const SHORT: u64 = 128;
/// Elements that a work item should at least have.
const GRAIN: u64 = 2048;
/// Elements that a work item has at most where it has a whole axis: longer ones are gone through in blocks.
const MOST: u64 = 4 * GRAIN;

/// How the elements of a tensor are visited: some outer axes (and chunks of a long innermost one) make work items,
/// the others are loops, the innermost one in vectors.
#[derive(Clone, Debug)]
pub struct Nest {
    sizes: Vec<Size>,
    /// Axes that a work item has one index of, outermost first; of the last one a block.
    items: Vec<usize>,
    /// Indices of a block.
    block: u64,
    /// Axes that a work item runs over, outermost first.
    loops: Vec<usize>,
    /// The vector axis.
    inner: Option<usize>,
    /// Elements of it that a work item covers, if not all.
    chunk: Option<u64>,
}

/// Along which axis a body works on vectors of elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    /// One element at a time.
    No,
    /// The innermost one in memory.
    Innermost,
    /// This one, if it is longer than 1.
    Along(usize),
}

impl From<bool> for Vectors {
    fn from(innermost: bool) -> Vectors {
        if innermost { Vectors::Innermost } else { Vectors::No }
    }
}

impl Nest {
    /// The nest over `out`; `fixed` axes are left at 0, for the body to run over. What is done for an element is worth that of
    /// `each`.
    pub fn new(out: &Spec, fixed: &[usize], vectors: Vectors, each: u64) -> Nest {
        let sizes: Vec<Size> = out.axes.iter().map(|a| a.size.clone()).collect();
        let mut order: Vec<usize> = out.physical_order();
        order.retain(|i| !fixed.contains(i) && sizes[*i] != Size::Now(1));
        let inner = match vectors {
            Vectors::No => None,
            Vectors::Innermost => order.pop(),
            Vectors::Along(axis) => order.iter().position(|&i| i == axis).map(|at| order.remove(at)),
        };
        let most = (CHUNK / each.max(1)).max(SHORT);
        let chunk = inner.filter(|&i| sizes[i].now().is_none_or(|n| n > 2 * most)).map(|_| most);
        let length = inner.map_or(1, |i| sizes[i].now().unwrap_or(most).min(most));
        let mut covered =
            each.max(1) * length * fixed.iter().map(|&i| sizes[i].now().unwrap_or(1)).product::<u64>().max(1);
        let (mut loops, mut block) = (vec![], 1);
        while let Some(&last) = order.last() {
            let Some(n) = sizes[last].now().filter(|_| chunk.is_none() && covered < GRAIN) else { break };
            if covered * n > MOST {
                block = GRAIN.div_ceil(covered);
                break;
            }
            covered *= n;
            loops.insert(0, last);
            order.pop();
        }
        Nest { sizes, items: order, block, loops, inner, chunk }
    }

    /// Number of work items.
    pub fn work<'b>(&self, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> V<'b> {
        let n = self.items.iter().fold(one, |n, &i| n * self.blocks(i, size(&self.sizes[i])));
        match (self.inner, self.chunk) {
            (Some(i), Some(chunk)) => n * ((size(&self.sizes[i]) + (chunk as i64 - 1)) / chunk as i64),
            _ => n,
        }
    }

    /// Blocks of an axis that work items have one of.
    fn blocks<'b>(&self, axis: usize, n: V<'b>) -> V<'b> {
        let is_last = self.block > 1 && self.items.last() == Some(&axis);
        if is_last { (n + (self.block as i64 - 1)) / self.block as i64 } else { n }
    }

    /// Elements of a work item, about.
    pub fn elements(&self) -> u64 {
        let known = |i: &usize| self.sizes[*i].now().unwrap_or(CHUNK);
        let inner = self.inner.as_ref().map_or(1, |i| self.chunk.unwrap_or(known(i)));
        self.block * inner * self.loops.iter().map(known).product::<u64>()
    }

    /// Runs `body` for vectors that cover work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>, body: &mut dyn FnMut(&At<'b>)) {
        let b = ev.b;
        let zero = b.i64(0);
        b.for_(lo, hi, |t| {
            let mut coords = vec![Coord::from(zero); self.sizes.len()];
            let mut rest = t;
            let mut range = None;
            if let Some(i) = self.inner {
                let n = ev.env.size(&self.sizes[i]);
                range = Some((zero, n));
                if let Some(chunk) = self.chunk.map(|chunk| chunk as i64) {
                    let (quotient, index) = divide(rest, (n + (chunk - 1)) / chunk);
                    rest = quotient;
                    let from = index * chunk;
                    range = Some((from, n.min(from + chunk)));
                }
            }
            for (place, &i) in self.items.iter().enumerate().rev() {
                if place == 0 {
                    coords[i] = rest.into();
                } else {
                    let (quotient, index) = divide(rest, self.blocks(i, ev.env.size(&self.sizes[i])));
                    coords[i] = index.into();
                    rest = quotient;
                }
            }
            self.block(ev, coords, range, body);
        });
    }

    /// A work item, of whose last index `coords` have the block.
    fn block<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        mut coords: Vec<Coord<'b>>,
        range: Option<(V<'b>, V<'b>)>,
        body: &mut dyn FnMut(&At<'b>),
    ) {
        let Some(&axis) = self.items.last().filter(|_| self.block > 1) else {
            return self.enter(ev, 0, coords, range, body);
        };
        let first = coords[axis].value() * self.block as i64;
        let end = (first + self.block as i64).min(ev.env.size(&self.sizes[axis]));
        ev.b.for_(first, end, |i| {
            coords[axis] = i.into();
            self.enter(ev, 0, coords.clone(), range, body);
        });
    }

    fn enter<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        depth: usize,
        mut coords: Vec<Coord<'b>>,
        range: Option<(V<'b>, V<'b>)>,
        body: &mut dyn FnMut(&At<'b>),
    ) {
        if let Some(&axis) = self.loops.get(depth) {
            ev.b.for_(ev.b.i64(0), ev.env.size(&self.sizes[axis]), |i| {
                coords[axis] = i.into();
                self.enter(ev, depth + 1, coords, range, body);
            });
            return;
        }
        match (self.inner, range) {
            (Some(axis), Some((lo, hi))) => ev.vectors(lo, hi, |i, mask| {
                let mut coords = coords.clone();
                coords[axis] = i.into();
                body(&At { coords, vec: Some(axis), lanes: ev.lanes(), mask });
            }),
            _ => body(&At { coords, vec: None, lanes: 1, mask: None }),
        }
    }
}
