//! What tests of sessions share: the backends, tables.

#![allow(dead_code, reason = "each test file uses a part of the harness")]

use arrow::array::{ArrayRef, RecordBatch};
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::testing::same_tables;
use quearn_stage::graph::Graph;

/// The backends of this build.
pub fn backends() -> Vec<BackendKind> {
    match cfg!(any(feature = "llvm", feature = "llvm19")) {
        true => vec![BackendKind::Interp, BackendKind::Llvm],
        false => vec![BackendKind::Interp],
    }
}

/// A table of columns without NULL.
pub fn table(name: &str, columns: Vec<(&str, ArrayRef)>) -> StoredTable {
    StoredTable::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

/// What the evaluator makes of a program with one table as its result; every backend makes the same of it, with one thread and
/// with two.
///
/// # Errors
/// What differs, and where.
pub fn evaluated(graph: &Graph, tables: &[StoredTable]) -> Result<EvalTable, String> {
    let inputs = tables.iter().fold(Inputs::new(), |inputs, t| inputs.table(t.name(), EvalTable::from(t)));
    let expected = evaluate(graph, &inputs).unwrap();
    let [(name, EvalValue::Table(expected))] = &expected[..] else { panic!("one table") };
    for (kind, threads) in [BackendKind::Interp, BackendKind::Auto].into_iter().flat_map(|k| [(k, 1), (k, 2)]) {
        let mut session = Session::builder().backend(kind).threads(threads).build().unwrap();
        tables.iter().for_each(|t| session.add_table(t.clone()));
        let outputs = session.run(graph).unwrap();
        let batch = outputs.table(name).unwrap().clone();
        let found = EvalTable::from(&StoredTable::from_batches(name, &[batch]).unwrap());
        same_tables(expected, &found, false, 0.0).map_err(|e| format!("{kind:?}, {threads} threads: {e}"))?;
    }
    Ok(expected.as_ref().clone())
}
