//! From a model to a graph, node by node.

use crate::emit::Emit;
use crate::error::{Error, Result};
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use crate::value::{Call, Known, Value};
use crate::{fold, ops, tensor};
use prost::Message;
use quearn::data::Tensor;
use quearn_stage::graph::{Dim, Graph, Node, Op, Scalar};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;

/// How a model is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Extents of named dimensions; others stay open (only the leading one of a program may).
    pub dims: BTreeMap<String, u64>,
    /// Shapes of inputs, where the file leaves them open.
    pub shapes: BTreeMap<String, Vec<u64>>,
    /// Values of inputs that shapes depend on: the program is made for these, and [`Model::given`] names those that it
    /// depends on. Values that no shape needs do not matter.
    pub values: BTreeMap<String, Tensor>,
}

/// An input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub scalar: Scalar,
    /// Its extents.
    pub shape: Vec<Dim>,
}

/// A model as a program.
pub struct Model {
    /// The program. A result of rank 0 comes out with the shape `[1]`; [`Model::outputs`] has the model's.
    pub graph: Graph,
    /// Its weights.
    pub weights: BTreeMap<String, Tensor>,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Inputs whose given values the program was made for.
    pub given: BTreeSet<String>,
}

/// The names that are visible at a place, in a graph and those around it.
type Scope = HashMap<String, Rc<Value>>;

struct Import<'a> {
    emit: Emit,
    options: &'a Options,
    folder: Option<&'a Path>,
    opset: i64,
    used: RefCell<BTreeSet<String>>,
}

/// Reads a model from a file; its external data must lie in the same folder or below.
pub fn read(path: impl AsRef<Path>, options: &Options) -> Result<Model> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    import(&decode(&bytes)?, folder, options)
}

/// The message that the bytes of a model are.
pub fn decode(bytes: &[u8]) -> Result<ModelProto> {
    ModelProto::decode(bytes).map_err(|e| Error::Format(e.to_string()))
}

/// The program of a model; `folder` is where its external data lies.
pub fn import(model: &ModelProto, folder: Option<&Path>, options: &Options) -> Result<Model> {
    let Some(proto) = &model.graph else { return Err(Error::Format("it has no graph".into())) };
    let main = model.opset_import.iter().find(|o| ["", "ai.onnx"].contains(&o.domain()));
    let Some(opset) = main.map(|o| o.version()) else {
        return Err(Error::Format("it names no operator set".into()));
    };
    if !(1..=MOST_OPSET).contains(&opset) {
        return Err(Error::Format(format!("operator set {opset} is not supported, 1 to {MOST_OPSET} are")));
    }
    let (emit, used) = (Emit::default(), RefCell::default());
    let mut import = Import { emit, options, folder, opset, used };
    import.emit.taken = names(proto);
    let mut scope = Scope::new();
    import.initializers(proto, &mut scope)?;
    let mut inputs = vec![];
    for port in &proto.input {
        if !scope.contains_key(port.name()) {
            inputs.push(import.input(port, &mut scope)?);
        }
    }
    import.nodes(&proto.node, &mut scope)?;
    let mut outputs = vec![];
    for port in &proto.output {
        outputs.push(import.output(port, &scope)?);
    }
    let Import { emit, used, .. } = import;
    Ok(Model { graph: emit.graph, weights: emit.weights, inputs, outputs, given: used.into_inner() })
}

/// The newest operator set whose meaning is known here.
const MOST_OPSET: i64 = 28;

fn names(graph: &GraphProto) -> BTreeSet<String> {
    let made = graph.node.iter().flat_map(|n| &n.output).cloned();
    let given = graph.input.iter().map(|p| p.name().to_owned());
    made.chain(given).chain(graph.initializer.iter().map(|t| t.name().to_owned())).collect()
}

