//! The command line: programs that are saved and loaded, and their times.
#![cfg(any(feature = "llvm", feature = "llvm19"))]

use std::path::Path;
use std::process::{Command, Output};

fn bench(model: &str, arguments: &[&str], files: [&Path; 2]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quearn-models"));
    command.args(["bench", "--model", model, "--threads", "1", "--runs", "2", "--json"]).arg(files[0]);
    command.args(arguments).arg(files[1]);
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn programs_are_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let [json, file] = ["times.json", "mlp.quearn"].map(|name| folder.path().join(name));
    for option in ["--save", "--load"] {
        let output = bench("mlp", &[option], [&json, &file]);
        assert!(output.status.success(), "{output:?}");
        let line = text(&output.stdout);
        assert!(["  compile ", "  load ", "  first run "].iter().all(|time| line.contains(time)), "{line}");
    }
    let reports = std::fs::read_to_string(&json).unwrap();
    let reports: Vec<serde_json::Value> = reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        let positive = |name: &str| report[name].as_f64() > Some(0.0);
        assert!(["compile_ms", "program_load_ms", "first_ms", "first_call_s"].into_iter().all(positive), "{report}");
    }
    assert_eq!(reports[0]["compile_ms"], reports[1]["compile_ms"]);

    let output = bench("lenet", &["--load"], [&json, &file]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("mlp.quearn: holds another program"), "{output:?}");
    let output = bench("mlp", &["--load"], [&json, &json]);
    assert!(text(&output.stderr).contains("times.json: is no saved program of Quearn"), "{output:?}");
}
