//! Steps along an axis: the stages of the body are planned once, and run for each step.
//!
//! What is walked along and what is collected is read and written in place, a slice at a step. A carried value has two
//! places that take turns, so that a step may read the old one to its end.
//!
//! A body of little work is one function, with the steps inside ([`Walk::emit`]). Otherwise each of its stages is called
//! at each step, and shared among the workers.

use super::eval::{Env, Eval};
use super::places::{APART, Layout, MEETING};
use super::plan::{Kind, Place, Plan, Stage, check_elem};
use super::planner::{Planner, Result};
use super::spec::{AxisSpec, BufferId, Size, Spec};
use quearn_stage::graph::{Graph, Node, Op, Steps};
use quearn_stage::low::{Builder, V};
use std::collections::{BTreeSet, HashMap};

/// A walk with its stages.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The steps.
    pub node: Node,
    /// Number of steps.
    pub count: u64,
    /// Is the last slice the first?
    pub back: bool,
    /// What is done at each step.
    pub stages: Vec<Stage>,
}

/// How far a place moves with the steps of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// With the slice.
    Slice,
    /// There at odd steps, and back.
    Odd,
    /// There at even steps, and back.
    Even,
}

/// A step of a walk while code is written.
#[derive(Clone, Copy)]
pub struct At<'b> {
    /// The walk.
    walk: Node,
    /// Number of the step.
    round: V<'b>,
    /// Number of the slice.
    slice: V<'b>,
}

impl<'b> At<'b> {
    /// A place at this step.
    pub fn moved(&self, base: V<'b>, by: By, stride: i64) -> V<'b> {
        let odd = self.round & 1;
        let times = match by {
            By::Slice => self.slice,
            By::Odd => odd,
            By::Even => odd ^ 1,
        };
        super::eval::step(base, times, stride)
    }

    /// Is it a step of that walk?
    pub fn is_of(&self, walk: Node) -> bool {
        self.walk == walk
    }

    /// Steps take turns in which direction weights are run through: 1 if it is backwards.
    pub fn turn(&self, backwards: bool) -> V<'b> {
        (self.round & 1) ^ i64::from(backwards)
    }
}

/// Operations of a step up to which its stages are not worth sharing.
const FEW: u64 = 1 << 18;

impl Walk {
    /// Runs `body` for each step.
    pub fn each<'b>(&self, b: &'b Builder, mut body: impl FnMut(At<'b>)) {
        let count = b.i64(self.count as i64);
        b.for_(b.i64(0), count, |round| {
            let slice = if self.back { count - 1 - round } else { round };
            body(At { walk: self.node, round, slice });
        });
    }

    /// Is it one function?
    pub fn is_one(&self) -> bool {
        let work = |stage: &Stage| match &stage.kind {
            Kind::Gemm(gemm) => gemm.flops(),
            Kind::Map { results, .. } => {
                let elements = |out: &Spec| out.axes.iter().try_fold(1, |n, axis| Some(n * axis.size.now()?));
                results.iter().try_fold(0, |n, (_, out)| Some(n + elements(out)?))
            }
            _ => None,
        };
        self.stages.iter().try_fold(0, |n, stage| Some(n + work(stage)?)).is_some_and(|n| n <= FEW)
    }

    /// Writes the code of all steps, for one worker.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>) {
        let written = self.stages.iter().flat_map(|stage| stage.outputs()).map(|id| ev.plan.whole(id)).collect();
        self.each(ev.b, |step| {
            let env = WithStep { inner: ev.env, plan: ev.plan, written: &written, step };
            for stage in &self.stages {
                let ev = Eval { env: &env, known: vec![], ..*ev };
                let (work, _) = stage.work(ev.plan, ev.b.i64(1), &|size| env.size(size));
                stage.emit(&ev, ev.b.i64(0), work);
            }
        });
    }
}

