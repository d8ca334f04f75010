//! Decision trees in all forms, on all backends: the bits of sums in the order of the trees.

mod tensor_harness;

use quearn::lower::tensor::trees::Form;
use quearn::lower::tensor::{self, Target};
use quearn_stage::graph::*;
use tensor_harness::*;

/// A random tree: at most `leaves` leaves, and `depth` splits on any way.
fn tree(r: &mut Rng, features: u64, leaves: u64, depth: u64, nan_left: bool) -> Tree {
    fn grow(r: &mut Rng, shape: (u64, u64), features: u64, nan_left: bool, writer: &mut TreeWriter) {
        let (leaves, depth) = shape;
        if leaves < 2 || depth == 0 || r.int(0, 19) == 0 {
            return writer.push(Step::Leaf(r.single()));
        }
        // Limits on a grid of which the data are, too, so that many are met exactly.
        let split = Split::new(r.int(0, features - 1) as u32, (r.single() * 8.0).round() / 8.0);
        writer.push(Step::Split(Split { nan_left: nan_left && r.int(0, 1) == 0, ..split }));
        let left = r.int(1, leaves - 1);
        grow(r, (left, depth - 1), features, nan_left, writer);
        grow(r, (leaves - left, depth - 1), features, nan_left, writer);
    }
    let mut writer = TreeWriter::default();
    grow(r, (leaves, depth), features, nan_left, &mut writer);
    writer.finish(0).unwrap()
}

fn forest(r: &mut Rng, features: u64, outputs: u32, trees: u64, shape: (u64, u64), nan_left: bool) -> Forest {
    let base: Vec<f32> = (0..outputs).map(|_| r.single()).collect();
    (0..trees).fold(Forest::new(features as u32, base), |forest, _| {
        let mut tree = tree(r, features, shape.0, shape.1, nan_left);
        tree.output = r.int(0, u64::from(outputs) - 1) as u32;
        forest.with(tree)
    })
}

fn data(r: &mut Rng, n: u64) -> Vec<f32> {
    let value = |r: &mut Rng| match r.int(0, 30) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => -0.0,
        _ => (r.single() * 8.0).round() / 8.0,
    };
    (0..n).map(|_| value(r)).collect()
}

fn expected(forest: &Forest, x: &[f32]) -> Vec<f32> {
    let mut all = vec![];
    for row in x.chunks(forest.features as usize) {
        let mut sums: Vec<f32> = forest.base.iter().map(|base| base.get()).collect();
        for tree in &forest.trees {
            sums[tree.output as usize] += tree.value(|feature| row[feature as usize]);
        }
        all.extend(sums);
    }
    all
}

fn check(what: &str, forest: &Forest, n: u64, x: &[f32]) {
    let mut g = Graph::new();
    let features = u64::from(forest.features);
    let node = input(&mut g, "x", Scalar::F32, &[Dim::Named("n".into()), Dim::Const(features)], false);
    let sums = g.add(Op::TreeEnsemble(forest.clone().into()), &[node]).unwrap();
    g.output("sums", sums);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let expected = expected(forest, x);
    on_all(&g, &[("x", bytes(x))], &[("n", n as i64)], |backend, found| {
        let found = numbers::<f32>(&found[0]);
        assert_eq!(bits(&found), bits(&expected), "{what} on {backend}, {n} rows: {found:?}, expected {expected:?}");
    });
}

/// Shapes for which each of the forms is the cheapest.
const SHAPES: [(u64, (u64, u64)); 8] =
    [(1, (1, 0)), (7, (2, 1)), (5, (8, 3)), (3, (16, 4)), (9, (31, 8)), (4, (32, 31)), (3, (64, 12)), (2, (300, 12))];

#[test]
fn all_forms_give_the_same_bits() {
    let mut seen = vec![];
    for (i, (trees, shape)) in SHAPES.into_iter().enumerate() {
        for nan_left in [false, true] {
            let mut r = Rng::new(i as u64 * 2 + u64::from(nan_left));
            let (features, outputs) = (r.int(1, 9), r.int(1, 3) as u32);
            let forest = forest(&mut r, features, outputs, trees, shape, nan_left);
            seen.push(Form::choose(&forest, Target::host().lanes().into()).0);
            for n in [1, 15, 64, 133] {
                let x = data(&mut r, n * features);
                check(&format!("{trees} trees of {shape:?}, NaN left: {nan_left}"), &forest, n, &x);
            }
        }
    }
    let kinds = ["Bits(32)", "Bits(64)", "Choice", "Walk"];
    let missing = kinds.iter().find(|kind| !seen.iter().any(|form| format!("{form:?}").starts_with(**kind)));
    assert_eq!(missing, None, "forms: {seen:?}");
}

/// The bits of a number, the same for all that are none.
fn bits(value: f32) -> u32 {
    if value.is_nan() { u32::MAX } else { value.to_bits() }
}

