//! Bad input of every kind is an error value that names the thing, on both backends; never a panic or a wrong answer.

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use quearn::data::{LoadOptions, Table, Tensor};
use quearn::prelude::*;
use quearn::{Session, Tensors};
use quearn_backends::runtime::RunError;
use quearn_stage::low::FailKind;
use std::sync::Arc;

fn each_session(check: impl Fn(&mut Session)) {
    for backend in [BackendKind::Interp, BackendKind::Auto] {
        for threads in [1, 2] {
            check(&mut Session::builder().backend(backend).threads(threads).build().unwrap());
        }
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn add(session: &mut Session, name: &str, batch: &RecordBatch) {
    session.add_table(Table::from_batches(name, std::slice::from_ref(batch)).unwrap());
}

/// A table `t` with an integer column `x`.
fn ints(values: impl Into<Int64Array>) -> RecordBatch {
    batch(vec![("x", Arc::new(values.into()))])
}

fn x_field() -> Vec<Field> {
    vec![Field::nullable("x", Scalar::I64)]
}

/// A program with one output `out`.
fn program<T: Marker>(write: impl for<'s> FnOnce(&'s Stage) -> Rep<'s, T>) -> Graph {
    let s = Stage::new();
    s.output("out", write(&s));
    s.finish().unwrap()
}

/// The message contains all of `words`.
#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    assert!(words.iter().all(|w| text.contains(w)), "{text:?} does not contain all of {words:?}");
}

#[test]
fn a_missing_table_is_named() {
    let graph = program(|s| s.scan("orders", x_field()));
    each_session(|session| {
        add(session, "order", &ints(vec![1]));
        says(&session.run(&graph).unwrap_err(), &["\"orders\"", "order"]);
    });
}

#[test]
fn a_missing_column_is_named() {
    let graph = program(|s| s.scan("t", vec![Field::new("price", Scalar::I64)]));
    each_session(|session| {
        add(session, "t", &ints(vec![1]));
        says(&session.run(&graph).unwrap_err(), &["\"price\"", "\"t\""]);
    });
}

#[test]
fn a_column_of_another_type_is_named_with_both_types() {
    let graph = program(|s| s.scan("t", vec![Field::nullable("x", Scalar::String)]));
    each_session(|session| {
        add(session, "t", &ints(vec![1]));
        says(&session.run(&graph).unwrap_err(), &["\"x\"", "string", "i64"]);
    });
}

#[test]
fn values_outside_of_the_declared_type_are_found() {
    let graph = program(|s| s.scan("t", vec![Field::nullable("x", Scalar::I32)]));
    each_session(|session| {
        add(session, "t", &ints(vec![1, 1 << 40]));
        says(&session.run(&graph).unwrap_err(), &["\"x\"", "i32"]);
    });
}

#[test]
fn nulls_in_a_column_declared_without_are_found() {
    let graph = program(|s| s.scan("t", vec![Field::new("x", Scalar::I64)]));
    each_session(|session| {
        add(session, "t", &ints(vec![Some(1), None]));
        says(&session.run(&graph).unwrap_err(), &["\"x\"", "NULL"]);
    });
}

fn dense(s: &Stage) -> Rep<'_, quearn_stage::rep::Tensor<F32>> {
    s.input::<F32>("image", ("batch", 3u64)).matmul(s.weight::<F32>("fc", [3u64, 2]))
}

