//! Convolutions of 3 x 3 filters with fewer multiplications (Winograd's minimal filtering; Lavin and Gray, "Fast algorithms
//! for convolutional neural networks", 2016).
//!
//! The image is cut into tiles of `m` x `m` output pixels, which see `n` x `n` input pixels, n = m + 2. Tiles and filters are
//! transformed, then each of the n² elements of a transformed tile is a matrix product over the channels on its own, and
//! its results are transformed back. F(2, 3) needs 2.25 times fewer multiplications than the definition, F(4, 3) four
//! times fewer, at the price of some bits: the error grows from about 1 to 2 and 10 units in the last place.
//!
//! Transformed tensors are `[n²][tile][channel]`; the products between the transforms are a [`super::gemm::Gemm`].

use super::eval::{At, Eval};
use super::gemm::divide;
use super::spec::{BufferId, Spec};
use quearn_stage::graph::Node;
use quearn_stage::low::{Prim, Ty, V};

/// A minimal filtering algorithm F(m, 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filtering {
    /// F(2, 3).
    Two,
    /// F(4, 3).
    Four,
}

impl Filtering {
    /// Edge of a tile of output pixels.
    pub fn edge(self) -> u64 {
        match self {
            Filtering::Two => 2,
            Filtering::Four => 4,
        }
    }

    /// Edge of a tile of input pixels.
    pub fn window(self) -> u64 {
        self.edge() + 2
    }

    /// The matrix that tiles of the image are transformed with. Rows 2k - 1 and 2k are sum and difference of an even and
    /// an odd part.
    fn image(self) -> &'static [&'static [f64]] {
        match self {
            Filtering::Two => &[&[1., 0., -1., 0.], &[0., 1., 1., 0.], &[0., -1., 1., 0.], &[0., 1., 0., -1.]],
            Filtering::Four => &[
                &[4., 0., -5., 0., 1., 0.],
                &[0., -4., -4., 1., 1., 0.],
                &[0., 4., -4., -1., 1., 0.],
                &[0., -2., -1., 2., 1., 0.],
                &[0., 2., -1., -2., 1., 0.],
                &[0., 4., 0., -5., 0., 1.],
            ],
        }
    }

    /// The matrix that filters are transformed with.
    fn filter(self) -> &'static [&'static [f64]] {
        const SIXTH: f64 = 1. / 6.;
        match self {
            Filtering::Two => &[&[1., 0., 0.], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0., 0., 1.]],
            Filtering::Four => &[
                &[0.25, 0., 0.],
                &[-SIXTH, -SIXTH, -SIXTH],
                &[-SIXTH, SIXTH, -SIXTH],
                &[SIXTH / 4., SIXTH / 2., SIXTH],
                &[SIXTH / 4., -SIXTH / 2., SIXTH],
                &[0., 0., 1.],
            ],
        }
    }

    /// The matrix that results are transformed back with. In columns 2k - 1 and 2k, even rows are equal, odd ones opposite.
    fn result(self) -> &'static [&'static [f64]] {
        match self {
            Filtering::Two => &[&[1., 1., 1., 0.], &[0., 1., -1., -1.]],
            Filtering::Four => &[
                &[1., 1., 1., 1., 1., 0.],
                &[0., 1., -1., 2., -2., 0.],
                &[0., 1., 1., 4., 4., 0.],
                &[0., 1., -1., 8., -8., 1.],
            ],
        }
    }
}

/// The sum of values with constant factors.
fn combined<'b>(terms: impl IntoIterator<Item = (f64, V<'b>)>) -> Option<V<'b>> {
    let terms: Vec<(f64, V<'b>)> = terms.into_iter().filter(|(factor, _)| *factor != 0.0).collect();
    // One that stands by itself comes first, so that the others can be multiplied and added at once.
    let first = terms.iter().position(|(factor, _)| *factor == 1.0).unwrap_or(0);
    let start = terms.get(first).map(|&(factor, v)| if factor == 1.0 { v } else { scaled(v, factor) });
    let rest = terms.iter().enumerate().filter(|(i, _)| *i != first).map(|(_, term)| *term);
    start.map(|start| {
        rest.fold(start, |sum, (factor, v)| match factor {
            1.0 => sum + v,
            -1.0 => sum - v,
            _ => v.fma(super::math::like(v, factor), sum),
        })
    })
}

