//! Group-aggregate: every worker folds the rows it sees into groups of its own, then the groups are merged.
//!
//! | file | what it holds |
//! |---|---|
//! | [`group`] | what is kept of a group, and how rows are folded into it |
//! | [`directory`] | groups in an array that the keys index, or in a chained hash table |
//! | [`merge`] | the groups of all workers brought together |
//! | [`partitioned`] | many groups with few rows each |
//! | [`ordered`] | groups of rows that follow one another, without a directory |
//! | [`lanes`] | few groups, by vectors |
//! | `words` | what these are summed up in |
//! | `shared` | several aggregations of the same rows |
//! | [`group_join`] | groups that are the rows of a join's left side |
//!
//! Without keys the state lives in registers during a tile.

pub mod directory;
pub mod group;
pub mod group_join;
pub mod lanes;
pub mod merge;
pub mod ordered;
pub mod partitioned;
mod shared;
mod words;

use super::env::{Env, Place, Sides};
use super::expr::eval;
use super::hash;
use super::join::Join;
use super::materialise::{self, Form, Lists, Spans};
use super::pipeline::{self, Sink};
use super::value::Value;
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, workers};
use directory::{Directory, directory, find_or_insert, grow, position};
use ordered::SortedColumn;
use quearn_backends::abi;
use quearn_stage::graph::{AggregateOp, Node, Op};
use quearn_stage::low::{Builder, Ty, V};
use std::rc::Rc;

pub use group::{GroupLayout, column};

/// An aggregation of the graph, taken apart.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// The node.
    pub node: Node,
    /// Its rows.
    pub input: Node,
    /// Key expressions.
    pub keys: Vec<Node>,
    /// Names of the keys.
    pub key_names: Vec<String>,
    /// Argument of each aggregate.
    pub arguments: Vec<Option<Node>>,
    /// The join of which only the right side is folded, though the arguments are over pairs.
    pub right_of: Option<Join>,
}

impl Aggregation {
    /// The parts of an aggregation node.
    pub fn of(cx: &Cx<'_>, node: Node) -> Aggregation {
        let Op::Aggregate { keys: key_names, aggregates } = cx.graph.op(node) else { unreachable!("an aggregate") };
        let inputs = cx.graph.inputs(node);
        let (keys, rest) = inputs[1..].split_at(key_names.len());
        let mut rest = rest.iter().copied();
        let arguments = aggregates.iter().map(|a| if a.op == AggregateOp::CountRows { None } else { rest.next() });
        Aggregation {
            node,
            input: inputs[0],
            keys: keys.to_vec(),
            key_names: key_names.clone(),
            arguments: arguments.collect(),
            right_of: None,
        }
    }

    /// Keys and arguments on the current row.
    fn eval<'b>(&self, cx: &Cx<'_>, env: &Env<'b>) -> Result<(Vec<Value<'b>>, Vec<Option<Value<'b>>>)> {
        let keys = self.keys.iter().map(|&k| eval(cx, env, k)).collect::<Result<Vec<_>>>()?;
        let pairs = self.right_of.as_ref().map(|join| {
            let none = Env::new(env.b, env.frame, env.worker);
            let sides = Sides { left: (join.left, none), right: (join.right, env.branch()) };
            env.bind(join.node, Place::Sides(Rc::new(sides)))
        });
        let env = pairs.as_ref().unwrap_or(env);
        let arguments = self.arguments.iter().map(|a| a.map(|a| eval(cx, env, a)).transpose());
        Ok((keys, arguments.collect::<Result<_>>()?))
    }
}

/// The sink that folds rows into groups.
pub struct Groups {
    of: Aggregation,
    operator: String,
    /// Slot with the address of the workers' arrays or tables.
    state: Slot,
    /// Fold into the stack of the function during a tile.
    local: bool,
    local_state: Option<quearn_stage::low::Value>,
    /// The sorted column by which groups follow one another.
    sorted: Option<SortedColumn>,
    plan: Option<(Rc<GroupLayout>, Directory)>,
}

/// How an aggregation goes on through the pipeline of its rows.
pub enum InPipeline {
    /// Its groups follow one another.
    Ordered(SortedColumn),
    /// Its groups are the rows of the left side of a join.
    GroupJoin(Join),
}

/// Does a table operator that is an aggregation break no pipeline?
pub fn in_pipeline(cx: &Cx<'_>, table: Node) -> Option<InPipeline> {
    if !matches!(cx.graph.op(table), Op::Aggregate { .. }) || cx.is_shared(table) {
        return None;
    }
    let join = group_join::applies(cx, table).map(InPipeline::GroupJoin);
    join.or_else(|| ordered::in_pipeline(cx, table).map(InPipeline::Ordered))
}

impl Groups {
    fn new(cx: &Cx<'_>, of: Aggregation, local: bool, sorted: Option<SortedColumn>) -> Groups {
        let operator = cx.describe(of.node);
        Groups { of, operator, state: cx.frame.slot(Ty::PTR), local, local_state: None, sorted, plan: None }
    }

    fn plan(&mut self, cx: &Cx<'_>, keys: &[Value<'_>], arguments: &[Option<Value<'_>>]) -> Result<()> {
        if self.plan.is_none() {
            let directory = match self.sorted {
                Some(_) => Directory::Ordered,
                None => directory(keys, cx.estimate.rows(self.of.input)),
            };
            let header = if directory == Directory::Hashed { abi::ENTRY_KEYS } else { 0 };
            let layout = GroupLayout::plan(cx, &self.of, header, keys, arguments)?;
            // Whoever looks groups up by key needs one table of a hash.
            let alone = directory == Directory::Hashed && self.of.right_of.is_none();
            let parts = if alone { partitioned::parts(cx, &self.of, &layout) } else { None };
            self.plan = Some((Rc::new(layout), parts.map_or(directory, Directory::Partitioned)));
        }
        Ok(())
    }