fn floats(shape: &[u64]) -> Tensor {
    Tensor::from_vec(vec![1.0f32; shape.iter().product::<u64>() as usize], shape).unwrap()
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let graph = program(dense);
    each_session(|session| {
        session.bind("image", floats(&[4, 3]));
        says(&session.run(&graph).unwrap_err(), &["\"fc\"", "not given", "f32 [3, 2]"]);
        session.bind("fc", floats(&[3, 5]));
        says(&session.run(&graph).unwrap_err(), &["\"fc\"", "[3, 2]", "[3, 5]"]);
        session.bind("fc", Tensor::from_vec(vec![1.0f64; 6], &[3, 2]).unwrap());
        says(&session.run(&graph).unwrap_err(), &["\"fc\"", "f32", "f64"]);
        session.bind("fc", floats(&[3, 2]));
        let program = session.compile(&graph).unwrap();
        assert_eq!(program.run(session).unwrap().tensor("out").unwrap().shape(), [4, 2]);
        let wrong = Tensors::from([("image".to_owned(), floats(&[4, 7]))]);
        says(&program.run_with(session, &wrong).unwrap_err(), &["\"image\"", "[batch, 3]", "[4, 7]"]);
    });
}

#[test]
fn a_dimension_of_two_sizes_is_named() {
    let graph = program(|s| s.input::<F32>("a", ["n"]) + s.input::<F32>("b", ["n"]));
    each_session(|session| {
        session.bind("a", floats(&[2]));
        session.bind("b", floats(&[3]));
        says(&session.run(&graph).unwrap_err(), &["\"n\"", "2", "3"]);
    });
}

#[test]
fn distinct_values_of_two_expressions_are_refused() {
    let graph = program(|s| {
        s.scan("t", x_field())
            .aggregate(|r| [count_distinct("some", r.i64("x")), count_distinct("others", r.i64("x") % 3)])
    });
    let mut session = Session::builder().backend(BackendKind::Interp).build().unwrap();
    add(&mut session, "t", &ints((0..10).collect::<Vec<i64>>()));
    says(&session.run(&graph).unwrap_err(), &["\"some\"", "other distinct values", "cannot be compiled yet"]);
}

#[test]
fn running_out_of_memory_names_the_operator() {
    let graph = program(|s| s.scan("t", x_field()).group_by(["x"]).agg(|_| [count("n")]).sort([asc("x")]));
    for backend in [BackendKind::Interp, BackendKind::Auto] {
        let mut session = Session::builder().backend(backend).threads(2).memory_limit(1 << 18).build().unwrap();
        add(&mut session, "t", &ints((0..100_000).map(|i| i * 1_000_003 % 1_000_000_007).collect::<Vec<i64>>()));
        let error = session.run(&graph).unwrap_err();
        assert!(matches!(error, Error::Run(RunError::OutOfMemory { .. })), "{error}");
        says(&error, &["aggregate", "262144"]);
    }
}

#[test]
fn a_cancelled_program_stops_and_can_run_again() {
    let graph = program(|s| s.scan("t", x_field()).sum(|r| r.i64("x")));
    each_session(|session| {
        add(session, "t", &ints((0..100_000).collect::<Vec<i64>>()));
        session.cancel();
        let error = session.run(&graph).unwrap_err();
        assert!(matches!(error, Error::Run(RunError::Cancelled)), "{error}");
        session.cancel_flag().store(false, std::sync::atomic::Ordering::Relaxed);
        session.run(&graph).unwrap();
    });
}

/// Runs a projection of `t` and expects it to fail in this way.
fn fails(data: &RecordBatch, fields: Vec<Field>, kind: FailKind, words: &[&str], write: Write) {
    let graph = program(|s| s.scan("t", fields).project(|r| [("y", write(r))]));
    each_session(|session| {
        add(session, "t", data);
        let error = session.run(&graph).unwrap_err();
        assert!(matches!(error, Error::Failed { kind: found, .. } if found == kind), "{error}");
        says(&error, words);
    });
}

type Write = for<'s> fn(Row<'s>) -> Rep<'s, Dyn>;

