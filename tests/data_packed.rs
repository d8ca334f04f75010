//! Packed strings under real queries: the same answers and facts, less memory until something reads them, once unpacked
//! for all.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use quearn::data::{Column, LoadOptions, Table as StoredRows, Values};
use quearn::io::{ReadOptions, read_parquet, write_parquet};
use quearn::prelude::*;
use quearn::testing::same_rows;
use std::sync::{Arc, Barrier};

const ROWS: usize = 50_000;

/// Remarks that repeat themselves, some empty, some NULL, one longer than a block.
fn remark(i: usize) -> Option<String> {
    match i {
        777 => Some("very ".repeat(100_000)),
        _ if i.is_multiple_of(11) => None,
        _ if i.is_multiple_of(7) => Some(String::new()),
        _ => Some(format!("remark {} of the carefully final accounts {}", i % 9_973, i * i)),
    }
}

fn notes() -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..ROWS as i64);
    let names = StringArray::from_iter_values((0..ROWS).map(|i| format!("customer number {i:09}")));
    let remarks = StringArray::from_iter((0..ROWS).map(remark));
    let columns: [(&str, ArrayRef, bool); 3] =
        [("id", Arc::new(ids), false), ("name", Arc::new(names), false), ("remark", Arc::new(remarks), true)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// The rows in batches of odd sizes, slices of one memory.
fn parts() -> Vec<RecordBatch> {
    let (batch, cuts) = (notes(), [0, 1, 17_000, 17_000, 49_999, ROWS]);
    cuts.windows(2).map(|cut| batch.slice(cut[0], cut[1] - cut[0])).collect()
}

const PLAIN: LoadOptions = LoadOptions { pack_from: usize::MAX, ..LoadOptions::COMPACT };

fn loaded(options: &LoadOptions) -> StoredRows {
    StoredRows::from_batches_with("notes", &parts(), options).unwrap()
}

fn is_packed(column: &Column) -> bool {
    matches!(&column.values, Values::Text(text) if text.unpacked().is_none())
}

fn graph() -> Graph {
    let s = Stage::new();
    let fields =
        [Field::new("id", Scalar::I64), Field::new("name", Scalar::String), Field::nullable("remark", Scalar::String)];
    let notes = s.scan("notes", fields);
    let some =
        notes.filter(|r| r.str("remark").like("%final accounts%1%") & r.str("name").gt("customer number 000010"));
    let groups = some.group_by(["remark"]).agg(|r| [count("n"), min("first", r.str("name"))]);
    s.output("out", groups.sort([desc("n"), asc("remark")]).limit(50));
    s.finish().unwrap()
}

fn answer(table: StoredRows, backend: BackendKind) -> RecordBatch {
    let mut session = Session::builder().backend(backend).threads(2).build().unwrap();
    session.add_table(table);
    session.run(&graph()).unwrap().table("out").unwrap().clone()
}

#[test]
fn facts_and_values_are_those_of_plain_text() {
    let (packed, plain) = (loaded(&LoadOptions::COMPACT), loaded(&PLAIN));
    for (packed, plain) in packed.columns().iter().zip(plain.columns()) {
        assert_eq!(packed.stats, plain.stats);
        assert_eq!(is_packed(packed), packed.name != "id", "{}", packed.name);
        assert!(!is_packed(plain));
        assert!((0..ROWS).all(|row| packed.literal(row) == plain.literal(row)), "{}", packed.name);
        assert!(!is_packed(packed) && packed.bytes() == plain.bytes());
    }
}

#[test]
fn memory_is_that_of_the_form() {
    let (packed, plain) = (loaded(&LoadOptions::COMPACT), loaded(&PLAIN));
    assert!(2 * packed.bytes() < plain.bytes(), "{} of {}", packed.bytes(), plain.bytes());
    let clone = packed.clone();
    assert_eq!(clone.column("name").unwrap().plain_text().unwrap().row(5), b"customer number 000000005");
    // A clone shares what was unpacked, and the other column is as it was.
    assert!(!is_packed(packed.column("name").unwrap()) && is_packed(packed.column("remark").unwrap()));
    assert_eq!(packed.column("name").unwrap().bytes(), plain.column("name").unwrap().bytes());
    assert!(packed.column("id").unwrap().plain_text().unwrap_err().to_string().contains("`id`"));
}

#[test]
fn programs_and_exports_see_the_strings() {
    let expected = answer(loaded(&PLAIN), BackendKind::Interp);
    assert_eq!(expected.num_rows(), 50);
    for backend in [BackendKind::Interp, BackendKind::Auto] {
        same_rows(&answer(loaded(&LoadOptions::COMPACT), backend), &expected, true, 0.0).unwrap();
    }
    let batch = loaded(&LoadOptions::COMPACT).to_batch().unwrap();
    assert_eq!(batch.column(2).as_string::<i32>(), notes().column(2).as_string::<i32>());
}

#[test]
fn files_are_packed_while_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.parquet");
    write_parquet(&path, &parts()).unwrap();
    let table = read_parquet(&path, &ReadOptions::default()).unwrap();
    assert!(is_packed(table.column("remark").unwrap()) && is_packed(table.column("name").unwrap()));
    assert_eq!(table.column("remark").unwrap().stats, loaded(&PLAIN).column("remark").unwrap().stats);
    same_rows(&answer(table, BackendKind::Auto), &answer(loaded(&PLAIN), BackendKind::Auto), true, 0.0).unwrap();
}

#[test]
fn programs_that_run_at_once_unpack_once() {
    const RUNS: usize = 6;
    let expected = answer(loaded(&PLAIN), BackendKind::Auto);
    let table = Arc::new(loaded(&LoadOptions::COMPACT));
    // Sessions of their own, so that only the column is shared.
    let start = Barrier::new(RUNS);
    let run = || {
        let mut session = Session::builder().threads(2).build().unwrap();
        session.add_table(Arc::clone(&table));
        let program = session.compile(&graph()).unwrap();
        start.wait();
        let out = program.run(&session).unwrap();
        let at = table.column("remark").unwrap().plain_text().unwrap().bytes.as_ptr();
        (out.table("out").unwrap().clone(), at as usize)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RUNS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (batch, at) in &results {
        same_rows(batch, &expected, true, 0.0).unwrap();
        assert_eq!(*at, results[0].1);
    }
    // Tasks of one pool, each of which waits for the column.
    let table = loaded(&LoadOptions::COMPACT);
    rayon_tasks(RUNS, || assert_eq!(table.column("remark").unwrap().plain_text().unwrap().row(7), b""));
}

fn rayon_tasks(tasks: usize, task: impl Fn() + Sync) {
    use rayon::prelude::*;
    (0..tasks).into_par_iter().for_each(|_| task());
}
