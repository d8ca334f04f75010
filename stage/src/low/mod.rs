//! The low-level program: structured control flow over machine scalars, SIMD vectors and pointers, with
//! explicit effects. It has no word for table or tensor.
//!
//! | file | what it holds |
//! |---|---|
//! | [`ty`] | types |
//! | [`inst`] | instructions, functions, modules |
//! | [`build`] | the builder: staged values `V` that are folded, shared and dropped while they are built |
//! | `scopes` | the open blocks of a builder, and what is shared in them |
//! | [`simplify`] | the laws by which a new instruction is folded |
//! | [`verify`](mod@verify) | what a well-formed module is |
//! | [`print`](mod@print), [`parse`](mod@parse) | the text form, both ways |

pub mod build;
pub mod inst;
pub mod parse;
pub mod print;
mod scopes;
pub mod simplify;
pub mod ty;
pub mod verify;

pub use build::{Builder, ModuleBuilder, V};
pub use inst::*;
pub use parse::{ParseError, parse};
pub use ty::{Prim, Ty};
pub use verify::{VerifyError, verify};