#[test]
fn integer_overflow_is_an_error() {
    let big = ints(vec![Some(1), None, Some(i64::MAX)]);
    fails(&big, x_field(), FailKind::Overflow, &["overflow", "(x + 1)"], |r| (r.i64("x") + 1).dyn_());
    fails(&big, x_field(), FailKind::Overflow, &["(x * x)"], |r| (r.i64("x") * r.i64("x")).dyn_());
    let small = ints(vec![i64::MIN]);
    fails(&small, x_field(), FailKind::Overflow, &["neg(x)"], |r| (-r.i64("x")).dyn_());
    fails(&small, x_field(), FailKind::Overflow, &["abs(x)"], |r| r.i64("x").abs().dyn_());
    fails(&small, x_field(), FailKind::Overflow, &["(x / -1)"], |r| (r.i64("x") / -1).dyn_());
}

#[test]
fn a_sum_that_leaves_its_type_is_an_error() {
    let graph = program(|s| s.scan("t", x_field()).sum(|r| r.i64("x")));
    each_session(|session| {
        add(session, "t", &ints(vec![i64::MAX, 1]));
        says(&session.run(&graph).unwrap_err(), &["overflow", "sum"]);
        // What goes over on the way but comes back is exact.
        add(session, "t", &ints(vec![i64::MAX, 1, -1]));
        session.run(&graph).unwrap();
    });
}

#[test]
fn decimal_overflow_is_an_error() {
    let digits = Decimal128Array::from(vec![10i128.pow(37)]).with_precision_and_scale(38, 2).unwrap();
    let data = batch(vec![("d", Arc::new(digits))]);
    let fields = vec![Field::nullable("d", Scalar::decimal(38, 2))];
    fails(&data, fields, FailKind::Overflow, &["overflow", "(d * d)"], |r| (r.decimal("d") * r.decimal("d")).dyn_());
}

#[test]
fn division_by_zero_is_an_error() {
    let data = ints(vec![Some(3), None, Some(0)]);
    fails(&data, x_field(), FailKind::DivisionByZero, &["division by zero", "(7 / x)"], |r| (7 / r.i64("x")).dyn_());
    fails(&data, x_field(), FailKind::DivisionByZero, &["rem(x, x)"], |r| (r.i64("x") % r.i64("x")).dyn_());
    let digits = Decimal128Array::from(vec![100, 0]).with_precision_and_scale(10, 2).unwrap();
    let data = batch(vec![("d", Arc::new(digits))]);
    let fields = vec![Field::nullable("d", Scalar::decimal(10, 2))];
    let quotient: Write = |r| (r.decimal("d") / r.decimal("d")).dyn_();
    fails(&data, fields, FailKind::DivisionByZero, &["division by zero", "(d / d)"], quotient);
}

#[test]
fn casts_that_do_not_fit_are_errors() {
    let wide = ints(vec![5, 1 << 31]);
    fails(&wide, x_field(), FailKind::BadCast, &["cast of x to i32"], |r| r.i64("x").cast::<I32>().dyn_());
    for value in [f64::NAN, f64::INFINITY, 1e19] {
        let data = batch(vec![("f", Arc::new(Float64Array::from(vec![1.0, value])))]);
        let fields = vec![Field::nullable("f", Scalar::F64)];
        fails(&data, fields, FailKind::BadCast, &["cast of f to i64"], |r| r.f64("f").cast::<I64>().dyn_());
    }
    let few: Write = |r| r.i64("x").cast_decimal(4, 2).dyn_();
    fails(&wide, x_field(), FailKind::BadCast, &["cast of x to decimal(4,2)"], few);
}

#[test]
fn an_index_outside_is_an_error() {
    let graph = program(|s| s.input::<F32>("data", [4u64, 2]).gather(s.input::<I64>("index", ["n"])));
    each_session(|session| {
        session.bind("data", floats(&[4, 2]));
        for index in [4i64, -1, i64::MAX] {
            session.bind("index", Tensor::from_vec(vec![0, index], &[2]).unwrap());
            let error = session.run(&graph).unwrap_err();
            assert!(matches!(error, Error::Failed { kind: FailKind::OutOfRange, .. }), "{error}");
            says(&error, &["out of range", "gather"]);
        }
    });
}

