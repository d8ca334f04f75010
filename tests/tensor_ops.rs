//! Every tensor operator against the naive evaluator of the graph: random networks, and cases of its own for each family.

mod tensor_harness;

use quearn::eval::{Datum, EvalTensor, Inputs, evaluate};
use quearn::testing::Case;
use quearn_backends::Backend;
use quearn_stage::graph::*;
use tensor_harness::maker::*;
use tensor_harness::*;

fn random_networks(backend: &dyn Backend, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let case = Case::network(seed, 3 + seed as usize % 10);
        run_case(&case.graph, &case.inputs, backend, &[], &format!("{} {case}", backend.name()));
    }
}

#[test]
fn random_networks_are_interpreted() {
    random_networks(&quearn_backends::interp::Interp, 0..300);
}

#[cfg(feature = "llvm")]
#[test]
fn random_networks_are_compiled() {
    random_networks(&quearn_backends::llvm::Llvm::new(), 300..420);
}

#[test]
fn elementwise_operations_of_floats() {
    for (seed, scalar) in [Scalar::F32, Scalar::F64, Scalar::F16, Scalar::BF16].into_iter().enumerate() {
        let mut m = Maker::new(seed as u64);
        let n = 37 + seed as u64;
        let x = m.tensor(scalar, &named("n", &[5]), n, false);
        let y = m.tensor(scalar, &named("n", &[5]), n, false);
        let w = m.tensor(scalar, &dims(&[5]), 0, true);
        use UnaryOp::*;
        let mut outputs: Vec<Node> = [Neg, Abs, Exp, Tanh, Sigmoid, Relu, Erf, Floor, Ceil, Round, Atan]
            .map(|op| m.add(Op::Unary(op), &[x]))
            .to_vec();
        let positive = m.add(Op::Unary(Abs), &[x]);
        outputs.extend([Log, Sqrt].map(|op| m.add(Op::Unary(op), &[positive])));
        use BinaryOp::*;
        outputs.extend([Add, Sub, Mul, Div, Min, Max].map(|op| m.add(Op::Binary(op), &[x, y])));
        outputs.push(m.add(Op::Binary(Add), &[x, w]));
        outputs.extend(CompareOp::ALL.iter().map(|&op| m.add(Op::Compare(op), &[x, y])));
        let smaller = m.add(Op::Compare(CompareOp::Lt), &[x, w]);
        outputs.push(m.add(Op::Select, &[smaller, x, y]));
        for to in [Scalar::F32, Scalar::F64, Scalar::I32, Scalar::I64, Scalar::I8] {
            if to != scalar {
                outputs.push(m.add(Op::Cast(to), &[x]));
            }
        }
        m.check(&format!("{scalar}"), &outputs, &[("n", n as i64)]);
    }
}

#[test]
fn elementwise_operations_of_integers() {
    for (seed, scalar) in [Scalar::I8, Scalar::U8, Scalar::I16, Scalar::I32, Scalar::I64].into_iter().enumerate() {
        let mut m = Maker::new(seed as u64);
        let x = m.tensor(scalar, &dims(&[3, 19]), 0, false);
        let y = m.tensor(scalar, &dims(&[19]), 0, false);
        use BinaryOp::*;
        let mut outputs: Vec<Node> =
            [Add, Mul, Min, Max].into_iter().map(|op| m.add(Op::Binary(op), &[x, y])).collect();
        outputs.push(m.add(Op::Unary(UnaryOp::Relu), &[x]));
        outputs.extend(CompareOp::ALL.iter().map(|&op| m.add(Op::Compare(op), &[x, y])));
        for to in [Scalar::F32, Scalar::F64, Scalar::I32, Scalar::I64] {
            if to != scalar {
                outputs.push(m.add(Op::Cast(to), &[x]));
            }
        }
        for op in ReduceOp::ALL.iter().filter(|op| **op != ReduceOp::Mean) {
            outputs.push(m.add(Op::Reduce { op: *op, axes: vec![1], keep: false }, &[x]));
            outputs.push(m.add(Op::Reduce { op: *op, axes: vec![0], keep: true }, &[x]));
        }
        outputs.push(m.add(Op::ArgMax { axis: 1 }, &[x]));
        m.check(&format!("{scalar}"), &outputs, &[]);
    }
}

