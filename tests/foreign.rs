//! Functions of other libraries: in queries and tensor programs, on both backends, as the evaluator calls them; what they
//! do wrong is an error that names them.

mod session_harness;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use quearn::eval::{EvalTable, EvalTensor, Inputs, evaluate};
use quearn::foreign::Signature;
use quearn::moved::MoveKind;
use quearn::prelude::*;
use quearn::{Function, Outputs};
use quearn_stage::graph::parse;
use session_harness::backends;
use std::sync::Arc;

const ROWS: usize = 20_000;

// A library that knows nothing of Quearn.

fn hypotenuse(a: &[f64], b: &[f64], y: &mut [f64]) {
    a.iter().zip(b).zip(y).for_each(|((a, b), y)| *y = a.hypot(*b));
}

fn doubled(x: &[i64]) -> Vec<i64> {
    x.iter().map(|x| x * 2).collect()
}

fn total(x: &[f64]) -> f64 {
    x.iter().sum()
}

fn matrix_times_vector(matrix: &[f64], vector: &[f64], y: &mut [f64]) {
    for (row, y) in matrix.chunks(vector.len()).zip(y) {
        *y = row.iter().zip(vector).map(|(a, b)| a * b).sum();
    }
}

fn functions() -> Vec<(&'static str, Function)> {
    let gemv = Signature::giving_rows(Scalar::F64, []).rows(Scalar::F64, [2]).whole(Scalar::F64, [2]);
    let gemv = Function::new(gemv, |x, y: &mut [f64]| {
        matrix_times_vector(x.slice(0)?, x.slice(1)?, y);
        Ok::<(), String>(())
    });
    vec![
        ("hypotenuse", Function::map2(hypotenuse)),
        ("doubled", Function::vec1(doubled)),
        ("total", Function::fold1(total, |a, b| a + b)),
        ("gemv", gemv.unwrap()),
    ]
}

fn table() -> StoredTable {
    let ints = |f: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(f))) as ArrayRef;
    let floats = |f: fn(usize) -> f64| Arc::new(Float64Array::from_iter_values((0..ROWS).map(f))) as ArrayRef;
    let columns =
        [("key", ints(|i| i % 5)), ("a", floats(|i| (i % 97) as f64)), ("b", floats(|i| (i % 89) as f64 / 4.0))];
    StoredTable::from_batches("t", &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

fn x() -> StoredTensor {
    StoredTensor::from_vec((0..ROWS).map(|i| (i % 13) as f64).collect(), &[ROWS as u64]).unwrap()
}

fn w() -> StoredTensor {
    StoredTensor::from_vec(vec![0.5f64, -2.0], &[2]).unwrap()
}

fn scan(s: &Stage) -> Rep<'_, Table> {
    s.scan("t", [Field::new("key", Scalar::I64), Field::new("a", Scalar::F64), Field::new("b", Scalar::F64)])
}

fn signature(name: &str) -> Signature {
    functions().into_iter().find(|(n, _)| *n == name).unwrap().1.signature().clone()
}

/// In a query: columns computed by functions, filtered by what one gives, and summed.
fn query(s: &Stage) {
    let rows = scan(s)
        .filter(|r| r.i64("key").ne(3))
        .with("d", |r| s.foreign::<F64>("hypotenuse", signature("hypotenuse"), [r.col("a"), r.col("b")]));
    let near = rows.filter(|r| r.f64("d").lt(60.0));
    let scored = near.with("g", |_| {
        s.foreign::<F64>(
            "gemv",
            signature("gemv"),
            [near.tensor::<F64>(&["a", "d"]).dyn_(), s.weight::<F64>("w", [2]).dyn_()],
        )
    });
    let doubled = scored.with("k", |r| s.foreign::<I64>("doubled", signature("doubled"), [r.col("key")]));
    let groups = doubled.group_by(["k"]).agg(|r| [count("n"), sum("d", r.f64("d")), sum("g", r.f64("g"))]);
    s.output("rows", groups.sort([asc("k")]));
}

