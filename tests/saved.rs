//! Programs that are saved and loaded again.
#![cfg(any(feature = "llvm", feature = "llvm19"))]

use arrow::array::{Array, Float64Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use quearn::Tensors;
use quearn::data::Table;
use quearn::prelude::*;
use quearn::saved::error::Kind;
use quearn_backends::BackendError;
use quearn_stage::graph::{Dim, Graph};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const ROWS: i64 = 20_000;

/// Sales; `cities` go into a dictionary.
fn sales(cities: &[&str], most: i64) -> Table {
    let city: StringArray = (0..ROWS).map(|i| Some(cities[i as usize * 7 % cities.len()])).collect();
    let id = Int64Array::from_iter_values((0..ROWS).map(|i| i * 31 % most));
    let price = Float64Array::from_iter_values((0..ROWS).map(|i| (i * 37 % 1000) as f64 / 3.0));
    let columns = [("id", Arc::new(id) as Arc<dyn Array>), ("city", Arc::new(city)), ("price", Arc::new(price))];
    Table::from_batches("sales", &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

fn usual() -> Table {
    sales(&["Oslo", "Rome", "Bern"], 1000)
}

/// A join, groups, a sort, floats that are summed, texts, and a literal that is a parameter.
fn query(table: &Table) -> Graph {
    let s = Stage::new();
    let t = s.scan("sales", table.fields()).filter(|r| r.i64("id").lt(700) & r.str("city").ne("Bern"));
    let big = s.scan("sales", table.fields()).group_by(["id"]).agg(|r| [max("top", r.f64("price"))]);
    let big = big.project(|r| [("k", r.i64("id").dyn_()), ("top", r.f64("top").dyn_())]);
    let joined = t.join_inner(big, [("id", "k")]);
    let groups = joined.group_by(["city"]).agg(|r| [count("n"), sum("total", r.f64("price") + r.f64("top"))]);
    s.output("groups", groups.sort([asc("city")]));
    s.finish().unwrap()
}

/// A small network over any number of rows.
fn network() -> Graph {
    let s = Stage::new();
    let x = s.input::<F32>("x", [Dim::Named("rows".into()), Dim::Const(20)]);
    let hidden = (x.matmul(s.weight("w1", [20, 33])) + s.weight("b1", [33])).relu();
    s.output("y", hidden.matmul(s.weight("w2", [33, 5])).softmax(1));
    s.finish().unwrap()
}

fn tensor(shape: &[u64], seed: u32) -> StoredTensor {
    let count = shape.iter().product::<u64>() as u32;
    let value = |i: u32| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16) as f32 / 65_536.0) - 0.5;
    StoredTensor::from_vec((0..count).map(value).collect(), shape).unwrap()
}

fn session(threads: usize, table: Option<Table>) -> Session {
    let mut session = Session::builder().backend(BackendKind::Llvm).threads(threads).build().unwrap();
    table.into_iter().for_each(|table| session.add_table(table));
    for (name, shape) in [("w1", &[20, 33][..]), ("b1", &[33]), ("w2", &[33, 5]), ("x", &[70, 20])] {
        session.bind(name, tensor(shape, 7));
    }
    session
}

/// The programs with what they give when they are compiled, and a folder for their files.
struct Fixture {
    folder: TempDir,
    query: String,
    network: Vec<u32>,
}

fn bits(outputs: &Outputs) -> Vec<u32> {
    outputs.tensor("y").unwrap().as_slice::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let session = session(2, Some(usual()));
        let save = |name: &str, graph: &Graph| {
            let program = session.compile(graph).unwrap();
            program.save(folder.path().join(name)).unwrap();
            program.run(&session).unwrap()
        };
        let query = save("query", &query(&usual())).to_string();
        let network = bits(&save("network", &network()));
        Fixture { folder, query, network }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes bytes to a file of their own, and loads it.
    fn load(&self, session: &Session, bytes: &[u8]) -> quearn::Result<Program> {
        let path = self.path("changed");
        std::fs::write(&path, bytes).unwrap();
        session.load(path)
    }
}

fn kind(error: quearn::Error) -> Kind {
    match error {
        quearn::Error::Saved(error) => error.kind,
        other => panic!("another error: {other}"),
    }
}

fn refused(result: quearn::Result<Program>) -> quearn::Error {
    result.err().expect("the file is refused")
}

#[test]
fn a_fresh_session_gives_the_same_bits() {
    let fixture = Fixture::new();
    let session = session(2, Some(usual()));
    let query = session.load(fixture.path("query")).unwrap();
    let network = session.load_for(&network(), fixture.path("network")).unwrap();
    for _ in 0..2 {
        assert_eq!(query.run(&session).unwrap().to_string(), fixture.query);
        assert_eq!(bits(&network.run(&session).unwrap()), fixture.network);
    }
    assert!(query.load_ms().is_some_and(|ms| ms > 0.0) && query.compile_ms() > 0.0);
    assert!(session.compile(&self::network()).unwrap().load_ms().is_none());
    let profile = query.profile(&session).unwrap();
    assert!(profile.pipelines.iter().any(|p| p.fused.first().is_some_and(|f| f.contains("sales"))), "{profile}");
    // Saved once more, it is the same file but for nothing.
    query.save(fixture.path("again")).unwrap();
    assert_eq!(std::fs::read(fixture.path("again")).unwrap(), std::fs::read(fixture.path("query")).unwrap());
}

#[test]
fn another_number_of_rows_is_no_other_program() {
    let fixture = Fixture::new();
    let session = session(2, None);
    let program = session.load(fixture.path("network")).unwrap();
    for rows in [1, 300, 513] {
        let inputs = Tensors::from([("x".to_owned(), tensor(&[rows, 20], 3))]);
        let want = session.compile(&network()).unwrap().run_with(&session, &inputs).unwrap();
        assert_eq!(bits(&program.run_with(&session, &inputs).unwrap()), bits(&want));
    }
}

/// Names the files and the results for the process that [`another_process_gives_the_same_bits`] starts.
const FOLDER: &str = "QUEARN_TEST_SAVED";

#[test]
fn another_process_gives_the_same_bits() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (folder, session) = (Path::new(&folder), session(2, Some(usual())));
        let run = |name: &str| session.load(folder.join(name)).unwrap().run(&session).unwrap();
        std::fs::write(folder.join("query.out"), run("query").to_string()).unwrap();
        std::fs::write(folder.join("network.out"), format!("{:?}", bits(&run("network")))).unwrap();
        return;
    }
    let fixture = Fixture::new();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "another_process_gives_the_same_bits"]).env(FOLDER, fixture.folder.path());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_to_string(fixture.path("query.out")).unwrap(), fixture.query);
    assert_eq!(std::fs::read_to_string(fixture.path("network.out")).unwrap(), format!("{:?}", fixture.network));
}