fn scaled<'b>(v: V<'b>, factor: f64) -> V<'b> {
    if factor == -1.0 { -v } else { v * super::math::like(v, factor) }
}

/// The transform of a line of an image tile.
fn image_line<'b>(how: Filtering, d: &[V<'b>]) -> Vec<V<'b>> {
    let rows = how.image();
    let last = rows.len() - 1;
    let part = |row: &[f64], parity: usize| {
        combined(row.iter().zip(d).enumerate().filter(|(i, _)| i % 2 == parity).map(|(_, (f, v))| (*f, *v)))
    };
    let whole = |row: &[f64]| combined(row.iter().copied().zip(d.iter().copied()));
    let mut out: Vec<V<'b>> = whole(rows[0]).into_iter().collect();
    for pair in rows[1..last].chunks(2) {
        if let (Some(even), Some(odd)) = (part(pair[0], 0), part(pair[0], 1)) {
            out.extend([even + odd, even - odd]);
        }
    }
    out.extend(whole(rows[last]));
    out
}

/// The transform of a line of results.
fn result_line<'b>(how: Filtering, m: &[V<'b>]) -> Vec<V<'b>> {
    let pairs = (1..m.len() - 1).step_by(2);
    let sums: Vec<V<'b>> = pairs.clone().map(|i| m[i] + m[i + 1]).collect();
    let differences: Vec<V<'b>> = pairs.clone().map(|i| m[i] - m[i + 1]).collect();
    let row = |(y, row): (usize, &&[f64])| {
        let parts = if y % 2 == 0 { &sums } else { &differences };
        let inner = pairs.clone().zip(parts).map(|(i, v)| (row[i], *v));
        let ends = [(row[0], m[0]), (row[m.len() - 1], m[m.len() - 1])];
        combined(inner.chain(ends))
    };
    how.result().iter().enumerate().filter_map(row).collect()
}

/// `line` along one axis of a square of values, then along the other.
fn square<'b>(values: &[V<'b>], width: usize, line: impl Fn(&[V<'b>]) -> Vec<V<'b>>) -> Vec<V<'b>> {
    let columns: Vec<Vec<V<'b>>> =
        (0..width).map(|x| line(&values.iter().skip(x).step_by(width).copied().collect::<Vec<_>>())).collect();
    let height = columns.first().map_or(0, Vec::len);
    (0..height).flat_map(|y| line(&columns.iter().map(|c| c[y]).collect::<Vec<_>>())).collect()
}

/// A transformed tensor `[n²][tile][channel]`.
#[derive(Clone, Debug)]
pub struct Transformed {
    /// Where it is.
    pub buffer: BufferId,
    /// Bytes of one of the n² matrices.
    pub plane: i64,
    /// Bytes of one tile in it.
    pub row: i64,
}

/// How an image is cut into tiles.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// The algorithm.
    pub how: Filtering,
    /// Images.
    pub images: u64,
    /// Rows and columns of tiles.
    pub grid: [u64; 2],
    /// Element type.
    pub prim: Prim,
    /// The first tile of the block that is worked on, and the number of tiles in it.
    pub block: [u64; 2],
}

impl Tiles {
    /// Number of tiles of all blocks.
    pub fn count(&self) -> u64 {
        self.images * self.grid[0] * self.grid[1]
    }

    /// Image, row and column of the tile that is number `t` in the block.
    fn place<'b>(&self, ev: &Eval<'_, 'b>, t: V<'b>) -> [V<'b>; 3] {
        let [rows, cols] = self.grid.map(|n| ev.env.number(n as i64));
        let (rest, x) = divide(t + ev.env.number(self.block[0] as i64), cols);
        let (image, y) = divide(rest, rows);
        [image, y, x]
    }
}

/// Transforms the tiles of an image.
#[derive(Clone, Debug)]
pub struct ImageTransform {
    /// The tiles.
    pub tiles: Tiles,
    /// The image, channels adjacent, with the zeros of the padding around it.
    pub x: Spec,
    /// Zeros on each side that count.
    pub padding: [u64; 2],
    /// Where the result goes.
    pub out: Transformed,
}

impl ImageTransform {
    /// Elements that a work item, a tile, reads.
    pub fn elements(&self) -> u64 {
        self.x.axes[1].size.now().unwrap_or(1) * self.tiles.how.window().pow(2)
    }

