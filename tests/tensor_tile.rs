//! Tensor operators on the rows of a tile.

mod tensor_harness;

use quearn::lower::frame::{Bind, Part};
use quearn::lower::{Cx, tensor};
use quearn_stage::graph::*;
use quearn_stage::low::{Prim, Ty};
use std::collections::HashMap;
use tensor_harness::*;

/// A graph over the rows of a table `t` of `f32` columns `a`, `b`, … and an `i32` column `id`.
struct Rows {
    g: Graph,
    table: Node,
}

impl Rows {
    fn new(columns: &[&str]) -> Rows {
        let mut g = Graph::new();
        let floats = columns.iter().map(|name| Field::new(*name, Scalar::F32));
        let fields = floats.chain([Field::new("id", Scalar::I32)]).collect();
        let table = g.add(Op::Scan { table: "t".into(), fields }, &[]).unwrap();
        Rows { g, table }
    }

    fn column(&mut self, name: &str) -> Node {
        self.g.add(Op::Column(name.into()), &[self.table]).unwrap()
    }

    /// Runs `root` for tiles of at most `most` rows; gives its values.
    fn run(&self, root: Node, most: i64, rows: i64, data: &[(&str, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
        let width = tensor::storage(self.g.ty(root).as_tensor().unwrap().0.scalar).unwrap().bytes() as i64;
        let mut results = vec![];
        for backend in backends() {
            let catalog = quearn::data::Catalog::default();
            let cx = Cx::new(&self.g, &[], &catalog);
            let bytes = tensor::TileBytes::of(&cx, &[root]).unwrap().arena(most as u64);
            let out = cx.frame.bind(Bind::Output { index: 0 });
            let count = cx.frame.bind(Bind::Rows { table: "t".into() });
            let arena = cx.frame.slot(Ty::PTR);
            let columns: HashMap<Node, _> = (0..self.g.len() as u32)
                .map(Node)
                .filter_map(|n| match self.g.op(n) {
                    Op::Column(column) => {
                        let (table, column) = ("t".to_owned(), column.clone());
                        Some((n, cx.frame.bind(Bind::Column { table, column, part: Part::Values })))
                    }
                    _ => None,
                })
                .collect();
            let tile = cx.task("tile", |b, frame, _, lo, hi| {
                let n = (hi - lo).min(b.i64(most));
                let leaf = |node: Node| {
                    let elem = self.g.ty(node).as_tensor()?.0.scalar;
                    let column = |node: Node| Some(columns.get(&node)?.get(b, frame).index(lo, 4));
                    if *self.g.op(node) != Op::Stack {
                        return Some(tensor::View { base: column(node)?, elem, strides: vec![4], inner: vec![] });
                    }
                    let parts = self.g.inputs(node);
                    let width = 4 * parts.len() as i64;
                    let base = b.alloca((most * width) as u32, 64);
                    for (i, part) in parts.iter().enumerate() {
                        let column = column(*part)?;
                        b.for_(b.i64(0), n, |row| {
                            let value = b.load(Ty::F32, column.index(row, 4), 0);
                            b.store(base.index(row, width), 4 * i as i64, value);
                        });
                    }
                    Some(tensor::View { base, elem, strides: vec![width, 4], inner: vec![parts.len() as u64] })
                };
                let views = tensor::lower_tile(&cx, b, frame, arena.get(b, frame), n, &[root], &leaf).unwrap();
                let inner: u64 = views[0].inner.iter().product();
                let bytes = n * (width * inner as i64);
                let to = out.get(b, frame).index(lo, width * inner as i64);
                b.for_(b.i64(0), bytes, |i| {
                    let byte = b.load(Ty::scalar(Prim::I8), views[0].base.index(i, 1), 0);
                    b.store(to.index(i, 1), 0, byte);
                });
            });
            cx.step(move |cx, b, frame| {
                let memory = cx.alloc(b, frame, b.i64(bytes as i64), "tile");
                arena.set(b, frame, memory);
                b.par_for(tile, frame, count.get(b, frame), b.i64(most));
            });
            let inner: u64 = self.g.ty(root).as_tensor().unwrap().1[1..].iter().filter_map(Dim::as_const).product();
            let size = (rows * width) as usize * inner as usize;
            let mut program = Program::of(cx.finish(vec![]), &*backend, data, &[("t", rows)], vec![size]);
            results.push((backend.name().to_owned(), program.run().remove(0)));
        }
        results
    }
}

#[test]
fn a_linear_model_over_columns() {
    let mut rows = Rows::new(&["a", "b", "c"]);
    let columns = ["a", "b", "c"].map(|name| rows.column(name));
    let x = rows.g.add(Op::Stack, &columns).unwrap();
    let mean = input(&mut rows.g, "mean", Scalar::F32, &dims(&[3]), true);
    let w = input(&mut rows.g, "w", Scalar::F32, &dims(&[3, 2]), true);
    let x = rows.g.add(Op::Binary(BinaryOp::Sub), &[x, mean]).unwrap();
    let y = rows.g.add(Op::MatMul, &[x, w]).unwrap();
    let y = rows.g.add(Op::Unary(UnaryOp::Sigmoid), &[y]).unwrap();
    for n in [0u64, 1, 13, 100, 700] {
        let mut r = Rng::new(n);
        let [a, b, c] = [0, 1, 2].map(|_| r.singles(n));
        let (mean, w) = (r.singles(3), r.singles(6));
        let expected: Vec<f32> = (0..n as usize)
            .flat_map(|i| {
                let row = [a[i] - mean[0], b[i] - mean[1], c[i] - mean[2]];
                [0, 1].map(|j| 1.0 / (1.0 + (-(0..3).map(|k| row[k] * w[2 * k + j]).sum::<f32>()).exp()))
            })
            .collect();
        let data = [("a", a), ("b", b), ("c", c), ("mean", mean), ("w", w)].map(|(name, v)| (name, bytes(&v)));
        for (backend, found) in rows.run(y, 300, n as i64, &data) {
            close(&format!("{backend} {n} rows"), &numbers::<f32>(&found), &expected, 1e-5);
        }
    }
}

#[test]
fn a_network_on_gathered_pictures() {
    let mut rows = Rows::new(&[]);
    let id = rows.column("id");
    let pictures = input(&mut rows.g, "pictures", Scalar::F32, &dims(&[5, 2, 6, 6]), false);
    let w = input(&mut rows.g, "w", Scalar::F32, &dims(&[4, 2, 3, 3]), true);
    let x = rows.g.add(Op::Gather, &[pictures, id]).unwrap();
    let y = rows.g.add(Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() }), &[x, w]).unwrap();
    let y = rows.g.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: false }, &[y]).unwrap();
    let class = rows.g.add(Op::ArgMax { axis: 1 }, &[y]).unwrap();
    let mut r = Rng::new(1);
    let (pixels, weights) = (r.singles(5 * 2 * 36), r.singles(4 * 2 * 9));
    let ids: Vec<i32> = (0..23).map(|i| i * 3 % 5).collect();
    let expected: Vec<i64> = ids
        .iter()
        .map(|&id| {
            let sums: Vec<f32> = (0..4).map(|o| picture_sum(&pixels[id as usize * 72..], &weights[o * 18..])).collect();
            (0..4).fold(0, |best, o| if sums[o] > sums[best] { o } else { best }) as i64
        })
        .collect();
    let data = [("pictures", bytes(&pixels)), ("w", bytes(&weights)), ("id", bytes(&ids))];
    for (backend, found) in rows.run(class, 10, 23, &data) {
        assert_eq!(numbers::<i64>(&found), expected, "{backend}");
    }
}

