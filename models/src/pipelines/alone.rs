//! The models of pipelines on data that is in place already: what a pipeline takes longer is the query, and bringing both together.

use super::image_classes::{self, Set};
use super::{Answer, Pipeline, line_items};
use crate::{Result, random};
use quearn::Session;
use quearn::data::Tensor;
use quearn_stage::graph::Graph;
use quearn_stage::rep::Stage;

/// Name of the input.
const INPUT: &str = "x";
/// Numbers that differ; they are repeated.
const NUMBERS: usize = 1 << 16;

/// The model of a pipeline without its query.
pub struct Alone {
    /// Name of the pipeline.
    name: &'static str,
    /// Shape of what the model reads of a row.
    item: &'static [u64],
    /// Writes the program for rows in a tensor of this name and shape.
    write: fn(&Stage, &str, &[u64]),
}

/// Pipelines in which the model has most of the work.
pub const ALONE: &[Alone] = &[
    Alone { name: "P6", item: &[line_items::FEATURES], write: line_items::alone },
    Alone { name: "P9a", item: &[3, Set::A.size() as u64, Set::A.size() as u64], write: image_classes::alone },
    Alone { name: "P9b", item: &[3, Set::B.size() as u64, Set::B.size() as u64], write: image_classes::alone },
];

impl Alone {
    /// The model of the pipeline of that name.
    pub fn find(name: &str) -> Option<&'static Alone> {
        ALONE.iter().find(|alone| alone.name == name)
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &'static Pipeline {
        Pipeline::find(self.name).expect("the name of a pipeline")
    }

    /// How many rows the pipeline showed its model, by its answer.
    pub fn rows(&self, answer: &Answer) -> u64 {
        answer.get("n").map_or(0.0, |n| n.iter().sum()) as u64
    }

    /// The program for so many rows; binds them to a session that has the weights.
    pub fn graph(&self, session: &mut Session, rows: u64) -> Result<Graph> {
        let shape: Vec<u64> = std::iter::once(rows).chain(self.item.iter().copied()).collect();
        let numbers: Vec<f32> = random::unif(INPUT, NUMBERS).into_iter().map(|x| x as f32).collect();
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = numbers.iter().copied().cycle().take(count).collect();
        session.bind(INPUT, Tensor::from_vec(values, &shape)?);
        let s = Stage::new();
        (self.write)(&s, INPUT, &shape);
        Ok(s.finish().map_err(quearn::Error::from)?)
    }
}
