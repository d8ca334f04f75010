//! State: what stays from run to run, in place or in two places that take turns.

use super::{close, named, scalar, sessions, tensor};
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use quearn::prelude::*;
use quearn::{Error, State, Tensors};
use std::sync::Arc;

/// Runs a program several times on a state, and compares it each time with runs that get the state as inputs. Gives the tensors that
/// take turns in two places, the same on all sessions.
fn check(graph: &Graph, initial: &Tensors, inputs: &Tensors, runs: usize) -> Vec<String> {
    let mut all: Vec<Vec<String>> = vec![];
    for session in sessions() {
        let program = session.compile(graph).unwrap();
        let mut state = program.state(initial).unwrap();
        let mut expected = initial.clone();
        for _ in 0..runs {
            let given: Tensors = expected.clone().into_iter().chain(inputs.clone()).collect();
            let plain = program.run_with(&session, &given).unwrap();
            program.advance(&session, &mut state, inputs).unwrap();
            for (name, value) in &mut expected {
                *value = plain.tensor(name).unwrap().clone();
            }
            assert_eq!(state.tensors().unwrap(), expected, "{}", session.backend_name());
        }
        let turning = state.names().filter(|name| state.places(name) == Some(2)).map(str::to_owned);
        all.push(turning.collect());
    }
    assert!(all.iter().all(|turning| *turning == all[0]), "{all:?}");
    all.remove(0)
}

/// The gradient is in memory, so that the update only goes through the elements of both.
#[test]
fn in_place() {
    let s = Stage::new();
    let (w, x) = (s.state::<F32>("w", [7]), s.input::<F32>("x", [5, 7]));
    let gradient = x.sum([0]);
    s.output("gradient", gradient);
    s.update(w, w * 0.5 + gradient);
    let graph = s.finish().unwrap();
    let w: Vec<f32> = (0..7).map(|i| i as f32).collect();
    let initial = named([("w", tensor(&w, &[7]))]);
    let turning = check(&graph, &initial, &named([("x", tensor(&[1.0f32; 35], &[5, 7]))]), 3);
    assert!(turning.is_empty(), "{turning:?}");
}

/// Rows that have nothing to do with each other are gone through some at a time, which is several passes.
#[test]
fn row_by_row() {
    let s = Stage::new();
    let (w, x) = (s.state::<F32>("w", [5, 7]), s.input::<F32>("x", [7]));
    s.update(w, w * 0.5 + x);
    let graph = s.finish().unwrap();
    let w: Vec<f32> = (0..35).map(|i| i as f32).collect();
    let initial = named([("w", tensor(&w, &[5, 7]))]);
    let turning = check(&graph, &initial, &named([("x", tensor(&[1.0f32; 7], &[7]))]), 3);
    assert_eq!(turning, ["w"]);
}

/// Each needs the present value of the other, one is read across, one is turned around.
#[test]
fn taking_turns() {
    let s = Stage::new();
    let (a, b) = (s.state::<F32>("a", [4, 4]), s.state::<F32>("b", [4, 4]));
    let (c, d) = (s.state::<F32>("c", [4, 4]), s.state::<F32>("d", [4]));
    s.update(a, b + 1.0);
    s.update(b, a * 2.0);
    s.update(c, c.transpose() + d);
    s.update(d, d.slice(0, 3, -1, 4) + c.sum([1]));
    let graph = s.finish().unwrap();
    let values = |from: i32| -> Vec<f32> { (from..from + 16).map(|i| i as f32).collect() };
    let initial = named([
        ("a", tensor(&values(0), &[4, 4])),
        ("b", tensor(&values(100), &[4, 4])),
        ("c", tensor(&values(7), &[4, 4])),
        ("d", tensor(&[1.0f32, 2.0, 3.0, 4.0], &[4])),
    ]);
    let turning = check(&graph, &initial, &Tensors::new(), 4);
    assert!(turning.contains(&"c".to_owned()), "what is turned around cannot be written over: {turning:?}");
    assert!(turning.iter().any(|name| name == "a" || name == "b"), "each needs the other: {turning:?}");
}

