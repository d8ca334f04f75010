//! Tensor operations and loops of the naive evaluator against values computed by hand.

mod eval_harness;

use eval_harness::*;
use quearn::eval::{Datum, EvalTable, EvalTensor};
use quearn_stage::graph::*;
use quearn_stage::low::FailKind;

#[test]
fn loops_carry_values() {
    let mut p = Program::default();
    let ty = Ty::scalar(Scalar::I64.required());
    let param = |p: &mut Program, index| p.add(Op::Param { region: 0, index, ty: ty.clone() }, &[]);
    let (round, a, b) = (param(&mut p, 0), param(&mut p, 1), param(&mut p, 2));
    let sum = p.binary(BinaryOp::Add, a, b);
    let next = p.binary(BinaryOp::Add, b, round);
    let region = Region { params: vec![round, a, b], results: vec![sum, next] };
    let (trips, zero, one) = (p.int(3), p.int(0), p.int(1));
    let result = p.add(Op::Loop(region), &[trips, zero, one]);
    let first = p.add(Op::Item(0), &[result]);
    let second = p.add(Op::Item(1), &[result]);
    let both = p.add(Op::Stack, &[first, second]);
    // (0, 1) -> (1, 1) -> (2, 2) -> (4, 4)
    assert_eq!(p.data(both), [int(4), int(4)]);
}

#[test]
fn matmul_broadcasts_leading_dimensions() {
    let mut p = Program::default();
    let a = p.tensor("a", f32s(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]));
    let b = p.tensor("b", f32s(&[2, 2], &[1.0, 10.0, 100.0, 1000.0]));
    let product = p.add(Op::MatMul, &[a, b]);
    assert_eq!(p.floats(product), [201.0, 2010.0, 403.0, 4030.0]);
}

fn conv(conv: Conv2d, x: EvalTensor, w: EvalTensor, bias: Option<EvalTensor>) -> Vec<f64> {
    let mut p = Program::default();
    let mut inputs = vec![p.tensor("x", x), p.tensor("w", w)];
    inputs.extend(bias.map(|b| p.tensor("b", b)));
    let node = p.add(Op::Conv2d(conv), &inputs);
    p.floats(node)
}

#[test]
fn convolutions() {
    let x = || f32s(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let w = || f32s(&[1, 1, 2, 2], &[1.0, 0.0, 0.0, 10.0]);
    let bias = Some(f32s(&[1], &[0.5]));
    assert_eq!(conv(Conv2d::default(), x(), w(), bias), [51.5, 62.5, 84.5, 95.5]);
    let strided = Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::default() };
    assert_eq!(conv(strided, x(), w(), None), [10.0, 30.0, 70.0, 95.0]);
    let dilated = Conv2d { dilation: [2, 2], ..Conv2d::default() };
    assert_eq!(conv(dilated, x(), w(), None), [91.0]);
    let grouped = Conv2d { groups: 2, ..Conv2d::default() };
    let two = f32s(&[1, 2, 1, 1], &[3.0, 5.0]);
    assert_eq!(conv(grouped, two, f32s(&[2, 1, 1, 1], &[2.0, 7.0]), None), [6.0, 35.0]);
}

#[test]
fn pools() {
    let pooled = |pool: Pool2d| {
        let mut p = Program::default();
        let x = p.tensor("x", f32s(&[1, 1, 3, 3], &[-1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]));
        let node = p.add(Op::Pool2d(pool), &[x]);
        p.floats(node)
    };
    let pool = |kind, padding, ceil| Pool2d { kind, kernel: [2, 2], stride: [2, 2], padding: [padding; 2], ceil };
    assert_eq!(pooled(pool(PoolKind::Max, 0, false)), [5.0]);
    assert_eq!(pooled(pool(PoolKind::Max, 0, true)), [5.0, 6.0, 8.0, 9.0]);
    assert_eq!(pooled(pool(PoolKind::Max, 1, false)), [-1.0, 3.0, 7.0, 9.0]);
    assert_eq!(pooled(pool(PoolKind::Avg, 1, false)), [-1.0, 2.5, 5.5, 7.0]);
}

