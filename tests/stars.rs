//! Rules about a table joined with others on unique keys: random stars, evaluated as they are written, as they are
//! rewritten, and run.

mod session_harness;

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, RecordBatch};
use quearn::data::{Catalog, Table};
use quearn::eval::{EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::rewrite::{RewriteOptions, RewriteReport, rewrite_for};
use quearn::testing::{Rng, same_tables, same_tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep;
use session_harness::backends;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-4;

/// A random star.
struct Star {
    tables: Vec<Table>,
    scalar: Scalar,
    /// Names of the columns of each table, but for keys.
    columns: Vec<Vec<String>>,
}

impl Star {
    fn random(rng: &mut Rng, scalar: Scalar) -> Star {
        let facts = rng.below(400) + 100;
        let dimensions = rng.below(3) + 1;
        let mut star = Star { tables: vec![], scalar, columns: vec![] };
        let mut keys = vec![];
        for at in 1..=dimensions {
            let rows = rng.below(8) + 1;
            let step = if rng.percent(50) { 1 } else { 3 };
            // Some keys of facts have no partner, and some are NULL.
            let (most, nulls) = (rows + if rng.percent(50) { 0 } else { 2 }, rng.percent(20));
            let partner = |rng: &mut Rng| (!nulls || rng.percent(90)).then(|| step * rng.below(most) as i32);
            let partners: Int32Array = (0..facts).map(|_| partner(rng)).collect();
            keys.push((format!("k{at}"), Arc::new(partners) as ArrayRef));
            let own = Int32Array::from_iter_values((0..rows as i32).map(|row| step * row));
            let width = rng.below(9);
            star.add(rng, at, rows, width, vec![(format!("d{at}"), Arc::new(own) as ArrayRef)]);
        }
        let width = rng.below(4);
        star.add(rng, 0, facts, width, keys);
        star
    }

    fn add(&mut self, rng: &mut Rng, at: usize, rows: usize, width: usize, mut columns: Vec<(String, ArrayRef)>) {
        let names: Vec<String> = (0..width).map(|i| format!("c{at}{i}")).collect();
        for name in &names {
            let values = (0..rows).map(|_| rng.dyadic()).collect::<Vec<f64>>();
            let array: ArrayRef = match self.scalar {
                Scalar::F32 => Arc::new(Float32Array::from_iter_values(values.iter().map(|v| *v as f32))),
                _ => Arc::new(Float64Array::from(values)),
            };
            columns.push((name.clone(), array));
        }
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, Arc::clone(&array), array.null_count() > 0)),
        );
        self.tables.push(Table::from_batches(format!("t{at}"), &[batch.unwrap()]).unwrap());
        self.columns.push(names);
    }

    /// The facts come last.
    fn dimensions(&self) -> usize {
        self.tables.len() - 1
    }

    fn joined<'s>(&self, s: &'s Stage) -> Rep<'s, rep::Table> {
        let scan = |table: &Table| s.scan(table.name(), table.fields());
        (0..self.dimensions()).fold(scan(&self.tables[self.dimensions()]), |joined, at| {
            let (key, own) = (format!("k{}", at + 1), format!("d{}", at + 1));
            joined.join_inner(scan(&self.tables[at]), [(key.as_str(), own.as_str())])
        })
    }

    /// Some of the columns, of all tables, in any order.
    fn some(&self, rng: &mut Rng) -> Vec<String> {
        let all: Vec<&String> = self.columns.iter().flatten().collect();
        let mut chosen: Vec<String> = all.into_iter().filter(|_| rng.percent(80)).cloned().collect();
        chosen.push("one".to_owned());
        for i in (1..chosen.len()).rev() {
            chosen.swap(i, rng.below(i + 1));
        }
        chosen
    }

    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::new();
        self.tables.iter().for_each(|table| catalog.add(table.clone()));
        catalog
    }

    fn inputs(&self) -> Inputs {
        self.tables.iter().fold(Inputs::new(), |inputs, table| inputs.table(table.name(), EvalTable::from(table)))
    }

    /// The program gives the same evaluated as it is, evaluated after the rules, and run with them.
    fn check(&self, graph: &Graph, inputs: &Inputs, run: bool) -> Result<RewriteReport, String> {
        let expected = evaluate(graph, inputs).map_err(|e| e.to_string())?;
        let (after, report) = rewrite_for(graph, &self.catalog(), &RewriteOptions::default()).unwrap();
        let found = evaluate(&after, inputs).map_err(|e| format!("{e}\n{after}"))?;
        for ((_, a), (_, b)) in expected.iter().zip(&found) {
            same(a, b).map_err(|e| format!("evaluated: {e}\n{after}"))?;
        }
        for kind in backends().into_iter().filter(|_| run) {
            let mut session = Session::builder().backend(kind).threads(2).build().unwrap();
            self.tables.iter().for_each(|table| session.add_table(table.clone()));
            for (name, tensor) in &inputs.tensors {
                session.bind(name.clone(), quearn::data::Tensor::try_from(tensor).unwrap());
            }
            let outputs = session.run(graph).map_err(|e| format!("run: {e}\n{after}"))?;
            for (name, want) in &expected {
                let found = match want {
                    EvalValue::Table(_) => {
                        let batches = std::slice::from_ref(outputs.table(name).unwrap());
                        EvalValue::Table(EvalTable::from(&Table::from_batches(name, batches).unwrap()).into())
                    }
                    _ => EvalValue::Tensor(EvalTensor::from(outputs.tensor(name).unwrap()).into()),
                };
                same(want, &found).map_err(|e| format!("run: {e}\n{after}"))?;
            }
        }
        Ok(report)
    }
}

