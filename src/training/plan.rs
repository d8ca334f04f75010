//! A step of training as a program: forward, loss, backward, update.

use super::clip::Clip;
use super::epoch::repeated;
use super::optimizer::{Moment, Optimizer, Parameter};
use super::recompute::{Activations, Parts, within};
use super::schedule::Schedule;
use crate::autodiff::gradients;
use crate::error::Result;
use quearn_stage::graph::{Dim, Graph, Node, Op, Scalar, Ty};
use quearn_stage::rep::{Bool, F64, Float, I64, Rep, STEP, Stage, Tensor};
use serde::{Deserialize, Serialize};

/// The input with the learning rate of a step.
pub(super) const RATE: &str = "training.rate";
/// The result with the loss of a step.
pub(super) const LOSS: &str = "training.loss";

/// How a network is trained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// What follows from gradients.
    pub optimizer: Optimizer,
    /// Learning rate.
    pub rate: f64,
    /// What becomes of it.
    pub schedule: Schedule,
    /// Limit for gradients.
    pub clip: Option<Clip>,
    /// What random numbers begin with: orders of rows, dropout.
    pub seed: i64,
}

impl Recipe {
    /// An optimiser with a learning rate that stays; no limit for gradients, the seed 0.
    pub fn new(optimizer: impl Into<Optimizer>, rate: f64) -> Recipe {
        Recipe { optimizer: optimizer.into(), rate, schedule: Schedule::Constant, clip: None, seed: 0 }
    }
}

/// A tensor that a program keeps from step to step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub scalar: Scalar,
    /// Extents.
    pub shape: Vec<u64>,
    /// The value of all elements before the first step, of what training adds to a network; none for its weights and what else it
    /// keeps.
    pub initial: Option<f64>,
}

/// A step of training, not yet compiled.
pub struct Plan {
    pub(super) recipe: Recipe,
    pub(super) graph: Graph,
    pub(super) kept: Vec<Kept>,
    pub(super) in_run: u64,
    /// The step as it was written, in which nothing is computed again, and the ends of its parts.
    whole: Option<(Graph, Parts)>,
    activations: Option<Activations>,
}