#[test]
fn adjoints_of_pools_and_filters() {
    let mut p = Program::default();
    let image = [1.0, 5.0, 5.0, 2.0, 5.0, 0.0, 3.0, f64::NAN, 4.0];
    let x = p.tensor("x", f32s(&[1, 1, 3, 3], &image));
    let y = p.tensor("y", f32s(&[1, 1, 2, 2], &[10.0, 20.0, 40.0, 80.0]));
    let pool = Pool2d { kind: PoolKind::Max, kernel: [2, 2], stride: [1, 1], padding: [0, 0], ceil: false };
    let node = p.add(Op::MaxUnpool2d(pool), &[x, y]);
    // The first of several; none where there is a NaN.
    assert_eq!(p.floats(node), [0.0, 30.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);

    let mut p = Program::default();
    let x = p.tensor("x", f32s(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]));
    let y = p.tensor("y", f32s(&[1, 1, 2, 2], &[1.0, 0.0, 0.0, 10.0]));
    let node = p.add(Op::Conv2dFilters { conv: Conv2d::default(), kernel: [2, 2] }, &[x, y]);
    assert_eq!(p.floats(node), [51.0, 62.0, 84.0, 95.0]);
}

#[test]
fn softmax_and_batch_norm() {
    let mut p = Program::default();
    let x = p.tensor("x", f32s(&[2, 2], &[0.0, 0.0, 1000.0, 0.0]));
    let soft = p.add(Op::Softmax { axis: 1 }, &[x]);
    assert_eq!(p.floats(soft), [0.5, 0.5, 1.0, 0.0]);

    let mut p = Program::default();
    let x = p.tensor("x", f32s(&[1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]));
    let channel = |p: &mut Program, name, values: &[f64]| p.tensor(name, f32s(&[2], values));
    let (scale, bias) = (channel(&mut p, "s", &[2.0, 1.0]), channel(&mut p, "b", &[0.0, 10.0]));
    let (mean, var) = (channel(&mut p, "m", &[1.0, 3.0]), channel(&mut p, "v", &[3.0, 0.0]));
    let norm = p.add(Op::BatchNorm { eps: 1.0f64.to_bits() }, &[x, scale, bias, mean, var]);
    assert_eq!(p.floats(norm), [0.0, 1.0, 10.0, 11.0]);
}

#[test]
fn shapes_and_reductions() {
    let on = |op: Op| {
        let mut p = Program::default();
        let x = p.tensor("x", f32s(&[2, 3], &[1.0, 5.0, 3.0, 4.0, 2.0, 6.0]));
        let node = p.add(op, &[x]);
        p.run(node).unwrap().tensor().clone()
    };
    let reduce = |op, axes: &[usize], keep| on(Op::Reduce { op, axes: axes.to_vec(), keep });
    assert_eq!(reduce(ReduceOp::Sum, &[0], false).as_floats(), [5.0, 7.0, 9.0]);
    assert_eq!(reduce(ReduceOp::Mean, &[1], true).as_floats(), [3.0, 4.0]);
    assert_eq!(reduce(ReduceOp::Mean, &[1], true).shape(), [2, 1]);
    assert_eq!(reduce(ReduceOp::Min, &[0, 1], false).as_floats(), [1.0]);
    assert_eq!(reduce(ReduceOp::Max, &[0, 1], false).as_floats(), [6.0]);
    assert_eq!(on(Op::Transpose(vec![1, 0])).as_floats(), [1.0, 4.0, 5.0, 2.0, 3.0, 6.0]);
    assert_eq!(on(Op::Reshape(vec![Dim::Const(3), Dim::Const(2)])).shape(), [3, 2]);
    assert_eq!(on(Op::ArgMax { axis: 1 }).iter().collect::<Vec<_>>(), [int(1), int(2)]);
    assert_eq!(on(Op::ArgMax { axis: 0 }).iter().collect::<Vec<_>>(), [int(1), int(0), int(1)]);
}

