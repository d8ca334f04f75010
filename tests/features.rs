//! Features of models, against values by hand: evaluated, and run.

mod session_harness;

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int32Array, RecordBatch, StringArray};
use quearn::data::{Table as Stored, Tensor as StoredTensor};
use quearn::eval::{Datum, EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn::prelude::Session;
use quearn::testing::{same_tables, same_tensors};
use quearn_stage::rep::*;
use session_harness::backends;
use std::sync::Arc;

fn stored() -> Stored {
    // 1969-12-31, 1970-01-01, 2000-02-29, 2024-12-31, 2023-03-01
    let days = vec![-1, 0, 11_016, 20_088, 19_417];
    let columns: [(&str, ArrayRef); 5] = [
        ("x", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0, 5.0]))),
        ("gaps", Arc::new(Float64Array::from(vec![Some(2.0), None, Some(4.0), None, Some(6.0)]))),
        ("i", Arc::new(Int32Array::from(vec![-3, 0, 1, 2, 7]))),
        ("word", Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("z"), Some("b")]))),
        ("day", Arc::new(Date32Array::from(days))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| {
        let nullable = array.null_count() > 0;
        (name, array, nullable)
    }));
    Stored::from_batches("t", &[batch.unwrap()]).unwrap()
}

/// A column of the table, as numbers with -1 for NULL, evaluated and run.
fn column(write: impl for<'s> Fn(Rep<'s, Table>) -> Rep<'s, Table>) -> Vec<f64> {
    let (s, table) = (Stage::new(), stored());
    let made = write(s.scan("t", table.fields()));
    s.output("y", made.select(["y", "x"]));
    let graph = s.finish().unwrap();
    let expected = evaluate(&graph, &Inputs::new().table("t", EvalTable::from(&table))).unwrap();
    let EvalValue::Table(expected) = &expected[0].1 else { panic!("expected a table") };
    for kind in backends() {
        let mut session = Session::builder().backend(kind).threads(1).build().unwrap();
        session.add_table(table.clone());
        let outputs = session.run(&graph).unwrap();
        let found = Stored::from_batches("y", std::slice::from_ref(outputs.table("y").unwrap())).unwrap();
        same_tables(expected, &EvalTable::from(&found), false, 1e-12).unwrap();
    }
    let numbers = &expected.columns()[0];
    (0..numbers.len()).map(|i| number(&numbers.get(i))).collect()
}

/// -1 for NULL.
fn number(datum: &Datum) -> f64 {
    match datum {
        Datum::Int(i) => *i as f64,
        Datum::Float(x) => *x,
        _ => -1.0,
    }
}

fn near(found: &[f64], expected: &[f64]) {
    let close = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
    assert!(close, "found {found:?}, expected {expected:?}");
}

#[test]
fn numbers_by_row() {
    near(&column(|t| t.with("y", |r| r.f64("x").standardise(3.0, 2.0))), &[-1.0, -0.5, 0.0, 0.5, 1.0]);
    near(&column(|t| t.with("y", |r| r.f64("x").min_max(1.0, 5.0))), &[0.0, 0.25, 0.5, 0.75, 1.0]);
    near(&column(|t| t.with("y", |r| r.f64("gaps").min_max(2.0, 6.0))), &[0.0, -1.0, 0.5, -1.0, 1.0]);
    near(&column(|t| t.with("y", |r| r.f64("x").bin([2.0, 2.5, 5.0]))), &[0.0, 1.0, 2.0, 2.0, 3.0]);
    near(&column(|t| t.with("y", |r| r.f64("gaps").bin([4.0]))), &[0.0, -1.0, 1.0, -1.0, 1.0]);
    near(&column(|t| t.with("y", |r| r.str("word").ordinal(["a", "b"]))), &[1.0, 0.0, 2.0, 2.0, 1.0]);
    for (at, expected) in [[0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0]].into_iter().enumerate() {
        near(&column(|t| t.with("y", |r| r.str("word").one_hot::<F64, _>(["a", "b"])[at])), &expected);
    }
}

#[test]
fn buckets_are_the_same_for_equal_numbers_and_inside() {
    let found = column(|t| t.with("y", |r| r.i32("i").hashed(3)));
    // ((i mod p + 1) 48271 mod p) mod 3
    let p = 2_147_483_647i64;
    let expected = [-3i64, 0, 1, 2, 7].map(|i| ((i.rem_euclid(p) + 1) * 48_271 % p % 3) as f64);
    near(&found, &expected);
}

#[test]
fn parts_of_dates() {
    near(&column(|t| t.with("y", |r| r.date("day").weekday())), &[2.0, 3.0, 1.0, 1.0, 2.0]);
    near(&column(|t| t.with("y", |r| r.date("day").quarter())), &[4.0, 1.0, 1.0, 4.0, 1.0]);
    near(&column(|t| t.with("y", |r| r.date("day").day_of_year())), &[365.0, 1.0, 60.0, 366.0, 60.0]);
}

#[test]
fn numbers_by_table() {
    let root = 2f64.sqrt();
    near(
        &column(|t| t.with("y", |r| r.f64("x")).standardised(&["y"])),
        &[-2.0 / root, -1.0 / root, 0.0, 1.0 / root, 2.0 / root],
    );
    near(&column(|t| t.with("y", |r| r.f64("gaps")).min_max_scaled(&["y"])), &[0.0, -1.0, 0.5, -1.0, 1.0]);
    near(&column(|t| t.with("y", |r| r.f64("gaps")).imputed(&["y"])), &[2.0, 4.0, 4.0, 4.0, 6.0]);
    // Equal values have no deviation.
    near(&column(|t| t.with("y", |r| r.f64("x") * 0.0 + 7.0).standardised(&["y"])), &[0.0; 5]);
    near(&column(|t| t.with("y", |r| r.f64("x") * 0.0 + 7.0).min_max_scaled(&["y"])), &[0.0; 5]);
}

