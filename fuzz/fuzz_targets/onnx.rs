//! Any bytes as a model: an error or a program, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quearn_onnx::{Options, decode, import};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = decode(bytes) {
        let _ = import(&model, None, &Options::default());
    }
});
