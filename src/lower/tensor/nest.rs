//! Loop nests over the elements of a tensor in the order in which they lie in memory.

use super::eval::{At, Coord, Eval};
use super::gemm::divide;
use super::spec::{Size, Spec};
use quearn_stage::low::V;

/// Elements of the innermost axis that one work item covers at most.
const CHUNK: u64 = 4096;
/// Elements that a work item should at least have.
const GRAIN: u64 = 2048;

/// How the elements of a tensor are visited: some outer axes (and chunks of a long innermost one) make work items,
/// the others are loops, the innermost one in vectors.
#[derive(Clone, Debug)]
pub struct Nest {
    sizes: Vec<Size>,
    /// Axes that a work item has one index of, outermost first.
    items: Vec<usize>,
    /// Axes that a work item runs over, outermost first.
    loops: Vec<usize>,
    /// The vector axis.
    inner: Option<usize>,
    chunked: bool,
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
    /// The nest over `out`; `fixed` axes are left at 0, for the body to run over.
    pub fn new(out: &Spec, fixed: &[usize], vectors: Vectors) -> Nest {
        let sizes: Vec<Size> = out.axes.iter().map(|a| a.size.clone()).collect();
        let mut order: Vec<usize> = out.physical_order();
        order.retain(|i| !fixed.contains(i) && sizes[*i] != Size::Now(1));
        let inner = match vectors {
            Vectors::No => None,
            Vectors::Innermost => order.pop(),
            Vectors::Along(axis) => order.iter().position(|&i| i == axis).map(|at| order.remove(at)),
        };
        let chunked = inner.is_some_and(|i| sizes[i].now().is_none_or(|n| n > 2 * CHUNK));
        let length = inner.map_or(1, |i| sizes[i].now().unwrap_or(CHUNK).min(CHUNK));
        let mut covered = length * fixed.iter().map(|&i| sizes[i].now().unwrap_or(1)).product::<u64>().max(1);
        let mut loops = vec![];
        while let Some(&last) = order.last() {
            let Some(n) = sizes[last].now().filter(|_| !chunked && covered < GRAIN) else { break };
            covered *= n;
            loops.insert(0, last);
            order.pop();
        }
        Nest { sizes, items: order, loops, inner, chunked }
    }

    /// Number of work items.
    pub fn work<'b>(&self, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> V<'b> {
        let n = self.items.iter().fold(one, |n, &i| n * size(&self.sizes[i]));
        match self.inner.filter(|_| self.chunked) {
            Some(i) => n * ((size(&self.sizes[i]) + (CHUNK as i64 - 1)) / CHUNK as i64),
            None => n,
        }
    }

    /// Elements of a work item, about.
    pub fn elements(&self) -> u64 {
        let known = |i: &usize| self.sizes[*i].now().unwrap_or(CHUNK).min(CHUNK);
        self.loops.iter().chain(&self.inner).map(known).product()
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
                if self.chunked {
                    let (quotient, chunk) = divide(rest, (n + (CHUNK as i64 - 1)) / CHUNK as i64);
                    rest = quotient;
                    let from = chunk * CHUNK as i64;
                    range = Some((from, n.min(from + CHUNK as i64)));
                }
            }
            for (place, &i) in self.items.iter().enumerate().rev() {
                if place == 0 {
                    coords[i] = rest.into();
                } else {
                    let (quotient, index) = divide(rest, ev.env.size(&self.sizes[i]));
                    coords[i] = index.into();
                    rest = quotient;
                }
            }
            self.enter(ev, 0, coords, range, body);
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