/// As a tensor program: results by row and merged, over many tiles.
fn tensors(s: &Stage) {
    let x = s.input::<F64>("x", ("n",));
    let y = s.foreign::<F64>("hypotenuse", signature("hypotenuse"), [x.dyn_(), (x * 2.0).dyn_()]);
    s.output("y", y * 2.0);
    s.output("total", s.foreign::<F64>("total", signature("total"), [y.dyn_()]));
}

/// A reduction over the rows of a query.
fn reduction(s: &Stage) {
    let few = scan(s).filter(|r| r.i64("key").ne(0));
    s.output("total", s.foreign::<F64>("total", signature("total"), [few.row().col("a")]) + 1.0);
}

fn session(backend: BackendKind, threads: usize) -> Session {
    let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
    session.add_table(table());
    session.bind("x", x());
    session.bind("w", w());
    for (name, function) in functions() {
        session.register(name, function).unwrap();
    }
    session
}

fn graph(write: impl Fn(&Stage)) -> Graph {
    let s = Stage::new();
    write(&s);
    s.finish().unwrap()
}

fn numbers(outputs: &Outputs) -> Vec<f64> {
    outputs.iter().flat_map(|(_, value)| outcome(value)).collect()
}

fn outcome(value: &Outcome) -> Vec<f64> {
    match value {
        Outcome::Table(batch) => {
            let column = |column: &ArrayRef| match column.as_primitive_opt::<Int64Type>() {
                Some(ints) => ints.values().iter().map(|x| *x as f64).collect::<Vec<f64>>(),
                None => column.as_primitive::<Float64Type>().values().to_vec(),
            };
            batch.columns().iter().flat_map(column).collect()
        }
        Outcome::Tensor(tensor) => tensor.as_slice::<f64>().unwrap().to_vec(),
    }
}

fn expected(graph: &Graph) -> Vec<f64> {
    let all = Inputs::new().table("t", EvalTable::from(&table())).tensor("x", EvalTensor::from(&x()));
    let all = all.tensor("w", EvalTensor::from(&w()));
    let all = functions().into_iter().fold(all, |all, (name, function)| all.function(name, function));
    let values = evaluate(graph, &all).unwrap().into_iter().map(|(_, value)| match value {
        quearn::eval::EvalValue::Table(table) => Outcome::Table(table.to_batch().unwrap()),
        value => Outcome::Tensor(StoredTensor::try_from(&**value.tensor()).unwrap()),
    });
    values.flat_map(|value| outcome(&value)).collect()
}

#[test]
fn they_give_what_they_give_alone() {
    for write in [query, tensors, reduction] {
        let graph = graph(write);
        let expected = expected(&graph);
        for backend in backends() {
            for threads in [1, 2] {
                let outputs = session(backend, threads).run(&graph).unwrap();
                let own = numbers(&outputs);
                let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
                let same = own.len() == expected.len() && own.iter().zip(&expected).all(near);
                assert!(same, "{backend:?}, {threads} threads:\n{graph}");
            }
        }
    }
}

#[test]
fn they_join_the_pipeline() {
    for backend in backends() {
        let outputs = session(backend, 1).run(&graph(query)).unwrap();
        let moved = outputs.moved();
        assert!(moved.border() == 0 && moved.bytes(MoveKind::Tile) > 0, "{moved}");
    }
}

#[test]
fn programs_with_them_can_be_written_down() {
    let graph = graph(query);
    assert!(graph.to_string().contains("tensor.foreign"), "{graph}");
    assert_eq!(parse(&graph.to_string()).unwrap().to_string(), graph.to_string());
}

/// What a program over 10 numbers says that calls this function.
fn failure(backend: BackendKind, function: Function) -> String {
    let s = Stage::new();
    let x = s.input::<F64>("few", [10]);
    s.output("y", s.foreign::<F64>("wrong", function.signature().clone(), [x.dyn_()]));
    let mut session = Session::builder().backend(backend).threads(1).build().unwrap();
    session.bind("few", StoredTensor::from_vec(vec![1.0f64; 10], &[10]).unwrap());
    session.register("wrong", function).unwrap();
    session.run(&s.finish().unwrap()).unwrap_err().to_string()
}