    /// Writes the code for tiles `lo..hi`. What lies beyond the last line or column is replaced by that one: no pixel of the
    /// result depends on it.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, number) = (ev.b, |n: i64| ev.env.number(n));
        let ty = Ty::vector(self.tiles.prim, ev.plan.target.lanes_of(self.tiles.prim));
        let (edge, window) = (self.tiles.how.edge() as i64, self.tiles.how.window() as i64);
        let [image, line, pixel] = [0, 2, 3].map(|i: usize| number(self.x.axes[i].stride));
        let last = [0, 1].map(|i| {
            let n = self.x.axes[2 + i].size.now().unwrap_or(1);
            number((n + 2 * self.padding[i] - 1) as i64)
        });
        let outside = self.padding[0] as i64 * self.x.axes[2].stride + self.padding[1] as i64 * self.x.axes[3].stride;
        let base = ev.env.buffer(self.x.buffer).index(number(self.x.offset - outside), 1);
        let count = number(self.x.axes[1].size.now().unwrap_or(1) as i64);
        let (out, plane, row) = (ev.env.buffer(self.out.buffer), number(self.out.plane), number(self.out.row));
        let invariant = ev.env.invariant(self.x.buffer);
        b.for_(lo, hi, |t| {
            let [at, y, x] = self.tiles.place(ev, t);
            let lines: Vec<V<'b>> = (0..window).map(|i| (y * edge + i).min(last[0]) * line).collect();
            let pixels: Vec<V<'b>> = (0..window).map(|i| (x * edge + i).min(last[1]) * pixel).collect();
            let (base, to) = (base.index(at * image, 1), out.index(t * row, 1));
            ev.vectors_of(ty.lanes, b.i64(0), count, |c, mask| {
                let base = base.index(c, ty.prim.bytes() as i64);
                let load = |line: &V<'b>, pixel: &V<'b>| ev.read(ty, base.index(*line + *pixel, 1), mask, invariant);
                let values: Vec<V<'b>> = lines.iter().flat_map(|l| pixels.iter().map(|p| load(l, p))).collect();
                let to = to.index(c, ty.prim.bytes() as i64);
                let transformed = square(&values, window as usize, |line| image_line(self.tiles.how, line));
                for (e, value) in (0..).zip(transformed) {
                    ev.write(to.index(plane * e, 1), mask, value);
                }
            });
        });
    }
}

/// Transforms results back, and applies the epilogue.
#[derive(Clone, Debug)]
pub struct ResultTransform {
    /// The tiles.
    pub tiles: Tiles,
    /// The convolution.
    pub node: Node,
    /// What is stored: the convolution, or an elementwise function of it.
    pub root: Node,
    /// Added to each channel.
    pub bias: Option<Node>,
    /// The products.
    pub products: Transformed,
    /// Where the result goes.
    pub out: Spec,
}

impl ResultTransform {
    /// Elements that a work item, a tile, reads.
    pub fn elements(&self) -> u64 {
        self.out.axes[1].size.now().unwrap_or(1) * self.tiles.how.window().pow(2)
    }

    /// Writes the code for tiles `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, number) = (ev.b, |n: i64| ev.env.number(n));
        let ty = Ty::vector(self.tiles.prim, ev.plan.target.lanes_of(self.tiles.prim));
        let (edge, window) = (self.tiles.how.edge() as i64, self.tiles.how.window() as usize);
        let extent = |axis: usize| self.out.axes[axis].size.now().unwrap_or(1) as i64;
        let products = ev.env.buffer(self.products.buffer);
        let (plane, row) = (number(self.products.plane), number(self.products.row));
        let count = number(extent(1));
        let bytes = ty.bytes() as i64;
        // Pixels of a tile, from where those that lie in the image are stored.
        let pixels = b.alloca((edge * edge * bytes) as u32, 64);
        b.for_(lo, hi, |t| {
            let [image, ty_, tx] = self.tiles.place(ev, t);
            let [y, x] = [ty_ * edge, tx * edge];
            let [height, width] = [(y, 2), (x, 3)].map(|(at, axis)| (b.i64(extent(axis)) - at).min(b.i64(edge)));
            let from = products.index(t * row, 1);
            ev.vectors_of(ty.lanes, b.i64(0), count, |c, mask| {
                let from = from.index(c, ty.prim.bytes() as i64);
                let places = 0..(window * window) as i64;
                let values: Vec<V<'b>> = places.map(|e| ev.read(ty, from.index(plane * e, 1), mask, true)).collect();
                let results = square(&values, window, |line| result_line(self.tiles.how, line));
                (0..).zip(results).for_each(|(i, result)| b.store(pixels, i * bytes, result));
                let channel = At { coords: vec![c.into()], vec: Some(0), lanes: ty.lanes, mask };
                let bias = self.bias.map(|bias| ev.eval(bias, &channel));
                b.for_(b.i64(0), height, |i| {
                    b.for_(b.i64(0), width, |j| {
                        let value = b.load(ty, pixels.index(i * edge + j, bytes), 0);
                        let value = bias.map_or(value, |bias| value + bias);
                        let coords = vec![image.into(), c.into(), (y + i).into(), (x + j).into()];
                        let at = At { coords, vec: Some(1), lanes: ty.lanes, mask };
                        ev.finish(self.node, value, self.root, &self.out, &at);
                    });
                });
            });
        });
    }
}

