//! Networks, and pipelines of queries and networks, written with Quearn.
//!
//! ```text
//!  random ---> weights, images, tables      made here, kept in the cache, no download
//!                 |
//!  nn, recurrent                            layers, with the names that PyTorch gives their weights
//!                 |
//!  squeezenet, resnet, bert, ..             programs: a function from staged inputs to a staged result
//!  networks, pipelines                      the programs by name; queries with a network inside
//!  operators                                single operators, to measure kernels by
//!                 |
//!  check, expected/, reference/             what PyTorch, DuckDB and others answer
//! ```

pub mod bert;
pub mod cache;
pub mod check;
pub mod deepspeech2;
mod error;
pub mod generate;
pub mod gpt2;
pub mod lenet;
pub mod lstm_lm;
pub mod mlp;
pub mod mobilenet;
pub mod networks;
pub mod nn;
pub mod operators;
pub mod pipelines;
pub mod random;
pub mod recurrent;
pub mod resnet;
pub mod squeezenet;
pub mod squeezenet_cifar;
pub mod training;
pub mod transformer;
pub mod treelstm;
pub mod vgg;
pub mod weights;

pub use error::{Error, Result};

/// How far a generator is.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it does.
    pub what: &'static str,
    /// Parts that are done.
    pub done: usize,
    /// Parts in all.
    pub total: usize,
}

/// Is told how far a generator is, from any thread; `&|_| ()` does not care.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);