#[test]
fn many_threads_load_at_once() {
    let fixture = Fixture::new();
    let session = session(1, Some(usual()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let query = session.load(fixture.path("query")).unwrap();
                    let network = session.load(fixture.path("network")).unwrap();
                    assert_eq!(bits(&network.run(&session).unwrap()), fixture.network);
                    let groups = query.run(&session).unwrap();
                    assert_eq!(groups.table("groups").unwrap().num_rows(), 2);
                }
            });
        }
    });
}

#[test]
fn other_tables_are_refused() {
    let fixture = Fixture::new();
    let load = |table: Option<Table>| refused(session(1, table).load(fixture.path("query")));
    assert!(load(None).to_string().contains("there is no table \"sales\""));
    let error = kind(load(Some(sales(&["Oslo", "Rome", "Bern"], 5000))));
    assert!(matches!(&error, Kind::OtherTables { fact } if fact.contains("sales.id lies between")), "{error}");
    let ids = Float64Array::from_iter_values((0..ROWS).map(|i| i as f64));
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as Arc<dyn Array>)]).unwrap();
    let error = load(Some(Table::from_batches("sales", &[batch]).unwrap()));
    assert!(error.to_string().starts_with("column \"id\" of table \"sales\": expected i64"), "{error}");
}

#[test]
fn another_dictionary_is_no_other_program() {
    let fixture = Fixture::new();
    let session = session(2, Some(sales(&["Paris", "Bern", "Oslo", "Kiel"], 900)));
    let want = session.compile(&query(&usual())).unwrap().run(&session).unwrap().to_string();
    assert!(want.contains("Kiel"));
    assert_eq!(session.load(fixture.path("query")).unwrap().run(&session).unwrap().to_string(), want);
}

/// What holds when a program is loaded may not hold any more when it runs.
#[test]
fn tables_that_change_later_are_compiled_for() {
    let fixture = Fixture::new();
    let mut session = session(2, Some(usual()));
    let program = session.load(fixture.path("query")).unwrap();
    let other = sales(&["Oslo", "Rome", "Bern"], 5000);
    session.add_table(other);
    let want = session.compile(&query(&usual())).unwrap().run(&session).unwrap().to_string();
    assert_eq!(program.run(&session).unwrap().to_string(), want);
    assert!(program.load_ms().is_none());
}

