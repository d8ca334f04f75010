//! For tests: random programs with data, and comparison of answers. Not part of the public interface.
//!
//! | file | what it holds |
//! |---|---|
//! | `rng` | seeded random numbers |
//! | `maker` | a graph in the making |
//! | `tables`, `expr`, `pipeline` | tables, expressions, relational programs with models in them |
//! | `network` | tensor programs |
//! | `parts` | programs as a whole and in two parts |
//! | `compare` | are two answers the same? |
//!
//! A seed and a size give the same case everywhere. A failing case is printed with its graph; a smaller one is looked
//! for by lowering the size.

mod compare;
mod expr;
mod maker;
mod network;
mod parts;
mod pipeline;
mod rng;
mod tables;

pub use compare::{assert_same_rows, same_rows, same_tables, same_tensors};
pub use parts::{BETWEEN, Parts};
pub use rng::Rng;

use crate::eval::Inputs;
use maker::Maker;
use quearn_stage::graph::{Graph, Op};
use std::fmt;

/// A random program with its data.
#[derive(Debug)]
pub struct Case {
    /// Seed.
    pub seed: u64,
    /// Size, from 1: tables have up to `4 * size` rows, pipelines up to `min(size, 6)` steps.
    pub size: usize,
    /// Program.
    pub graph: Graph,
    /// Data.
    pub inputs: Inputs,
    /// For each output: can its rows come in one order only? True also for tensors.
    pub ordered: Vec<bool>,
}

impl Case {
    /// A relational program, perhaps with models in it; the outputs are tables, and perhaps a scalar.
    pub fn query(seed: u64, size: usize) -> Case {
        let mut maker = Maker::new(seed, size);
        let (rel, ordered) = maker.pipeline();
        maker.graph.output("out", rel.node);
        let mut case = Case::of(maker, seed, vec![ordered]);
        case.share(&rel);
        case
    }

    /// A tensor program.
    pub fn network(seed: u64, size: usize) -> Case {
        let mut maker = Maker::new(seed, size);
        let result = maker.network();
        maker.graph.output("out", result);
        Case::of(maker, seed, vec![true])
    }

    /// Mostly queries, sometimes networks.
    pub fn random(seed: u64, size: usize) -> Case {
        if seed.is_multiple_of(4) { Case::network(seed, size) } else { Case::query(seed, size) }
    }

    fn of(maker: Maker, seed: u64, ordered: Vec<bool>) -> Case {
        Case { seed, size: maker.size, graph: maker.graph, inputs: maker.inputs, ordered }
    }

    /// Sometimes a second output that shares the pipeline: its rows counted, as a scalar.
    fn share(&mut self, rel: &maker::Rel) {
        use quearn_stage::graph::{Aggregate, AggregateOp};
        if !self.seed.is_multiple_of(3) {
            return;
        }
        let count = Aggregate { name: "rows".into(), op: AggregateOp::CountRows };
        let aggregate = Op::Aggregate { keys: vec![], aggregates: vec![count] };
        let counted = self.graph.add(aggregate, &[rel.node]).expect("a count of rows");
        let column = self.graph.add(Op::Column("rows".into()), &[counted]).expect("its column");
        let single = self.graph.add(Op::Single, &[column]).expect("its only row");
        self.graph.output("rows", single);
        self.ordered.push(true);
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, size {}", self.seed, self.size)?;
        let mut tables: Vec<_> = self.inputs.tables.iter().collect();
        tables.sort_by_key(|(name, _)| *name);
        for (name, table) in tables {
            writeln!(f, "table {name:?}: {} rows", table.rows())?;
            if table.rows() <= 20
                && let Ok(batch) = table.to_batch()
                && let Ok(text) = arrow::util::pretty::pretty_format_batches(&[batch])
            {
                writeln!(f, "{text}")?;
            }
        }
        write!(f, "{}", self.graph)
    }
}
