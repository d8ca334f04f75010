//! Tensor programs over the rows of tables, and results by columns, against the naive evaluator.

mod session_harness;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch};
use quearn::data::Table;
use quearn::eval::{EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn_stage::graph::Dim;
use session_harness::backends;
use std::sync::Arc;

const COLUMNS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn facts(rows: usize) -> Table {
    let number = |i: usize, by: usize| ((i * by) % 1009) as f64 / 64.0 - 7.0;
    let columns = COLUMNS.into_iter().zip([11, 37, 101, 211, 503]);
    let columns = columns.map(|(name, by)| {
        (name, Arc::new(Float64Array::from_iter_values((0..rows).map(|i| number(i, by)))) as ArrayRef)
    });
    let keys = Arc::new(Int32Array::from_iter_values((0..rows).map(|i| (i * 7919 % 13) as i32))) as ArrayRef;
    let batch = RecordBatch::try_from_iter(columns.chain([("key", keys)])).unwrap();
    Table::from_batches("facts", &[batch]).unwrap()
}

fn scan(s: &Stage) -> Rep<'_, quearn_stage::rep::Table> {
    s.scan(
        "facts",
        COLUMNS.map(|name| Field::new(name, Scalar::F64)).into_iter().chain([Field::new("key", Scalar::I32)]),
    )
}

/// Evaluates a program, runs it on every backend, and compares the tensors and columns that it gives.
fn check(rows: usize, write: impl Fn(&Stage)) {
    let s = Stage::new();
    write(&s);
    let graph = s.finish().unwrap();
    let table = facts(rows);
    let inputs = Inputs::new().table("facts", EvalTable::from(&table));
    let expected = evaluate(&graph, &inputs).unwrap();
    for (kind, threads) in backends().into_iter().flat_map(|kind| [(kind, 1), (kind, 3)]) {
        let mut session = Session::builder().backend(kind).threads(threads).build().unwrap();
        session.add_table(table.clone());
        let outputs = session.run(&graph).unwrap();
        for (name, want) in &expected {
            match want {
                EvalValue::Tensor(want) => near(&EvalTensor::from(outputs.tensor(name).unwrap()), want, name),
                EvalValue::Table(want) => assert_eq!(outputs.table(name).unwrap(), &want.to_batch().unwrap()),
                EvalValue::Tuple(_) => unreachable!("no result is a tuple"),
            }
        }
    }
}

/// Sums in another order differ in their last bits.
fn near(found: &EvalTensor, want: &EvalTensor, name: &str) {
    let numbers = |tensor: &EvalTensor| quearn::data::Tensor::try_from(tensor).unwrap();
    let (found, want) = (numbers(found), numbers(want));
    assert_eq!(found.shape(), want.shape(), "{name}");
    let pairs = found.as_slice::<f64>().unwrap().iter().zip(want.as_slice::<f64>().unwrap());
    for (found, want) in pairs {
        assert!((found - want).abs() <= 1e-9 * want.abs().max(1.0), "{name}: {found} is not {want}");
    }
}

/// Numbers of rows around those of a block and of the parts.
const ROWS: [usize; 5] = [0, 1, 63, 130, 5000];

#[test]
fn products_of_columns_sum_in_their_pipeline() {
    for rows in ROWS {
        check(rows, |s| {
            let some = scan(s).filter(|r| r.i32("key").lt(7)).with("one", |_| s.constant(1.0));
            let all = some.tensor::<F64>(&["a", "b", "c", "d", "e", "one"]);
            s.output("gram", all.transpose().matmul(all));
            let few = some.tensor::<F64>(&["e", "b"]);
            s.output("mixed", few.transpose().matmul(all) * 2.0 + 1.0);
        });
    }
}

#[test]
fn rows_go_through_tensor_programs() {
    for rows in ROWS {
        check(rows, |s| {
            let some = scan(s).filter(|r| r.i32("key").ne(3));
            let x = some.tensor::<F64>(&["a", "b", "c"]);
            let centre = some.avg(|r| r.f64("a")).coalesce(0.0);
            // Computed operands: which of three kinds a row is, by a scalar of the same table.
            let kind = some.row().i32("key").as_tensor().cast::<I64>() % s.constant(3i64).as_tensor();
            let kind = kind.reshape([kind.shape(), vec![Dim::Const(1)]].concat()).eq(s.iota(3)).cast::<F64>();
            let sums = kind.transpose().matmul(x - centre);
            s.output("sums", sums);
            s.output("again", (x.matmul(sums.transpose()) * 0.001).sum([0]));
            s.output("squares", (x * x).sum([0, 1]));
        });
    }
}

#[test]
fn wide_operands_fill_several_tiles() {
    check(700, |s| {
        let table = scan(s);
        let names: Vec<String> = (0..37).map(|i| format!("x{i}")).collect();
        let wide = names.iter().enumerate().fold(table, |table, (i, name)| {
            table.with(name, |r| r.f64(COLUMNS[i % 5]) * (i as f64) + r.f64(COLUMNS[i % 3]))
        });
        let x = wide.tensor::<F64>(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let narrow = wide.tensor::<F64>(&["a"]);
        s.output("wide", x.transpose().matmul(x));
        s.output("tall", x.transpose().matmul(narrow));
        s.output("computed", (x + 1.0).transpose().matmul(narrow * 0.5));
    });
}

#[test]
fn results_by_columns_keep_the_order_of_rows() {
    for rows in [0, 1, 40_000] {
        check(rows, |s| {
            s.output("same", scan(s).select(["a", "key"]));
            s.output("computed", scan(s).project(|r| [("x", (r.f64("a") * r.f64("b")).dyn_()), ("day", r.col("key"))]));
        });
    }
}

#[test]
fn truth_becomes_numbers() {
    check(100, |s| {
        s.output("flags", scan(s).project(|r| [("flag", r.f64("a").gt(0.5).cast::<F64>().dyn_())]));
    });
}