#[test]
fn slices_and_copies_of_what_is_stored_and_what_is_not() {
    for (axis, extent) in [(0, 6u64), (1, 18), (2, 33)] {
        let mut m = Maker::new(axis as u64);
        let x = m.tensor(Scalar::F32, &dims(&[6, 18, 33]), 0, false);
        let computed = m.add(Op::Unary(UnaryOp::Tanh), &[x]);
        let mut outputs = vec![];
        for (start, step, count) in [(0, 1, extent), (1, 1, extent - 2), (0, 2, extent / 2), (extent - 1, -1, extent)] {
            for of in [x, computed] {
                let part = m.add(Op::Slice { axis, start, step, count }, &[of]);
                outputs.push(part);
                // As the operand of what reads it element by element, in lines, and as a matrix.
                outputs.push(m.add(Op::Unary(UnaryOp::Neg), &[part]));
                outputs.push(m.add(Op::Softmax { axis: 2 }, &[part]));
                outputs.push(m.add(Op::CumSum { axis }, &[part]));
                outputs.push(m.add(Op::Reshape(dims(&[6 * 18 * 33 / extent * count])), &[part]));
                let columns = m.add(Op::Transpose(vec![0, 2, 1]), &[part]);
                outputs.push(m.add(Op::MatMul, &[part, columns]));
            }
        }
        let row = m.add(Op::Slice { axis, start: 1, step: 1, count: 1 }, &[computed]);
        outputs.push(m.add(Op::Broadcast(dims(&[2, 6, 18, 33])), &[row]));
        m.check(&format!("axis {axis}"), &outputs, &[]);
    }
}

#[test]
fn running_sums_of_integers_are_watched() {
    for last in [0, 1] {
        let mut m = Maker::new(1);
        let x = EvalTensor::ints(Scalar::I64, &[3], [i128::from(i64::MAX), 0, last]);
        m.inputs.tensors.insert("x".into(), x);
        let x = input(&mut m.g, "x", Scalar::I64, &dims(&[3]), false);
        let sums = m.add(Op::CumSum { axis: 0 }, &[x]);
        m.check("running sums", &[sums], &[]);
    }
}

#[test]
fn copies_for_every_row() {
    for n in [1u64, 15, 300] {
        let mut m = Maker::new(n);
        let x = m.tensor(Scalar::F32, &named("n", &[7]), n, false);
        let w = m.tensor(Scalar::F32, &dims(&[7]), 0, true);
        let copies = m.add(Op::Broadcast(named("n", &[7])), &[w]);
        let both = m.add(Op::Concat { axis: 1 }, &[x, copies]);
        let sums = m.add(Op::CumSum { axis: 1 }, &[both]);
        m.check(&format!("{n} rows"), &[both, sums], &[("n", n as i64)]);
    }
}

#[test]
fn a_product_of_weights_beside_an_input() {
    let mut m = Maker::new(4);
    let (a, b) = (m.tensor(Scalar::F32, &dims(&[3, 4]), 0, true), m.tensor(Scalar::F32, &dims(&[4, 5]), 0, true));
    let x = m.tensor(Scalar::F32, &dims(&[3, 5]), 0, false);
    let product = m.add(Op::MatMul, &[a, b]);
    let sum = m.add(Op::Binary(BinaryOp::Add), &[product, x]);
    m.check("weights", &[sum], &[]);
}

#[test]
fn a_filter_that_is_computed() {
    let mut m = Maker::new(3);
    let x = m.tensor(Scalar::F32, &dims(&[2, 3, 9, 8]), 0, false);
    let w = m.tensor(Scalar::F32, &dims(&[5, 3, 3, 3]), 0, false);
    let negated = m.add(Op::Unary(UnaryOp::Neg), &[w]);
    let conv = Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() });
    let outputs = [w, negated].map(|w| m.add(conv.clone(), &[x, w]));
    m.check("filters", &outputs, &[]);
}

#[test]
fn failures_of_integers_are_reported() {
    for (op, right, fails) in [(BinaryOp::Add, 1, true), (BinaryOp::Add, 0, false), (BinaryOp::Div, 0, true)] {
        let mut m = Maker::new(1);
        let max = EvalTensor::ints(Scalar::I32, &[20], (0..20).map(|i| if i == 17 { i32::MAX.into() } else { i }));
        m.inputs.tensors.insert("x".into(), max);
        let x = input(&mut m.g, "x", Scalar::I32, &dims(&[20]), false);
        let c = m.add(Op::Const(Literal::int(Scalar::I32, right).unwrap()), &[]);
        let y = m.add(Op::Binary(op), &[x, c]);
        assert_eq!(
            {
                m.g.output("probe", y);
                evaluate(&m.g, &m.inputs).is_err()
            },
            fails
        );
        m.check("overflow", &[y], &[]);
    }
}

