//! Requests: programs that find their rows by a key that is given to each run, on both backends, against the evaluator;
//! what does not depend on the key is made once.

mod session_harness;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use quearn::eval::{EvalTable, EvalTensor, Inputs, evaluate};
use quearn::moved::MoveKind;
use quearn::prelude::*;
use quearn::{Level, Tensors};
use session_harness::{backends, table};
use std::sync::Arc;

const CUSTOMERS: i64 = 3000;
const ORDERS: i64 = 20_000;

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Customers `from` on, and orders sorted by customer, some of which have none.
fn tables(from: i64) -> Vec<StoredTable> {
    let segments = (0..CUSTOMERS).map(|i| format!("segment {}", i % 7));
    let customers = vec![
        ("id", ints(from..from + CUSTOMERS)),
        ("balance", Arc::new(Float64Array::from_iter_values((0..CUSTOMERS).map(|i| i as f64 / 8.0))) as ArrayRef),
        ("segment", Arc::new(StringArray::from_iter_values(segments)) as ArrayRef),
    ];
    let price = Float64Array::from_iter_values((0..ORDERS).map(|i| (i % 64) as f64));
    let orders = vec![
        ("customer", ints((0..ORDERS).map(|i| from + i * 2 / 20 * 2))),
        ("shuffled", ints((0..ORDERS).map(|i| from + i * 7919 % CUSTOMERS))),
        ("price", Arc::new(price) as ArrayRef),
    ];
    vec![table("customers", customers), table("orders", orders)]
}

fn customers(s: &Stage) -> Rep<'_, Table> {
    let fields = [("id", Scalar::I64), ("balance", Scalar::F64), ("segment", Scalar::String)];
    s.scan("customers", fields.map(|(name, scalar)| Field::new(name, scalar)))
}

fn orders(s: &Stage) -> Rep<'_, Table> {
    let fields = [("customer", Scalar::I64), ("shuffled", Scalar::I64), ("price", Scalar::F64)];
    s.scan("orders", fields.map(|(name, scalar)| Field::new(name, scalar)))
}

/// One customer, with what all customers have ordered and a model's score.
fn scored(s: &Stage) -> Rep<'_, Table> {
    let spent = orders(s).group_by(["shuffled"]).agg(|r| [count("orders"), sum("spent", r.f64("price"))]);
    let mean = spent.aggregate(|r| [avg("mean", r.f64("spent"))]).single::<F64>("mean").coalesce(0.0);
    let one = customers(s)
        .filter(|r| r.i64("id").eq(s.given::<I64>("key")) & r.str("segment").ne("segment 3"))
        .join_inner(spent, [("id", "shuffled")])
        .with("moved", |r| r.f64("spent").coalesce(0.0) - mean + s.given::<F64>("plus"));
    one.map_rows("score", |_| one.tensor::<F64>(&["balance", "moved"]).matmul(s.weight("w", [2, 3])).relu().sum([1]))
        .select(["id", "orders", "score"])
}

/// The orders of one customer, found by a search.
fn found(s: &Stage) -> Rep<'_, Table> {
    let mine = orders(s).filter(|r| s.given::<I64>("key").eq(r.i64("customer")));
    mine.aggregate(|r| [count("n"), sum("price", r.f64("price"))])
}

/// The orders of one customer in no order, found by an index.
fn indexed(s: &Stage) -> Rep<'_, Table> {
    let mine = orders(s).filter(|r| r.i64("shuffled").eq(s.given::<I64>("key")));
    mine.aggregate(|r| [count("n"), sum("price", r.f64("price"))])
}

fn graph(write: fn(&Stage) -> Rep<'_, Table>) -> Graph {
    let s = Stage::new();
    s.output("rows", write(&s));
    s.finish().unwrap()
}

fn given(key: i64) -> Tensors {
    let key = StoredTensor::from_vec(vec![key], &[]).unwrap();
    Tensors::from([("key".into(), key), ("plus".into(), StoredTensor::from_vec(vec![0.5f64], &[]).unwrap())])
}

fn weights() -> StoredTensor {
    StoredTensor::from_vec(vec![1.0f64, -1.0, 0.5, 2.0, 0.25, -0.5], &[2, 3]).unwrap()
}

fn session(backend: BackendKind, threads: usize, from: i64) -> Session {
    let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
    tables(from).into_iter().for_each(|table| session.add_table(table));
    session.bind("w", weights());
    session
}

/// The rows as numbers.
fn rows(batch: &RecordBatch) -> Vec<Vec<f64>> {
    let cell = |column: &ArrayRef, row: usize| match column.as_primitive_opt::<Int64Type>() {
        Some(ints) => ints.value(row) as f64,
        None => column.as_primitive::<Float64Type>().value(row),
    };
    let null = |column: &ArrayRef, row| if column.is_null(row) { f64::MAX } else { cell(column, row) };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| null(column, row)).collect()).collect()
}

