//! Loop nests over the elements of a tensor in the order in which they lie in memory.

use super::eval::{At, Coord, Eval};
use super::gemm::divide;
use super::spec::{Size, Spec};
use quearn_stage::low::V;

/// Elements of the innermost axis that one work item covers at most.
const CHUNK: u64 = 4096;
/// Elements that a work item should at least have.
const GRAIN: u64 = 2048;
/// Elements beyond which a work item is cut.
const MOST: u64 = 4 * GRAIN;
/// The shortest chunk: whole cache lines of any type, and some of them.
const LEAST_CHUNK: u64 = 64;

/// How the elements of a tensor are visited: some outer axes (blocks of the last of them, and chunks of a long innermost
/// one) make work items, the others are loops, the innermost one in vectors.
#[derive(Clone, Debug)]
pub struct Nest {
    sizes: Vec<Size>,
    /// Axes that a work item has one index of, outermost first.
    items: Vec<usize>,
    /// Axes that a work item runs over, outermost first.
    loops: Vec<usize>,
    /// The vector axis.
    inner: Option<usize>,
    /// Elements of a chunk, if the vector axis is cut into chunks.
    chunk: Option<u64>,
    /// Indices of a block, if the outermost of the loops is cut into blocks.
    block: Option<u64>,
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
        Nest::of_folds(out, fixed, vectors, 1)
    }

    /// The same where the body reads `each` elements for one of `out`.
    pub fn of_folds(out: &Spec, fixed: &[usize], vectors: Vectors, each: u64) -> Nest {
        let sizes: Vec<Size> = out.axes.iter().map(|a| a.size.clone()).collect();
        let mut order: Vec<usize> = out.physical_order();
        order.retain(|i| !fixed.contains(i) && sizes[*i] != Size::Now(1));
        let inner = match vectors {
            Vectors::No => None,
            Vectors::Innermost => order.pop(),
            Vectors::Along(axis) => order.iter().position(|&i| i == axis).map(|at| order.remove(at)),
        };
        let each = fixed.iter().map(|&i| sizes[i].now().unwrap_or(1)).product::<u64>().max(1) * each.max(1);
        let chunk = (CHUNK / each).next_power_of_two().clamp(LEAST_CHUNK, CHUNK);
        let chunk = inner.is_some_and(|i| sizes[i].now().is_none_or(|n| n > 2 * chunk)).then_some(chunk);
        let length = inner.map_or(1, |i| sizes[i].now().unwrap_or(CHUNK).min(CHUNK));
        let mut covered = length * each;
        let (mut loops, mut block) = (vec![], None);
        while let (Some(&last), None) = (order.last(), block) {
            let Some(n) = sizes[last].now().filter(|_| chunk.is_none() && covered < GRAIN) else { break };
            block = (covered * n > MOST).then(|| GRAIN.div_ceil(covered));
            covered *= n;
            loops.insert(0, last);
            order.pop();
        }
        Nest { sizes, items: order, loops, inner, chunk, block }
    }

    /// Number of work items.
    pub fn work<'b>(&self, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> V<'b> {
        let n = self.items.iter().fold(one, |n, &i| n * size(&self.sizes[i]));
        match self.cut() {
            Some((axis, part)) => n * ((size(&self.sizes[axis]) + (part as i64 - 1)) / part as i64),
            None => n,
        }
    }

    /// The axis that is cut, and the length of its parts: there is at most one.
    fn cut(&self) -> Option<(usize, u64)> {
        self.inner.zip(self.chunk).or(self.loops.first().copied().zip(self.block))
    }

    /// Elements of a work item, about.
    pub fn elements(&self) -> u64 {
        let known = |i: &usize| match self.cut() {
            Some((axis, part)) if axis == *i => part,
            _ => self.sizes[*i].now().unwrap_or(CHUNK).min(CHUNK),
        };
        self.loops.iter().chain(&self.inner).map(known).product()
    }

    /// Runs `body` for vectors that cover work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>, body: &mut dyn FnMut(&At<'b>)) {
        let b = ev.b;
        let zero = b.i64(0);
        b.for_(lo, hi, |t| {
            let mut coords = vec![Coord::from(zero); self.sizes.len()];
            let mut rest = t;
            let mut part = None;
            if let Some((axis, length)) = self.cut() {
                let (n, length) = (ev.env.size(&self.sizes[axis]), length as i64);
                let (quotient, index) = divide(rest, (n + (length - 1)) / length);
                rest = quotient;
                let from = index * length;
                part = Some((axis, from, n.min(from + length)));
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
            self.enter(ev, 0, coords, part, body);
        });
    }

    fn enter<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        depth: usize,
        mut coords: Vec<Coord<'b>>,
        part: Option<(usize, V<'b>, V<'b>)>,
        body: &mut dyn FnMut(&At<'b>),
    ) {
        let range = |axis: usize| match part {
            Some((cut, lo, hi)) if cut == axis => (lo, hi),
            _ => (ev.b.i64(0), ev.env.size(&self.sizes[axis])),
        };
        if let Some(&axis) = self.loops.get(depth) {
            let (lo, hi) = range(axis);
            ev.b.for_(lo, hi, |i| {
                coords[axis] = i.into();
                self.enter(ev, depth + 1, coords, part, body);
            });
            return;
        }
        let Some(axis) = self.inner else { return body(&At { coords, vec: None, lanes: 1, mask: None }) };
        let (lo, hi) = range(axis);
        ev.vectors(lo, hi, |i, mask| {
            let mut coords = coords.clone();
            coords[axis] = i.into();
            body(&At { coords, vec: Some(axis), lanes: ev.lanes(), mask });
        });
    }
}
