//! Any bytes as a safetensors file: an error or tensors, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quearn::io::read_safetensors;
use std::io::Write;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("to write it");
    let _ = read_safetensors(file.path());
});