impl Plan {
    /// The step for the loss that `loss` writes: a network with `s.weight(..)`, whose weights become state. What else it declares as
    /// results is given out at each step.
    ///
    /// While the loss is not finite, the step changes nothing.
    ///
    /// # Errors
    /// A mistake in the program, an operator without a derivative among them.
    pub fn new<T: Float>(recipe: Recipe, loss: impl for<'s> FnOnce(&'s Stage) -> Rep<'s, Tensor<T>>) -> Result<Plan> {
        let s = Stage::for_training();
        let loss = loss(&s);
        let mut plan =
            Plan { recipe, graph: Graph::default(), kept: vec![], in_run: 1, whole: None, activations: None };
        let last = plan.write(&s, loss);
        let parts = loss.node().zip(last).map(|(loss, gradient)| Parts { loss, gradient: gradient.max(loss) });
        plan.graph = s.finish()?;
        plan.whole = parts.map(|parts| (plan.graph.clone(), parts));
        plan.kept = kept(&plan.graph, &plan.kept);
        Ok(plan)
    }

    /// What must be given before the first step: the weights, and what else the network keeps.
    pub fn weights(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.initial.is_none())
    }

    /// The same with so many steps in each run of the program, one after the other inside it, such as those of an epoch: for networks
    /// whose steps are so short that it counts what a run costs. Results are those of all steps in a new leading dimension.
    /// At least 1.
    pub fn steps_in_run(self, count: u64) -> Plan {
        Plan { in_run: count.max(1), ..self }
    }

    /// The same with at most so many bytes of activations: of what the forward pass computes and the backward pass reads, some is
    /// not kept but computed again, with the same numbers, so that the step takes less memory and more time. What is computed again
    /// follows from an estimate of what is live at once, which [`Plan::activations`] tells; what walks over time, tables and
    /// foreign functions make is kept always. Weights are updated as soon as their gradients are there, not after all gradients.
    ///
    /// # Errors
    /// They cannot be that few: the message says how few they can be.
    pub fn activations_within(mut self, bytes: u64) -> Result<Plan> {
        let weights = self.weights().map(|kept| kept.name.as_str()).collect();
        let Some((whole, parts)) = &self.whole else { return Ok(self) };
        let (graph, activations) = within(whole, *parts, &weights, bytes)?;
        (self.graph, self.activations) = (graph, Some(activations));
        Ok(self)
    }

    /// What a step keeps of its activations; nothing if no budget was given.
    pub fn activations(&self) -> Option<Activations> {
        self.activations
    }

    /// A step as a graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What a run does.
    pub(super) fn program(&self) -> Result<Graph> {
        match self.in_run {
            1 => Ok(self.graph.clone()),
            count => Ok(repeated(&self.graph, count, &[RATE])?),
        }
    }

    /// Writes what follows the loss; gives the last gradient.
    #[track_caller]
    fn write<'s, T: Float>(&mut self, s: &'s Stage, loss: Rep<'s, Tensor<T>>) -> Option<Node> {
        let scalar = Vec::<u64>::new;
        let done = s.state::<I64>(STEP, scalar());
        let finite: Rep<'s, Tensor<Bool>> = loss.abs().lt(s.number::<T>(f64::INFINITY));
        s.update(done, done + 1);
        // What the network itself keeps, too.
        s.update_only_if(finite);
        let (rate, step) = (s.input::<F64>(RATE, scalar()), (done + 1).cast::<F64>());
        let moment = Moment { rate, step, go_on: Some(finite) };
        let (names, weights): (Vec<String>, Vec<_>) = s.weights::<T>().into_iter().unzip();
        let mut gradients = gradients(loss, &weights);
        if let Some(clip) = self.recipe.clip {
            gradients = clip.apply(&gradients);
        }
        let last = gradients.iter().filter_map(|gradient| gradient.node()).max();
        for ((name, &value), gradient) in names.iter().zip(&weights).zip(gradients) {
            let slots: Vec<_> =
                self.slots(name).iter().map(|slot| s.state::<T>(slot.name.clone(), value.shape())).collect();
            let next = self.recipe.optimizer.step(moment, Parameter { value, gradient, slots: &slots });
            s.update(value, next.value);
            slots.iter().zip(next.slots).for_each(|(&slot, next)| s.update(slot, next));
            self.kept.extend(self.slots(name));
        }
        self.kept.push(Kept { name: STEP.to_owned(), scalar: Scalar::I64, shape: vec![], initial: Some(0.0) });
        s.output(LOSS, loss.cast::<F64>());
        last
    }

    /// What the optimiser keeps for a weight; shapes are filled in later.
    fn slots(&self, weight: &str) -> Vec<Kept> {
        let slots = self.recipe.optimizer.slots().into_iter();
        let kept = |slot: super::Slot| {
            let name = format!("{weight}.{}", slot.name);
            Kept { name, scalar: Scalar::F32, shape: vec![], initial: Some(slot.initial) }
        };
        slots.map(kept).collect()
    }
}

/// The next value of an input: the result of its name and type.
pub(super) fn next_value(graph: &Graph, name: &str, ty: &Ty) -> Option<Node> {
    let found = graph.outputs().iter().find(|(output, value)| output == name && graph.ty(*value) == ty);
    found.map(|(_, value)| *value)
}

/// All that a graph keeps from run to run, in the order of names; `added` by training.
fn kept(graph: &Graph, added: &[Kept]) -> Vec<Kept> {
    let kept = |node: Node| match graph.op(node) {
        Op::Input { name, ty, weight: false } if next_value(graph, name, ty).is_some() => {
            let (elem, shape) = ty.as_tensor()?;
            let initial = added.iter().find(|kept| kept.name == *name).and_then(|kept| kept.initial);
            let shape = shape.iter().filter_map(Dim::as_const).collect();
            Some(Kept { name: name.clone(), scalar: elem.scalar, shape, initial })
        }
        _ => None,
    };
    let mut all: Vec<Kept> = graph.reachable().into_iter().filter_map(kept).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