    fn layout(&self) -> (Rc<GroupLayout>, Directory) {
        let (layout, directory) = self.plan.as_ref().expect("planned with the first row");
        (Rc::clone(layout), *directory)
    }

    /// The group on the stack of the function, which LLVM keeps in registers.
    fn local_group<'b>(&mut self, b: &'b Builder) -> V<'b> {
        let (layout, _) = self.layout();
        let group = b.alloca(layout.width() as u32, 16);
        b.in_prologue(|| layout.init(b, group));
        self.local_state = Some(group.id);
        group
    }

    /// The group of the current row.
    fn find<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, keys: &[Value<'b>]) -> V<'b> {
        let b = env.b;
        let (layout, directory) = self.layout();
        let state = self.state.get(b, env.frame);
        match directory {
            Directory::Ordered => ordered::current(cx, env, state, keys, &layout, &self.operator),
            Directory::Partitioned(parts) => partitioned::find(cx, env, (state, parts), keys, &layout, &self.operator),
            Directory::Dense(groups) => {
                let array = state.index(env.worker, groups as i64 * layout.width());
                let group = array.index(position(b, keys), layout.width());
                let fresh = !layout.occurs(b, group);
                b.if_(fresh, || {
                    layout.store_keys(b, group, keys);
                    layout.init(b, group);
                });
                group
            }
            Directory::Hashed => {
                let table = state.index(env.worker, abi::GROUPS_BYTES);
                let hash = hash::hash(cx, env, keys);
                let on_new = |group: V<'b>| {
                    layout.store_keys(b, group, keys);
                    layout.init(b, group);
                };
                find_or_insert(cx, env, table, hash, keys, &layout, &self.operator, on_new, |_| ())
            }
        }
    }
}

impl Sink for Groups {
    fn expressions(&self, _: &Cx<'_>) -> Vec<Node> {
        self.of.keys.iter().chain(self.of.arguments.iter().flatten()).copied().collect()
    }

    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let (keys, arguments) = self.of.eval(cx, env)?;
        self.plan(cx, &keys, &arguments)?;
        let group = if self.local { self.local_group(env.b) } else { self.find(cx, env, &keys) };
        self.layout().0.update(env.b, group, &arguments);
        Ok(())
    }

    fn end<'b>(&mut self, _cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let Some(local) = self.local_state.take() else { return Ok(()) };
        let b = env.b;
        let (layout, _) = self.layout();
        let local = b.value(local);
        let group = self.state.get(b, env.frame).index(env.worker, layout.width());
        let fresh = !layout.occurs(b, group);
        let copy = || {
            layout.copy(b, group, local);
            vec![]
        };
        b.if_else(fresh, copy, || {
            layout.merge(b, group, local);
            vec![]
        });
        Ok(())
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        let (layout, directory) = self.layout();
        let (state, operator) = (self.state, self.operator.clone());
        let each = match directory {
            Directory::Dense(groups) => groups as i64 * layout.width(),
            Directory::Hashed => abi::GROUPS_BYTES,
            Directory::Partitioned(parts) => partitioned::state_bytes(parts),
            Directory::Ordered => abi::ROWS_BYTES,
        };
        cx.step(move |cx, b, frame| {
            let n = workers(b, frame);
            let memory = cx.alloc(b, frame, n * each, &operator);
            state.set(b, frame, memory);
            if directory == Directory::Hashed {
                b.for_(b.i64(0), n, |w| grow(cx, b, frame, memory.index(w, each), b.i64(0), &operator));
            }
        });
        Ok(())
    }

    fn runs(&self) -> Option<SortedColumn> {
        self.sorted.clone()
    }

    fn describe(&self) -> String {
        let (layout, directory) = self.layout();
        match directory {
            Directory::Ordered => format!("{}: in order, {} bytes a group", self.operator, layout.width()),
            Directory::Dense(n) => {
                format!("{}: array of {n} groups of {} bytes a worker", self.operator, layout.width())
            }
            Directory::Partitioned(parts) => {
                format!("{}: {parts} partitions, {} bytes a group", self.operator, layout.width())
            }
            Directory::Hashed => format!("{}: hash table, {} bytes a group", self.operator, layout.width()),
        }
    }
}

/// Emits the pipelines of an aggregation; the groups are the rows that it gives.
pub fn lower(cx: &Cx<'_>, table: Node) -> Result<Spans> {
    if let Some(shared) = shared::find(cx, table) {
        return shared::lower(cx, shared);
    }
    let of = Aggregation::of(cx, table);
    let input = of.input;
    let local = of.keys.is_empty() && !pipeline::is_batched(cx, input);
    let sorted = ordered::sorted_key(cx, &of);
    let mut sink = Groups::new(cx, of, local, sorted.clone());
    if sorted.is_some() || !lanes::run(cx, &mut sink)? {
        pipeline::run(cx, "aggregate", input, &mut sink)?;
    }
    Ok(finish(cx, &sink))
}

/// The steps that bring the groups of all workers together.
fn finish(cx: &Cx<'_>, sink: &Groups) -> Spans {
    let (layout, directory) = sink.layout();
    let lists = match directory {
        Directory::Dense(groups) => merge::merge_dense(cx, sink, &layout, groups),
        Directory::Hashed => merge::merge_hashed(cx, sink, &layout),
        Directory::Partitioned(parts) => partitioned::merge(cx, sink, &layout, parts),
        Directory::Ordered => Lists { address: sink.state, stride: abi::ROWS_BYTES, count: None },
    };
    let width = layout.width();
    materialise::spans_of_lists(cx, lists, width, Form::Group(layout), &sink.operator)
}