#[test]
fn reductions_over_every_set_of_axes() {
    for set in 0..16u32 {
        let mut m = Maker::new(set.into());
        let x = m.tensor(Scalar::F32, &dims(&[2, 5, 3, 21]), 0, false);
        let axes: Vec<usize> = (0..4).filter(|i| set & (1 << i) != 0).collect();
        let outputs: Vec<Node> = ReduceOp::ALL
            .iter()
            .map(|&op| m.add(Op::Reduce { op, axes: axes.clone(), keep: set % 2 == 0 }, &[x]))
            .collect();
        m.check(&format!("{axes:?}"), &outputs, &[]);
    }
}

#[test]
fn reductions_of_an_unknown_number_of_rows() {
    for n in [0i64, 1, 15, 300] {
        let mut m = Maker::new(n as u64);
        let x = m.tensor(Scalar::F64, &named("n", &[7]), n as u64, false);
        let sum = m.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[x]);
        let all = m.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![0, 1], keep: false }, &[x]);
        m.check("rows", &[sum, all], &[("n", n)]);
    }
}

#[test]
fn long_axes_are_dealt_out_in_parts() {
    for (rows, cols) in [(3001, 5), (701, 70), (3, 9001)] {
        let mut m = Maker::new(rows);
        let [x, y] = [0, 1].map(|_| m.tensor(Scalar::F32, &dims(&[rows, cols]), 0, false));
        let sum = m.add(Op::Binary(BinaryOp::Add), &[x, y]);
        let turned = m.add(Op::Transpose(vec![1, 0]), &[sum]);
        let negated = m.add(Op::Unary(UnaryOp::Neg), &[turned]);
        let mut outputs = vec![sum, negated, m.add(Op::Softmax { axis: 0 }, &[x]), m.add(Op::ArgMax { axis: 1 }, &[x])];
        for axis in 0..2 {
            outputs.push(m.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![axis], keep: false }, &[sum]));
        }
        m.check(&format!("{rows} x {cols}"), &outputs, &[]);
    }
}

#[test]
fn results_of_the_same_tensors() {
    let mut m = Maker::new(8);
    let [x, y] = [0, 1].map(|_| m.tensor(Scalar::F32, &dims(&[7, 7]), 0, false));
    let bias = m.tensor(Scalar::F32, &dims(&[7]), 0, false);
    let sum = m.add(Op::Binary(BinaryOp::Add), &[x, bias]);
    let product = m.add(Op::Binary(BinaryOp::Mul), &[sum, y]);
    // The same element and, through a transpose, another one.
    let turned = m.add(Op::Transpose(vec![1, 0]), &[sum]);
    let difference = m.add(Op::Binary(BinaryOp::Sub), &[turned, x]);
    let half = m.add(Op::Cast(Scalar::F64), &[y]);
    m.check("results", &[product, sum, difference, half, product], &[]);
}

#[test]
fn softmax_and_arg_max_along_every_axis() {
    for axis in 0..3 {
        let mut m = Maker::new(axis as u64);
        let x = m.tensor(Scalar::F32, &dims(&[6, 18, 33]), 0, false);
        let softmax = m.add(Op::Softmax { axis }, &[x]);
        let place = m.add(Op::ArgMax { axis }, &[x]);
        m.check(&format!("axis {axis}"), &[softmax, place], &[]);
    }
}

/// Ties, NaN, and lines in which nothing is above the lowest value, shorter and longer than a vector.
#[test]
fn arg_max_of_ties_and_nan() {
    for extent in [1usize, 5, 16, 37, 64] {
        let mut m = Maker::new(extent as u64);
        let shape = dims(&[12, extent as u64]);
        let mut lines = vec![m.tensor(Scalar::I64, &shape, 0, false)];
        for (kinds, scalar) in [(4, Scalar::F32), (5, Scalar::F32), (1, Scalar::F64), (5, Scalar::F64)] {
            let value = |i: usize| [f64::NEG_INFINITY, 1.0, -0.0, 0.0, f64::NAN][(i * i * 7 + i / 3) % 31 % kinds];
            let name = format!("{kinds}{scalar}");
            let values = (0..12 * extent).map(|i| Datum::Float(value(i)));
            m.inputs.tensors.insert(name.clone(), EvalTensor::new(scalar.required(), &[12, extent], values));
            lines.push(input(&mut m.g, &name, scalar, &shape, false));
        }
        let lowest = m.add(Op::Const(Literal::int(Scalar::I64, i64::MIN.into()).unwrap()), &[]);
        lines.push(m.add(Op::Broadcast(shape), &[lowest]));
        let places: Vec<Node> = lines.iter().map(|&x| m.add(Op::ArgMax { axis: 1 }, &[x])).collect();
        m.check(&format!("{extent} elements"), &places, &[]);
    }
}

