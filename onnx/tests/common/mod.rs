//! Models made by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]

use quearn::data::Tensor;
use quearn::{Session, Tensors};
use quearn_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use quearn_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use quearn_onnx::{Options, import};
use std::collections::BTreeMap;

pub mod attribute {
    //! Attributes of nodes.
    use super::AttributeProto;

    pub fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto { name: Some(name.into()), i: Some(value), r#type: Some(2), ..Default::default() }
    }

    pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
        AttributeProto { name: Some(name.into()), ints: values.to_vec(), r#type: Some(7), ..Default::default() }
    }
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..Default::default()
    }
}

pub fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let name = Some(name.into());
    TensorProto { name, dims: dims.to_vec(), data_type: Some(1), float_data: values.to_vec(), ..Default::default() }
}

pub fn int_tensor(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    let raw_data = Some(values.iter().flat_map(|i| i.to_le_bytes()).collect());
    TensorProto { name: Some(name.into()), dims: dims.to_vec(), data_type: Some(7), raw_data, ..Default::default() }
}

/// A tensor of bytes: `data_type` 2 for unsigned ones, 3 for signed ones.
pub fn byte_tensor(name: &str, dims: &[i64], data_type: i32, values: &[u8]) -> TensorProto {
    let (name, raw_data) = (Some(name.into()), Some(values.to_vec()));
    TensorProto { name, dims: dims.to_vec(), data_type: Some(data_type), raw_data, ..Default::default() }
}

pub fn typed_port(name: &str, dims: &[&str], elem_type: i32) -> ValueInfoProto {
    let dim = |text: &&str| Dimension {
        value: Some(match text.parse() {
            Ok(n) => dimension::Value::DimValue(n),
            Err(_) => dimension::Value::DimParam(text.to_string()),
        }),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(elem_type), shape });
    let ty = TypeProto { value: Some(tensor), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..Default::default() }
}

pub fn port(name: &str, dims: &[&str]) -> ValueInfoProto {
    typed_port(name, dims, 1)
}

pub fn int_port(name: &str, dims: &[&str]) -> ValueInfoProto {
    typed_port(name, dims, 7)
}

pub fn graph(
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
    outputs: &[&str],
) -> GraphProto {
    let output = outputs.iter().map(|name| port(name, &[])).collect();
    GraphProto { node, initializer, input, output, ..Default::default() }
}

pub fn model(graph: GraphProto) -> ModelProto {
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    ModelProto { graph: Some(graph), opset_import: vec![opset], ..Default::default() }
}

pub fn floats(values: &[f32], shape: &[u64]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape).unwrap()
}

pub fn ints(values: &[i64], shape: &[u64]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape).unwrap()
}

pub fn run(
    model: &ModelProto,
    options: &Options,
    inputs: &[(&str, Tensor)],
) -> quearn_onnx::Result<BTreeMap<String, Tensor>> {
    let made = import(model, None, options)?;
    let mut session = Session::builder().threads(1).build()?;
    made.load(&mut session);
    let inputs: Tensors = inputs.iter().map(|(name, t)| (name.to_string(), t.clone())).collect();
    let outputs = session.compile(&made.graph)?.run_with(&session, &inputs)?;
    made.results(&outputs)
}
