//! Graphs with data of their own, run on every backend and compared with the naive evaluator.

use super::*;
use quearn::eval::{Datum, EvalTensor, EvalValue, Inputs, evaluate};
use quearn_stage::graph::*;

/// The memory of a tensor.
fn memory(tensor: &EvalTensor) -> Vec<u8> {
    let int = |d: &Datum| if let Datum::Int(i) = d { *i } else { panic!("{d:?} is no integer") };
    let element = |d: Datum| match (tensor.elem().scalar, &d) {
        (Scalar::Bool, Datum::Bool(b)) => vec![u8::from(*b)],
        (Scalar::U8 | Scalar::I8, d) => (int(d) as i8).to_le_bytes().to_vec(),
        (Scalar::I16, d) => (int(d) as i16).to_le_bytes().to_vec(),
        (Scalar::I32, d) => (int(d) as i32).to_le_bytes().to_vec(),
        (Scalar::I64, d) => (int(d) as i64).to_le_bytes().to_vec(),
        (Scalar::F16, Datum::Float(x)) => half::f16::from_f64(*x).to_le_bytes().to_vec(),
        (Scalar::BF16, Datum::Float(x)) => half::bf16::from_f64(*x).to_le_bytes().to_vec(),
        (Scalar::F32, Datum::Float(x)) => (*x as f32).to_le_bytes().to_vec(),
        (Scalar::F64, Datum::Float(x)) => x.to_le_bytes().to_vec(),
        (scalar, d) => panic!("{d:?} as {scalar}"),
    };
    tensor.iter().flat_map(element).collect()
}

/// The values in the memory of a tensor.
fn values(scalar: Scalar, memory: &[u8]) -> Vec<f64> {
    match scalar {
        Scalar::Bool | Scalar::U8 => memory.iter().map(|&x| f64::from(x)).collect(),
        Scalar::I8 => numbers::<i8>(memory).into_iter().map(f64::from).collect(),
        Scalar::I16 => numbers::<i16>(memory).into_iter().map(f64::from).collect(),
        Scalar::I32 => numbers::<i32>(memory).into_iter().map(f64::from).collect(),
        Scalar::I64 => numbers::<i64>(memory).into_iter().map(|x| x as f64).collect(),
        Scalar::F16 => numbers::<half::f16>(memory).into_iter().map(f64::from).collect(),
        Scalar::BF16 => numbers::<half::bf16>(memory).into_iter().map(f64::from).collect(),
        Scalar::F32 => numbers::<f32>(memory).into_iter().map(f64::from).collect(),
        Scalar::F64 => numbers::<f64>(memory),
        other => panic!("{other} in a tensor"),
    }
}

fn tolerance(scalar: Scalar) -> f64 {
    match scalar {
        Scalar::F16 => 2e-3,
        Scalar::BF16 => 2e-2,
        Scalar::F32 => 2e-5,
        Scalar::F64 => 1e-11,
        _ => 0.0,
    }
}

fn compare(what: &str, scalar: Scalar, found: &[u8], expected: &EvalTensor) {
    let (found, expected) = (values(scalar, found), values(scalar, &memory(expected)));
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    // Sums may cancel, so errors count against the largest element.
    let largest = expected.iter().filter(|e| e.is_finite()).fold(1.0, |a: f64, e| a.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        let same = f == e || f.is_nan() && e.is_nan() || (f - e).abs() <= tolerance(scalar) * largest;
        assert!(same, "{what}: element {i} is {f}, expected {e}");
    }
}

/// The graph with the leading dimension of its inputs named, if all that are no weights agree on it.
pub fn run_case(graph: &Graph, inputs: &Inputs, backend: &dyn Backend, named: &[(&str, i64)], what: &str) {
    let expected = evaluate(graph, inputs);
    let tensors: Vec<(&str, Vec<u8>)> = inputs.tensors.iter().map(|(n, t)| (n.as_str(), memory(t))).collect();
    let mut program = Program::new(graph, backend, &tensors, named);
    for workers in [1, 3] {
        match (program.try_run(workers), &expected) {
            (Ok(found), Ok(expected)) => {
                for (bytes, (name, value)) in found.iter().zip(expected) {
                    let EvalValue::Tensor(tensor) = value else { panic!("{what}: {name} is no tensor") };
                    compare(&format!("{what}, {} workers", workers), tensor.elem().scalar, bytes, tensor);
                }
            }
            (Err(_), Err(_)) => {}
            (found, expected) => panic!("{what}: {found:?}, expected {expected:?}"),
        }
    }
}

/// A graph with data of its own.
pub struct Maker {
    pub g: Graph,
    pub inputs: Inputs,
    pub r: Random,
}

impl Maker {
    pub fn new(seed: u64) -> Maker {
        Maker { g: Graph::new(), inputs: Inputs::default(), r: Random(seed) }
    }

    pub fn tensor(&mut self, scalar: Scalar, shape: &[Dim], named: u64, weight: bool) -> Node {
        let name = format!("t{}", self.inputs.tensors.len());
        let extents: Vec<usize> = shape.iter().map(|d| d.as_const().unwrap_or(named) as usize).collect();
        let n: usize = extents.iter().product();
        let tensor = match scalar {
            Scalar::Bool => {
                let data: Vec<Datum> = (0..n).map(|_| Datum::Bool(self.r.int(0, 1) == 1)).collect();
                EvalTensor::new(scalar.required(), &extents, data)
            }
            s if s.is_float() => {
                let rounded = |x: f32| Literal::float(s, f64::from(x) * 3.0).unwrap().as_float().unwrap();
                EvalTensor::floats(s, &extents, (0..n).map(|_| rounded(self.r.float())).collect())
            }
            Scalar::U8 => EvalTensor::ints(scalar, &extents, (0..n).map(|_| i128::from(self.r.int(0, 11)))),
            s => EvalTensor::ints(s, &extents, (0..n).map(|_| i128::from(self.r.int(0, 22)) - 11)),
        };
        self.inputs.tensors.insert(name.clone(), tensor);
        input(&mut self.g, &name, scalar, shape, weight)
    }

    pub fn add(&mut self, op: Op, inputs: &[Node]) -> Node {
        self.g.add(op, inputs).unwrap()
    }

    /// Runs the graph with these outputs on every backend.
    pub fn check(mut self, what: &str, outputs: &[Node], named: &[(&str, i64)]) {
        for (i, &node) in outputs.iter().enumerate() {
            self.g.output(format!("out{i}"), node);
        }
        for backend in backends() {
            let what = format!("{} {what}\n{}", backend.name(), self.g);
            run_case(&self.g, &self.inputs, &*backend, named, &what);
        }
    }
}

pub fn named(first: &str, rest: &[u64]) -> Vec<Dim> {
    std::iter::once(Dim::Named(first.into())).chain(dims(rest)).collect()
}
