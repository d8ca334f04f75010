//! Expressions that pipelines evaluate a register of rows at a time, against the naive evaluator: on all rows of a block, on
//! those that a filter lets pass, in sums, in results by columns, and where they may not be.

use arrow::array::{Array, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch};
use quearn::data::Table;
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::testing::same_tables;
use std::sync::Arc;

/// No multiple of a register or of a block.
const ROWS: i64 = 5003;

/// A number that looks random, from 0 to 1.
fn noise(i: i64) -> f64 {
    ((i * 7919 + 13) % 104_729) as f64 / 104_729.0
}

fn points() -> Table {
    let far = |i: i64| match i % 97 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -1e300,
        3 => 1e-310,
        4 => -0.0,
        _ => noise(i) * 40.0 - 20.0,
    };
    let columns: Vec<(&str, Arc<dyn Array>)> = vec![
        ("x", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|i| noise(i) * 3.0 + 0.1)))),
        ("y", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|i| noise(i * 3) * 8.0 - 4.0)))),
        ("far", Arc::new(Float64Array::from_iter_values((0..ROWS).map(far)))),
        ("f", Arc::new(Float32Array::from_iter_values((0..ROWS).map(|i| noise(i * 5) as f32 * 6.0 - 3.0)))),
        ("some", Arc::new(Float64Array::from_iter((0..ROWS).map(|i| (i % 7 != 0).then(|| noise(i * 11)))))),
        ("n", Arc::new(Int32Array::from_iter_values((0..ROWS).map(|i| (i * 31 % 1000) as i32 - 500)))),
        ("tiny", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| i % 5)))),
        ("day", Arc::new(Date32Array::from_iter_values((0..ROWS).map(|i| i as i32)))),
    ];
    Table::from_batches("points", &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

/// Runs a program on both backends with one and two threads. Its pipelines show all `words`.
#[track_caller]
fn check(words: &[&str], program: impl for<'s> Fn(&'s Stage, Points<'s>) -> Points<'s>) {
    let table = points();
    let s = Stage::new();
    s.output("out", program(&s, s.scan("points", table.fields())));
    let graph = s.finish().unwrap();
    let mut inputs = Inputs::default();
    inputs.tables.insert("points".into(), EvalTable::from(&table));
    let expected = evaluate(&graph, &inputs).unwrap();
    let [(_, EvalValue::Table(expected))] = &expected[..] else { panic!("one table") };
    for (backend, threads) in [(BackendKind::Interp, 1), (BackendKind::Auto, 1), (BackendKind::Auto, 2)] {
        let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
        session.add_table(table.clone());
        let plan = session.explain(&graph, Level::Pipelines).unwrap();
        for word in words.iter().filter(|_| std::arch::is_x86_feature_detected!("avx512f")) {
            assert!(plan.contains(word), "no \"{word}\" in\n{plan}");
        }
        let outputs = session.run(&graph).unwrap();
        let batch = outputs.table("out").unwrap().clone();
        let got = EvalTable::from(&Table::from_batches("out", &[batch]).unwrap());
        assert!(got.rows() > 0, "a test of nothing");
        same_tables(expected, &got, false, 1e-12)
            .unwrap_or_else(|e| panic!("{backend:?}, {threads} threads: {e}\n{plan}"));
    }
}

type Points<'s> = Rep<'s, quearn_stage::rep::Table>;

fn costly<'s>(r: Row<'s>) -> Rep<'s, F64> {
    (r.f64("x").log() + (r.f64("y") * 0.5).sin() / r.f64("x").sqrt()).exp()
}

#[test]
fn results_by_columns_are_written_by_vectors() {
    check(&["by columns", "by vectors"], |_, t| {
        t.project(|r| {
            let (c, f) = (costly(r), r.f32("f") * 2.0 + 1.0);
            [("c", c.dyn_()), ("e", f.dyn_()), ("n", r.i32("n").dyn_()), ("day", r.date("day").dyn_())]
        })
    });
}

fn aggregates(r: Row<'_>) -> [Agg<'_>; 3] {
    [count("k"), sum("s", r.f64("c")), max("m", r.f64("c"))]
}

