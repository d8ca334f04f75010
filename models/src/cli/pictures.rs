//! The pipeline of pictures with its data.

use super::machine::Machine;
use super::progress::Bars;
use clap::ValueEnum;
use quearn::{Outputs, Session};
use quearn_models::pipelines::image_classes::{self, Counts, image_classes};
use quearn_models::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_stage::rep::Stage;

/// Name of the result in the program.
const RESULT: &str = "classes";

/// Which pictures.
#[derive(Clone, Copy)]
pub struct Pictures {
    pub set: Set,
    pub scale: f64,
}

/// A set of pictures.
#[derive(Clone, Copy, ValueEnum)]
pub enum Set {
    /// 4000 pictures of 64 x 64 pixels at scale 1.
    A,
    /// 400 pictures of 224 x 224 pixels at scale 1.
    B,
}

impl Pictures {
    fn set(self) -> image_classes::Set {
        match self.set {
            Set::A => image_classes::Set::A,
            Set::B => image_classes::Set::B,
        }
    }

    /// The name that the peers give to the pipeline with this set.
    pub fn peer_name(self) -> String {
        format!("P9{}", self.set())
    }

    /// The program.
    pub fn graph(self) -> Result<Graph> {
        let s = Stage::new();
        s.output(RESULT, image_classes(&s, self.set(), self.scale));
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    /// A session with the tables, pictures and weights; those that are absent from the cache are made first.
    pub fn session(self, machine: &Machine, bars: &Bars) -> Result<Session> {
        let data = image_classes::data(self.set(), self.scale, &bars.steps())?;
        let mut session = machine.session_with(data.weights)?;
        session.bind("pixels", data.pixels);
        session.add_table(data.images);
        session.add_table(data.cameras);
        Ok(session)
    }

    /// Compares the results of a run with what is expected; gives the share of pictures whose class differs, or `None`
    /// where nothing is known.
    pub fn check(self, outputs: &Outputs) -> Result<Option<f64>> {
        match image_classes::check(self.set(), self.scale, outputs.table(RESULT)?) {
            Err(Error::NoExpectation { .. }) => Ok(None),
            checked => checked.map(Some),
        }
    }

    /// Pictures by class and by region in the results of a run.
    pub fn counts(self, outputs: &Outputs) -> Result<Counts> {
        image_classes::counts(self.set(), outputs.table(RESULT)?)
    }
}
