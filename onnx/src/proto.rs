//! The messages of the ONNX format, as `prost` makes them of `proto/onnx.proto` (ONNX's own, unchanged).

#![allow(missing_docs, reason = "the messages are described in proto/onnx.proto")]
#![allow(clippy::all, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