/// Each needs the present value of the other at the same place: both are computed before either is written.
#[test]
fn together() {
    let s = Stage::new();
    let (a, b) = (s.state::<F32>("a", [5, 7]), s.state::<F32>("b", [5, 7]));
    let next = a + b * 0.5;
    s.update(a, next);
    s.update(b, a * 2.0 - next);
    let graph = s.finish().unwrap();
    let values = |from: i32| -> Vec<f32> { (from..from + 35).map(|i| i as f32).collect() };
    let initial = named([("a", tensor(&values(0), &[5, 7])), ("b", tensor(&values(100), &[5, 7]))]);
    check(&graph, &initial, &Tensors::new(), 4);
}

/// Products, whose tiles overlap at the edges, with the update behind them; one whose operand is the state itself.
#[test]
fn products() {
    for n in [3, 17, 40] {
        let s = Stage::new();
        let (w, v) = (s.state::<F32>("w", [n, n]), s.state::<F32>("v", [n, n]));
        let x = s.input::<F32>("x", [9, n]);
        let gradient = x.transpose().matmul(x.matmul(w));
        let next = v * 0.9 + gradient * 0.01;
        s.update(v, next);
        s.update(w, w - next * 0.1);
        let graph = s.finish().unwrap();
        let values = |count: u64, scale: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) * scale).collect()
        };
        let initial =
            named([("w", tensor(&values(n * n, 0.01), &[n, n])), ("v", tensor(&values(n * n, 0.0), &[n, n]))]);
        check(&graph, &initial, &named([("x", tensor(&values(9 * n, 0.05), &[9, n]))]), 3);
    }
}

/// Gradients whose only readers are next values are never in memory: those are written where the present ones lie, also where
/// sums of several blocks wait elsewhere, and are what the definition says. Another update reads the old weight last.
#[test]
fn updates_where_gradients_are_made() {
    for [rows, m, n] in [[9, 21, 40], [300, 37, 5], [900, 33, 18], [60, 130, 200]] {
        let s = Stage::new();
        let (w, v) = (s.state::<F32>("w", [n, m]), s.state::<F32>("v", [n, m]));
        let (x, rate) = (s.input::<F32>("x", [rows, m]), s.input::<F32>("rate", Vec::<u64>::new()));
        let y = x.matmul(w.transpose());
        let gradient = x.transpose().matmul(y).transpose();
        let next = v * 0.9 + gradient;
        let goes_on = y.mean([0, 1]).abs().lt(s.number::<F32>(f64::INFINITY));
        s.update(v, goes_on.choose(next, v));
        s.update(w, goes_on.choose(w - next * rate, w));
        s.output("y", y.sum([0]));
        let graph = s.finish().unwrap();
        let values = |count: u64, scale: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) * scale).collect()
        };
        let initial =
            named([("w", tensor(&values(n * m, 0.01), &[n, m])), ("v", tensor(&values(n * m, 0.02), &[n, m]))]);
        let inputs = named([("x", tensor(&values(rows * m, 0.01), &[rows, m])), ("rate", scalar(0.01f32))]);
        let turning = check(&graph, &initial, &inputs, 3);
        assert!(turning.is_empty(), "{turning:?}");
        let given: Tensors = initial.into_iter().chain(inputs).collect();
        let expected = super::evaluated(&graph, &given);
        for session in sessions() {
            let outputs = session.compile(&graph).unwrap().run_with(&session, &given).unwrap();
            for (name, value) in &expected {
                let found = outputs.tensor(name).unwrap().as_slice::<f32>().unwrap().to_vec();
                close(&found.into_iter().map(f64::from).collect::<Vec<f64>>(), value.as_floats(), 1e-3);
            }
        }
    }
}

/// What two results read and takes no longer to compute than to read is in memory for neither.
#[test]
fn cheap_values_are_computed_twice() {
    let s = Stage::new();
    let x = s.input::<F32>("x", [6, 1000]);
    let off = x - x.max([1]).reshape([6, 1]);
    s.output("sum", off.exp().sum([1]));
    s.output("off", off.tanh().sum([1]));
    let graph = s.finish().unwrap();
    for session in sessions() {
        let text = session.explain(&graph, quearn::Level::Pipelines).unwrap();
        assert!(!text.contains("=> scalar.sub"), "{text}");
    }
}

