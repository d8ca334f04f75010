//! Evaluation by demand: a node's value is computed when somebody asks for it, and kept.

use super::value::{Datum, EvalTable, EvalTensor, EvalValue, Inputs};
use super::{Errors, EvalError, aggregate, elementwise, relational, tensor};
use crate::data::Tensor;
use quearn_stage::graph::foreign::Signature;
use quearn_stage::graph::{Dim, Field, Graph, JoinKind, Node, Op, Region, Scalar, Steps, Ty};
use quearn_stage::low::FailKind;
use std::collections::HashMap;
use std::rc::Rc;

type Result<T> = std::result::Result<T, EvalError>;

/// A run of a graph on its inputs.
pub struct Machine<'a> {
    graph: &'a Graph,
    inputs: &'a Inputs,
    /// Sizes of named dimensions.
    named: HashMap<&'a str, usize>,
    /// Values in the present environment (bindings of region parameters and of the product under a residual).
    memo: HashMap<Node, Result<EvalValue>>,
    /// While positive, failed elements may lie in values: an `If` above may not choose them.
    lenient: usize,
}

impl<'a> Machine<'a> {
    /// A run in which nothing is computed yet.
    pub fn new(graph: &'a Graph, inputs: &'a Inputs, errors: Errors) -> Result<Machine<'a>> {
        let lenient = usize::from(errors == Errors::Needed);
        let mut machine = Machine { graph, inputs, named: HashMap::new(), memo: HashMap::new(), lenient };
        for node in graph.reachable() {
            if let Op::Input { name, ty, .. } = graph.op(node) {
                machine.bind_input(name, ty)?;
            }
        }
        Ok(machine)
    }

    /// Checks an input and learns the sizes of its named dimensions.
    fn bind_input(&mut self, name: &str, ty: &'a Ty) -> Result<()> {
        let input = |message: String| EvalError::Input(format!("tensor {name:?}: {message}"));
        let tensor = self.inputs.tensors.get(name).ok_or_else(|| input("not given".into()))?;
        let Some((elem, shape)) = ty.as_tensor() else { return Err(input(format!("expected {ty:?}"))) };
        if tensor.elem().scalar != elem.scalar || tensor.shape().len() != shape.len() {
            return Err(input(format!("expected {ty:?}, found {} {:?}", tensor.elem(), tensor.shape())));
        }
        for (dim, &extent) in shape.iter().zip(tensor.shape()) {
            let expected = match dim {
                Dim::Const(n) => *n as usize,
                Dim::Named(dim) => *self.named.entry(dim).or_insert(extent),
                Dim::Rows(_) => extent,
            };
            if expected != extent {
                return Err(input(format!("dimension {dim} is {expected}, found {extent}")));
            }
        }
        Ok(())
    }

    /// The value of an output, without failed elements.
    pub fn output(&mut self, node: Node) -> Result<EvalValue> {
        let value = self.value(node)?;
        value.first_failure().map_or(Ok(value), |kind| Err(self.failed(node, kind)))
    }

    fn failed(&self, node: Node, kind: FailKind) -> EvalError {
        EvalError::Failed { kind, op: self.graph.op(node).name(), node }
    }

    /// The value of a node. Deep graphs do not recurse: what is surely needed is computed first, from a list.
    fn value(&mut self, node: Node) -> Result<EvalValue> {
        let mut pending = vec![node];
        while let Some(&next) = pending.last() {
            if self.memo.contains_key(&next) {
                pending.pop();
                continue;
            }
            let missing = self.needed_first(next).iter().find(|input| !self.memo.contains_key(*input));
            match missing {
                Some(&input) => pending.push(input),
                None => {
                    let value = self.compute(next);
                    self.memo.insert(next, value);
                }
            }
        }
        let value = self.memo[&node].clone()?;
        match value.first_failure() {
            Some(kind) if self.lenient == 0 => Err(self.failed(node, kind)),
            _ => Ok(value),
        }
    }

    /// Inputs that are evaluated in the environment of the node itself, whatever they are.
    fn needed_first(&self, node: Node) -> &'a [Node] {
        let inputs = self.graph.inputs(node);
        match self.graph.op(node) {
            Op::If => &inputs[..1],
            Op::Join { keys, .. } => &inputs[..2 + 2 * keys],
            _ => inputs,
        }
    }

    fn tensor(&mut self, node: Node) -> Result<Rc<EvalTensor>> {
        Ok(self.value(node)?.tensor().clone())
    }

    fn table(&mut self, node: Node) -> Result<Rc<EvalTable>> {
        Ok(self.value(node)?.table().clone())
    }

    fn tensors(&mut self, nodes: &[Node]) -> Result<Vec<Rc<EvalTensor>>> {
        nodes.iter().map(|&node| self.tensor(node)).collect()
    }

    /// Operands that must be whole: their operation mixes elements, so that no `If` can leave a failed one aside.
    fn whole(&mut self, node: Node) -> Result<Vec<Rc<EvalTensor>>> {
        let operands = self.tensors(self.graph.inputs(node))?;
        let failure = operands.iter().find_map(|t| t.first_failure());
        failure.map_or(Ok(operands), |kind| Err(self.failed(node, kind)))
    }

    fn compute(&mut self, node: Node) -> Result<EvalValue> {
        match self.graph.op(node) {
            Op::Scan { table, fields } => self.scan(table, fields),
            Op::Input { name, .. } => Ok(self.inputs.tensors[name].clone().into()),
            Op::Filter | Op::Project { .. } | Op::Product | Op::Join { .. } => self.relational(node),
            Op::Aggregate { .. } | Op::Sort(_) | Op::Limit { .. } | Op::Union { .. } => self.relational(node),
            Op::If => self.choose(node),
            Op::Loop(region) => self.repeat(node, region),
            Op::Steps(steps) => self.walk(node, steps),
            Op::Param { .. } => Err(EvalError::Input(format!("{node} is a parameter outside its region"))),
            Op::Item(index) => match self.value(self.graph.inputs(node)[0])? {
                EvalValue::Tuple(mut items) => Ok(items.swap_remove(*index)),
                other => unreachable!("item of {other:?}"),
            },
            Op::RowNumber => {
                let rows = self.table(self.graph.inputs(node)[0])?.rows();
                Ok(EvalTensor::ints(Scalar::I64, &[rows], 0..rows as i128).into())
            }
            Op::Column(name) => {
                let table = self.table(self.graph.inputs(node)[0])?;
                Ok(EvalValue::Tensor(table.column(name).expect("a column of the table").clone()))
            }
            _ => self.tensor_op(node),
        }
    }

    fn scan(&self, name: &str, fields: &[Field]) -> Result<EvalValue> {
        let input = |message: String| EvalError::Input(format!("table {name:?}: {message}"));
        let table = self.inputs.tables.get(name).ok_or_else(|| input("not given".into()))?;
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let found = table.column(&field.name).ok_or_else(|| input(format!("no column {:?}", field.name)))?;
            let shape = found.shape()[1..].iter().map(|&e| e as u64);
            if found.elem().scalar != field.elem.scalar || !shape.eq(field.shape.iter().copied()) {
                let (name, elem) = (&field.name, field.elem);
                return Err(input(format!("column {name:?}: expected {elem}, found {}", found.elem())));
            }
            columns.push(found.clone());
        }
        Ok(EvalTable::shared(fields.to_vec(), columns, table.rows()).into())
    }

    fn fields(&self, node: Node) -> &'a [Field] {
        self.graph.ty(node).as_table().expect("a table operation").0
    }

    fn relational(&mut self, node: Node) -> Result<EvalValue> {
        let inputs = self.graph.inputs(node);
        let table = self.table(inputs[0])?;
        let fields = self.fields(node);
        let rows = table.rows();
        let fail = |kind| EvalError::Failed { kind, op: self.graph.op(node).name(), node };
        Ok(match self.graph.op(node) {
            Op::Filter => {
                let pred = self.tensor(inputs[1])?;
                table.pick_rows(&relational::true_rows(&pred, rows).map_err(fail)?).into()
            }
            Op::Project { .. } => relational::project(fields, &self.tensors(&inputs[1..])?, rows).into(),
            Op::Product => relational::product(&table, &*self.table(inputs[1])?, fields).into(),
            Op::Join { kind, keys } => self.join(node, kind, *keys)?,
            Op::Aggregate { keys, aggregates } => {
                let operands = self.tensors(&inputs[1..])?;
                let operands = operands.split_at(keys.len());
                aggregate::aggregate(aggregates, operands, rows, fields).map_err(fail)?.into()
            }
            Op::Sort(keys) => {
                let columns = self.tensors(&inputs[1..])?;
                let keys: Vec<_> = keys.iter().copied().zip(columns).collect();
                table.pick_rows(&relational::sorted_rows(&keys, rows).map_err(fail)?).into()
            }
            Op::Union { .. } => {
                let tables = inputs.iter().map(|&input| self.table(input)).collect::<Result<Vec<_>>>()?;
                relational::union(&tables, fields).into()
            }
            Op::Limit { offset, count } => table.pick_rows(&relational::limited_rows(*offset, *count, rows)).into(),
            other => unreachable!("{} is not relational", other.name()),
        })
    }

    fn join(&mut self, node: Node, kind: &JoinKind, keys: usize) -> Result<EvalValue> {
        let inputs = self.graph.inputs(node);
        let (left, right) = (self.table(inputs[0])?, self.table(inputs[1])?);
        let left_keys = self.tensors(&inputs[2..2 + keys])?;
        let right_keys = self.tensors(&inputs[2 + keys..2 + 2 * keys])?;
        let matching = relational::matching_pairs((left.rows(), &left_keys), (right.rows(), &right_keys));
        let mut pairs = matching.map_err(|kind| self.failed(node, kind))?;
        if let Some(&residual) = inputs.get(2 + 2 * keys) {
            let chosen = self.residual(node, residual, &pairs)?;
            pairs = chosen.into_iter().map(|i| pairs[i]).collect();
        }
        Ok(relational::join(kind, &left, &right, pairs, self.fields(node)).into())
    }

    /// The pairs for which the residual is true. The residual speaks of the product of both sides; while it is
    /// evaluated, that product has no other rows than the pairs whose keys match.
    fn residual(&mut self, join: Node, residual: Node, pairs: &[(usize, Option<usize>)]) -> Result<Vec<usize>> {
        let sides = &self.graph.inputs(join)[..2];
        let is_product = |n: &Node| *self.graph.op(*n) == Op::Product && self.graph.inputs(*n) == sides;
        let product = (0..self.graph.len() as u32).map(Node).find(is_product);
        let affected = product.map_or(vec![], |product| self.dependents(&[product]));
        let outside = self.take(&affected);
        if let Some(product) = product {
            let (left, right) = (self.table(sides[0])?, self.table(sides[1])?);
            let table = relational::pair(&left, &right, pairs, self.fields(product));
            self.memo.insert(product, Ok(table.into()));
        }
        let pred = self.tensor(residual);
        self.take(&affected);
        self.memo.extend(outside);
        relational::true_rows(&*pred?, pairs.len()).map_err(|kind| self.failed(join, kind))
    }

    /// Those nodes and all that depend on them.
    fn dependents(&self, roots: &[Node]) -> Vec<Node> {
        let mut depends = vec![false; self.graph.len()];
        roots.iter().for_each(|root| depends[root.index()] = true);
        for node in (0..self.graph.len() as u32).map(Node) {
            let inherited = self.graph.dependencies(node).iter().any(|d| depends[d.index()]);
            depends[node.index()] |= inherited;
        }
        (0..self.graph.len() as u32).map(Node).filter(|n| depends[n.index()]).collect()
    }

    /// Forgets the values of nodes and gives them out.
    fn take(&mut self, nodes: &[Node]) -> Vec<(Node, Result<EvalValue>)> {
        nodes.iter().filter_map(|node| Some((*node, self.memo.remove(node)?))).collect()
    }

    /// `If`: both arms are evaluated, but failures count only where they are chosen.
    fn choose(&mut self, node: Node) -> Result<EvalValue> {
        let &[cond, a, b] = self.graph.inputs(node) else { unreachable!("three operands") };
        let cond = self.tensor(cond)?;
        let (a, b) = (self.arm(a)?, self.arm(b)?);
        let elem = self.elem(node);
        Ok(elementwise::evaluate(&Op::If, &[&cond, &a, &b], elem).into())
    }

    /// An arm of an `If`; where it fails as a whole, every element has failed.
    fn arm(&mut self, node: Node) -> Result<Rc<EvalTensor>> {
        self.lenient += 1;
        let value = self.tensor(node);
        self.lenient -= 1;
        let Err(EvalError::Failed { kind, .. }) = value else { return value };
        let shape = self.shape(node)?;
        let all = (0..shape.iter().product()).map(|_| Datum::Fail(kind));
        Ok(Rc::new(EvalTensor::new(self.elem(node), &shape, all)))
    }

    fn repeat(&mut self, node: Node, region: &Region) -> Result<EvalValue> {
        let inputs = self.graph.inputs(node);
        let trips = match self.tensor(inputs[0])?.get(0) {
            Datum::Int(trips) => trips,
            Datum::Fail(kind) => return Err(self.failed(node, kind)),
            other => unreachable!("{other:?} as a number of rounds"),
        };
        let mut carried = inputs[1..].iter().map(|&n| self.value(n)).collect::<Result<Vec<_>>>()?;
        let inside = self.dependents(&region.params);
        let elem = self.elem(region.params[0]);
        for round in 0..trips {
            self.take(&inside);
            let round = EvalTensor::scalar(elem, Datum::Int(round)).into();
            let arguments = std::iter::once(round).chain(carried);
            self.memo.extend(region.params.iter().copied().zip(arguments.map(Ok)));
            carried = region.results.iter().map(|&n| self.value(n)).collect::<Result<Vec<_>>>()?;
        }
        self.take(&inside);
        Ok(if carried.len() == 1 { carried.remove(0) } else { EvalValue::Tuple(carried) })
    }

    fn walk(&mut self, node: Node, steps: &Steps) -> Result<EvalValue> {
        let Steps { region, count, carried, axis, back } = steps;
        let inputs = self.graph.inputs(node).iter().map(|&n| self.value(n)).collect::<Result<Vec<_>>>()?;
        let (begin, wholes) = inputs.split_at(*carried);
        let (mut values, mut collected) = (begin.to_vec(), vec![vec![]; region.results.len() - carried]);
        let inside = self.dependents(&region.params);
        for step in 0..*count as usize {
            self.take(&inside);
            let at = if *back { *count as usize - 1 - step } else { step };
            let slice = |whole: &EvalValue| {
                let (whole, mut shape) = (whole.tensor(), whole.tensor().shape().to_vec());
                shape.remove(*axis);
                EvalValue::from(tensor::slice(whole, *axis, &[at]).with_type(whole.elem(), shape))
            };
            let arguments = values.into_iter().chain(wholes.iter().map(slice));
            self.memo.extend(region.params.iter().copied().zip(arguments.map(Ok)));
            values = region.results.iter().map(|&n| self.value(n)).collect::<Result<Vec<_>>>()?;
            collected.iter_mut().zip(values.split_off(*carried)).for_each(|(list, value)| list.push(value));
        }
        self.take(&inside);
        for (list, result) in collected.iter_mut().zip(&region.results[*carried..]) {
            if *back {
                list.reverse();
            }
            values.push(self.side_by_side(*result, list, *axis)?.into());
        }
        Ok(if values.len() == 1 { values.remove(0) } else { EvalValue::Tuple(values) })
    }

    /// Values of a node in a new axis.
    fn side_by_side(&mut self, of: Node, list: &[EvalValue], axis: usize) -> Result<EvalTensor> {
        let elem = self.elem(of);
        let mut shape = self.shape(of)?;
        shape.insert(axis, list.len().min(1));
        let parts: Vec<EvalTensor> =
            list.iter().map(|value| value.tensor().as_ref().clone().with_type(elem, shape.clone())).collect();
        Ok(match parts.is_empty() {
            true => EvalTensor::new(elem, &shape, []),
            false => tensor::concat(&parts.iter().collect::<Vec<_>>(), axis, elem),
        })
    }

    fn elem(&self, node: Node) -> quearn_stage::graph::Elem {
        self.graph.ty(node).as_tensor().expect("a tensor operation").0
    }

    /// The extents of a tensor in this run.
    fn shape(&mut self, node: Node) -> Result<Vec<usize>> {
        let graph = self.graph;
        let (_, dims) = graph.ty(node).as_tensor().expect("a tensor operation");
        dims.iter().map(|dim| self.extent(dim)).collect()
    }

    fn extent(&mut self, dim: &Dim) -> Result<usize> {
        match dim {
            Dim::Const(n) => Ok(*n as usize),
            Dim::Rows(table) => Ok(self.table(*table)?.rows()),
            Dim::Named(name) => {
                let unknown = || EvalError::Input(format!("no tensor tells the size of dimension {name}"));
                self.named.get(name.as_str()).copied().ok_or_else(unknown)
            }
        }
    }

    /// Calls a function of another library.
    fn call(&self, name: &str, signature: &Signature, operands: &[&EvalTensor]) -> Result<EvalTensor> {
        let input = |message: String| EvalError::Input(format!("function {name:?}: {message}"));
        let function = self.inputs.functions.get(name).ok_or_else(|| input("not given".into()))?;
        if function.signature() != signature {
            return Err(input(format!("expected {signature}, found {}", function.signature())));
        }
        let tensors = operands.iter().map(|x| Tensor::try_from(*x).map_err(|e| input(e.to_string())));
        let result = function.apply(&tensors.collect::<Result<Vec<_>>>()?).map_err(input)?;
        Ok(EvalTensor::from(&result))
    }

    fn tensor_op(&mut self, node: Node) -> Result<EvalValue> {
        let op = self.graph.op(node);
        let elem = self.elem(node);
        let mixes =
            matches!(op, Op::MatMul | Op::Conv2d(_) | Op::Pool2d(_) | Op::BatchNorm { .. } | Op::TreeEnsemble(_))
                || matches!(op, Op::Softmax { .. } | Op::Reduce { .. } | Op::ArgMax { .. } | Op::CumSum { .. })
                || matches!(op, Op::Foreign { .. } | Op::ScatterAdd | Op::Conv2dFilters { .. } | Op::MaxUnpool2d(_));
        let operands = if mixes { self.whole(node)? } else { self.tensors(self.graph.inputs(node))? };
        let refs: Vec<&EvalTensor> = operands.iter().map(Rc::as_ref).collect();
        let value = match op {
            Op::Iota(count) => EvalTensor::ints(elem.scalar, &[*count as usize], 0..i128::from(*count)),
            Op::MatMul => tensor::matmul(refs[0], refs[1]),
            Op::Conv2d(conv) => tensor::conv2d(conv, refs[0], refs[1], refs.get(2).copied(), &self.shape(node)?),
            Op::Conv2dFilters { conv, .. } => tensor::conv2d_filters(conv, refs[0], refs[1], &self.shape(node)?),
            Op::Pool2d(pool) => tensor::pool2d(pool, refs[0], &self.shape(node)?),
            Op::MaxUnpool2d(pool) => tensor::max_unpool2d(pool, refs[0], refs[1]),
            Op::BatchNorm { eps } => tensor::batch_norm(&refs, f64::from_bits(*eps)),
            Op::Softmax { axis } => tensor::softmax(refs[0], *axis),
            Op::Concat { axis } => tensor::concat(&refs, *axis, elem),
            Op::Reduce { op, axes, keep } => tensor::reduce(*op, axes, *keep, refs[0], elem),
            Op::Reshape(_) => refs[0].clone().with_type(elem, self.shape(node)?),
            Op::Slice { axis, start, step, count } => {
                let position = |i: u64| (*start as i64 + step * i as i64) as usize;
                tensor::slice(refs[0], *axis, &(0..*count).map(position).collect::<Vec<_>>())
            }
            Op::Broadcast(_) => tensor::broadcast(refs[0], &self.shape(node)?),
            Op::CumSum { axis } => tensor::cum_sum(refs[0], *axis, elem),
            Op::Transpose(perm) => tensor::transpose(refs[0], perm),
            Op::ArgMax { axis } => tensor::arg_max(refs[0], *axis),
            Op::TreeEnsemble(forest) => tensor::tree_ensemble(forest, refs[0]),
            Op::Foreign { name, signature } => self.call(name, signature, &refs)?,
            Op::Gather => tensor::gather(refs[0], refs[1], elem),
            Op::ScatterAdd => tensor::scatter_add(refs[0], refs[1], refs[2]),
            Op::Stack => tensor::stack(&refs, elem),
            Op::Single => refs[0].clone().with_type(elem, vec![]),
            op => elementwise::evaluate(op, &refs, elem),
        };
        Ok(value.into())
    }
}