/// The environment inside a function that runs through the steps.
struct WithStep<'a, 'b> {
    inner: &'a dyn Env<'b>,
    plan: &'a Plan<'a>,
    /// What the function writes.
    written: &'a BTreeSet<BufferId>,
    step: At<'b>,
}

impl<'b> Env<'b> for WithStep<'_, 'b> {
    fn buffer(&self, buffer: BufferId) -> V<'b> {
        match self.plan.buffer(buffer).place {
            Place::Moving { of, walk, by, stride } if self.step.is_of(walk) => {
                self.step.moved(self.buffer(of), by, stride)
            }
            Place::Part { of, offset } => self.buffer(of).at(offset),
            _ => self.inner.buffer(buffer),
        }
    }

    fn size(&self, size: &Size) -> V<'b> {
        self.inner.size(size)
    }

    fn number(&self, number: i64) -> V<'b> {
        self.inner.number(number)
    }

    fn turn(&self, backwards: bool) -> V<'b> {
        self.step.turn(backwards)
    }

    fn run(&self) -> V<'b> {
        self.inner.run()
    }

    fn invariant(&self, buffer: BufferId) -> bool {
        !self.written.contains(&self.plan.whole(buffer)) && self.inner.invariant(buffer)
    }
}

/// For each node inside the region of steps the innermost of them.
pub(super) fn owners(graph: &Graph, nodes: &[Node]) -> HashMap<Node, Node> {
    let regions = nodes.iter().filter_map(|&n| match graph.op(n) {
        Op::Steps(steps) => Some((n, &steps.region)),
        _ => None,
    });
    let mut around: HashMap<Node, BTreeSet<Node>> =
        regions.flat_map(|(n, region)| region.params.iter().map(move |p| (*p, BTreeSet::from([n])))).collect();
    if around.is_empty() {
        return HashMap::new();
    }
    for &node in nodes {
        let of = graph.dependencies(node).into_iter().filter_map(|n| around.get(&n));
        let mut all: BTreeSet<Node> = of.flatten().copied().filter(|walk| *walk != node).collect();
        all.extend(around.get(&node).into_iter().flatten());
        if !all.is_empty() {
            around.insert(node, all);
        }
    }
    // Steps inside others come before them.
    around.into_iter().filter_map(|(node, walks)| Some((node, *walks.first()?))).collect()
}

/// Is the node a tensor that steps have collected?
pub(super) fn is_collected(graph: &Graph, node: Node) -> bool {
    let (walk, position) = match graph.op(node) {
        Op::Item(i) => (graph.inputs(node)[0], *i),
        _ => (node, 0),
    };
    matches!(graph.op(walk), Op::Steps(steps) if position >= steps.carried)
}

/// Steps with their stages so far.
pub(super) struct Open {
    pub(super) walk: Node,
    pub(super) stages: Vec<Stage>,
}