#[test]
fn what_they_do_wrong_is_an_error() {
    for backend in backends() {
        let refuses = Function::map1(|_: &[f64], _: &mut [f64]| Err::<(), _>("no numbers today"));
        assert_eq!(failure(backend, refuses), "function \"wrong\": no numbers today");
        let panics = Function::map1(|x: &[f64], y: &mut [f64]| y[0] = x[100]);
        let message = failure(backend, panics);
        assert!(message.starts_with("function \"wrong\": panicked: index out of bounds"), "{message}");
        let short = Function::vec1(|x: &[f64]| x[1..].to_vec());
        assert_eq!(failure(backend, short), "function \"wrong\": gave 9 values for 10 rows");
    }
}

#[test]
fn they_must_be_there_with_their_signature() {
    let graph = graph(tensors);
    let mut session = Session::builder().backend(BackendKind::Interp).threads(1).build().unwrap();
    session.bind("x", x());
    let message = |session: &Session| session.run(&graph).unwrap_err().to_string();
    assert!(message(&session).contains("function \"hypotenuse\": not registered"), "{}", message(&session));
    session.register("hypotenuse", Function::map2(|_: &[f32], _: &[f64], _: &mut [f64]| ())).unwrap();
    let wrong =
        "function \"hypotenuse\": expected [rows f64, rows f64] to rows f64, found [rows f32, rows f64] to rows f64";
    assert_eq!(message(&session), wrong);
    let merged = Signature::merging(Scalar::F64, []).rows(Scalar::F64, []);
    let merged = Function::new(merged, |_, _: &mut [f64]| ()).unwrap();
    assert!(session.register("merged", merged).unwrap_err().to_string().contains("how two are merged"));
    assert!(Function::new(Signature::giving_rows(Scalar::F64, []), |_, _: &mut [f64]| ()).is_err());
    assert!(Function::new(signature("hypotenuse"), |_, _: &mut [f32]| ()).is_err());
}

#[test]
fn operands_must_fit_the_signature() {
    let s = Stage::new();
    let x = s.input::<F64>("x", [3]);
    s.output("y", s.foreign::<F64>("hypotenuse", signature("hypotenuse"), [x.dyn_(), s.input::<F64>("z", [4]).dyn_()]));
    let message = s.finish().unwrap_err().to_string();
    assert!(message.contains("as many rows as the other operands have"), "{message}");
}

#[cfg(any(feature = "llvm", feature = "llvm19"))]
#[test]
fn saved_programs_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let first = session(BackendKind::Llvm, 1);
    let program = first.compile(&graph(tensors)).unwrap();
    program.save(&path).unwrap();
    let expected = numbers(&program.run(&first).unwrap());
    let again = session(BackendKind::Llvm, 1);
    assert_eq!(numbers(&again.load(&path).unwrap().run(&again).unwrap()), expected);
    let mut without = Session::builder().backend(BackendKind::Llvm).threads(1).build().unwrap();
    without.bind("x", x());
    let message = without.load(&path).err().unwrap().to_string();
    assert!(message.contains("not registered"), "{message}");
}

/// Results of tiles are merged as they come: not all of them are held at once.
#[test]
fn results_of_tiles_are_merged_as_they_come() {
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
    let (held, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let (made, merged, top) = (Arc::clone(&held), Arc::clone(&held), Arc::clone(&most));
    let sum = move |x: &[f64]| {
        top.fetch_max(made.fetch_add(1, SeqCst) + 1, SeqCst);
        total(x)
    };
    let function = Function::fold1(sum, move |a: f64, b: f64| {
        merged.fetch_sub(1, SeqCst);
        a + b
    });
    let x = StoredTensor::from_vec(vec![1.0f64; 200_000], &[200_000]).unwrap();
    assert_eq!(function.apply(&[x]).unwrap().as_slice::<f64>().unwrap(), [200_000.0]);
    assert_eq!((held.load(SeqCst), most.load(SeqCst)), (1, 2));
}
