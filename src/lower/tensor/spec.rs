//! Where a tensor lies in memory, as known while the program is planned: no address, no size of the batch.

use quearn_stage::graph::Scalar;
use quearn_stage::low::Prim;

/// A buffer of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Extent of an axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Size {
    /// Known now.
    Now(u64),
    /// The leading dimension that the program runs over: images or rows in the present chunk.
    Items,
    /// So many for each of them.
    EachItem(u64),
    /// A named dimension of an input that is read as a whole.
    Dim(String),
}

impl Size {
    /// The extent, if it is known now.
    pub fn now(&self) -> Option<u64> {
        match self {
            Size::Now(n) => Some(*n),
            _ => None,
        }
    }
}

/// One axis of a tensor in memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AxisSpec {
    /// Extent.
    pub size: Size,
    /// Bytes from one element to the next.
    pub stride: i64,
}

/// A tensor in memory, its axes in the order of the graph.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// Buffer.
    pub buffer: BufferId,
    /// Bytes from the start of the buffer to the first element.
    pub offset: i64,
    /// Type of the stored elements.
    pub elem: Scalar,
    /// Axes.
    pub axes: Vec<AxisSpec>,
    /// Zeros that surround the last two axes of a rank-4 tensor on each side: vertical, horizontal.
    pub halo: [u64; 2],
}

impl Spec {
    /// Bytes of an element.
    pub fn elem_bytes(&self) -> i64 {
        storage(self.elem).map_or(0, |p| p.bytes() as i64)
    }

    /// The axis in which neighbouring elements are adjacent in memory; the longest if there are several.
    pub fn unit_axis(&self) -> Option<usize> {
        let unit = self.elem_bytes();
        let adjacent = (0..self.axes.len()).filter(|&i| self.axes[i].stride == unit);
        adjacent.max_by_key(|&i| self.axes[i].size.now().unwrap_or(u64::MAX))
    }

    /// The axes, outermost in memory first; axes of extent 1 come first of all.
    pub fn physical_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        order.sort_by_key(|&i| {
            let axis = &self.axes[i];
            (axis.size != Size::Now(1), std::cmp::Reverse(axis.stride), i)
        });
        order
    }

    /// Is stepping over axis `inner` to its end the same as one step of axis `outer`?
    pub fn merges(&self, outer: usize, inner: usize) -> bool {
        let (outer, inner) = (&self.axes[outer], &self.axes[inner]);
        inner.size.now().is_some_and(|n| outer.stride == inner.stride * n as i64 || outer.size == Size::Now(1))
    }

    /// The same memory with the axes in another order.
    pub fn permuted(&self, perm: &[usize]) -> Spec {
        let axes = perm.iter().map(|&i| self.axes[i].clone()).collect();
        Spec { axes, halo: [0, 0], ..self.clone() }
    }

    /// Does an axis run backwards?
    pub fn runs_back(&self) -> bool {
        self.axes.iter().any(|axis| axis.stride < 0)
    }

    /// Every `step`-th element along an axis.
    pub fn sliced(&self, axis: usize, start: u64, step: i64, count: u64) -> Spec {
        let mut part = Spec { halo: [0, 0], ..self.clone() };
        let whole = &self.axes[axis];
        part.offset += start as i64 * whole.stride;
        part.axes[axis] = AxisSpec { size: Size::Now(count), stride: whole.stride * step };
        part
    }

    /// The same elements in row-major order under another shape, if no copy is needed for that.
    pub fn reshaped(&self, sizes: &[Size]) -> Option<Spec> {
        // Runs of axes that are contiguous in row-major order, as (number of elements, stride of the last).
        let mut from = self.axes.iter().filter(|a| a.size != Size::Now(1)).peekable();
        let mut axes = vec![];
        let mut run: Option<(Size, i64)> = None;
        for size in sizes {
            if *size == Size::Now(1) {
                axes.push(AxisSpec { size: size.clone(), stride: 0 });
                continue;
            }
            if run.is_none() {
                let first = from.next()?;
                let (mut count, mut stride) = (first.size.clone(), first.stride);
                while let (Some(n), Some(next)) = (count.now(), from.peek()) {
                    let Some(m) = next.size.now() else { break };
                    if stride != next.stride * m as i64 {
                        break;
                    }
                    count = Size::Now(n * m);
                    stride = next.stride;
                    from.next();
                }
                run = Some((count, stride));
            }
            let (count, stride) = run.take()?;
            match (size, &count) {
                (Size::Now(n), Size::Now(total)) if *n > 0 && total % n == 0 => {
                    let rest = total / n;
                    axes.push(AxisSpec { size: size.clone(), stride: stride * rest as i64 });
                    run = (rest > 1).then_some((Size::Now(rest), stride));
                }
                (a, b) if a == b => axes.push(AxisSpec { size: size.clone(), stride }),
                _ => return None,
            }
        }
        let done = run.is_none() && from.next().is_none();
        done.then(|| Spec { axes, halo: [0, 0], ..self.clone() })
    }
}

/// Strides of a row-major tensor, in bytes, and the bytes of one step of the leading axis (or of all if the leading
/// extent is known).
pub fn row_major(sizes: &[Size], elem_bytes: i64) -> Vec<AxisSpec> {
    let mut stride = elem_bytes;
    let mut axes: Vec<AxisSpec> = sizes
        .iter()
        .rev()
        .map(|size| {
            let axis = AxisSpec { size: size.clone(), stride };
            stride *= size.now().unwrap_or(1) as i64;
            axis
        })
        .collect();
    axes.reverse();
    axes
}

/// How elements of a type are stored; `None` for types that tensors do not hold.
pub fn storage(scalar: Scalar) -> Option<Prim> {
    Some(match scalar {
        Scalar::Bool => Prim::Bool,
        Scalar::I8 | Scalar::U8 => Prim::I8,
        Scalar::I16 => Prim::I16,
        Scalar::I32 | Scalar::Date => Prim::I32,
        Scalar::I64 | Scalar::Timestamp => Prim::I64,
        Scalar::F16 => Prim::F16,
        Scalar::BF16 => Prim::BF16,
        Scalar::F32 => Prim::F32,
        Scalar::F64 => Prim::F64,
        Scalar::Decimal { .. } | Scalar::Interval | Scalar::String => return None,
    })
}

/// The machine type in which elements of a type are computed.
pub fn compute(scalar: Scalar) -> Option<Prim> {
    Some(match storage(scalar)? {
        Prim::I8 | Prim::I16 => Prim::I32,
        Prim::F16 | Prim::BF16 => Prim::F32,
        prim => prim,
    })
}

/// The type in which intermediate results are stored: 16-bit floats keep the precision they were computed with.
pub fn intermediate(scalar: Scalar) -> Scalar {
    if matches!(scalar, Scalar::F16 | Scalar::BF16) { Scalar::F32 } else { scalar }
}