impl Planner<'_, '_> {
    pub(super) fn steps(&mut self, node: Node, steps: &Steps) -> Result<()> {
        let Steps { region, count, carried, axis, back } = steps;
        let body: Vec<Node> =
            self.request.nodes.iter().copied().filter(|n| self.owners.get(n) == Some(&node)).collect();
        self.captured(&body, &region.results)?;
        let inputs = self.inputs(node);
        let (mut wanted, mut ends) = (vec![], vec![]);
        for (i, &param) in region.params.iter().enumerate() {
            check_elem(self.graph(), param)?;
            if i < *carried {
                let (state, turn) = self.state(param)?;
                self.map(node, inputs[i], state.clone());
                let place = |planner: &mut Self, by| planner.moving(param, &state, node, by, turn);
                let now = place(self, By::Odd);
                self.plan.homes.insert(param, now);
                wanted.push((region.results[i], place(self, By::Even)));
                let end = if count % 2 == 1 { turn } else { 0 };
                ends.push(Spec { offset: state.offset + end, ..state });
            } else {
                let whole = self.stored(inputs[i])?;
                let slice = self.slice_of(param, &whole, node, *axis);
                self.plan.homes.insert(param, slice);
            }
        }
        let items = self.items(node, region.results.len());
        for (i, item) in items {
            if let Some(end) = ends.get(i) {
                self.plan.homes.insert(item, end.clone());
                continue;
            }
            let whole = self.destination(item, true)?;
            let slice = self.slice_of(region.results[i], &whole, node, *axis);
            wanted.push((region.results[i], slice));
            self.plan.homes.insert(item, whole);
        }
        for (result, place) in wanted.iter().filter(|(result, _)| body.contains(result)) {
            self.targets.entry(*result).or_insert_with(|| place.clone());
        }
        self.open.push(Open { walk: node, stages: vec![] });
        for inner in body {
            self.node(inner)?;
        }
        let mut stages = self.open.pop().map_or(vec![], |open| open.stages);
        for (result, place) in wanted {
            if self.plan.home(result) != Some(&place) {
                check_elem(self.graph(), result)?;
                stages.push(Stage::map(result, place));
            }
        }
        let nodes = vec![node];
        let walk = Walk { node, count: *count, back: *back, stages };
        self.push(node, "steps", nodes, Kind::Steps(Box::new(walk)));
        Ok(())
    }

    /// Brings into memory what a body takes from outside, so that it is not computed at each step.
    fn captured(&mut self, body: &[Node], results: &[Node]) -> Result<()> {
        let taken = body.iter().flat_map(|n| self.inputs(*n)).chain(results).copied();
        let walk = body.first().and_then(|n| self.owners.get(n)).copied();
        let outside: BTreeSet<Node> = taken.filter(|n| walk.is_none() || self.owners.get(n) != walk.as_ref()).collect();
        for node in outside {
            let plain = self.graph().ty(node).as_tensor().is_some() && !self.bound.contains(&node);
            if plain && !self.is_literal(node) && self.plan.home(node).is_none() {
                self.stored(node)?;
            }
        }
        Ok(())
    }

    /// The values that the steps give and that somebody uses, with their positions.
    fn items(&self, node: Node, count: usize) -> Vec<(usize, Node)> {
        if count == 1 {
            return vec![(0, node)];
        }
        let users: BTreeSet<Node> = self.users.get(&node).into_iter().flatten().copied().collect();
        let item = |user: Node| match self.graph().op(user) {
            Op::Item(i) => Some((*i, user)),
            _ => None,
        };
        users.into_iter().filter_map(item).collect()
    }

    /// Two places for a carried value, the lines of one between those of the other, and the bytes from one to the other.
    fn state(&mut self, param: Node) -> Result<(Spec, i64)> {
        let mut state = self.allocate(param, Layout::RowMajor)?;
        let buffer = &mut self.plan.buffers[state.buffer.0 as usize];
        let Some(AxisSpec { stride, .. }) = state.axes.first_mut() else {
            let turn = buffer.bytes as i64;
            buffer.bytes *= 2;
            return Ok((state, turn));
        };
        let turn = *stride;
        *stride = 2 * turn + if (2 * turn) % MEETING == 0 { APART } else { 0 };
        buffer.bytes = buffer.bytes / turn.max(1) as u64 * *stride as u64;
        Ok((state, turn))
    }

    fn moving(&mut self, node: Node, base: &Spec, walk: Node, by: By, stride: i64) -> Spec {
        let place = Place::Moving { of: base.buffer, walk, by, stride };
        let buffer = self.new_buffer(place, &[], 0, self.label(node));
        Spec { buffer, ..base.clone() }
    }

    /// The slice of a tensor at each step.
    fn slice_of(&mut self, node: Node, whole: &Spec, walk: Node, axis: usize) -> Spec {
        let mut slice = self.moving(node, whole, walk, By::Slice, whole.axes[axis].stride);
        slice.axes.remove(axis);
        slice.halo = [0, 0];
        slice
    }
}