fn narrow(r: Row<'_>) -> Rep<'_, F64> {
    costly(r) * r.i64("tiny").cast::<F64>()
}

fn terms(r: Row<'_>) -> [Agg<'_>; 5] {
    let x = r.f64("x") * 2.0 - r.f64("y");
    let limited = when(x.ge(3.0)).then(3.0).otherwise(when(x.lt(-1.0)).then(-1.0).otherwise(x));
    [count("k"), sum("s", limited), avg("a", r.f32("f")), sum("n", r.i32("n")), sum("d", r.i32("n").cast::<F64>())]
}

fn sometimes(r: Row<'_>) -> Rep<'_, F64> {
    (r.f64("some").exp() + r.f64("x")).log().coalesce(0.0)
}

fn quotient(r: Row<'_>) -> Rep<'_, F64> {
    (r.i32("n").cast::<I64>() / r.i64("tiny")).cast::<F64>() * costly(r)
}

#[test]
fn costly_expressions_of_a_group_are_buffered() {
    check(&["by vectors"], move |_, t| t.with("c", costly).group_by(["tiny"]).agg(aggregates));
    // On all rows, as the filter needs them as well.
    check(&["by vectors"], move |_, t| {
        t.with("c", costly).filter(|r| r.f64("c").lt(1.0)).group_by(["tiny"]).agg(aggregates)
    });
    // On the rows that a filter lets pass.
    check(&["by vectors"], move |_, t| {
        t.filter(|r| r.i32("n").gt(400)).with("c", costly).group_by(["tiny"]).agg(aggregates)
    });
    // What cannot be gathered is evaluated row by row.
    check(&[], move |_, t| t.filter(|r| r.i32("n").gt(400)).with("c", narrow).group_by(["tiny"]).agg(aggregates));
}

#[test]
fn sums_of_floats_stay_in_registers() {
    check(&["by vectors"], move |_, t| t.filter(|r| r.f64("y").gt(-2.0)).aggregate(terms));
    check(&["by vectors"], move |_, t| t.group_by(["tiny"]).agg(terms));
    // Nothing passes.
    check(&[], move |_, t| t.filter(|r| (r.f64("y") * r.f64("y")).lt(-1.0)).aggregate(terms));
}

#[test]
fn unusual_floats_are_as_row_by_row() {
    check(&[], |_, t| {
        t.project(|r| {
            let far = r.f64("far");
            let chosen = when(far.lt(0.0) | far.gt(5.0)).then(far.abs()).otherwise(-far);
            let parts = [far.exp(), far.log(), far.sqrt(), far.erf(), far.tanh(), far.floor(), far.relu(), chosen];
            let mut columns = vec![("i", r.i32("n").dyn_())];
            columns.extend(["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(parts.map(Rep::dyn_)));
            columns
        })
    });
    check(&[], |_, t| {
        t.filter(|r| r.f64("far").sqrt().lt(3.0) | !r.f64("far").log().ge(0.0)).group_by(["tiny"]).agg(|_| [count("k")])
    });
}

/// By vectors, row by row (where NULL is possible), and as a tensor, as PyTorch has it.
#[test]
fn nan_passes_a_rectifier() {
    let (table, s) = (points(), Stage::new());
    let points = s.scan("points", table.fields());
    s.output(
        "rows",
        points.project(|r| {
            [("a", r.f64("far").relu().dyn_()), ("b", (r.f64("far") + r.f64("some").coalesce(0.0) * 0.0).relu().dyn_())]
        }),
    );
    s.output("tensor", s.input::<F64>("far", [4]).relu());
    let graph = s.finish().unwrap();
    for backend in [BackendKind::Interp, BackendKind::Auto] {
        let mut session = Session::builder().backend(backend).threads(1).build().unwrap();
        session.add_table(table.clone());
        session.bind("far", StoredTensor::from_vec(vec![f64::NAN, -1.0, 2.0, f64::NEG_INFINITY], &[4]).unwrap());
        let outputs = session.run(&graph).unwrap();
        for column in outputs.table("rows").unwrap().columns() {
            let column = column.as_any().downcast_ref::<Float64Array>().unwrap();
            for (i, x) in column.values().iter().enumerate() {
                assert_eq!(x.is_nan(), i % 97 == 0, "row {i} is {x}");
                assert!(x.is_nan() || *x >= 0.0, "row {i} is {x}");
            }
        }
        let found = outputs.tensor("tensor").unwrap().as_slice::<f64>().unwrap();
        assert!(found[0].is_nan() && found[1..] == [0.0, 2.0, 0.0], "{found:?}");
    }
}

#[test]
fn nulls_and_failures_stay_row_by_row() {
    check(&[], |_, t| t.with("c", sometimes).group_by(["tiny"]).agg(|r| [count("k"), sum("s", r.f64("c"))]));
    // A quotient of integers that would fail on a row that the filter drops.
    check(&[], |_, t| {
        let kept = t.filter(|r| r.i64("tiny").gt(0));
        kept.with("c", quotient).group_by(["tiny"]).agg(|r| [sum("s", r.f64("c"))])
    });
}
