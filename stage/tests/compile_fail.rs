//! Misuse that Rust's types rule out; the files of `ui` say what must not compile, and with which message.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