/// Sum over all pixels of a padded 3 x 3 convolution of two channels of 6 x 6.
fn picture_sum(x: &[f32], w: &[f32]) -> f32 {
    let mut sum = 0.0;
    for c in 0..2 {
        for at in 0..36 {
            for k in 0..9 {
                let (y, z) = (at / 6 + k / 3, at % 6 + k % 3);
                if (1..7).contains(&y) && (1..7).contains(&z) {
                    sum += x[c * 36 + (y - 1) * 6 + z - 1] * w[c * 9 + k];
                }
            }
        }
    }
    sum
}

#[test]
fn steps_for_each_row() {
    let mut rows = Rows::new(&["a", "b"]);
    let [a, b] = ["a", "b"].map(|name| rows.column(name));
    let x = rows.g.add(Op::Stack, &[a, b]).unwrap();
    let ty = rows.g.ty(a).clone();
    let [sum, slice] = [0, 1].map(|index| rows.g.add(Op::Param { region: 0, index, ty: ty.clone() }, &[]).unwrap());
    let product = rows.g.add(Op::Binary(BinaryOp::Mul), &[sum, slice]).unwrap();
    let next = rows.g.add(Op::Binary(BinaryOp::Add), &[product, sum]).unwrap();
    let region = Region { params: vec![sum, slice], results: vec![next, next] };
    let steps = Op::Steps(Steps { region, count: 2, carried: 1, axis: 1, back: false });
    let steps = rows.g.add(steps, &[a, x]).unwrap();
    let data: Vec<Vec<f32>> = (0..2).map(|i| Rng::new(i).singles(1000)).collect();
    let bound = [("a", bytes(&data[0])), ("b", bytes(&data[1]))];
    let once: Vec<f32> = data[0].iter().map(|a| a * a + a).collect();
    let twice: Vec<f32> = once.iter().zip(&data[1]).map(|(x, b)| x * b + x).collect();
    let both: Vec<f32> = once.iter().zip(&twice).flat_map(|(a, b)| [*a, *b]).collect();
    for (item, expected) in [(0, twice), (1, both)] {
        let root = rows.g.add(Op::Item(item), &[steps]).unwrap();
        for (backend, found) in rows.run(root, 300, 1000, &bound) {
            close(&format!("{backend} item {item}"), &numbers::<f32>(&found), &expected, 1e-5);
        }
    }
}

#[test]
fn rows_that_depend_on_others_are_an_error() {
    let mut rows = Rows::new(&["a"]);
    let a = rows.column("a");
    let sum = rows.g.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[a]).unwrap();
    let y = rows.g.add(Op::Binary(BinaryOp::Sub), &[a, sum]).unwrap();
    let catalog = quearn::data::Catalog::default();
    let cx = Cx::new(&rows.g, &[], &catalog);
    let error = tensor::TileBytes::of(&cx, &[y]).unwrap_err();
    assert!(error.to_string().contains("depend on other rows"), "{error}");
}