#[test]
fn layers_of_a_network_for_rows() {
    for n in [0u64, 1, 3, 14, 15, 255, 257, 600] {
        let mut m = Maker::new(n);
        let x = m.tensor(Scalar::F32, &named("rows", &[9]), n, false);
        let (w1, b1) = (m.tensor(Scalar::F32, &dims(&[9, 40]), 0, true), m.tensor(Scalar::F32, &dims(&[40]), 0, true));
        let (w2, b2) = (m.tensor(Scalar::F32, &dims(&[40, 3]), 0, true), m.tensor(Scalar::F32, &dims(&[3]), 0, true));
        let h = m.add(Op::MatMul, &[x, w1]);
        let h = m.add(Op::Binary(BinaryOp::Add), &[h, b1]);
        let gate = m.add(Op::Unary(UnaryOp::Sigmoid), &[h]);
        let h = m.add(Op::Binary(BinaryOp::Mul), &[h, gate]);
        let y = m.add(Op::MatMul, &[h, w2]);
        let y = m.add(Op::Binary(BinaryOp::Add), &[y, b2]);
        let p = m.add(Op::Softmax { axis: 1 }, &[y]);
        let class = m.add(Op::ArgMax { axis: 1 }, &[y]);
        m.check(&format!("{n} rows"), &[p, class], &[("rows", n as i64)]);
    }
}

#[test]
fn gathered_and_normalised_pictures() {
    let mut m = Maker::new(5);
    let pixels = m.tensor(Scalar::U8, &dims(&[4, 9, 8, 3]), 0, false);
    let (mean, deviation) = (m.tensor(Scalar::F32, &dims(&[3]), 0, true), m.tensor(Scalar::F32, &dims(&[3]), 0, true));
    let index = EvalTensor::ints(Scalar::I32, &[3], [3, 0, 2]);
    m.inputs.tensors.insert("index".into(), index);
    let index = input(&mut m.g, "index", Scalar::I32, &dims(&[3]), false);
    let scale = m.add(Op::Const(Literal::float(Scalar::F32, 255.0).unwrap()), &[]);
    let x = m.add(Op::Gather, &[pixels, index]);
    let x = m.add(Op::Cast(Scalar::F32), &[x]);
    let x = m.add(Op::Binary(BinaryOp::Div), &[x, scale]);
    let x = m.add(Op::Binary(BinaryOp::Sub), &[x, mean]);
    let x = m.add(Op::Binary(BinaryOp::Div), &[x, deviation]);
    let x = m.add(Op::Transpose(vec![0, 3, 1, 2]), &[x]);
    let w = m.tensor(Scalar::F32, &dims(&[17, 3, 3, 3]), 0, true);
    let y = m.add(Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() }), &[x, w]);
    let y = m.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: false }, &[y]);
    m.check("pictures", &[y], &[]);
}

#[test]
fn columns_stacked_and_scaled() {
    let mut m = Maker::new(6);
    let columns: Vec<Node> = (0..5).map(|_| m.tensor(Scalar::F32, &named("n", &[]), 77, false)).collect();
    let x = m.add(Op::Stack, &columns);
    let (mean, w) = (m.tensor(Scalar::F32, &dims(&[5]), 0, true), m.tensor(Scalar::F32, &dims(&[5, 2]), 0, true));
    let x = m.add(Op::Binary(BinaryOp::Sub), &[x, mean]);
    let y = m.add(Op::MatMul, &[x, w]);
    m.check("stack", &[y], &[("n", 77)]);
}

