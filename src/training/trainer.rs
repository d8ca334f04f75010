//! The trainer: steps, epochs, and what becomes of them.

use super::history::{History, Scored, Stepped};
use super::plan::{LOSS, Plan, RATE, Recipe};
use super::{checkpoint, diagnosis};
use crate::data::Tensor;
use crate::error::{Error, Result};
use crate::results::Outputs;
use crate::{Profile, Program, Session, State, Tensors};
use quearn_stage::graph::Scalar;
use quearn_stage::rep::{SEED, STEP};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A network that is being trained.
pub struct Trainer<'s> {
    session: &'s Session,
    plan: Plan,
    program: Program,
    state: State,
    step: u64,
    /// All steps and scores so far.
    pub history: History,
}

impl Plan {
    /// Compiles the step, with these values of [`Plan::weights`] to begin with.
    ///
    /// # Errors
    /// The program cannot be compiled; a weight is missing, or of another type or shape.
    pub fn start<'s>(self, session: &'s Session, weights: &Tensors) -> Result<Trainer<'s>> {
        let program = session.compile(&self.program()?)?;
        let state = program.state(&self.initial(weights)?)?;
        Ok(Trainer { session, plan: self, program, state, step: 0, history: History::default() })
    }

    fn initial(&self, weights: &Tensors) -> Result<Tensors> {
        let mut all = weights.clone();
        for kept in &self.kept {
            if let Some(value) = kept.initial {
                let count = kept.shape.iter().product::<u64>() as usize;
                let tensor = match kept.scalar {
                    Scalar::I64 => Tensor::from_vec(vec![value as i64; count], &kept.shape)?,
                    Scalar::F64 => Tensor::from_vec(vec![value; count], &kept.shape)?,
                    _ => Tensor::from_vec(vec![value as f32; count], &kept.shape)?,
                };
                all.insert(kept.name.clone(), tensor);
            }
        }
        Ok(all)
    }
}

/// What one step gave.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number, from 1.
    pub step: u64,
    /// The loss before the weights changed.
    pub loss: f64,
    /// The learning rate.
    pub rate: f64,
    /// What the program gave out beside it.
    pub outputs: Outputs,
}

/// How long and how to go on, see [`Trainer::fit`].
pub struct Fit<'f> {
    /// Epochs in all, those before a checkpoint that was resumed among them.
    pub epochs: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Scores the weights after each epoch: the larger the better.
    pub score: Option<&'f mut Score<'f>>,
    /// Stop when so many epochs have not brought a better score.
    pub patience: Option<u64>,
    /// Folder for a checkpoint after each epoch.
    pub checkpoint: Option<PathBuf>,
    /// Is told of each step; may stop, as if all epochs were done.
    pub watch: Option<&'f mut Watch<'f>>,
}

impl Fit<'_> {
    /// So many epochs of so many steps, and nothing else.
    pub fn new(epochs: u64, steps: u64) -> Self {
        Fit { epochs, steps, score: None, patience: None, checkpoint: None, watch: None }
    }
}

/// Is told of steps.
pub type Watch<'f> = dyn FnMut(&Step) -> ControlFlow<()> + 'f;
/// Scores weights.
pub type Score<'f> = dyn FnMut(&Tensors) -> Result<f64> + 'f;