#[test]
fn sums_of_leaves() {
    let split = |feature, limit, nan_left| Step::Split(Split { nan_left, ..Split::new(feature, limit) });
    let leaf = Step::Leaf;
    let first = [split(0, 1.0, false), leaf(1.0), split(1, 5.0, true), leaf(2.0), leaf(4.0)];
    let forest = Forest::new(2, [0.5, -1.0])
        .with(Tree::new(0, first).unwrap())
        .with(Tree::new(1, [split(1, 2.0, false), leaf(10.0), leaf(20.0)]).unwrap())
        .with(Tree::new(0, [leaf(8.0)]).unwrap());
    let mut p = Program::default();
    let nan = f64::NAN;
    let x = p.tensor("x", f32s(&[4, 2], &[1.0, 2.0, 1.5, 5.0, 1.5, 6.0, nan, nan]));
    let sums = p.add(Op::TreeEnsemble(forest.into()), &[x]);
    assert_eq!(p.floats(sums), [9.5, 9.0, 10.5, 19.0, 12.5, 19.0, 10.5, 19.0]);
}

#[test]
fn concat_stack_and_gather() {
    let mut p = Program::default();
    let a = p.tensor("a", f32s(&[2, 1], &[1.0, 2.0]));
    let b = p.tensor("b", f32s(&[2, 2], &[3.0, 4.0, 5.0, 6.0]));
    let joined = p.add(Op::Concat { axis: 1 }, &[a, b]);
    assert_eq!(p.floats(joined), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);

    let gathered = |at: &[i128]| {
        let mut p = Program::default();
        let data = p.tensor("d", f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let index = p.tensor("i", ints(at));
        let node = p.add(Op::Gather, &[data, index]);
        p.run(node).map(|v| v.tensor().as_floats().to_vec()).map_err(|e| e.kind().unwrap())
    };
    assert_eq!(gathered(&[1, 0, 1]), Ok(vec![3.0, 4.0, 1.0, 2.0, 3.0, 4.0]));
    assert_eq!(gathered(&[2]), Err(FailKind::OutOfRange));
    assert_eq!(gathered(&[-1]), Err(FailKind::OutOfRange));
}

#[test]
fn scattered_sums_and_row_numbers() {
    let scattered = |at: &[i128]| {
        let mut p = Program::default();
        let data = p.tensor("d", f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let index = p.tensor("i", ints(at));
        let values = p.tensor("v", f32s(&[3, 2], &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]));
        let node = p.add(Op::ScatterAdd, &[data, index, values]);
        p.run(node).map(|v| v.tensor().as_floats().to_vec()).map_err(|e| e.kind().unwrap())
    };
    assert_eq!(scattered(&[1, 0, 1]), Ok(vec![31.0, 42.0, 63.0, 84.0]));
    assert_eq!(scattered(&[0, 0, 0]), Ok(vec![91.0, 122.0, 3.0, 4.0]));
    assert_eq!(scattered(&[0, 2, 0]), Err(FailKind::OutOfRange));
    assert_eq!(scattered(&[0, -1, 0]), Err(FailKind::OutOfRange));
    let mut p = Program::default();
    let t = p.scan("t", EvalTable::of(vec![("x", f32s(&[3], &[5.0, 6.0, 7.0]))]));
    let number = p.add(Op::RowNumber, &[t]);
    assert_eq!(p.run(number).unwrap().tensor().iter().collect::<Vec<_>>(), [0, 1, 2].map(Datum::Int));
    let mut p = Program::default();
    let x = p.tensor("x", f32s(&[2], &[-1.5, f64::INFINITY]));
    let same = p.add(Op::Unary(UnaryOp::Detach), &[x]);
    assert_eq!(p.floats(same), [-1.5, f64::INFINITY]);
}

#[test]
fn a_model_on_rows() {
    let mut p = Program::default();
    let column = |values: &[f64]| f32s(&[3], values);
    let t = p.scan("t", EvalTable::of(vec![("x", column(&[1.0, 2.0, 3.0])), ("y", column(&[0.0, 1.0, -5.0]))]));
    let (x, y) = (p.column(t, "x"), p.column(t, "y"));
    let features = p.add(Op::Stack, &[x, y]);
    let w = p.tensor("w", f32s(&[2, 1], &[1.0, 1.0]));
    let scores = p.add(Op::MatMul, &[features, w]);
    let rows = p.graph.ty(t).as_table().unwrap().1.clone();
    let scores = p.add(Op::Reshape(vec![rows]), &[scores]);
    let zero = p.constant(Literal::float(Scalar::F32, 0.0).unwrap());
    let positive = p.compare(CompareOp::Gt, scores, zero);
    let kept = p.add(Op::Filter, &[t, positive]);
    assert_eq!(p.rows(kept).len(), 2);
}
