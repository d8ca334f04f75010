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
        ("gen --scale 0", "error: expected a positive scale factor, found 0"),
        ("explain 6 --level assembler", "no level \"assembler\"; there are graph"),
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
