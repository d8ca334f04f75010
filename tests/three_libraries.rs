//! Three libraries that know nothing of one another, a user's function for each step: together they become the program
//! that somebody who knew all three would have written, loop by loop and byte by byte.

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Float64Type;
use quearn::moved::MoveKind;
use quearn::prelude::*;
use std::sync::Arc;

/// A library of data frames: tables in, tables out.
mod frame {
    use quearn::prelude::*;

    pub fn read<'s>(s: &'s Stage, name: &str, columns: &[(&str, Scalar)]) -> Rep<'s, Table> {
        s.scan(name, columns.iter().map(|(name, scalar)| Field::new(*name, *scalar)))
    }

    pub fn above<'s>(frame: Rep<'s, Table>, column: &str, limit: f64) -> Rep<'s, Table> {
        frame.filter(|r| r.f64(column).gt(limit))
    }

    pub fn merge<'s>(left: Rep<'s, Table>, right: Rep<'s, Table>, left_on: &str, right_on: &str) -> Rep<'s, Table> {
        left.join_inner(right, [(left_on, right_on)])
    }

    pub fn assign<'s>(frame: Rep<'s, Table>, name: &str, values: Rep<'s, F64>) -> Rep<'s, Table> {
        frame.with(name, |_| values)
    }

    pub fn mean_by<'s>(frame: Rep<'s, Table>, key: &str, value: &str) -> Rep<'s, Table> {
        frame.group_by([key]).agg(|r| [count("n"), avg("mean", r.f64(value))])
    }
}

/// A library of matrices: tensors in, tensors out.
mod matrix {
    use quearn::prelude::*;

    pub type Matrix<'s> = Rep<'s, Tensor<F64>>;

    pub fn scaled<'s>(x: Matrix<'s>, mean: Matrix<'s>, deviation: Matrix<'s>) -> Matrix<'s> {
        (x - mean) / deviation
    }

    pub fn affine<'s>(x: Matrix<'s>, weight: Matrix<'s>, bias: Matrix<'s>) -> Matrix<'s> {
        x.matmul(weight) + bias
    }

    pub fn first_column<'s>(x: Matrix<'s>) -> Matrix<'s> {
        x.sum([1])
    }
}

/// A library of models: a model is any function of tensors, and layers are made of such.
mod model {
    use quearn::prelude::*;

    type Values<'s> = Rep<'s, Tensor<F64>>;

    pub fn hidden<'s>(x: Values<'s>, layer: impl Fn(Values<'s>) -> Values<'s>) -> Values<'s> {
        layer(x).relu()
    }

    pub fn probability<'s>(x: Values<'s>, layer: impl Fn(Values<'s>) -> Values<'s>) -> Values<'s> {
        layer(x).sigmoid()
    }
}

const SALES: [(&str, Scalar); 3] = [("shop", Scalar::I64), ("price", Scalar::F64), ("weight", Scalar::F64)];
const SHOPS: [(&str, Scalar); 3] = [("id", Scalar::I64), ("region", Scalar::I64), ("area", Scalar::F64)];
const FEATURES: [&str; 3] = ["price", "weight", "area"];

// What a user wrote in one file, with the frames ...
fn expensive(s: &Stage) -> Rep<'_, Table> {
    let sales = frame::above(frame::read(s, "sales", &SALES), "price", 10.0);
    frame::merge(sales, frame::read(s, "shops", &SHOPS), "shop", "id")
}

