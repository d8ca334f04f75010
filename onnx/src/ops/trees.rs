//! Ensembles of decision trees, of the domain `ai.onnx.ml`.

use super::Write;
use crate::emit::Fallible;
use crate::value::Call;
use quearn_stage::graph::{Forest, Node, Op, Scalar, Split, Step, Tree, TreeWriter, UnaryOp};
use std::collections::HashMap;

pub(super) const ROWS: &[(&str, Write)] = &[("ai.onnx.ml.TreeEnsembleRegressor", regressor)];

fn regressor(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    if matches!(c.emit.scalar(x), Scalar::F64 | Scalar::I64) {
        return Err("features of 64 bits are not supported".into());
    }
    let features = c.emit.extent(x, 1)?;
    let nodes = Nodes::of(c)?;
    let aggregate = c.text("aggregate_function", "SUM");
    if !matches!(&*aggregate, "SUM" | "AVERAGE") {
        return Err(format!("the aggregate function {aggregate} is not supported"));
    }
    let most = nodes.leaves.values().flatten().map(|(target, _)| target + 1).max().unwrap_or(1);
    let targets = usize::try_from(c.int("n_targets", most as i64)).unwrap_or(0);
    let base = c.floats("base_values").unwrap_or_else(|| vec![0.0; targets]);
    if base.len() != targets || most > targets {
        return Err(format!("{} base values and target {} for {targets} targets", base.len(), most - 1));
    }
    let averaged = aggregate == "AVERAGE";
    let start = base.iter().map(|base| if averaged { 0.0 } else { *base as f32 });
    let mut forest = Forest::new(u32::try_from(features).map_err(|_| "too many features")?, start);
    for target in 0..targets {
        for &root in &nodes.roots {
            forest.trees.extend(nodes.tree(root, target)?);
        }
    }
    let post = c.text("post_transform", "NONE");
    let e = &mut *c.emit;
    let x = e.cast(x, Scalar::F32)?;
    let mut y = e.op(Op::TreeEnsemble(forest.into()), &[x])?;
    if averaged {
        y = e.times(y, 1.0 / nodes.roots.len().max(1) as f64)?;
        let base = e.floats(Scalar::F32, &[targets as u64], &base)?;
        y = e.add(y, base)?;
    }
    match &*post {
        "NONE" => Ok(vec![y]),
        "LOGISTIC" => Ok(vec![e.unary(UnaryOp::Sigmoid, y)?]),
        "SOFTMAX" => Ok(vec![e.op(Op::Softmax { axis: 1 }, &[y])?]),
        other => Err(format!("the transform {other} of the sums is not supported")),
    }
}

/// Tree and number of a node.
type Place = (i64, i64);

/// The nodes of all trees, as the attributes list them.
struct Nodes {
    at: HashMap<Place, usize>,
    places: Vec<Place>,
    /// The first node of each tree.
    roots: Vec<Place>,
    modes: Vec<String>,
    features: Vec<i64>,
    limits: Vec<f64>,
    sides: [Vec<i64>; 2],
    missing: Vec<i64>,
    /// What leaves add, by target.
    leaves: HashMap<Place, Vec<(usize, f32)>>,
}

impl Nodes {
    fn of(c: &Call) -> Fallible<Nodes> {
        let ints = |name: &str| c.ints(name).ok_or_else(|| format!("needs the attribute {name}"));
        let floats = |name: &str| c.floats(name).ok_or_else(|| format!("needs the attribute {name}"));
        let (trees, numbers) = (ints("nodes_treeids")?, ints("nodes_nodeids")?);
        let places: Vec<Place> = trees.iter().copied().zip(numbers.iter().copied()).collect();
        let count = places.len();
        let mut nodes = Nodes {
            at: places.iter().copied().zip(0..).collect(),
            roots: vec![],
            modes: c.texts("nodes_modes").ok_or("needs the attribute nodes_modes")?,
            features: ints("nodes_featureids")?,
            limits: floats("nodes_values")?,
            sides: [ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?],
            missing: c.ints("nodes_missing_value_tracks_true").unwrap_or_else(|| vec![0; count]),
            leaves: HashMap::new(),
            places,
        };
        let lengths = [trees.len(), numbers.len(), nodes.modes.len(), nodes.features.len(), nodes.limits.len()];
        let others = [nodes.sides[0].len(), nodes.sides[1].len(), nodes.missing.len()];
        if lengths.iter().chain(&others).any(|&length| length != count) || nodes.at.len() != count {
            return Err("the attributes of the nodes differ in length, or name a node twice".into());
        }
        for place in &nodes.places {
            if !nodes.roots.iter().any(|root| root.0 == place.0) {
                nodes.roots.push(*place);
            }
        }
        let (trees, numbers) = (ints("target_treeids")?, ints("target_nodeids")?);
        let (targets, weights) = (ints("target_ids")?, floats("target_weights")?);
        if [numbers.len(), targets.len(), weights.len()] != [trees.len(); 3] {
            return Err("the attributes of the targets differ in length".into());
        }
        for (i, weight) in weights.into_iter().enumerate() {
            let target = usize::try_from(targets[i]).map_err(|_| format!("no target {}", targets[i]))?;
            nodes.leaves.entry((trees[i], numbers[i])).or_default().push((target, weight as f32));
        }
        Ok(nodes)
    }

    /// What a tree adds to a target, if it adds to it at all.
    fn tree(&self, root: Place, target: usize) -> Fallible<Option<Tree>> {
        let (mut writer, mut stack, mut steps, mut adds) = (TreeWriter::default(), vec![root], 0, false);
        while let Some(place) = stack.pop() {
            steps += 1;
            if steps > self.places.len() {
                return Err(format!("tree {} has a circle", root.0));
            }
            let at = *self.at.get(&place).ok_or_else(|| format!("tree {} has no node {}", place.0, place.1))?;
            if self.modes[at] == "LEAF" {
                let added = self.leaves.get(&place).into_iter().flatten().filter(|(to, _)| *to == target);
                adds |= added.clone().count() > 0;
                writer.push(Step::Leaf(added.map(|(_, weight)| weight).sum()));
                continue;
            }
            let (split, sides) = self.split(at)?;
            writer.push(Step::Split(split));
            let [left, right] = sides.map(|side| (place.0, self.sides[side][at]));
            stack.extend([right, left]);
        }
        Ok(writer.finish(target as u32).filter(|_| adds))
    }

    /// A node as a split, and which of its sides, true or false, are left and right.
    fn split(&self, at: usize) -> Fallible<(Split, [usize; 2])> {
        let feature = u32::try_from(self.features[at]).map_err(|_| format!("no feature {}", self.features[at]))?;
        let (limit, missing_is_true) = (self.limits[at] as f32, self.missing[at] != 0);
        let (limit, true_is_left) = match &*self.modes[at] {
            "BRANCH_LEQ" => (limit, true),
            "BRANCH_GT" => (limit, false),
            "BRANCH_LT" | "BRANCH_GTE" if limit == f32::NEG_INFINITY => {
                return Err("a limit of minus infinity is not supported".into());
            }
            "BRANCH_LT" => (limit.next_down(), true),
            "BRANCH_GTE" => (limit.next_down(), false),
            mode => return Err(format!("nodes of the mode {mode} are not supported")),
        };
        let split = Split { nan_left: missing_is_true == true_is_left, ..Split::new(feature, limit) };
        Ok((split, if true_is_left { [0, 1] } else { [1, 0] }))
    }
}