/// Rows by numbers that are known now, states that go from step to step, and slices along the first axis.
#[test]
fn a_recurrence_written_out() {
    let mut m = Maker::new(9);
    let x = m.tensor(Scalar::F32, &dims(&[5, 3, 40]), 0, false);
    let w = m.tensor(Scalar::F32, &dims(&[40, 40]), 0, true);
    // Small enough that a state does not depend on the rounding of those before it.
    let eighth = m.add(Op::Const(Literal::float(Scalar::F32, 0.125).unwrap()), &[]);
    let (mut state, mut steps) = (None, vec![]);
    for step in 0..5 {
        let at = m.add(Op::Const(Literal::i64(step)), &[]);
        let input = m.add(Op::Gather, &[x, at]);
        let next = match state {
            Some(state) => {
                let product = m.add(Op::MatMul, &[state, w]);
                let product = m.add(Op::Binary(BinaryOp::Mul), &[product, eighth]);
                m.add(Op::Binary(BinaryOp::Add), &[product, input])
            }
            None => input,
        };
        let next = m.add(Op::Unary(UnaryOp::Tanh), &[next]);
        steps.push(m.add(Op::Reshape(dims(&[1, 3, 40])), &[next]));
        state = Some(next);
    }
    let all = m.add(Op::Concat { axis: 0 }, &steps);
    let twice = m.add(Op::Concat { axis: 0 }, &[all, steps[0]]);
    m.check("recurrence", &[all, twice], &[]);
}

/// Steps over `wholes` from `begin`, whose body is made by `body` from the parameters.
fn steps_of(
    m: &mut Maker,
    (count, axis, back): (u64, usize, bool),
    begin: &[Node],
    wholes: &[Node],
    body: impl FnOnce(&mut Maker, &[Node]) -> Vec<Node>,
) -> Vec<Node> {
    let region = m.g.len() as u32;
    let mut params = vec![];
    for (index, &node) in begin.iter().chain(wholes).enumerate() {
        let (elem, shape) = m.g.ty(node).as_tensor().unwrap();
        let mut shape = shape.to_vec();
        if index >= begin.len() {
            shape.remove(axis);
        }
        params.push(m.add(Op::Param { region, index: index as u32, ty: Ty::Tensor { elem, shape } }, &[]));
    }
    let results = body(m, &params);
    let given = results.len();
    let steps = Steps { region: Region { params, results }, count, carried: begin.len(), axis, back };
    let node = m.add(Op::Steps(steps), &[begin, wholes].concat());
    if given == 1 { vec![node] } else { (0..given).map(|i| m.add(Op::Item(i), &[node])).collect() }
}

/// `tanh(h w + x)`.
fn cell(m: &mut Maker, h: Node, w: Node, x: Node) -> Node {
    let product = m.add(Op::MatMul, &[h, w]);
    let sum = m.add(Op::Binary(BinaryOp::Add), &[product, x]);
    m.add(Op::Unary(UnaryOp::Tanh), &[sum])
}

/// Narrow states are walked through by one function, wide ones by calls.
#[test]
fn steps_of_a_recurrent_network() {
    for (n, width, count, back) in [(1, 5, 4, false), (3, 24, 5, true), (2, 720, 3, false), (1, 16, 1, true)] {
        let mut m = Maker::new(91 + width);
        let x = m.tensor(Scalar::F32, &dims(&[count, n, width]), 1, false);
        let begin = m.tensor(Scalar::F32, &dims(&[n, width]), 1, false);
        let small = m.add(Op::Const(Literal::float(Scalar::F32, 0.05).unwrap()), &[]);
        let w = m.tensor(Scalar::F32, &dims(&[width, width]), 1, true);
        let w = m.add(Op::Binary(BinaryOp::Mul), &[w, small]);
        let shared = m.add(Op::Unary(UnaryOp::Sigmoid), &[x]);
        let out = steps_of(&mut m, (count, 0, back), &[begin, begin], &[shared], |m, p| {
            let h = cell(m, p[0], w, p[2]);
            let c = m.add(Op::Binary(BinaryOp::Add), &[p[1], h]);
            vec![h, c, h, p[1], begin]
        });
        let joined = m.add(Op::Concat { axis: 0 }, &[out[2], x]);
        m.check(&format!("{n} x {width}"), &[out[0], out[1], out[3], joined, out[4]], &[]);
    }
}

