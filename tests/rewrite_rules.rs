//! Each rule on the smallest programs that show one thing: the files under `tests/files/rewrite`, named by rule.
//!
//! A file holds a graph, the line `; after`, and the graph that the rule alone makes of it (the same one where a
//! precondition is missing). `QUEARN_BLESS=1` writes the second part anew, for a person to read. Programs that need no
//! data that this file does not make are also run, before and after.
//!
//! Rules may look at the tables. `; rows t 40` gives a table so many rows, `; dense t.k` and `; unique t.k` say what its
//! column holds: every number from 0 on, or every second one.

use quearn::data::{Catalog, Table};
use quearn::eval::{Datum, EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn::rewrite::{RULES, RewriteOptions, rewrite_for};
use quearn::testing::{Rng, same_tables, same_tensors};
use quearn_stage::graph::{Dim, Elem, Field, Graph, Op, Scalar, Ty, parse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

const AFTER: &str = "; after\n";

#[test]
fn files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/rewrite");
    for rule in RULES {
        let folder = root.join(rule.name);
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no test of {}", rule.name);
        files.iter().for_each(|file| check(rule.name, file));
    }
}

fn check(rule: &str, file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let (before, expected) = text.split_once(AFTER).unwrap_or((&text, ""));
    let graph = parse(before).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let wanted = Wanted::of(before);
    let options = RewriteOptions::none().with(rule).unwrap();
    let after = |inputs: &Inputs| rewrite_for(&graph, &catalog(inputs), &options).unwrap().0;
    for seed in 0..8 {
        let inputs = data(&graph, &wanted, seed);
        let after = after(&inputs);
        same_answers(&graph, &after, &inputs).unwrap_or_else(|e| panic!("{}: {e}\n{after}", file.display()));
    }
    let after = after(&data(&graph, &wanted, 0));
    if env::var_os("QUEARN_BLESS").is_some() {
        fs::write(file, format!("{}\n\n{AFTER}{after}", before.trim_end())).unwrap();
    } else {
        assert_eq!(after.to_string(), expected, "{}; QUEARN_BLESS=1 accepts the first", file.display());
    }
}

/// Do both graphs give the same?
fn same_answers(before: &Graph, after: &Graph, inputs: &Inputs) -> Result<(), String> {
    let Ok(expected) = evaluate(before, inputs) else { return Ok(()) };
    let found = evaluate(after, inputs).map_err(|e| e.to_string())?;
    for ((_, a), (_, b)) in expected.iter().zip(&found) {
        match (a, b) {
            (EvalValue::Table(a), EvalValue::Table(b)) => same_tables(a, b, false, 1e-5)?,
            (a, b) => same_tensors(a.tensor(), b.tensor(), 1e-5)?,
        }
    }
    Ok(())
}

/// What a file says about its tables.
#[derive(Default)]
struct Wanted<'t> {
    rows: BTreeMap<&'t str, usize>,
    /// Distance from one value to the next.
    steps: BTreeMap<&'t str, i128>,
}

impl<'t> Wanted<'t> {
    fn of(text: &'t str) -> Wanted<'t> {
        let mut wanted = Wanted::default();
        for words in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            match words[..] {
                [";", "rows", table, rows] => drop(wanted.rows.insert(table, rows.parse().unwrap())),
                [";", "dense", column] => drop(wanted.steps.insert(column, 1)),
                [";", "unique", column] => drop(wanted.steps.insert(column, 2)),
                _ => {}
            }
        }
        wanted
    }
}

/// The stored tables of some data; those that cannot be stored are left out.
fn catalog(inputs: &Inputs) -> Catalog {
    let mut catalog = Catalog::new();
    for (name, table) in &inputs.tables {
        let stored = table.to_batch().ok().and_then(|batch| Table::from_batches(name, &[batch]).ok());
        stored.into_iter().for_each(|table| catalog.add(table));
    }
    catalog
}

/// Small random values for every scan and input.
fn data(graph: &Graph, wanted: &Wanted<'_>, seed: u64) -> Inputs {
    let mut rng = Rng::new(seed);
    let mut inputs = Inputs::new();
    for node in graph.reachable() {
        match graph.op(node) {
            Op::Scan { table, fields } => {
                let random = rng.below(12);
                let rows = wanted.rows.get(table.as_str()).copied().unwrap_or(random);
                let column = |field: &Field| {
                    let inner = field.shape.iter().map(|&extent| extent as usize);
                    let shape: Vec<usize> = std::iter::once(rows).chain(inner).collect();
                    match wanted.steps.get(format!("{table}.{}", field.name).as_str()) {
                        Some(step) => {
                            let values = (0..rows as i128).map(|row| Datum::Int(step * row)).collect::<Vec<_>>();
                            EvalTensor::new(field.elem, &shape, values)
                        }
                        None => tensor(&mut rng, field.elem, &shape),
                    }
                };
                let columns = fields.iter().map(column).collect();
                inputs = inputs.table(table, EvalTable::new(fields.clone(), columns, rows));
            }
            Op::Input { name, ty: Ty::Tensor { elem, shape }, .. } => {
                let shape: Vec<usize> = shape.iter().map(|dim| Dim::as_const(dim).unwrap_or(3) as usize).collect();
                inputs = inputs.tensor(name, tensor(&mut rng, *elem, &shape));
            }
            _ => {}
        }
    }
    inputs
}

fn tensor(rng: &mut Rng, elem: Elem, shape: &[usize]) -> EvalTensor {
    let values = (0..shape.iter().product::<usize>()).map(|_| datum(rng, elem)).collect::<Vec<_>>();
    EvalTensor::new(elem, shape, values)
}

/// Positive where it is a float, so that a variance is one.
fn datum(rng: &mut Rng, elem: Elem) -> Datum {
    match elem.scalar {
        _ if elem.nullable && rng.percent(20) => Datum::Null,
        Scalar::Bool => Datum::Bool(rng.percent(50)),
        Scalar::String => Datum::str(rng.pick(&["", "a", "ab", "b"])),
        scalar if scalar.is_float() => Datum::Float(rng.below(16) as f64 / 4.0 + 0.25),
        _ => Datum::Int(rng.within(0, 5).into()),
    }
}