/// Transforms filters into packed panels `[n²][panel][channel][column]`, when the weights are bound.
#[derive(Clone, Debug)]
pub struct FilterTransform {
    /// The algorithm.
    pub how: Filtering,
    /// Filters `[columns, channels, 3, 3]`.
    pub w: Spec,
    /// Panels.
    pub out: BufferId,
    /// Vectors of columns in a panel.
    pub vectors: u64,
    /// Element type.
    pub prim: Prim,
}

impl FilterTransform {
    fn extents(&self) -> [u64; 2] {
        [0, 1].map(|axis: usize| self.w.axes[axis].size.now().unwrap_or(1))
    }

    fn lanes(&self, vector_bytes: u16) -> u64 {
        u64::from(vector_bytes) / self.prim.bytes() as u64
    }

    /// Bytes of the panels of one of the n² matrices.
    pub fn plane_bytes(&self, vector_bytes: u16) -> u64 {
        let [_, channels] = self.extents();
        self.work(vector_bytes) * channels * u64::from(vector_bytes)
    }

    /// Number of work items: vectors of columns.
    pub fn work(&self, vector_bytes: u16) -> u64 {
        self.extents()[0].div_ceil(self.vectors * self.lanes(vector_bytes)) * self.vectors
    }

    /// Writes the code for vectors of columns `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, number) = (ev.b, |n: i64| ev.env.number(n));
        let vector_bytes = ev.plan.target.vector_bytes;
        let lanes = self.lanes(vector_bytes) as u16;
        let [columns, channels] = self.extents().map(|n| number(n as i64));
        let strides = [0, 1, 2, 3].map(|axis: usize| number(self.w.axes[axis].stride));
        let (plane, vectors) = (number(self.plane_bytes(vector_bytes) as i64), number(self.vectors as i64));
        let (source, out) = (ev.env.buffer(self.w.buffer).index(number(self.w.offset), 1), ev.env.buffer(self.out));
        let offsets = b.iota(Ty::vector(Prim::I64, lanes)) * strides[0].splat(lanes);
        b.for_(lo, hi, |t| {
            let (panel, v) = divide(t, vectors);
            let column = t * i64::from(lanes);
            let left = (columns - column).max(b.i64(0)).min(b.i64(lanes.into()));
            let mask = ev.first_lanes(lanes, left);
            let at = At { coords: vec![], vec: None, lanes, mask: Some(mask) };
            b.for_(b.i64(0), channels, |c| {
                let from = source.index(column * strides[0] + c * strides[1], 1);
                let tap = |i: i64| {
                    let from = from.index(strides[2] * (i / 3) + strides[3] * (i % 3), 1);
                    ev.load_lanes(&self.w, from, offsets, &at)
                };
                let taps: Vec<V<'b>> = (0..9).map(tap).collect();
                let line = |g: &[V<'b>]| {
                    let rows = self.how.filter().iter();
                    rows.filter_map(|row| combined(row.iter().copied().zip(g.iter().copied()))).collect()
                };
                let to = out.index((panel * channels + c) * vectors + v, vector_bytes.into());
                for (e, value) in (0..).zip(square(&taps, 3, line)) {
                    b.store(to.index(plane * e, 1), 0, value);
                }
            });
        });
    }
}