/// A matrix that is computed, the same at all steps, with enough rows to be packed.
#[test]
fn steps_with_a_computed_matrix() {
    for (n, width) in [(17, 40), (20, 33)] {
        let mut m = Maker::new(width);
        let x = m.tensor(Scalar::F32, &dims(&[3, n, width]), 1, false);
        let begin = m.tensor(Scalar::F32, &dims(&[n, width]), 1, false);
        let w = m.tensor(Scalar::F32, &dims(&[width, width]), 1, false);
        let small = m.add(Op::Const(Literal::float(Scalar::F32, 0.05).unwrap()), &[]);
        let w = m.add(Op::Binary(BinaryOp::Mul), &[w, small]);
        let across = m.add(Op::Transpose(vec![1, 0]), &[w]);
        let out = steps_of(&mut m, (3, 0, n % 2 == 0), &[begin, begin], &[x], |m, p| {
            let (h, c) = (cell(m, p[0], w, p[2]), cell(m, p[1], across, p[2]));
            vec![c, h, h, c]
        });
        m.check(&format!("{n} x {width}"), &out, &[]);
    }
}

/// The states change places, and nothing is collected.
#[test]
fn steps_that_exchange_their_states() {
    for count in [0, 1, 2, 5] {
        let mut m = Maker::new(17);
        let a = m.tensor(Scalar::F32, &dims(&[3]), 1, false);
        let b = m.tensor(Scalar::F32, &dims(&[3]), 1, false);
        let n = m.tensor(Scalar::I64, &[], 1, false);
        let one = m.add(Op::Const(Literal::i64(1)), &[]);
        let out = steps_of(&mut m, (count, 0, false), &[a, b, n], &[], |m, p| {
            vec![p[1], p[0], m.add(Op::Binary(BinaryOp::Add), &[p[2], one])]
        });
        m.check(&format!("{count} steps"), &out, &[]);
    }
}

/// What poolings and convolutions have for derivatives, with what is computed from it at once, for a known number of images
/// and for an open one.
#[test]
fn adjoints_of_random_pools_and_filters() {
    for seed in 0..48 {
        let mut m = Maker::new(700 + seed);
        let groups = [1, 1, 1, 2, 3][m.r.int(0, 4) as usize];
        let (n, c, o) = (m.r.int(1, 9), groups * m.r.int(1, 9), groups * m.r.int(1, 40));
        let image = [m.r.int(6, 13), m.r.int(6, 13)];
        let batch = |rest: &[u64]| match seed % 3 {
            0 => named("n", rest),
            _ => dims(&[&[n], rest].concat()),
        };
        let x = m.tensor(Scalar::F32, &batch(&[c, image[0], image[1]]), n, false);
        // Several elements of a window are the largest.
        let x = m.add(Op::Unary(UnaryOp::Round), &[x]);
        let kernel = [m.r.int(1, 3), m.r.int(1, 3)];
        let conv = Conv2d {
            stride: [m.r.int(1, 2), m.r.int(1, 2)],
            padding: [m.r.int(0, 2), m.r.int(0, 2)],
            dilation: [m.r.int(1, 2), m.r.int(1, 2)],
            groups,
        };
        let seen = |i: usize| {
            let reach = (kernel[i] - 1) * conv.dilation[i] + 1;
            (image[i] + 2 * conv.padding[i] - reach) / conv.stride[i] + 1
        };
        let y = m.tensor(Scalar::F32, &batch(&[o, seen(0), seen(1)]), n, false);
        let filters = m.add(Op::Conv2dFilters { conv, kernel }, &[x, y]);
        let momentum = m.tensor(Scalar::F32, &dims(&[o, c / groups, kernel[0], kernel[1]]), 1, false);
        let moved = m.add(Op::Binary(BinaryOp::Add), &[filters, momentum]);

        let grid = seed % 2 == 0;
        let stride = if grid { kernel } else { [m.r.int(1, 3), m.r.int(1, 3)] };
        let padding = if grid { [0, 0] } else { kernel.map(|k| m.r.int(0, k / 2)) };
        let pool = Pool2d { kind: PoolKind::Max, kernel, stride, padding, ceil: m.r.int(0, 1) == 1 };
        let pooled = m.add(Op::Pool2d(pool.clone()), &[x]);
        let scale = m.add(Op::Const(Literal::float(Scalar::F32, 0.5).unwrap()), &[]);
        let adjoint = m.add(Op::Binary(BinaryOp::Mul), &[pooled, scale]);
        let back = m.add(Op::MaxUnpool2d(pool), &[x, adjoint]);
        let masked = m.add(Op::Binary(BinaryOp::Mul), &[back, x]);
        m.check(&format!("case {seed}"), &[moved, masked], &[("n", n as i64)]);
    }
}