/// Of sums that are only compared with a number, the comparisons; of those that are read where they pass, the sums.
fn check_asked(forest: &Forest, n: u64, x: &[f32], op: CompareOp, threshold: f32) {
    let sums = expected(forest, x);
    let passes: Vec<bool> =
        sums.iter().map(|&sum| if op == CompareOp::Ge { sum >= threshold } else { sum <= threshold }).collect();
    for reads in [false, true] {
        let mut g = Graph::new();
        let features = u64::from(forest.features);
        let node = input(&mut g, "x", Scalar::F32, &[Dim::Named("n".into()), Dim::Const(features)], false);
        let sums_node = g.add(Op::TreeEnsemble(forest.clone().into()), &[node]).unwrap();
        let scores = g.add(Op::Reshape(vec![Dim::Named("n".into())]), &[sums_node]).unwrap();
        let [limit, missed] = [threshold, f32::NAN]
            .map(|c| g.add(Op::Const(Literal::float(Scalar::F32, c.into()).unwrap()), &[]).unwrap());
        let test = g.add(Op::Compare(op), &[scores, limit]).unwrap();
        let taken = if reads { scores } else { limit };
        let result = g.add(Op::Select, &[test, taken, missed]).unwrap();
        g.output("result", result);
        let expected: Vec<u32> = sums
            .iter()
            .zip(&passes)
            .map(|(&sum, &passes)| {
                if !passes {
                    f32::NAN
                } else if reads {
                    sum
                } else {
                    threshold
                }
            })
            .map(bits)
            .collect();
        on_all(&g, &[("x", bytes(x))], &[("n", n as i64)], |backend, found| {
            let found: Vec<u32> = numbers::<f32>(&found[0]).into_iter().map(bits).collect();
            assert_eq!(found, expected, "{op:?} {threshold} on {backend}, {n} rows, sums read: {reads}");
        });
    }
}

/// Trees that stop early: rows that are decided at different times, in all forms, with thresholds that sums meet exactly.
#[test]
fn sums_of_which_a_comparison_is_asked() {
    let shapes = [(20, (8, 3)), (49, (31, 8)), (13, (64, 12)), (12, (300, 12)), (70, (4, 2)), (5, (8, 3))];
    let mut seen = vec![];
    for (i, (trees, shape)) in shapes.into_iter().enumerate() {
        for nan_left in [false, true] {
            let mut r = Rng::new(100 + i as u64 * 2 + u64::from(nan_left));
            let features = r.int(1, 9);
            let forest = forest(&mut r, features, 1, trees, shape, nan_left);
            seen.push(Form::choose(&forest, Target::host().lanes().into()).0);
            for n in [1, 64, 700] {
                let x = data(&mut r, n * features);
                let mut sums = expected(&forest, &x);
                sums.sort_by(f32::total_cmp);
                for (at, op) in [(0.05, CompareOp::Ge), (0.5, CompareOp::Le), (0.97, CompareOp::Ge)] {
                    let threshold = sums[(at * (n - 1) as f64) as usize];
                    check_asked(&forest, n, &x, op, threshold);
                }
            }
        }
    }
    let kinds = ["Bits(32)", "Bits(64)", "Choice", "Walk"];
    let missing = kinds.iter().find(|kind| !seen.iter().any(|form| format!("{form:?}").starts_with(**kind)));
    assert_eq!(missing, None, "forms: {seen:?}");
}

/// Rows whose sums are no numbers are compared as they are.
#[test]
fn sums_that_overflow_are_summed_up() {
    let leaves = |a, b| Tree::new(0, [Step::Split(Split::new(0, 0.0)), Step::Leaf(a), Step::Leaf(b)]).unwrap();
    let trees = (0..30).map(|i| if i % 2 == 0 { leaves(f32::MAX, 1.0) } else { leaves(-1e38, f32::NEG_INFINITY) });
    let forest = trees.fold(Forest::new(1, [0.0]), Forest::with);
    check_asked(&forest, 4, &[0.0, 1.0, -1.0, f32::NAN], CompareOp::Ge, 1.0);
}

#[test]
fn no_trees_leave_the_base() {
    check("no trees", &Forest::new(3, [1.5, -0.0]), 5, &[0.0; 15]);
}

/// More features than fit one block of four vectors, and few of them asked for.
#[test]
fn many_features() {
    let mut r = Rng::new(5);
    let forest = forest(&mut r, 1500, 1, 12, (80, 9), false);
    let x = data(&mut r, 1500 * 21);
    check("many features", &forest, 21, &x);
}

/// More features than the stack has room for are an error.
#[test]
fn too_many_features_are_an_error() {
    let trees =
        (0..20_000).map(|f| Tree::new(0, [Step::Split(Split::new(f, 0.0)), Step::Leaf(0.0), Step::Leaf(1.0)]).unwrap());
    let forest = trees.fold(Forest::new(20_000, [0.0]), Forest::with);
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F32, &dims(&[2, 20_000]), false);
    let sums = g.add(Op::TreeEnsemble(forest.into()), &[x]).unwrap();
    let catalog = quearn::data::Catalog::default();
    let cx = quearn::lower::Cx::new(&g, &[], &catalog);
    let result = tensor::lower_program(&cx, &[(0, "sums".into(), sums)], Default::default());
    let message = result.unwrap_err().to_string();
    assert!(message.contains("trees that ask for 20000 features"), "{message}");
}
