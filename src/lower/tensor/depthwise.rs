//! Depthwise convolutions: each channel has a filter of its own, so that there is no inner dimension to multiply over.
//!
//! Vectors are along channels. A tile of neighbouring output pixels is kept in registers; each input pixel of the tile's
//! window is read once and goes into all outputs that it is seen by. Filters are packed as one vector of channels for
//! each place of the window.

use super::eval::{At, Coord, Eval};
use super::gemm::divide;
use super::spec::{BufferId, Size, Spec};
use super::target::Target;
use quearn_stage::graph::{Conv2d, Node};
use quearn_stage::low::{BinOp, Prim, Ty, V};

/// A depthwise convolution with its epilogue.
#[derive(Clone, Debug)]
pub struct Depthwise {
    /// The convolution.
    pub node: Node,
    /// What is stored: the convolution, or an elementwise function of it.
    pub root: Node,
    /// Added to each channel.
    pub bias: Option<Node>,
    /// Image, channels adjacent, with the zeros of the padding around it.
    pub x: Spec,
    /// Filters: for each vector of channels a vector for each place of the window.
    pub filters: BufferId,
    /// Attributes.
    pub conv: Conv2d,
    /// Height and width of a filter.
    pub kernel: [u64; 2],
    /// Height and width of the tile of output pixels.
    pub tile: [u64; 2],
    /// Element type.
    pub prim: Prim,
    /// Where the result goes.
    pub out: Spec,
}

/// Filters of up to so many places are kept in registers.
const KEPT: u64 = 12;

/// The tile for an image of `rows` output pixels: as many accumulators as the registers hold beside the filter, wide
/// rather than high, because neighbours along a line share more of their windows.
pub fn choose_tile(target: Target, kernel: [u64; 2], rows: [u64; 2]) -> [u64; 2] {
    let places = kernel[0] * kernel[1];
    let room = u64::from(target.registers) - 3 - if places <= KEPT { places } else { 1 };
    let width = (room / 2).clamp(1, 7).min(rows[1]);
    let height = (room / width).clamp(1, 2).min(rows[0]);
    [height, width]
}

impl Depthwise {
    fn extent(&self, axis: usize) -> i64 {
        self.out.axes[axis].size.now().unwrap_or(1) as i64
    }

    /// Rows of tiles in an image.
    fn strips(&self) -> i64 {
        (self.extent(2) + self.tile[0] as i64 - 1) / self.tile[0] as i64
    }

    /// Number of work items, strips of images, and the elements that one reads, about.
    pub fn work<'b>(&self, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let window = self.kernel[0] * self.kernel[1];
        (size(&self.out.axes[0].size) * self.strips(), window * (self.extent(1) * self.extent(3)) as u64 * self.tile[0])
    }

    /// Writes the code for work items `lo..hi`. Tiles at the end of an axis are moved back over their neighbours.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let b = ev.b;
        let [height, width] = self.tile.map(|n| n as i64);
        let last = [2, 3].map(|axis| self.extent(axis));
        b.for_(lo, hi, |t| {
            let (image, strip) = divide(t, b.i64(self.strips()));
            let y = (strip * height).min(b.i64(last[0] - height));
            b.for_(b.i64(0), b.i64((last[1] + width - 1) / width), |tx| {
                let x = (tx * width).min(b.i64(last[1] - width));
                self.channels(ev, [image, y, x]);
            });
        });
    }

    /// All channels of a tile, a vector at a time.
    fn channels<'b>(&self, ev: &Eval<'_, 'b>, [image, y, x]: [V<'b>; 3]) {
        let (b, lanes) = (ev.b, ev.plan.target.lanes_of(self.prim));
        ev.vectors_of(lanes, b.i64(0), b.i64(self.extent(1)), |c, mask| {
            let coords = vec![image.into(), c.into(), y.into(), x.into()];
            self.tile(ev, &At { coords, vec: Some(1), lanes, mask });
        });
    }

    /// One vector of channels of a tile.
    fn tile<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) {
        let b = ev.b;
        let ty = Ty::vector(self.prim, at.lanes);
        let [kh, kw] = self.kernel.map(|n| n as i64);
        let bytes = ty.bytes() as i64;
        let panel = at.coords[1].value().bin(BinOp::AShr, b.i64(i64::from(at.lanes).ilog2().into()));
        let panel = ev.env.buffer(self.filters).index(panel, kh * kw * bytes);
        let place = |p: i64| b.load_invariant(ty, panel, p * bytes);
        let kept: Vec<V<'b>> = if (kh * kw) as u64 <= KEPT { (0..kh * kw).map(place).collect() } else { vec![] };
        let filter =
            |ky: i64, kx: i64| kept.get((ky * kw + kx) as usize).copied().unwrap_or_else(|| place(ky * kw + kx));

        let [height, width] = self.tile.map(|n| n as i64);
        let start = match self.bias {
            Some(bias) => ev.eval(bias, &At { coords: vec![at.coords[1]], vec: Some(0), ..at.clone() }),
            None => b.zero(ty),
        };
        let mut sums = vec![start; (height * width) as usize];
        let first = self.window(ev, at);
        let [sy, sx] = self.conv.stride.map(|n| n as i64);
        let [dy, dx] = self.conv.dilation.map(|n| n as i64);
        // Which output of the tile, `n` long, sees input `i` at which place of a filter `k` long.
        let seen = |i: i64, n: i64, stride: i64, k: i64, step: i64| {
            (0..n).filter_map(move |o| {
                let off = i - o * stride;
                (off >= 0 && off % step == 0 && off / step < k).then_some((o, off / step))
            })
        };
        for iy in 0..(height - 1) * sy + (kh - 1) * dy + 1 {
            for ix in 0..(width - 1) * sx + (kw - 1) * dx + 1 {
                let users: Vec<_> = seen(iy, height, sy, kh, dy)
                    .flat_map(|(oy, ky)| seen(ix, width, sx, kw, dx).map(move |(ox, kx)| (oy * width + ox, ky, kx)))
                    .collect();
                if users.is_empty() {
                    continue;
                }
                let offset = iy * self.x.axes[2].stride + ix * self.x.axes[3].stride;
                let value = ev.read(ty, first.at(offset), at.mask, ev.env.invariant(self.x.buffer));
                for (o, ky, kx) in users {
                    sums[o as usize] = value.fma(filter(ky, kx), sums[o as usize]);
                }
            }
        }
        for (o, sum) in (0..).zip(sums) {
            let mut at = at.clone();
            at.coords[2] = at.coords[2].plus(o / width);
            at.coords[3] = at.coords[3].plus(o % width);
            ev.finish(self.node, sum, self.root, &self.out, &at);
        }
    }

    /// Address of the first element of the tile's window.
    fn window<'b>(&self, ev: &Eval<'_, 'b>, at: &At<'b>) -> V<'b> {
        let along = |i: usize| {
            let from = at.coords[2 + i].value() * self.conv.stride[i] as i64;
            Coord::from(from).plus(-(self.conv.padding[i] as i64))
        };
        ev.address(&self.x, &[at.coords[0], at.coords[1], along(0), along(1)])
    }
}
