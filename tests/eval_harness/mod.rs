//! Graphs made by hand, run by the naive evaluator.

#![allow(dead_code, reason = "each test file uses a part of it")]

use quearn::eval::{Datum, EvalError, EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn_stage::graph::*;

/// A graph under construction, with its data.
#[derive(Default)]
pub struct Program {
    pub graph: Graph,
    pub inputs: Inputs,
}

impl Program {
    pub fn add(&mut self, op: Op, inputs: &[Node]) -> Node {
        self.graph.add(op, inputs).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn constant(&mut self, literal: Literal) -> Node {
        self.add(Op::Const(literal), &[])
    }

    pub fn int(&mut self, value: i64) -> Node {
        self.constant(Literal::i64(value))
    }

    pub fn scan(&mut self, name: &str, table: EvalTable) -> Node {
        let fields = table.fields().to_vec();
        self.inputs.tables.insert(name.into(), table);
        self.add(Op::Scan { table: name.into(), fields }, &[])
    }

    pub fn column(&mut self, table: Node, name: &str) -> Node {
        self.add(Op::Column(name.into()), &[table])
    }

    pub fn tensor(&mut self, name: &str, tensor: EvalTensor) -> Node {
        let shape = tensor.shape().iter().map(|&e| Dim::Const(e as u64)).collect();
        let ty = Ty::Tensor { elem: tensor.elem(), shape };
        self.inputs.tensors.insert(name.into(), tensor);
        self.add(Op::Input { name: name.into(), ty, weight: false }, &[])
    }

    pub fn binary(&mut self, op: BinaryOp, a: Node, b: Node) -> Node {
        self.add(Op::Binary(op), &[a, b])
    }

    pub fn compare(&mut self, op: CompareOp, a: Node, b: Node) -> Node {
        self.add(Op::Compare(op), &[a, b])
    }

    pub fn project(&mut self, table: Node, columns: &[(&str, Node)]) -> Node {
        let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let inputs: Vec<Node> = std::iter::once(table).chain(columns.iter().map(|c| c.1)).collect();
        self.add(Op::Project { names }, &inputs)
    }

    pub fn aggregate(
        &mut self,
        table: Node,
        keys: &[(&str, Node)],
        folds: &[(&str, AggregateOp, Option<Node>)],
    ) -> Node {
        let aggregates = folds.iter().map(|(name, op, _)| Aggregate { name: (*name).into(), op: *op }).collect();
        let mut inputs = vec![table];
        inputs.extend(keys.iter().map(|k| k.1).chain(folds.iter().filter_map(|f| f.2)));
        self.add(Op::Aggregate { keys: keys.iter().map(|k| k.0.to_owned()).collect(), aggregates }, &inputs)
    }

    pub fn run(mut self, node: Node) -> Result<EvalValue, EvalError> {
        self.graph.output("out", node);
        Ok(evaluate(&self.graph, &self.inputs)?.remove(0).1)
    }

    pub fn rows(self, node: Node) -> Vec<Vec<Datum>> {
        let value = self.run(node).unwrap();
        let table = value.table();
        (0..table.rows()).map(|row| table.columns().iter().map(|c| c.get(row)).collect()).collect()
    }

    pub fn data(self, node: Node) -> Vec<Datum> {
        self.run(node).unwrap().tensor().iter().collect()
    }

    pub fn floats(self, node: Node) -> Vec<f64> {
        self.run(node).unwrap().tensor().as_floats().to_vec()
    }
}

pub fn ints(values: &[i128]) -> EvalTensor {
    EvalTensor::ints(Scalar::I64, &[values.len()], values.iter().copied())
}

pub fn nullable_ints(values: &[Option<i128>]) -> EvalTensor {
    column(Scalar::I64, values.iter().map(|v| v.map_or(Datum::Null, Datum::Int)).collect())
}

pub fn column(scalar: Scalar, values: Vec<Datum>) -> EvalTensor {
    EvalTensor::new(scalar.nullable(), &[values.len()], values)
}

pub fn strings(values: &[&str]) -> EvalTensor {
    EvalTensor::new(Scalar::String.required(), &[values.len()], values.iter().map(Datum::str))
}

pub fn f32s(shape: &[usize], values: &[f64]) -> EvalTensor {
    EvalTensor::floats(Scalar::F32, shape, values.to_vec())
}

pub fn int(i: i128) -> Datum {
    Datum::Int(i)
}

pub fn date(text: &str) -> Literal {
    Literal::parse_date(text).unwrap()
}

pub fn decimal(text: &str) -> Literal {
    Literal::parse_decimal(text).unwrap()
}