fn same(a: &EvalValue, b: &EvalValue) -> Result<(), String> {
    match (a, b) {
        (EvalValue::Table(a), EvalValue::Table(b)) => same_tables(a, b, false, TOLERANCE),
        (a, b) => same_tensors(a.tensor(), b.tensor(), TOLERANCE),
    }
}

fn write_products<T: ScalarMarker + FloatLike>(star: &Star, rng: &mut Rng, s: &Stage) {
    let rows = star.joined(s).with("one", |_| s.constant(1.0).cast::<T>());
    let [x, y] = [0, 1].map(|_| star.some(rng));
    let y = if rng.percent(50) { x.clone() } else { y };
    let [x, y] = [&x, &y].map(|names| rows.tensor::<T>(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    s.output("products", x.transpose().matmul(y));
}

#[test]
fn products_over_stars() {
    let mut fired = 0;
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let scalar = if rng.percent(70) { Scalar::F64 } else { Scalar::F32 };
        let star = Star::random(&mut rng, scalar);
        let s = Stage::new();
        match scalar {
            Scalar::F32 => write_products::<F32>(&star, &mut rng, &s),
            _ => write_products::<F64>(&star, &mut rng, &s),
        }
        let graph = s.finish().unwrap();
        let report = star.check(&graph, &star.inputs(), seed % 25 == 0).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        fired += report.fired("factorise_products");
    }
    assert!(fired > 25, "fired in {fired} of 150 programs");
}

/// A layer of some columns, one or more of them, and the sum of what it gives by the first key.
fn write_layers(star: &Star, rng: &mut Rng, s: &Stage) -> Inputs {
    let mut rows = star.joined(s).with("one", |_| s.constant(1.0f32));
    let mut inputs = star.inputs();
    for layer in 0..rng.below(2) + 1 {
        let (names, outputs) = (star.some(rng), [1, 1, 2, 4][rng.below(4)]);
        let x = rows.tensor::<F32>(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let shape = [names.len(), outputs];
        let values: Vec<f64> = (0..names.len() * outputs).map(|_| rng.dyadic()).collect();
        let weights = format!("w{layer}");
        inputs = inputs.tensor(&weights, EvalTensor::floats(Scalar::F32, &shape, values));
        let y = x.matmul(s.weight(weights, shape.map(|extent| extent as u64)));
        rows = rows.with(&format!("y{layer}"), |_| y.max([1]));
    }
    let columns: Vec<String> = rows.fields().iter().map(|f| f.name.clone()).filter(|n| n.starts_with('y')).collect();
    s.output("sums", rows.group_by(["k1"]).agg(|r| columns.iter().map(|y| sum(y, r.f32(y))).collect::<Vec<_>>()));
    inputs
}

#[test]
fn layers_over_stars() {
    let mut fired = 0;
    for seed in 0..150 {
        let mut rng = Rng::new(1000 + seed);
        let star = Star::random(&mut rng, Scalar::F32);
        let s = Stage::new();
        let inputs = write_layers(&star, &mut rng, &s);
        let graph = s.finish().unwrap();
        let report = star.check(&graph, &inputs, seed % 25 == 0).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        fired += report.fired("split_linear_over_join");
    }
    assert!(fired > 25, "fired in {fired} of 150 programs");
}

fn keyed(name: &str, columns: [(&str, Vec<i32>); 2]) -> Table {
    let columns = columns.map(|(name, values)| (name, Arc::new(Int32Array::from(values)) as ArrayRef));
    Table::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

/// What was left out because of facts about the tables comes back when they no longer hold.
#[test]
fn a_join_comes_back_when_keys_have_no_partner_or_two() {
    let s = Stage::new();
    let scan = |name: &str, columns: [&str; 2]| s.scan(name, columns.map(|column| Field::new(column, Scalar::I32)));
    let joined = scan("facts", ["k", "x"]).join_inner(scan("others", ["d", "y"]), [("k", "d")]);
    s.output("sum", joined.aggregate(|r| [sum("x", r.i32("x"))]));
    let graph = s.finish().unwrap();
    let facts = |keys: Vec<i32>| keyed("facts", [("k", keys), ("x", vec![1, 10, 100])]);
    let others = |keys: Vec<i32>| keyed("others", [("d", keys), ("y", vec![0, 0, 0])]);
    for kind in backends() {
        let mut session = Session::builder().backend(kind).threads(1).build().unwrap();
        let program = {
            session.add_table(facts(vec![2, 0, 1]));
            session.add_table(others(vec![0, 1, 2]));
            let rewritten = session.explain(&graph, Level::Rewritten).unwrap();
            assert!(!rewritten.contains("rel.join_inner"), "{rewritten}");
            session.compile(&graph).unwrap()
        };
        let answer = |session: &Session| {
            let outputs = program.run(session).unwrap();
            let batch = outputs.table("sum").unwrap();
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&batch["x"]).value(0)
        };
        assert_eq!(answer(&session), 111);
        session.add_table(facts(vec![2, 5, 1]));
        assert_eq!(answer(&session), 101);
        session.add_table(others(vec![2, 2, 5]));
        assert_eq!(answer(&session), 12);
    }
}