#[test]
fn other_weights_and_other_programs_are_refused() {
    let fixture = Fixture::new();
    let mut session = session(1, None);
    assert_eq!(kind(refused(session.load_for(&query(&usual()), fixture.path("network")))), Kind::OtherProgram);
    session.bind("w1", tensor(&[20, 34], 0));
    let error = refused(session.load(fixture.path("network"))).to_string();
    assert_eq!(error, "input tensor \"w1\": expected f32 [20, 33], found f32 [20, 34]");
}

#[test]
fn other_files_are_refused() {
    let fixture = Fixture::new();
    let session = session(1, Some(usual()));
    assert!(matches!(refused(session.load(fixture.path("none"))), quearn::Error::Data(_)));
    assert!(matches!(refused(session.load(fixture.folder.path())), quearn::Error::Data(_)));
    for bytes in [&b""[..], b"{}", b"\x7fELF\x02\x01\x01 and so on", &[0; 5000]] {
        assert_eq!(kind(refused(fixture.load(&session, bytes))), Kind::NoProgram);
    }
    let file = std::fs::read(fixture.path("network")).unwrap();
    let error = kind(refused(fixture.load(&session, &file[..20])));
    assert_eq!(error, Kind::Truncated { expected: 48, found: 20 });
    for bytes in [48, 100, file.len() / 2, file.len() - 1] {
        let error = kind(refused(fixture.load(&session, &file[..bytes])));
        assert_eq!(error, Kind::Truncated { expected: file.len() as u64, found: bytes as u64 });
    }
    let error = kind(refused(fixture.load(&session, &[&file[..], b"!"].concat())));
    assert_eq!(error, Kind::Damaged { part: "file".into() });
    let mut other = file;
    other[8] = 2;
    assert_eq!(kind(refused(fixture.load(&session, &other))), Kind::OtherFormat { found: 2, expected: 1 });
}

#[test]
fn the_interpreter_has_nothing_to_save() {
    let fixture = Fixture::new();
    let mut interpreted = Session::builder().backend(BackendKind::Interp).threads(1).build().unwrap();
    interpreted.add_table(usual());
    let saved = interpreted.compile(&network()).unwrap().save(fixture.path("interpreted"));
    let loaded = interpreted.load(fixture.path("query")).map(drop);
    for error in [saved, loaded].map(Result::unwrap_err) {
        assert!(matches!(error, quearn::Error::Backend(BackendError::NoObjectCode { .. })), "{error}");
    }
    assert!(!fixture.path("interpreted").exists());
}

/// A folder that cannot be written to leaves nothing behind.
#[test]
fn what_cannot_be_written_is_an_error() {
    let fixture = Fixture::new();
    let session = session(1, None);
    let program = session.compile(&network()).unwrap();
    assert!(matches!(program.save(fixture.path("network").join("below a file")), Err(quearn::Error::Data(_))));
    assert!(matches!(program.save(fixture.folder.path()), Err(quearn::Error::Data(_))));
    program.save(fixture.path("new folder").join("network")).unwrap();
    let names: Vec<_> = std::fs::read_dir(fixture.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().ends_with(".part")), "{names:?}");
}

/// Every byte is under a checksum, so that no flipped one reaches the loader.
#[test]
fn damaged_files_are_refused() {
    let fixture = Fixture::new();
    let session = session(1, Some(usual()));
    for name in ["query", "network"] {
        let file = std::fs::read(fixture.path(name)).unwrap();
        let damaged = |position: usize, mask: u8| {
            let mut bytes = file.clone();
            bytes[position] ^= mask;
            let error = kind(refused(fixture.load(&session, &bytes)));
            assert!(!matches!(error, Kind::IllFormed { .. } | Kind::OtherVersion { .. }), "{position}: {error}");
        };
        (0..64).for_each(|position| damaged(position, 1 << (position % 8)));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
        let strategy = (0..file.len(), 1..=255u8);
        runner
            .run(&strategy, |(position, mask)| {
                damaged(position, mask);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn files_name_no_place_of_this_machine() {
    let fixture = Fixture::new();
    for name in ["query", "network"] {
        let file = std::fs::read(fixture.path(name)).unwrap();
        let has = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("\"triple\":") && has("\"features\":[") && has("\"w1\"") == (name == "network"));
        assert!(!has(env!("CARGO_MANIFEST_DIR")) && !has(fixture.folder.path().to_str().unwrap()));
    }
}