/// What is made of a picture, evaluated and run.
fn picture(
    shape: [usize; 2],
    values: &[f32],
    write: impl for<'s> Fn(Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>>,
) -> Vec<f64> {
    let s = Stage::new();
    let x = s.input::<F32>("x", [1, 1, shape[0] as u64, shape[1] as u64]);
    s.output("y", write(x));
    let graph = s.finish().unwrap();
    let tensor = StoredTensor::from_vec(values.to_vec(), &[1, 1, shape[0] as u64, shape[1] as u64]).unwrap();
    let expected = evaluate(&graph, &Inputs::new().tensor("x", EvalTensor::from(&tensor))).unwrap();
    for kind in backends() {
        let mut session = Session::builder().backend(kind).threads(1).build().unwrap();
        session.bind("x", tensor.clone());
        let outputs = session.run(&graph).unwrap();
        same_tensors(expected[0].1.tensor(), &EvalTensor::from(outputs.tensor("y").unwrap()), 1e-6).unwrap();
    }
    let found = expected[0].1.tensor();
    (0..found.len()).map(|i| number(&found.get(i))).collect()
}

#[test]
fn pictures() {
    let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
    near(&picture([3, 4], &values, |x| x.crop(1, 2, 2, 2)), &[6.0, 7.0, 10.0, 11.0]);
    near(&picture([2, 2], &values[..4], |x| x.flip(3)), &[1.0, 0.0, 3.0, 2.0]);
    near(&picture([2, 2], &values[..4], |x| x.flip(2)), &[2.0, 3.0, 0.0, 1.0]);
    near(&picture([2, 2], &values[..4], |x| x.resize_nearest(2, 4)), &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    near(&picture([1, 4], &values[..4], |x| x.resize_nearest(1, 2)), &[1.0, 3.0]);
    near(&picture([1, 2], &values[..2], |x| x.resize_bilinear(1, 4)), &[0.0, 0.25, 0.75, 1.0]);
    near(&picture([1, 4], &values[..4], |x| x.resize_bilinear(1, 2)), &[0.5, 2.5]);
}

#[test]
fn mistakes_are_named() {
    let error = |write: &dyn Fn(&Stage)| {
        let s = Stage::new();
        write(&s);
        s.finish().unwrap_err().to_string()
    };
    let fields = stored().fields();
    let hashed = error(&|s| s.output("y", s.scan("t", fields.clone()).with("y", |r| r.f64("x").hashed(4))));
    assert!(hashed.contains("takes integers, found f64"), "{hashed}");
    let none = error(&|s| s.output("y", s.scan("t", fields.clone()).with("y", |r| r.i32("i").hashed(0))));
    assert!(none.contains("needs a bucket"), "{none}");
    let flat = error(&|s| s.output("y", s.input::<F32>("x", [4]).crop(0, 0, 1, 1)));
    assert!(flat.contains("[.., height, width]"), "{flat}");
    let gone = error(&|s| s.output("y", s.input::<F32>("x", [4, 4]).resize_nearest(0, 2)));
    assert!(gone.contains("leaves nothing"), "{gone}");
    let axis = error(&|s| s.output("y", s.input::<F32>("x", [4]).flip(1)));
    assert!(axis.contains("no axis 1"), "{axis}");
}

/// A layer of an encoded category of many values: rows of its weights are gathered, also for values that it does not know.
#[test]
fn many_categories_are_gathered() {
    let s = Stage::new();
    let table = stored();
    let rows = s.scan("t", table.fields());
    let (number, word) = (rows.row().i32("i"), rows.row().str("word"));
    let words: Vec<String> = (0..17).map(|i| char::from(b'a' + i).to_string()).collect();
    let kinds =
        number.one_hot::<F32, _>(0..18).into_iter().chain(word.one_hot::<F32, _>(words.iter().map(String::as_str)));
    let x = rows.row().f64("x").cast::<F32>().stack(kinds);
    let y = x.matmul(s.weight::<F32>("w", [36, 3])).max([1]);
    s.output("y", rows.with("y", |_| y).select(["x", "y"]));
    let graph = s.finish().unwrap();
    let weights: Vec<f32> = (0..108).map(|i| ((i * 37) % 64) as f32 / 8.0 - 4.0).collect();
    let weights = StoredTensor::from_vec(weights, &[36, 3]).unwrap();
    let inputs = Inputs::new().table("t", EvalTable::from(&table)).tensor("w", EvalTensor::from(&weights));
    let expected = evaluate(&graph, &inputs).unwrap();
    let EvalValue::Table(expected) = &expected[0].1 else { panic!("expected a table") };
    for kind in backends() {
        let mut session = Session::builder().backend(kind).threads(1).build().unwrap();
        session.add_table(table.clone());
        session.bind("w", weights.clone());
        let rewritten = session.explain(&graph, quearn::Level::Rewritten).unwrap();
        assert!(rewritten.contains("gather_one_hot x2"), "{rewritten}");
        let outputs = session.run(&graph).unwrap();
        let found = Stored::from_batches("y", std::slice::from_ref(outputs.table("y").unwrap())).unwrap();
        same_tables(expected, &EvalTable::from(&found), false, 1e-6).unwrap();
    }
}