// ... in another with the matrices ...
fn features(rows: Rep<'_, Table>) -> matrix::Matrix<'_> {
    let s = rows.stage();
    matrix::scaled(rows.tensor(&FEATURES), s.weight("mean", [3]), s.weight("deviation", [3]))
}

fn layer<'s>(
    s: &'s Stage,
    name: &str,
    [inputs, outputs]: [u64; 2],
) -> impl Fn(matrix::Matrix<'s>) -> matrix::Matrix<'s> {
    let (weight, bias) =
        (s.weight(format!("{name}.weight"), [inputs, outputs]), s.weight(format!("{name}.bias"), [outputs]));
    move |x| matrix::affine(x, weight, bias)
}

// ... and in a third with the models.
fn score(x: matrix::Matrix<'_>) -> matrix::Matrix<'_> {
    let s = x.stage();
    let hidden = model::hidden(x, layer(s, "first", [3, 8]));
    matrix::first_column(model::probability(hidden, layer(s, "second", [8, 1])))
}

fn by_three_libraries(s: &Stage) {
    let rows = expensive(s);
    let scored = frame::assign(rows, "p", score(features(rows)).as_column());
    s.output("regions", frame::mean_by(frame::above(scored, "p", 0.25), "region", "p"));
}

/// The same by one hand.
fn by_hand(s: &Stage) {
    let fields = |columns: [(&'static str, Scalar); 3]| columns.map(|(name, scalar)| Field::new(name, scalar));
    let rows = s
        .scan("sales", fields(SALES))
        .filter(|r| r.f64("price").gt(10.0))
        .join_inner(s.scan("shops", fields(SHOPS)), [("shop", "id")]);
    let x = (rows.tensor::<F64>(&FEATURES) - s.weight("mean", [3])) / s.weight("deviation", [3]);
    let h = (x.matmul(s.weight("first.weight", [3, 8])) + s.weight("first.bias", [8])).relu();
    let p = (h.matmul(s.weight("second.weight", [8, 1])) + s.weight("second.bias", [1])).sigmoid().sum([1]);
    let regions = rows
        .with("p", |_| p)
        .filter(|r| r.f64("p").gt(0.25))
        .group_by(["region"])
        .agg(|r| [count("n"), avg("mean", r.f64("p"))]);
    s.output("regions", regions);
}

fn graph(write: fn(&Stage)) -> Graph {
    let s = Stage::new();
    write(&s);
    s.finish().unwrap()
}

fn session(backend: BackendKind) -> Session {
    let mut session = Session::builder().backend(backend).threads(1).build().unwrap();
    let ints = |n: i64, f: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..n).map(f))) as ArrayRef;
    let floats = |n: i64, f: fn(i64) -> f64| Arc::new(Float64Array::from_iter_values((0..n).map(f))) as ArrayRef;
    let table = |name: &str, columns: [(&str, ArrayRef); 3]| {
        StoredTable::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
    };
    session.add_table(table(
        "sales",
        [
            ("shop", ints(30_000, |i| i * 7 % 40)),
            ("price", floats(30_000, |i| (i % 50) as f64)),
            ("weight", floats(30_000, |i| (i % 11) as f64)),
        ],
    ));
    session.add_table(table(
        "shops",
        [("id", ints(40, |i| i)), ("region", ints(40, |i| i % 4)), ("area", floats(40, |i| i as f64 * 3.0))],
    ));
    let weights: [(&str, &[u64]); 6] = [
        ("mean", &[3]),
        ("deviation", &[3]),
        ("first.weight", &[3, 8]),
        ("first.bias", &[8]),
        ("second.weight", &[8, 1]),
        ("second.bias", &[1]),
    ];
    for (name, shape) in weights {
        let n = shape.iter().product::<u64>();
        let values = (0..n).map(|i| 0.5 + (i * 5 % 7) as f64 / 4.0 - if shape.len() > 1 { 1.0 } else { 0.0 });
        session.bind(name, StoredTensor::from_vec(values.collect(), shape).unwrap());
    }
    session
}

fn backends() -> Vec<BackendKind> {
    match cfg!(any(feature = "llvm", feature = "llvm19")) {
        true => vec![BackendKind::Interp, BackendKind::Llvm],
        false => vec![BackendKind::Interp],
    }
}

#[test]
fn separate_calls_fuse_as_the_whole_does() {
    let (joined, hand) = (graph(by_three_libraries), graph(by_hand));
    for backend in backends() {
        let session = session(backend);
        for level in [Level::Rewritten, Level::Pipelines, Level::Low] {
            let [ours, theirs] = [&joined, &hand].map(|graph| session.explain(graph, level).unwrap());
            assert_eq!(ours, theirs, "{level:?}");
        }
        let program = session.compile(&hand).unwrap();
        let same = session.compile(&joined).unwrap();
        assert!(same.is_cached(), "the two are one program");
        let outputs = [program, same].map(|program| program.run(&session).unwrap());
        for kind in MoveKind::ALL {
            let [a, b] = outputs.each_ref().map(|outputs| outputs.moved().bytes(kind));
            assert_eq!(a, b, "{kind}");
        }
        assert_eq!(outputs[0].moved().border(), 0);
        let [a, b] = outputs.each_ref().map(|outputs| outputs.table("regions").unwrap());
        assert_eq!(a, b);
        assert!(a.num_rows() > 1 && a["mean"].as_primitive::<Float64Type>().values().iter().all(|p| *p > 0.25));
    }
}
