//! The command line: networks that are trained, killed, resumed.
#![cfg(any(feature = "llvm", feature = "llvm19"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

fn train(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quearn-models"));
    command.args(["train", "--data", "seeded", "--epochs", "4", "--threads", "1", "--checkpoint"]).arg(folder);
    command.args(arguments);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = train(folder, arguments).output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    output
}

/// The tensors of the checkpoint in a folder.
fn tensors(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    assert_eq!(found.len(), 1);
    fs::read(found.remove(0)).unwrap()
}

#[test]
fn killed_training_is_resumed_to_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| root.path().join(name));
    let [curve, json] = ["curve.svg", "run.json"].map(|name| root.path().join(name));
    let files = [curve.to_str().unwrap(), json.to_str().unwrap()];
    let output = run(&whole, &["--model", "mlp", "--curve", files[0], "--json", files[1]]);
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.contains("4 epochs, 180 steps in") && line.contains("test accuracy"), "{line}");
    assert!(fs::read_to_string(&curve).unwrap().starts_with("<svg"));
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert!(report["test_accuracy"].as_f64().unwrap() > 0.95, "{report}");

    let mut process = train(&killed, &["--model", "mlp"]).spawn().unwrap();
    while !killed.join("checkpoint.json").exists() && process.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    let _ = process.kill();
    process.wait().unwrap();
    run(&killed, &["--model", "mlp", "--resume"]);
    assert!(tensors(&killed) == tensors(&whole));

    let output = train(&killed, &["--model", "lenet", "--resume"]).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("it is of another network or optimiser"), "{message}");
}

/// Trains a model; gives what its report has under `name`.
fn learned(arguments: &[&str], name: &str) -> f64 {
    let root = tempfile::tempdir().unwrap();
    let [curve, json] = ["curve.svg", "run.json"].map(|name| root.path().join(name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_quearn-models"));
    command
        .args(["train", "--threads", "2", "--model"])
        .args(arguments)
        .arg("--checkpoint")
        .arg(root.path().join("kept"));
    let output = command.arg("--curve").arg(&curve).arg("--json").arg(&json).output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(&curve).unwrap().starts_with("<svg"));
    assert!(!tensors(&root.path().join("kept")).is_empty());
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    report[name].as_f64().unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn trees_are_told_apart_by_a_rule_that_goes_up_them() {
    let accuracy = learned(&["treelstm", "--epochs", "15"], "test_accuracy");
    assert!(accuracy > 0.85, "{accuracy}");
}

#[test]
fn transcripts_are_read_off_spectrograms() {
    let errors = learned(&["deepspeech2", "--epochs", "7"], "token_error_rate");
    assert!(errors < 0.25, "{errors}");
}

#[test]
fn planted_values_are_found_in_the_result_of_a_query() {
    for (model, most) in [("linear_regression", 0.02), ("logistic_regression", 0.03), ("k_means", 0.05)] {
        let off = learned(&[model, "--epochs", "100", "--lr", "0.2"], "from_planted");
        assert!(off < most, "{model}: {off}");
    }
}

#[test]
fn mistakes_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let fails = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quearn-models"));
        let output = command.args(arguments).env("QUEARN_CACHE", root.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&["train"]).contains("scripts/digits makes this file"));
    let batch = fails(&["train", "--data", "seeded", "--batch", "5000"]);
    assert!(batch.contains("5000 rows of 1440"), "{batch}");
    let batch = fails(&["train", "--model", "k_means", "--batch", "5"]);
    assert!(batch.contains("k_means takes all rows in each step"), "{batch}");
    let model = fails(&["train", "--data", "seeded", "--model", "lstm_lm"]);
    assert!(model.contains("invalid value 'lstm_lm'") && model.contains("deepspeech2"), "{model}");
    let data = fails(&["train", "--data", "digits", "--model", "treelstm"]);
    assert!(data.contains("treelstm takes no digits, only seeded data"), "{data}");
    let bench = fails(&["train-bench", "--data", root.path().to_str().unwrap()]);
    assert!(bench.contains("lenet.losses.json"), "{bench}");
}