impl Import<'_> {
    fn initializers(&self, graph: &GraphProto, scope: &mut Scope) -> Result<()> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |v| v.name()).to_owned();
            return Err(Error::Tensor { name, message: "sparse tensors are not supported".into() });
        }
        for proto in &graph.initializer {
            let value = Value::tensor(proto.name(), tensor::read(proto, self.folder)?);
            scope.insert(proto.name().to_owned(), value);
        }
        Ok(())
    }

    fn input(&mut self, port: &ValueInfoProto, scope: &mut Scope) -> Result<Port> {
        let name = port.name().to_owned();
        let fail = |message: String| Error::Port { what: "input", name: name.clone(), message };
        let (scalar, declared) = tensor_type(port).map_err(fail)?;
        let shape: Vec<Dim> = match (self.options.shapes.get(&name), declared) {
            (Some(given), Some(declared)) if !agrees(&declared, given) => {
                return Err(fail(format!("the model wants the shape {}, found {given:?}", shown(&declared))));
            }
            (Some(given), _) => given.iter().map(|&n| Dim::Const(n)).collect(),
            (None, Some(declared)) => declared.into_iter().map(|dim| self.resolved(dim)).collect(),
            (None, None) => return Err(fail("its shape is not declared and was not given".into())),
        };
        if shape.contains(&Dim::Const(0)) {
            // Some operators ask for its type only.
            let extents = shape.iter().map(|dim| dim.as_const().unwrap_or(1)).collect();
            let known = Known::new(scalar, extents, vec![]);
            let missing = Some("tensors without elements are not supported".to_owned());
            scope.insert(name.clone(), Value::known(&name, known, missing));
            return Ok(Port { name, scalar, shape });
        }
        let node = self.emit.bound(&name, scalar, shape.clone(), false).map_err(fail)?;
        let known = self.options.values.get(&name).and_then(|t| Value::tensor(&name, t.clone()).elements());
        let known = known.map(|known| Known { given: BTreeSet::from([name.clone()]), ..known });
        scope.insert(name.clone(), Value::node(&name, node, known));
        Ok(Port { name, scalar, shape })
    }

    fn resolved(&self, dim: Dim) -> Dim {
        match &dim {
            Dim::Named(name) => self.options.dims.get(name).map_or(dim.clone(), |n| Dim::Const(*n)),
            _ => dim,
        }
    }

    fn output(&mut self, port: &ValueInfoProto, scope: &Scope) -> Result<Port> {
        let name = port.name().to_owned();
        let fail = |message: String| Error::Port { what: "output", name: name.clone(), message };
        let value = scope.get(&name).ok_or_else(|| fail("no node makes it".into()))?;
        let mut node = value.in_graph(&mut self.emit).map_err(fail)?;
        let (scalar, shape) = (self.emit.scalar(node), self.emit.shape(node));
        if shape.is_empty() {
            node = self.emit.reshape_to(node, &[1]).map_err(fail)?;
        }
        self.emit.graph.output(name.clone(), node);
        Ok(Port { name, scalar, shape })
    }

    fn nodes(&mut self, nodes: &[NodeProto], scope: &mut Scope) -> Result<()> {
        for node in nodes {
            let made = self.node(node, scope).map_err(|message| match message {
                Fault::Here(message) => Error::Node { node: label(node), op: node.op_type().to_owned(), message },
                Fault::Inside(error) => *error,
            })?;
            for (name, value) in node.output.iter().zip(made) {
                if !name.is_empty() && scope.insert(name.clone(), value).is_some_and(|old| old.name == *name) {
                    let message = format!("{name:?} is made twice");
                    return Err(Error::Node { node: label(node), op: node.op_type().to_owned(), message });
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeProto, scope: &mut Scope) -> std::result::Result<Vec<Rc<Value>>, Fault> {
        let mut inputs = vec![];
        for name in &node.input {
            let found = scope.get(name);
            if found.is_none() && !name.is_empty() {
                let message = format!("input {name:?} is made by no node before it (a cycle, or a missing node)");
                return Err(Fault::Here(message));
            }
            inputs.push(found.cloned());
        }
        if !["", "ai.onnx"].contains(&node.domain()) {
            return Err(Fault::Here(format!("operators of the domain {:?} are not supported", node.domain())));
        }
        let Import { emit, opset, used, folder, .. } = self;
        let mut call = Call { emit, proto: node, inputs, opset: *opset, used, folder: *folder };
        if node.op_type() == "If" {
            let chosen = call.known_ints(0)? == [1];
            return self.branch(node, if chosen { "then_branch" } else { "else_branch" }, scope);
        }
        let known = fold::fold(&call)?;
        let name = |i: usize| node.output.get(i).map_or("", String::as_str);
        match known {
            Some(known) if known.given.is_empty() => Ok(vec![Value::known(name(0), known, None)]),
            // What depends on values that were given is computed when the program runs, too.
            // Its value is all that there is of it.
            Some(known) if ops::FOLDED.contains(&node.op_type()) => {
                used.borrow_mut().extend(known.given.iter().cloned());
                Ok(vec![Value::known(name(0), known, None)])
            }
            Some(known) => Ok(vec![match ops::emit(&mut call).map(|made| made[0]) {
                Ok(made) => Value::node(name(0), made, Some(known)),
                Err(missing) => Value::known(name(0), known, Some(missing)),
            }]),
            None => {
                let made: Vec<Node> = ops::emit(&mut call)?;
                Ok(made.into_iter().enumerate().map(|(i, made)| Value::node(name(i), made, None)).collect())
            }
        }
    }

    /// The nodes of a branch whose condition is known.
    fn branch(&mut self, node: &NodeProto, name: &str, scope: &Scope) -> std::result::Result<Vec<Rc<Value>>, Fault> {
        let graph = node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.as_ref());
        let graph = graph.ok_or_else(|| Fault::Here(format!("it has no {name}")))?;
        let mut inner = scope.clone();
        let result = self.initializers(graph, &mut inner).and_then(|()| self.nodes(&graph.node, &mut inner));
        result.map_err(|e| Fault::Inside(Box::new(e)))?;
        let made = |port: &ValueInfoProto| {
            let missing = || Fault::Here(format!("no node makes the output {:?} of {name}", port.name()));
            inner.get(port.name()).cloned().ok_or_else(missing)
        };
        graph.output.iter().map(made).collect()
    }
}

/// What is wrong with a node, or inside a graph that it holds.
enum Fault {
    Here(String),
    Inside(Box<Error>),
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault::Here(message)
    }
}