/// Failures in rows that a filter drops, or under NULL, do not count.
#[test]
fn rows_that_do_not_matter_do_not_fail() {
    let graph = program(|s| {
        let kept = s.scan("t", x_field()).filter(|r| r.i64("x").gt(0));
        kept.project(|r| [("y", (7 / r.i64("x")).dyn_())])
    });
    each_session(|session| {
        add(session, "t", &ints(vec![Some(0), Some(7), None]));
        assert_eq!(session.run(&graph).unwrap().table("out").unwrap().num_rows(), 1);
    });
}

fn two_columns(keys: Vec<Option<i32>>, names: Vec<Option<&str>>) -> RecordBatch {
    batch(vec![("k", Arc::new(Int32Array::from(keys))), ("s", Arc::new(StringArray::from(names)))])
}

fn keyed_fields() -> Vec<Field> {
    vec![Field::nullable("k", Scalar::I32), Field::nullable("s", Scalar::String)]
}

/// Every fact a program may rely on is broken in turn: dense unique keys without NULLs, in order, texts in a dictionary.
#[test]
fn tables_may_be_replaced_under_a_compiled_program() {
    let graph = program(|s| {
        let dim = s.scan("dim", keyed_fields()).filter(|r| r.str("s").like("a%"));
        let joined = s.scan("fact", x_field()).join_inner(dim, [("x", "k")]);
        joined.group_by(["s"]).agg(|_| [count("n")]).sort([asc("s")])
    });
    let dims = [
        two_columns((0..4).map(Some).collect(), vec![Some("a"), Some("ab"), Some("b"), Some("ac")]),
        two_columns(vec![Some(1), Some(1), Some(1), None], vec![Some("a"), Some("ad"), Some("a"), Some("a")]),
        two_columns(vec![Some(1_000_000_000), Some(-5), Some(2), Some(2)], vec![None, Some("z"), Some("ax"), None]),
        two_columns(vec![], vec![]),
    ];
    // Pairs of group and count, for facts 0 to 3 and NULL.
    let wanted: [&[(&str, i64)]; 4] = [&[("a", 1), ("ab", 1), ("ac", 1)], &[("a", 2), ("ad", 1)], &[("ax", 1)], &[]];
    each_session(|session| {
        add(session, "fact", &ints(vec![Some(0), Some(1), Some(2), Some(3), None]));
        add(session, "dim", &dims[0]);
        let program = session.compile(&graph).unwrap();
        for turn in 0..2 * dims.len() {
            let (which, options) =
                (turn % dims.len(), [LoadOptions::COMPACT, LoadOptions::SHARE][turn / dims.len()].clone());
            let table = Table::from_batches_with("dim", &[dims[which].clone()], &options).unwrap();
            session.add_table(table);
            let found = groups(&program.run(session).unwrap());
            let found: Vec<(&str, i64)> = found.iter().map(|(s, n)| (s.as_str(), *n)).collect();
            assert_eq!(found, wanted[which], "{}, turn {turn}", session.backend_name());
        }
    });
}

fn groups(outputs: &Outputs) -> Vec<(String, i64)> {
    let batch = outputs.table("out").unwrap();
    let names = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
    let counts = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
    names.iter().zip(counts).map(|(s, n)| (s.unwrap_or("NULL").to_owned(), n.unwrap())).collect()
}

#[test]
fn a_replaced_table_of_other_columns_is_an_error() {
    let graph = program(|s| s.scan("t", x_field()).sum(|r| r.i64("x")));
    each_session(|session| {
        add(session, "t", &ints(vec![1, 2]));
        let program = session.compile(&graph).unwrap();
        program.run(session).unwrap();
        add(session, "t", &batch(vec![("z", Arc::new(Int64Array::from(vec![1])))]));
        says(&program.run(session).unwrap_err(), &["\"x\"", "\"t\""]);
    });
}

#[test]
fn too_many_threads_are_an_error() {
    let error = Session::builder().threads(1025).build().err().expect("an error").to_string();
    assert!(error.contains("at most 1024"), "{error}");
}
