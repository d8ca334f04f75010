//! The command line: exit codes, messages, measurements.

use std::process::{Command, Output};

fn quearn_tpch(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quearn-tpch")).args(arguments.split(' ')).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn results_are_printed_and_checked() {
    let output = quearn_tpch("run --scale 0.01 --query 6 --threads 2 --check --format csv");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "revenue\n1193053.2253\n");
}

#[test]
fn mistakes_are_messages() {
    for (arguments, message) in [
        ("run --query 23", "error: no query 23; there are 1, 2, 3"),
        ("gen --scale 0", "error: expected a scale factor of at least 0.0001, found 0"),
        ("explain 6 --level assembler", "no level \"assembler\"; there are graph"),
        ("check --scale 0.01 --query 6 --answers absent", "1 of 1 checks failed"),
    ] {
        let output = quearn_tpch(arguments);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(message), "{arguments}: {}", text(&output.stderr));
    }
}

#[test]
fn measurements_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.json");
    let output = quearn_tpch(&format!("bench --scale 0.01 --query 6,1 --runs 3 --json {}", file.display()));
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&report["engine"], &report["sf"]), (&"quearn".into(), &0.01.into()));
    let query = &report["queries"]["q06"];
    assert_eq!((&query["status"], &query["ok"]), (&"ok".into(), &true.into()));
    assert_eq!(query["runs_ms"].as_array().map(Vec::len), Some(3));
    assert!(query["median_ms"].as_f64() > Some(0.0) && query["compile_ms"].as_f64() > Some(0.0));
    assert_eq!(report["queries"].as_object().map(serde_json::Map::len), Some(2));
}

fn json(arguments: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.json");
    let output = quearn_tpch(&format!("{arguments} --json {}", file.display()));
    assert!(output.status.success(), "{output:?}");
    assert!(!output.stdout.is_empty());
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn tables_and_their_columns_are_described() {
    let loaded = json("load --scale 0.01 --columns");
    let tables = loaded["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 8);
    let bytes = |value: &serde_json::Value| value["bytes"].as_u64().unwrap();
    assert_eq!(tables.iter().map(bytes).sum::<u64>(), bytes(&loaded));
    let lineitem = tables.iter().find(|table| table["name"] == "lineitem").unwrap();
    assert_eq!(lineitem["rows"], 60_175);
    let columns = lineitem["columns"].as_array().unwrap();
    assert_eq!(columns.iter().map(bytes).sum::<u64>(), bytes(lineitem));
    let column = |name: &str| columns.iter().find(|column| column["name"] == name).unwrap();
    let discount = column("l_discount");
    assert_eq!((&discount["type"], &discount["storage"]), (&"decimal(15,2)".into(), &"i8".into()));
    assert_eq!(
        (&discount["min"], &discount["max"], &discount["distinct"]),
        (&"0.00".into(), &"0.10".into(), &11.into())
    );
    let mode = column("l_shipmode");
    assert_eq!(
        (&mode["storage"], &mode["min"], &mode["nulls"]),
        (&"codes i8, 7 strings".into(), &"AIR".into(), &0.into())
    );
    assert_eq!((&column("l_orderkey")["sorted"], &column("l_orderkey")["unique"]), (&true.into(), &false.into()));
}

#[test]
fn profiles_name_pipelines() {
    for backend in ["auto", "interp"] {
        let profile = json(&format!("profile --scale 0.01 --query 3 --runs 3 --backend {backend}"));
        assert_eq!(profile["runs_ms"].as_array().map(Vec::len), Some(3));
        let pipelines = profile["pipelines"].as_array().unwrap();
        let scan = "scan \"lineitem\"";
        let is_it = |pipeline: &&serde_json::Value| {
            // Loops that are no pipelines have nothing fused.
            pipeline["fused"][0].as_str().is_some_and(|source| source.starts_with(scan))
        };
        let lineitem = pipelines.iter().find(is_it).unwrap();
        assert_eq!((&lineitem["items"], &lineitem["tiles"]), (&60_175.into(), &4.into()));
        let wall: f64 = pipelines.iter().filter_map(|pipeline| pipeline["wall_ms"].as_f64()).sum();
        let (serial, run) = (profile["serial_ms"].as_f64().unwrap(), profile["run_ms"].as_f64().unwrap());
        assert!((wall + serial - run).abs() < 0.1, "{profile}");
    }
}

#[test]
fn answers_may_come_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let check = || quearn_tpch(&format!("check --scale 0.01 --query 6 --answers {}", folder.path().display()));
    std::fs::write(folder.path().join("q06.csv"), "revenue\n1193053.2253\n").unwrap();
    assert!(check().status.success());
    std::fs::write(folder.path().join("q06.csv"), "revenue\n1193153.2253\n").unwrap();
    assert!(!check().status.success());
}
