//! The language that people write: typed, `Copy` handles on the nodes of a graph under construction.
//!
//! A [`Stage`] is a program being written; a [`Rep<T>`](Rep) stands for a value of the type `T` that will be known when
//! the program runs. What Rust does with present values (loops, closures, functions over `Rep`s) leaves no trace: a
//! Rust function over `Rep`s used in a query is an inlined function.
//!
//! ```
//! use quearn_stage::graph::{Field, Scalar};
//! use quearn_stage::rep::*;
//!
//! let s = Stage::new();
//! let items = s.scan("items", [Field::new("price", Scalar::F64), Field::new("day", Scalar::Date)]);
//! let revenue = items.filter(|r| r.date("day").lt(date("1995-01-01"))).sum(|r| r.f64("price") * 0.9);
//! s.output("revenue", revenue);
//! let graph = s.finish().unwrap();
//! assert!(graph.to_string().contains("rel.filter"));
//! ```
//!
//! A misuse that Rust's types cannot rule out (a missing column, shapes that do not fit) poisons the handle; further
//! work with it does nothing, and [`Stage::finish`] reports the first such mistake with its place in the source.
//!
//! | file | what it holds |
//! |---|---|
//! | `stage` | the program, its inputs and outputs, its first error |
//! | `marker` | the types that a `Rep` may have, and which of them have which operations |
//! | `constant` | Rust values in the place of `Rep`s |
//! | `scalar` | operators and elementwise functions, of scalars, columns and tensors alike |
//! | `table`, `row`, `group` | relational operators, the rows that their closures see, aggregation |
//! | `tensor` | tensor operators |
//! | `random` | random numbers, permutations, dropout |
//! | `state` | what a program keeps from run to run, weights that are trained |
//! | `norm`, `loss`, `ctc` | normalisations and losses, spelled out in them |
//! | `bridge` | columns as tensors, tensors as columns |
//! | `control` | conditions and loops |
//! | `dynamic` | the twin whose type is known only when the program is built |

mod bridge;
mod constant;
mod control;
mod ctc;
mod dynamic;
mod group;
mod loss;
mod marker;
mod norm;
mod random;
mod row;
mod scalar;
mod stage;
mod state;
mod table;
mod tensor;

pub use constant::{Constant, IntoRep, Natural, date, dec, interval_days, interval_months, timestamp_micros};
pub use control::{Carried, If, Walk, When, if_, when};
pub use ctc::Sequences;
pub use group::{Agg, Groups, avg, count, count_distinct, count_of, max, min, sum};
pub use marker::*;
pub use random::Random;
pub use row::Row;
pub use stage::{Rep, Stage, StageError};
pub use state::{SEED, STEP};
pub use table::{Order, asc, desc};
pub use tensor::{IntoDim, IntoShape, Window};

pub use crate::graph::{Conv2d, JoinKind};