#[test]
fn steps_of_an_open_batch() {
    for n in [1, 2, 7, 300] {
        let mut m = Maker::new(5);
        let x = m.tensor(Scalar::F32, &named("n", &[4, 9]), n, false);
        let w = m.tensor(Scalar::F32, &dims(&[9, 9]), 1, true);
        let zero = m.add(Op::Const(Literal::float(Scalar::F32, 0.0).unwrap()), &[]);
        let begin = m.add(Op::Broadcast(named("n", &[9])), &[zero]);
        let out = steps_of(&mut m, (4, 1, n % 2 == 0), &[begin], &[x], |m, p| {
            let h = cell(m, p[0], w, p[1]);
            vec![h, h]
        });
        m.check(&format!("batch {n}"), &out, &[("n", n as i64)]);
    }
}

#[test]
fn steps_inside_steps() {
    let mut m = Maker::new(6);
    let x = m.tensor(Scalar::F32, &dims(&[3, 2, 5]), 1, false);
    let w = m.tensor(Scalar::F32, &dims(&[5, 5]), 1, true);
    let begin = m.tensor(Scalar::F32, &dims(&[1, 5]), 1, false);
    let out = steps_of(&mut m, (3, 0, false), &[begin], &[x], |m, outer| {
        let scaled = m.add(Op::Unary(UnaryOp::Abs), &[outer[0]]);
        let inner = steps_of(m, (2, 0, true), &[outer[0]], &[outer[1]], |m, p| {
            let h = cell(m, p[0], w, p[1]);
            vec![h, m.add(Op::Binary(BinaryOp::Mul), &[h, scaled])]
        });
        let loud = m.add(Op::Softmax { axis: 2 }, &[inner[1]]);
        vec![inner[0], loud]
    });
    m.check("steps inside steps", &out, &[]);
}

/// What a step reads of images, attention and sums has stages of its own.
#[test]
fn steps_over_images_and_attention() {
    let mut m = Maker::new(8);
    let x = m.tensor(Scalar::F32, &dims(&[3, 1, 2, 6, 6]), 1, false);
    let begin = m.tensor(Scalar::F32, &dims(&[1, 2, 6, 6]), 1, false);
    let w = m.tensor(Scalar::F32, &dims(&[2, 2, 3, 3]), 1, true);
    let conv = Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() });
    let images = steps_of(&mut m, (3, 0, false), &[begin], &[x], |m, p| {
        let seen = m.add(conv, &[p[0], w]);
        let next = m.add(Op::Binary(BinaryOp::Add), &[seen, p[1]]);
        let next = m.add(Op::Unary(UnaryOp::Tanh), &[next]);
        vec![next, m.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: false }, &[next])]
    });
    let q = m.tensor(Scalar::F32, &dims(&[2, 3, 4]), 1, false);
    let keys = m.tensor(Scalar::F32, &dims(&[2, 4, 7]), 1, false);
    let values = m.tensor(Scalar::F32, &dims(&[2, 7, 4]), 1, false);
    let texts = steps_of(&mut m, (2, 0, false), &[q], &[], |m, p| {
        let scores = m.add(Op::MatMul, &[p[0], keys]);
        let weights = m.add(Op::Softmax { axis: 2 }, &[scores]);
        vec![m.add(Op::MatMul, &[weights, values])]
    });
    m.check("images and attention", &[images[0], images[1], texts[0]], &[]);
}

#[test]
fn positions_and_what_is_made_of_them() {
    let mut g = Graph::new();
    let three = g.add(Op::Iota(3), &[]).unwrap();
    g.output("three", three);
    let values = evaluate(&g, &Inputs::new()).unwrap().remove(0).1;
    assert_eq!(values.tensor().iter().collect::<Vec<_>>(), [0, 1, 2].map(Datum::Int));
    let mut m = Maker::new(10);
    let x = m.tensor(Scalar::F32, &dims(&[37, 37]), 0, false);
    let places = m.add(Op::Iota(37), &[]);
    let down = m.add(Op::Reshape(dims(&[37, 1])), &[places]);
    let later = m.add(Op::Compare(CompareOp::Gt), &[places, down]);
    let zero = m.add(Op::Const(Literal::float(Scalar::F32, 0.0).unwrap()), &[]);
    let lower = m.add(Op::Select, &[later, zero, x]);
    let again = m.add(Op::Gather, &[x, places]);
    m.check("positions", &[places, lower, again], &[]);
}

