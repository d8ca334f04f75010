//! Rust types of the ONNX format, generated from `proto/onnx.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let files = protox::compile(["proto/onnx.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    // The comments of the specification are not written for rustdoc.
    config.disable_comments(["."]);
    config.compile_fds(files)?;
    Ok(())
}