/// Products over many rows: both operands are read across their lines, so they are packed or copied first.
#[test]
fn products_over_many_rows() {
    let (rows, m, n) = (1100, 70, 80);
    let s = Stage::new();
    let (x, y) = (s.input::<F32>("x", [rows, m]), s.input::<F32>("y", [rows, n]));
    let w = s.state::<F32>("w", [m, n]);
    s.update(w, w * 0.5 + x.relu().transpose().matmul(y.abs()));
    let graph = s.finish().unwrap();
    let values =
        |count: u64, step: u64| -> Vec<f32> { (0..count).map(|i| ((i * step % 101) as f32 - 50.0) / 50.0).collect() };
    let inputs = named([
        ("w", tensor(&values(m * n, 17), &[m, n])),
        ("x", tensor(&values(rows * m, 37), &[rows, m])),
        ("y", tensor(&values(rows * n, 53), &[rows, n])),
    ]);
    let expected = super::evaluated(&graph, &inputs)[0].1.as_floats().to_vec();
    for session in sessions() {
        let outputs = session.compile(&graph).unwrap().run_with(&session, &inputs).unwrap();
        let found: Vec<f64> =
            outputs.tensor("w").unwrap().as_slice::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect();
        close(&found, &expected, 1e-2);
    }
}

/// Linear regression by gradient descent: the planted weights are found.
#[test]
fn learns() {
    let s = Stage::for_training();
    let (x, y) = (s.input::<F64>("x", [4, 2]), s.input::<F64>("y", [4, 1]));
    let w = s.weight::<F64>("w", [2, 1]);
    let off = x.matmul(w) - y;
    s.output("loss", (off * off).mean([0, 1]));
    let gradient = x.transpose().matmul(off) * 0.5;
    s.update(w, w - gradient * 0.2);
    assert_eq!(s.weights::<F64>().len(), 1);
    assert!(s.weights::<F32>().is_empty());
    let graph = s.finish().unwrap();
    let inputs = named([
        ("x", tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, -1.0], &[4, 2])),
        ("y", tensor(&[3.0, -2.0, 1.0, 8.0], &[4, 1])),
    ]);
    for session in sessions() {
        let program = session.compile(&graph).unwrap();
        let mut state = program.state(&named([("w", tensor(&[0.0, 0.0], &[2, 1]))])).unwrap();
        let mut loss = f64::INFINITY;
        for _ in 0..200 {
            let outputs = program.advance(&session, &mut state, &inputs).unwrap();
            assert_eq!(outputs.iter().count(), 1);
            loss = outputs.tensor("loss").unwrap().as_slice::<f64>().unwrap()[0];
        }
        assert!(loss < 1e-12, "{loss}");
        close(state.tensor("w").unwrap().as_slice::<f64>().unwrap(), &[3.0, -2.0], 1e-6);
    }
}

fn counter() -> Graph {
    let s = Stage::new();
    let n = s.state::<I64>("n", Vec::<u64>::new());
    s.update(n, n + s.input::<I64>("by", Vec::<u64>::new()));
    s.finish().unwrap()
}

fn started(session: &Session) -> (Program, State) {
    let program = session.compile(&counter()).unwrap();
    let state = program.state(&named([("n", scalar(1i64))])).unwrap();
    (program, state)
}

