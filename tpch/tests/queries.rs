//! Every query at scale factor 0.01, on every backend, against the expected answers; some against the naive evaluator.

use arrow::array::RecordBatch;
use quearn::data::Table;
use quearn::eval::{EvalTable, Inputs, evaluate};
use quearn::rewrite::RewriteOptions;
use quearn::{BackendKind, Session};
use quearn_tpch::queries::{self, RESULT};
use quearn_tpch::{answers, catalog};
use std::sync::{Arc, LazyLock};

const SCALE: f64 = 0.01;

static TABLES: LazyLock<Vec<Arc<Table>>> = LazyLock::new(|| {
    let tables = catalog::load(SCALE, &|_, _, _| ()).expect("tables at a small scale");
    tables.into_iter().map(Arc::new).collect()
});

fn session(backend: BackendKind, threads: usize, rewrites: RewriteOptions) -> Session {
    let mut session = Session::builder().backend(backend).threads(threads).rewrites(rewrites).build().unwrap();
    TABLES.iter().for_each(|table| session.add_table(Arc::clone(table)));
    session
}

fn answer(query: u32, session: &Session) -> Result<RecordBatch, quearn::Error> {
    Ok(session.run(&queries::graph(query).unwrap())?.table(RESULT)?.clone())
}

/// All queries give the expected answers; those that do not are named together.
fn check(backend: BackendKind, threads: usize, rewrites: RewriteOptions) {
    let session = session(backend, threads, rewrites);
    let outcome = |query| match answer(query, &session) {
        Ok(batch) => answers::check(query, SCALE, &batch).err().map(|e| e.to_string()),
        Err(error) => Some(format!("query {query}: {error}")),
    };
    let failures: Vec<String> = queries::numbers().into_iter().filter_map(outcome).collect();
    assert!(failures.is_empty(), "{}, {threads} threads:\n{}", session.backend_name(), failures.join("\n"));
}

#[test]
fn compiled() {
    check(BackendKind::Auto, 1, RewriteOptions::default());
}

#[test]
fn compiled_with_two_threads() {
    check(BackendKind::Auto, 2, RewriteOptions::default());
}

#[test]
fn compiled_without_rewrites() {
    check(BackendKind::Auto, 2, RewriteOptions::none());
}

/// Every query runs from a file that another session has saved.
#[cfg(any(feature = "llvm", feature = "llvm19"))]
#[test]
fn saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |query: u32| folder.path().join(format!("q{query:02}"));
    let fresh = || session(BackendKind::Llvm, 2, RewriteOptions::default());
    let saving = fresh();
    for query in queries::numbers() {
        saving.compile(&queries::graph(query).unwrap()).unwrap().save(path(query)).unwrap();
    }
    let loading = fresh();
    for query in queries::numbers() {
        let program = loading.load_for(&queries::graph(query).unwrap(), path(query)).unwrap();
        answers::check(query, SCALE, program.run(&loading).unwrap().table(RESULT).unwrap()).unwrap();
        let bytes = std::fs::metadata(path(query)).unwrap().len();
        let (compile, load) = (program.compile_ms(), program.load_ms().unwrap());
        println!("query {query}: {bytes} bytes, compiled in {compile:.1} ms, loaded in {load:.1} ms");
    }
}

#[test]
fn interpreted() {
    check(BackendKind::Interp, 1, RewriteOptions::default());
}

#[test]
fn interpreted_with_two_threads_without_rewrites() {
    check(BackendKind::Interp, 2, RewriteOptions::none());
}

#[test]
fn evaluated() {
    for query in [6, 13, 14] {
        let graph = queries::graph(query).unwrap();
        let inputs = TABLES.iter().fold(Inputs::new(), |all, table| all.table(table.name(), EvalTable::from(&**table)));
        let outputs = evaluate(&graph, &inputs).unwrap();
        answers::check(query, SCALE, &outputs[0].1.table().to_batch().unwrap()).unwrap();
    }
}

#[test]
fn programs_read_only_the_columns_that_they_use() {
    let graph = queries::graph(6).unwrap();
    let (rewritten, _) = quearn::rewrite::rewrite(&graph, &RewriteOptions::default()).unwrap();
    let tables = catalog::load_scanned(SCALE, [&rewritten], &|_, _, _| ()).unwrap();
    let columns: Vec<_> = tables.iter().flat_map(|t| t.columns()).map(|c| c.name.as_str()).collect();
    assert_eq!(columns, ["l_quantity", "l_extendedprice", "l_discount", "l_shipdate"]);
}

#[test]
fn unknown_queries_are_errors() {
    let error = queries::graph(23).unwrap_err().to_string();
    assert_eq!(
        error,
        "no query 23; there are 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22"
    );
}