#[test]
fn an_index_outside_is_an_error() {
    let mut m = Maker::new(7);
    let x = m.tensor(Scalar::F32, &dims(&[4, 3]), 0, false);
    m.inputs.tensors.insert("index".into(), EvalTensor::ints(Scalar::I64, &[2], [1, 4]));
    let index = input(&mut m.g, "index", Scalar::I64, &dims(&[2]), false);
    let y = m.add(Op::Gather, &[x, index]);
    m.check("gather", &[y], &[]);
}

#[test]
fn a_squeeze_and_excite_block_and_a_residual() {
    let mut m = Maker::new(8);
    let x = m.tensor(Scalar::F32, &dims(&[2, 20, 7, 6]), 0, false);
    let w = m.tensor(Scalar::F32, &dims(&[20, 20, 3, 3]), 0, true);
    let y = m.add(Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() }), &[x, w]);
    let pooled = m.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: true }, &[y]);
    let v = m.tensor(Scalar::F32, &dims(&[20, 20, 1, 1]), 0, true);
    let gate = m.add(Op::Conv2d(Conv2d::default()), &[pooled, v]);
    let gate = m.add(Op::Unary(UnaryOp::Sigmoid), &[gate]);
    let z = m.add(Op::Binary(BinaryOp::Mul), &[y, gate]);
    let z = m.add(Op::Binary(BinaryOp::Add), &[z, x]);
    let z = m.add(Op::Unary(UnaryOp::Relu), &[z]);
    m.check("block", &[z, y], &[]);
}

#[test]
fn weights_are_folded_when_they_are_bound() {
    let mut m = Maker::new(9);
    let x = m.tensor(Scalar::F32, &named("n", &[12]), 5, false);
    let (w, s) = (m.tensor(Scalar::F32, &dims(&[12, 18]), 0, true), m.tensor(Scalar::F32, &dims(&[18]), 0, true));
    let scaled = m.add(Op::Binary(BinaryOp::Mul), &[w, s]);
    let y = m.add(Op::MatMul, &[x, scaled]);
    let norm = m.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[w]);
    let y = m.add(Op::Binary(BinaryOp::Sub), &[y, norm]);
    m.check("weights", &[y, scaled], &[("n", 5)]);
}

#[test]
fn what_cannot_be_lowered_is_an_error() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::decimal(10, 2), &dims(&[4]), false);
    g.output("y", x);
    let catalog = quearn::data::Catalog::default();
    let cx = quearn::lower::Cx::new(&g, &[], &catalog);
    let error = quearn::lower::tensor::lower_program(&cx, &[(0, "y".into(), x)], Default::default()).unwrap_err();
    assert!(error.to_string().contains("decimal(10,2)"), "{error}");
}

/// One program for any number of rows: those of a tile, a few more, and many; of one column and of several panels.
#[test]
fn products_of_an_unknown_number_of_rows() {
    for cols in [3, 70] {
        for n in (1..=37).chain([64, 255, 300]) {
            let mut m = Maker::new(n);
            let x = m.tensor(Scalar::F32, &named("n", &[11]), n, false);
            let w = m.tensor(Scalar::F32, &dims(&[11, cols]), 1, true);
            let b = m.tensor(Scalar::F32, &dims(&[cols]), 1, true);
            let y = m.add(Op::MatMul, &[x, w]);
            let y = m.add(Op::Binary(BinaryOp::Add), &[y, b]);
            let y = m.add(Op::Unary(UnaryOp::Relu), &[y]);
            m.check(&format!("{n} x {cols}"), &[y], &[("n", n as i64)]);
        }
    }
}

/// The rows of all items of an open batch are those of one matrix.
#[test]
fn products_of_rows_of_an_unknown_number_of_items() {
    for n in [1, 2, 7, 16, 300] {
        let mut m = Maker::new(n);
        let x = m.tensor(Scalar::F32, &named("n", &[5, 12]), n, false);
        let w = m.tensor(Scalar::F32, &dims(&[12, 33]), 1, true);
        let v = m.tensor(Scalar::F32, &dims(&[33, 12]), 1, true);
        let y = m.add(Op::MatMul, &[x, w]);
        let y = m.add(Op::Unary(UnaryOp::Relu), &[y]);
        let y = m.add(Op::MatMul, &[y, v]);
        let y = m.add(Op::Binary(BinaryOp::Add), &[y, x]);
        let z = m.add(Op::Softmax { axis: 2 }, &[y]);
        m.check(&format!("{n} items"), &[y, z], &[("n", n as i64)]);
    }
}