impl<'s> Trainer<'s> {
    /// The session that it runs in.
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// How it is trained.
    pub fn recipe(&self) -> &Recipe {
        &self.plan.recipe
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Milliseconds that compiling the step took.
    pub fn compile_ms(&self) -> f64 {
        self.program.compile_ms()
    }

    /// A copy of the weights, and of what else the network keeps, as they are now.
    ///
    /// # Errors
    /// A step has failed half-way.
    pub fn weights(&self) -> Result<Tensors> {
        let weights = self.plan.weights();
        weights.map(|kept| Ok((kept.name.clone(), self.state.tensor(&kept.name)?))).collect()
    }

    /// One step on the inputs of the program: a batch, or all rows of which it draws some itself. Where a run makes several steps
    /// ([`Plan::steps_in_run`]), all of them; gives the last one.
    ///
    /// # Errors
    /// The program fails. The loss is not finite ([`Error::Diverged`]): the error names the first operator that gave such a value,
    /// and the weights are as before the step.
    pub fn step(&mut self, inputs: &Tensors) -> Result<Step> {
        let nothing = || Error::Setting("internal error: a run without a step".into());
        self.run(inputs)?.pop().ok_or_else(nothing)
    }

    /// The steps of a run.
    fn run(&mut self, inputs: &Tensors) -> Result<Vec<Step>> {
        let (rates, given) = self.given(inputs)?;
        let outputs = self.program.advance(self.session, &mut self.state, &given)?;
        let mut steps = vec![];
        for (&loss, rate) in outputs.tensor(LOSS)?.as_slice::<f64>()?.iter().zip(rates) {
            if !loss.is_finite() {
                return Err(self.diverged(given, loss, rate)?);
            }
            self.step += 1;
            self.history.steps.push(Stepped { step: self.step, loss, rate });
            steps.push(Step { step: self.step, loss, rate, outputs: outputs.clone() });
        }
        Ok(steps)
    }

    /// What is wrong with the step that has given such a loss; the state is still that from before.
    fn diverged(&self, mut given: Tensors, loss: f64, rate: f64) -> Result<Error> {
        given.insert(RATE.to_owned(), Tensor::from_vec(vec![rate], &[])?);
        given.extend(self.state.tensors()?);
        let inputs = self.session.inputs_of(&self.plan.graph, &given);
        let origin = diagnosis::first_not_finite(&self.plan.graph, &inputs);
        Ok(Error::Diverged { step: self.step + 1, loss, origin })
    }

    /// The learning rates of the next run, and all inputs.
    fn given(&self, inputs: &Tensors) -> Result<(Vec<f64>, Tensors)> {
        let Recipe { schedule, rate, seed, .. } = &self.plan.recipe;
        let count = self.plan.in_run;
        let rates: Vec<f64> = (0..count).map(|i| schedule.rate(*rate, self.step + i)).collect();
        let shape = if count == 1 { vec![] } else { vec![count] };
        let mut given = inputs.clone();
        given.insert(RATE.to_owned(), Tensor::from_vec(rates.clone(), &shape)?);
        given.insert(SEED.to_owned(), Tensor::from_vec(vec![*seed], &[])?);
        Ok((rates, given))
    }

    /// Where the time of a run goes, which is not counted as one: it changes nothing.
    ///
    /// # Errors
    /// The program fails, or a step has failed half-way.
    pub fn profile(&self, inputs: &Tensors) -> Result<Profile> {
        let (_, mut given) = self.given(inputs)?;
        given.extend(self.state.tensors()?);
        self.program.profile_with(self.session, &given)
    }

    /// Steps until all epochs are done, the score stops rising, or the watcher stops; gives the seconds that it took.
    ///
    /// # Errors
    /// As [`Trainer::step`]; no score; a checkpoint cannot be written.
    pub fn fit(&mut self, inputs: &Tensors, mut fit: Fit<'_>) -> Result<f64> {
        let start = Instant::now();
        let all = fit.epochs.saturating_mul(fit.steps);
        if !fit.steps.is_multiple_of(self.plan.in_run) {
            let (steps, run) = (fit.steps, self.plan.in_run);
            return Err(Error::Setting(format!("an epoch of {steps} steps is no whole number of runs of {run}")));
        }
        while self.step < all && !self.history.is_stale(fit.patience) {
            let mut steps = self.run(inputs)?.into_iter();
            let stop = fit.watch.as_mut().is_some_and(|watch| steps.any(|step| watch(&step).is_break()));
            if self.step.is_multiple_of(fit.steps) {
                self.end_epoch(self.step / fit.steps, &mut fit)?;
            }
            if stop {
                break;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn end_epoch(&mut self, epoch: u64, fit: &mut Fit<'_>) -> Result<()> {
        if let Some(score) = &mut fit.score {
            let score = score(&self.weights()?)?;
            self.history.scores.push(Scored { epoch, step: self.step, score });
        }
        match &fit.checkpoint {
            Some(folder) => self.save(folder),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint into a folder, in place of one that is there; a process that is killed meanwhile leaves the former one.
    ///
    /// # Errors
    /// The folder cannot be written, or a step has failed half-way.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let Trainer { plan, step, history, .. } = self;
        checkpoint::write(folder.as_ref(), plan, *step, history, &self.state.tensors()?)
    }

    /// Goes on from the checkpoint in a folder: what follows is, to the bit, what would have followed there.
    ///
    /// # Errors
    /// There is none; it is damaged; it is one of another network, or of another recipe. Nothing has changed then.
    pub fn resume(&mut self, folder: impl AsRef<Path>) -> Result<()> {
        let read = checkpoint::read(folder.as_ref(), &self.plan)?;
        self.state = self.program.state(&read.tensors)?;
        self.step = read.step;
        self.history = read.history;
        Ok(())
    }
}

/// The number of steps that a state has behind it.
pub(super) fn steps_of(tensors: &Tensors) -> Option<u64> {
    let step = tensors.get(STEP)?.as_slice::<i64>().ok()?.first().copied()?;
    u64::try_from(step).ok()
}