#[test]
fn bad_states() {
    let session = Session::builder().threads(1).build().unwrap();
    let (program, mut state) = started(&session);
    let fails = |initial: Tensors| program.state(&initial).err().unwrap().to_string();
    assert_eq!(fails(Tensors::new()), "input tensor \"n\": not given; expected i64 []");
    assert_eq!(fails(named([("n", scalar(1.0f32))])), "input tensor \"n\": expected i64 [], found f32 []");
    assert_eq!(state.tensor("m").unwrap_err().to_string(), "no state result \"m\"; the results are n");

    // Of another program.
    let s = Stage::new();
    let m = s.state::<F32>("m", [2]);
    s.update(m, m + 1.0);
    let other = session.compile(&s.finish().unwrap()).unwrap();
    let error = other.advance(&session, &mut state, &Tensors::new()).unwrap_err().to_string();
    assert_eq!(error, "input tensor \"m\": the state of another program; expected f32 [2]");

    // An input that is missing leaves the state as it was.
    assert!(program.advance(&session, &mut state, &Tensors::new()).is_err());
    program.advance(&session, &mut state, &named([("by", scalar(2i64))])).unwrap();
    assert_eq!(state.tensor("n").unwrap().as_slice::<i64>().unwrap(), [3]);

    // A run that fails does not.
    let error = program.advance(&session, &mut state, &named([("by", scalar(i64::MAX))])).unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    assert!(state.tensor("n").unwrap_err().to_string().starts_with("the state is lost"));
    assert!(program.advance(&session, &mut state, &named([("by", scalar(2i64))])).is_err());
}

#[test]
fn bad_updates() {
    let fails = |body: fn(&Stage)| {
        let s = Stage::new();
        body(&s);
        s.finish().unwrap_err().error.to_string()
    };
    let open = fails(|s| s.output("w", s.state::<F32>("w", ["n"])));
    assert!(open.contains("extents of the state \"w\" must be known"), "{open}");
    let shape = fails(|s| s.update(s.state::<F32>("w", [2]), s.input::<F32>("x", [3])));
    assert!(shape.contains("the next value of \"w\" is [3] f32, expected [2] f32"), "{shape}");
    let weight = fails(|s| s.update(s.weight::<F32>("w", [2]), s.input::<F32>("x", [2])));
    assert!(weight.contains("tensor.input is no state"), "{weight}");
    let computed = fails(|s| s.update(s.state::<F32>("w", [2]) + 1.0, s.input::<F32>("x", [2])));
    assert!(computed.contains("scalar.add is no state"), "{computed}");
    let twice = fails(|s| {
        let w = s.state::<F32>("w", [2]);
        s.update(w, w + 1.0);
        s.update(w, w + 2.0);
    });
    assert!(twice.contains("two outputs are named \"w\""), "{twice}");
}

/// A program over rows reads what another one, which runs before it, has a next value of.
#[test]
fn read_by_a_program_over_rows() {
    for rows in [3i64, 50_000] {
        let s = Stage::new();
        let table = s.scan("t", ["a", "b"].map(|name| Field::new(name, Scalar::F64)));
        let (w, v) = (s.state::<F64>("w", [2, 3]), s.state::<F64>("v", [2, 3]));
        let next = v + s.input::<F64>("x", [2, 2]).matmul(w);
        s.update(v, next);
        s.update(w, w - next);
        s.output("y", table.tensor::<F64>(&["a", "b"]).matmul(w).relu().sum([0]));
        let count = table.aggregate(|r| [sum("n", r.f64("a"))]).single::<F64>("n").coalesce(0.0);
        s.output("z", w + count);
        let graph = s.finish().unwrap();
        let column = || Arc::new(Float64Array::from_iter_values((0..rows).map(|i| (i % 5) as f64))) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("a", column()), ("b", column())]).unwrap();
        for mut session in sessions() {
            session.add_table(StoredTable::from_batches("t", std::slice::from_ref(&batch)).unwrap());
            let program = session.compile(&graph).unwrap();
            let initial = named([("w", tensor(&[1.0f64; 6], &[2, 3])), ("v", tensor(&[0.5f64; 6], &[2, 3]))]);
            let x = named([("x", tensor(&[1.0f64; 4], &[2, 2]))]);
            let given: Tensors = initial.clone().into_iter().chain(x.clone()).collect();
            let expected = program.run_with(&session, &given).unwrap();
            let mut state = program.state(&initial).unwrap();
            let found = program.advance(&session, &mut state, &x).unwrap();
            for name in ["y", "z"] {
                let values = |outputs: &Outputs| outputs.tensor(name).unwrap().as_slice::<f64>().unwrap().to_vec();
                assert_eq!(values(&found), values(&expected), "{name}, {rows} rows, {}", session.backend_name());
            }
            assert_eq!(state.tensor("w").unwrap().as_slice::<f64>().unwrap(), [-1.5; 6]);
        }
    }
}
