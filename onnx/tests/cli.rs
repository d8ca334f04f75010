//! The command line: programs that are saved and loaded.
#![cfg(any(feature = "llvm", feature = "llvm19"))]

mod common;

use common::{attribute, floats, graph, model, node, port, tensor};
use prost::Message;
use quearn::io::{read_safetensors, write_safetensors};
use std::path::Path;
use std::process::{Command, Output};

fn onnx(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quearn"));
    command.current_dir(folder).args(["onnx", "--threads", "1"]).args(arguments.split(' '));
    command.output().expect("the program starts")
}

fn success(folder: &Path, arguments: &str) -> (String, String) {
    let output = onnx(folder, arguments);
    assert!(output.status.success(), "{arguments}: {output:?}");
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// `relu(x w + b)` with another constant in the bias.
fn layer(bias: f32) -> Vec<u8> {
    let w = tensor("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = tensor("b", &[2], &[bias, -100.0]);
    let gemm = node("Gemm", &["x", "w", "b"], &["y"], vec![attribute::int("transB", 1)]);
    let relu = node("Relu", &["y"], &["z"], vec![]);
    model(graph(vec![gemm, relu], vec![w, b], vec![port("x", &["batch", "3"])], &["z"])).encode_to_vec()
}

#[test]
fn programs_are_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("one.onnx"), layer(1.0)).unwrap();
    std::fs::write(at("two.onnx"), layer(2.0)).unwrap();
    let x = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    write_safetensors(at("in.safetensors"), [("x", &x)]).unwrap();

    let (_, times) = success(folder.path(), "one.onnx --save code");
    assert!(times.starts_with("compiled in ") && times.contains(", loads in "), "{times}");
    // Weights are not part of the program.
    for (model, bias) in [("one", 1.0), ("two", 2.0)] {
        success(folder.path(), &format!("{model}.onnx --inputs in.safetensors --load code --outputs out.safetensors"));
        let found = read_safetensors(at("out.safetensors")).unwrap();
        let z = found.get("z", &[2, 2]).unwrap().as_slice::<f32>().unwrap().to_vec();
        assert_eq!(z, [14.0 + bias, 0.0, 32.0 + bias, 0.0]);
    }
    let (report, _) = success(folder.path(), "one.onnx --inputs in.safetensors --load code --bench 2");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let times = ["compile_ms", "program_load_ms", "first_call_s", "median_ms"];
    assert!(times.into_iter().all(|time| report[time].as_f64() > Some(0.0)), "{report}");
    let (report, _) = success(folder.path(), "one.onnx --inputs in.safetensors --bench 2");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["compile_ms"].as_f64() > Some(0.0) && report["program_load_ms"].is_null(), "{report}");

    let output = onnx(folder.path(), "one.onnx --inputs in.safetensors --load in.safetensors");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("is no saved program of Quearn"), "{message}");
}
