//! ONNX models as Quearn programs.
//!
//! [`read`] takes a `.onnx` file and gives a [`Model`]: a graph, the weights that it names, and what goes in and comes
//! out. Operators are spelt out in operations of the graph (`ops`), one after the other; arithmetic on shapes and other
//! constants is done while the model is read (`fold`). Nothing here runs a model: [`Model::load`] binds its weights to a
//! session, which compiles and runs the graph like any other.
//!
//! Shapes are known when the program is made, but for one named leading dimension (the batch). Where a shape depends on
//! the *value* of an input, that value has to be given ([`Options::values`]), and the program holds for it only.

mod control;
mod emit;
mod empty;
mod error;
mod fold;
mod gradient;
mod import;
mod ops;
pub mod proto;
mod run;
mod scope;
mod sequence;
pub mod tensor;
mod text;
mod value;

pub use error::{Error, Result};
pub use import::{Model, Options, Port, decode, import, read};
pub use ops::{FAMILIES, FOLDED, Family, name};
