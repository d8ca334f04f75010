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
    let model = fails(&["train", "--data", "seeded", "--model", "lstm_lm"]);
    assert!(model.contains("lstm_lm takes no digits; these do: lenet, mlp"), "{model}");
    let bench = fails(&["train-bench", "--data", root.path().to_str().unwrap()]);
    assert!(bench.contains("lenet.losses.json"), "{bench}");
}
