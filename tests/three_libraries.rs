//! Three libraries that know nothing of one another, a user's function for each step: together they become the program
//! that somebody who knew all three would have written, loop by loop and byte by byte.

mod session_harness;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Float64Type;
use quearn::prelude::*;
use session_harness::backends;
use std::collections::BTreeMap;
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

/// The names of nodes in a text, `v` and a number, with what stands before each; and what stands behind the last.
fn names(text: &str) -> (Vec<(&str, &str)>, &str) {
    let (mut found, mut rest, mut from) = (vec![], text, 0);
    while let Some(at) = rest[from..].find('v').map(|at| from + at) {
        let digits = rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let inside = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        from = at + 1 + digits;
        if digits > 0 && !inside {
            found.push((&rest[..at], &rest[at..from]));
            (rest, from) = (&rest[from..], 0);
        }
    }
    (found, rest)
}

/// New names for the nodes of a printed graph, in the order in which its result needs them: the order in which a program
/// was written does not matter.
fn numbered(graph: &str) -> BTreeMap<String, String> {
    fn visit<'t>(node: &'t str, lines: &BTreeMap<&'t str, &'t str>, known: &mut BTreeMap<String, String>) {
        let Some(line) = lines.get(node).filter(|_| !known.contains_key(node)) else { return };
        // A node that names itself in its type is on its way.
        known.insert(node.to_owned(), String::new());
        names(line).0.iter().skip(1).for_each(|(_, name)| visit(name, lines, known));
        let number = known.values().filter(|name| !name.is_empty()).count();
        known.insert(node.to_owned(), format!("n{number}"));
    }
    let lines = graph.lines().filter_map(|line| Some((names(line).0.first()?.1, line)));
    let lines: BTreeMap<&str, &str> = lines.filter(|(node, line)| line.starts_with(node)).collect();
    let result = graph.lines().find(|line| line.starts_with("return")).expect("a result");
    let mut known = BTreeMap::new();
    names(result).0.iter().for_each(|(_, name)| visit(name, &lines, &mut known));
    known
}

/// A text with the new names of its nodes.
fn renamed(text: &str, names_of: &BTreeMap<String, String>) -> String {
    let (found, rest) = names(text);
    let new = |name: &str| names_of.get(name).cloned().unwrap_or_else(|| name.to_owned());
    found.into_iter().map(|(before, name)| before.to_owned() + &new(name)).collect::<String>() + rest
}

/// The lines of a text under the new names, in order.
fn lines(text: &str, names_of: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines: Vec<String> = renamed(text, names_of).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn separate_calls_fuse_as_the_whole_does() {
    let graphs = [graph(by_three_libraries), graph(by_hand)];
    for backend in backends() {
        let session = session(backend);
        let explained = |graph: &Graph, level| session.explain(graph, level).unwrap();
        let names = graphs.each_ref().map(|graph| numbered(&explained(graph, Level::Rewritten)));
        let [ours, theirs] = [0, 1].map(|i| lines(&explained(&graphs[i], Level::Rewritten), &names[i]));
        assert_eq!(ours, theirs, "the rewritten graphs");
        let [ours, theirs] = [0, 1].map(|i| renamed(&explained(&graphs[i], Level::Pipelines), &names[i]));
        assert_eq!(ours, theirs, "the pipelines");
        let outputs = graphs.each_ref().map(|graph| session.run(graph).unwrap());
        let moved = |i: usize| {
            let sites = outputs[i].moved().sites();
            let mut sites: Vec<_> = sites.map(|(place, n)| (place.kind, renamed(&place.name, &names[i]), n)).collect();
            sites.sort();
            sites
        };
        assert_eq!(moved(0), moved(1), "the bytes");
        assert_eq!(outputs[0].moved().border(), 0);
        let [a, b] = outputs.each_ref().map(|outputs| outputs.table("regions").unwrap());
        assert_eq!(a, b);
        assert!(a.num_rows() > 1 && a["mean"].as_primitive::<Float64Type>().values().iter().all(|p| *p > 0.25));
    }
}