fn label(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    format!("{:?}", if node.name().is_empty() { output } else { node.name() })
}

/// The element type of an input, and its shape if it is declared.
fn tensor_type(port: &ValueInfoProto) -> std::result::Result<(Scalar, Option<Vec<Dim>>), String> {
    let value = port.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(ty)) = value else { return Err("it is no tensor".into()) };
    let scalar = tensor::scalar_of(ty.elem_type())?;
    let Some(shape) = &ty.shape else { return Ok((scalar, None)) };
    let dim = |(i, dim): (usize, &tensor_shape_proto::Dimension)| match &dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(n)) => {
            u64::try_from(*n).map(Dim::Const).map_err(|_| format!("its extent {n} is negative"))
        }
        Some(tensor_shape_proto::dimension::Value::DimParam(name)) if !name.is_empty() => Ok(Dim::Named(plain(name))),
        _ => Ok(Dim::Named(plain(&format!("{}_{i}", port.name())))),
    };
    let shape = shape.dim.iter().enumerate().map(dim).collect::<std::result::Result<Vec<Dim>, String>>()?;
    let bytes = shape.iter().filter_map(Dim::as_const).try_fold(8u64, u64::checked_mul);
    bytes.filter(|b| *b < 1 << 48).ok_or_else(|| format!("its shape {} is too large", shown(&shape)))?;
    Ok((scalar, Some(shape)))
}

/// A name of a dimension as the graph has them.
fn plain(name: &str) -> String {
    let mut plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
        plain.insert(0, '_');
    }
    plain
}

fn agrees(declared: &[Dim], given: &[u64]) -> bool {
    let fits = |(dim, n): (&Dim, &u64)| dim.as_const().is_none_or(|d| d == *n);
    declared.len() == given.len() && declared.iter().zip(given).all(fits)
}

fn shown(shape: &[Dim]) -> String {
    format!("[{}]", shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

impl Model {
    /// Does the program read the input when it runs?
    pub fn reads(&self, input: &str) -> bool {
        let reads = |n: &Node| matches!(self.graph.op(*n), Op::Input { name, .. } if name == input);
        self.graph.reachable().iter().any(reads)
    }
}