/// What the evaluator says.
fn expected(graph: &Graph, from: i64, key: i64) -> Vec<Vec<f64>> {
    let all = tables(from).iter().fold(Inputs::new(), |all, table| all.table(table.name(), EvalTable::from(table)));
    let all = given(key).iter().fold(all, |all, (name, tensor)| all.tensor(name, EvalTensor::from(tensor)));
    let results = evaluate(graph, &all.tensor("w", EvalTensor::from(&weights()))).unwrap();
    let (_, value) = results.into_iter().next().unwrap();
    rows(&value.table().to_batch().unwrap())
}

fn assert_same(own: &[Vec<f64>], expected: &[Vec<f64>], about: &str) {
    let near = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    let same = |a: &Vec<f64>, b: &Vec<f64>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b));
    assert!(own.len() == expected.len() && own.iter().zip(expected).all(|(a, b)| same(a, b)), "{about}: {own:?}");
}

#[test]
fn rows_are_found_by_their_key() {
    for write in [scored, found, indexed] {
        let graph = graph(write);
        for from in [1, -7] {
            // The first and the last, one with a segment that is left out, and some that are not there.
            let keys =
                [from, from + 3, from + 10, from + CUSTOMERS - 1, from + CUSTOMERS, from - 1, i64::MIN, i64::MAX];
            let answers = keys.map(|key| (key, expected(&graph, from, key)));
            for backend in backends() {
                for threads in [1, 2] {
                    let session = session(backend, threads, from);
                    let program = session.compile(&graph).unwrap();
                    for (key, expected) in &answers {
                        let outputs = program.run_with(&session, &given(*key)).unwrap();
                        let about = format!("{backend:?} with {threads} threads, {key}, expected {expected:?}");
                        assert_same(&rows(outputs.table("rows").unwrap()), expected, &about);
                    }
                }
            }
        }
    }
}

/// Runs after the first neither build nor scan anything.
#[test]
fn what_does_not_depend_on_the_key_is_made_once() {
    let graph = graph(scored);
    for backend in backends() {
        let mut session = session(backend, 1, 1);
        let text = session.explain(&graph, Level::Pipelines).unwrap();
        assert!(text.contains("look-up by id, which counts the rows up"), "{text}");
        let program = session.compile(&graph).unwrap();
        let first = program.run_with(&session, &given(10)).unwrap();
        let again = program.run_with(&session, &given(10)).unwrap();
        let moved = again.moved();
        assert_eq!(moved.bytes(MoveKind::Written), first.moved().bytes(MoveKind::Written), "{moved}");
        assert!(moved.bytes(MoveKind::Written) == 0 && again.memory.peak < 100_000, "{:?}\n{moved}", again.memory);
        assert!(moved.sites().all(|(place, _)| !place.name.contains("orders")), "{moved}");
        // Other tables: all is made anew.
        tables(5).into_iter().for_each(|table| session.add_table(table));
        let outputs = program.run_with(&session, &given(10)).unwrap();
        assert_same(&rows(outputs.table("rows").unwrap()), &expected(&graph, 5, 10), "other tables");
        // Other weights too.
        session.bind("w", StoredTensor::from_vec(vec![0.0f64; 6], &[2, 3]).unwrap());
        let outputs = program.run_with(&session, &given(10)).unwrap();
        assert_eq!(rows(outputs.table("rows").unwrap())[0][2], 0.0);
    }
}

#[test]
fn sorted_columns_are_searched() {
    let session = session(BackendKind::Interp, 1, 1);
    let text = session.explain(&graph(found), Level::Pipelines).unwrap();
    assert!(text.contains("search in customer, which is sorted"), "{text}");
    let text = session.explain(&graph(indexed), Level::Pipelines).unwrap();
    assert!(text.contains("search in an index of shuffled"), "{text}");
}

#[test]
fn many_threads_ask_at_once() {
    let graph = graph(scored);
    let answers: Vec<_> = (1..20).map(|key| (key, expected(&graph, 1, key))).collect();
    for backend in backends() {
        let session = session(backend, 1, 1);
        let program = session.compile(&graph).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (session, program, answers) = (&session, &program, &answers);
                scope.spawn(move || {
                    for (key, expected) in answers.iter().cycle().skip(thread * 5).take(40) {
                        let outputs = program.run_with(session, &given(*key)).unwrap();
                        assert_same(&rows(outputs.table("rows").unwrap()), expected, &format!("key {key}"));
                    }
                });
            }
        });
    }
}

#[test]
fn what_is_given_must_fit() {
    let session = session(BackendKind::Interp, 1, 1);
    let program = session.compile(&graph(found)).unwrap();
    let message = |inputs: &Tensors| program.run_with(&session, inputs).unwrap_err().to_string();
    assert!(message(&Tensors::new()).contains("key"), "{}", message(&Tensors::new()));
    let wrong = Tensors::from([("key".into(), StoredTensor::from_vec(vec![1.5f64], &[]).unwrap())]);
    assert!(message(&wrong).contains("key"), "{}", message(&wrong));
    let wrong = Tensors::from([("key".into(), StoredTensor::from_vec(vec![1i64, 2], &[2]).unwrap())]);
    assert!(message(&wrong).contains("key"), "{}", message(&wrong));
}
