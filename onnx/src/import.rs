//! From a model to a graph, node by node.

use crate::emit::{Emit, Fallible};
use crate::error::{Error, Result};
use crate::proto::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use crate::scope::Scope;
use crate::tensor::{Number, Texts};
use crate::value::{Call, Known, Value};
use crate::{control, empty, fold, gradient, ops, sequence, tensor};
use prost::Message;
use quearn::data::Tensor;
use quearn_stage::graph::{Dim, Graph, Node, Op, Scalar};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Values of inputs that are texts: the program is made for these, too.
    pub texts: BTreeMap<String, Texts>,
}

/// An input or output. The elements of a sequence `s` are `s.0`, `s.1` and so on.
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
    /// Outputs without elements, which the program does not give.
    pub empty: BTreeMap<String, Tensor>,
    /// Outputs that are texts, which the program does not give.
    pub texts: BTreeMap<String, Texts>,
}

/// A model while it is read.
pub(crate) struct Import<'a> {
    pub emit: Emit,
    pub options: &'a Options,
    pub folder: Option<&'a Path>,
    pub opset: i64,
    pub used: RefCell<BTreeSet<String>>,
    /// Nodes that were imported, those of a repeated graph each time.
    pub steps: usize,
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
    if model.opset_import.is_empty() {
        return Err(Error::Format("it names no operator set".into()));
    }
    // A model of operators of other domains only need not name the standard one.
    let main = model.opset_import.iter().find(|o| STANDARD.contains(&o.domain()));
    let opset = main.map_or(0, |o| o.version());
    if main.is_some() && !(1..=MOST_OPSET).contains(&opset) {
        return Err(Error::Format(format!("operator set {opset} is not supported, 1 to {MOST_OPSET} are")));
    }
    let (emit, used) = (Emit::default(), RefCell::default());
    let mut import = Import { emit, options, folder, opset, used, steps: 0 };
    import.emit.taken = names(proto);
    let mut scope = Scope::default();
    import.initializers(proto, &mut scope)?;
    let mut inputs = vec![];
    for port in &proto.input {
        if scope.get(port.name()).is_none() {
            inputs.extend(import.input(port, &mut scope)?);
        }
    }
    import.nodes(&proto.node, &mut scope)?;
    let mut results = Results::default();
    for port in &proto.output {
        let fail = |message: String| Error::Port { what: "output", name: port.name().to_owned(), message };
        let value = scope.get(port.name()).ok_or_else(|| fail("no node makes it".into()))?;
        import.output(port.name(), value, &mut results).map_err(fail)?;
    }
    let (Import { emit, used, .. }, Results { ports, empty, texts }) = (import, results);
    let given = used.into_inner();
    Ok(Model { graph: emit.graph, weights: emit.weights, inputs, outputs: ports, given, empty, texts })
}

/// The outputs of a model while they are collected.
#[derive(Default)]
struct Results {
    ports: Vec<Port>,
    empty: BTreeMap<String, Tensor>,
    texts: BTreeMap<String, Texts>,
}

/// The names of the domain of the standard's operators.
const STANDARD: [&str; 2] = ["", "ai.onnx"];

/// The newest operator set whose meaning is known here.
const MOST_OPSET: i64 = 28;

fn names(graph: &GraphProto) -> BTreeSet<String> {
    let made = graph.node.iter().flat_map(|n| &n.output).cloned();
    let given = graph.input.iter().map(|p| p.name().to_owned());
    made.chain(given).chain(graph.initializer.iter().map(|t| t.name().to_owned())).collect()
}

impl Import<'_> {
    pub(crate) fn initializers(&self, graph: &GraphProto, scope: &mut Scope) -> Result<()> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |v| v.name()).to_owned();
            return Err(Error::Tensor { name, message: "sparse tensors are not supported".into() });
        }
        for proto in &graph.initializer {
            let value = match tensor::read_texts(proto)? {
                Some(texts) => Value::known(proto.name(), Known::of_texts(texts), None),
                None => Value::tensor(proto.name(), tensor::read(proto, self.folder)?),
            };
            if scope.insert(proto.name(), value).is_some() {
                let (name, message) = (proto.name().to_owned(), "there are two tensors of this name".to_owned());
                return Err(Error::Tensor { name, message });
            }
        }
        Ok(())
    }

    /// The ports of an input: one, or one for each element of a sequence.
    fn input(&mut self, port: &ValueInfoProto, scope: &mut Scope) -> Result<Vec<Port>> {
        let name = port.name();
        let fail = |message: String| Error::Port { what: "input", name: name.to_owned(), message };
        let mut ports = vec![];
        let kind = port.r#type.as_ref().and_then(|t| t.value.as_ref());
        let value = self.typed_input(name, kind, &mut ports).map_err(fail)?;
        if scope.insert(name, value).is_some() {
            return Err(fail("there are two inputs of this name".into()));
        }
        Ok(ports)
    }

    fn typed_input(
        &mut self,
        name: &str,
        kind: Option<&type_proto::Value>,
        ports: &mut Vec<Port>,
    ) -> Fallible<Rc<Value>> {
        let inner = |t: &Option<Box<TypeProto>>| t.as_ref().and_then(|t| t.value.clone());
        let given = |name: &str| self.options.shapes.contains_key(name) || self.options.texts.contains_key(name);
        match kind {
            Some(type_proto::Value::TensorType(ty)) => self.tensor_input(name, ty, ports),
            Some(type_proto::Value::SequenceType(ty)) => {
                let count = (0..).take_while(|i| given(&format!("{name}.{i}"))).count();
                let kind = inner(&ty.elem_type);
                let part = |i| self.typed_input(&format!("{name}.{i}"), kind.as_ref(), ports);
                Ok(Value::list(name, (0..count).map(part).collect::<Fallible<_>>()?))
            }
            Some(type_proto::Value::OptionalType(ty)) => match inner(&ty.elem_type) {
                Some(kind) if given(name) || given(&format!("{name}.0")) => self.typed_input(name, Some(&kind), ports),
                _ => Ok(Value::nothing(name)),
            },
            _ => Err("it is no tensor, sequence or optional".into()),
        }
    }

    fn tensor_input(&mut self, name: &str, ty: &type_proto::Tensor, ports: &mut Vec<Port>) -> Fallible<Rc<Value>> {
        if let Some(texts) = self.options.texts.get(name) {
            let known = Known::of_texts(texts.clone());
            return Ok(Value::known(name, Known { given: BTreeSet::from([name.to_owned()]), ..known }, None));
        }
        let (scalar, declared) = (tensor::scalar_of(ty.elem_type())?, declared(name, ty)?);
        let shape: Vec<Dim> = match (self.options.shapes.get(name), declared) {
            (Some(given), Some(declared)) if !agrees(&declared, given) => {
                return Err(format!("the model wants the shape {}, found {given:?}", shown(&declared)));
            }
            (Some(given), _) => given.iter().map(|&n| Dim::Const(n)).collect(),
            (None, Some(declared)) => declared.into_iter().map(|dim| self.resolved(dim)).collect(),
            (None, None) => return Err("its shape is not declared and was not given".into()),
        };
        ports.push(Port { name: name.to_owned(), scalar, shape: shape.clone() });
        if shape.contains(&Dim::Const(0)) {
            // A program has no such tensors, but what follows from their shapes is known.
            let extents = shape.iter().map(|dim| dim.as_const().unwrap_or(1)).collect();
            return Ok(Value::known(name, Known::new(scalar, extents, vec![]), None));
        }
        let node = self.emit.bound(name, scalar, shape, false)?;
        self.emit.inputs.insert(name.to_owned());
        let known = self.options.values.get(name).and_then(|t| Value::tensor(name, t.clone()).elements());
        let known = known.map(|known| Known { given: BTreeSet::from([name.to_owned()]), ..known });
        Ok(Value::node(name, node, known))
    }

    fn resolved(&self, dim: Dim) -> Dim {
        match &dim {
            Dim::Named(name) => self.options.dims.get(name).map_or(dim.clone(), |n| Dim::Const(*n)),
            _ => dim,
        }
    }

    fn output(&mut self, name: &str, value: &Rc<Value>, results: &mut Results) -> Fallible<()> {
        if value.is_list() {
            for (i, part) in value.parts()?.iter().enumerate() {
                self.output(&format!("{name}.{i}"), part, results)?;
            }
            return Ok(());
        }
        if value.is_nothing() {
            return Ok(());
        }
        let name = name.to_owned();
        if let Some(Known { scalar, shape, items, given }) = value.outside() {
            self.used.borrow_mut().extend(given);
            let dims = shape.iter().map(|&n| Dim::Const(n)).collect();
            results.ports.push(Port { name: name.clone(), scalar, shape: dims });
            if scalar == Scalar::String {
                let items = items.iter().map(Number::text).collect::<Option<Vec<_>>>().ok_or("it holds no texts")?;
                results.texts.insert(name, Texts { shape, items });
            } else {
                let tensor = Tensor::from_bytes(scalar, &shape, &[]).map_err(|e| e.to_string())?;
                results.empty.insert(name, tensor);
            }
            return Ok(());
        }
        let mut node = value.in_graph(&mut self.emit)?;
        let (scalar, shape) = (self.emit.scalar(node), self.emit.shape(node));
        if shape.is_empty() {
            node = self.emit.reshape_to(node, &[1])?;
        }
        self.emit.graph.output(name.clone(), node);
        results.ports.push(Port { name, scalar, shape });
        Ok(())
    }

    pub(crate) fn nodes(&mut self, nodes: &[NodeProto], scope: &mut Scope) -> Result<()> {
        for node in nodes {
            let fail = |message: String| Error::Node { node: label(node), op: node.op_type().to_owned(), message };
            self.step().map_err(fail)?;
            let made = self.node(node, scope).map_err(|message| match message {
                Fault::Here(message) => fail(message),
                Fault::Inside(error) => *error,
            })?;
            for (name, value) in node.output.iter().zip(made).filter(|(name, _)| !name.is_empty()) {
                if scope.insert(name, value).is_some() {
                    return Err(fail(format!("{name:?} is made twice")));
                }
            }
        }
        Ok(())
    }

    /// Counts a node, or a round of a loop.
    pub(crate) fn step(&mut self) -> Fallible<()> {
        self.steps += 1;
        let fits = self.steps <= MOST_STEPS;
        fits.then_some(()).ok_or_else(|| format!("more than {MOST_STEPS} nodes, those of loops counted each time"))
    }

    /// A node with its inputs.
    pub(crate) fn call<'b>(&'b mut self, node: &'b NodeProto, inputs: &[Option<Rc<Value>>]) -> Call<'b> {
        let Import { emit, opset, used, folder, .. } = self;
        Call { emit, proto: node, inputs: inputs.to_vec(), opset: *opset, used, folder: *folder }
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
        let output = |i: usize| node.output.get(i).map_or("", String::as_str);
        let made = |(i, made): (usize, Node)| Value::node(output(i), made, None);
        if !STANDARD.contains(&node.domain()) {
            if ops::name(node) == gradient::NAME {
                return Ok(gradient::run(self, node, &inputs, scope)?);
            }
            return Ok(ops::emit(&mut self.call(node, &inputs))?.into_iter().enumerate().map(made).collect());
        }
        if self.opset == 0 {
            return Err(Fault::Here("the model names no version of the standard operators".into()));
        }
        if let Some(made) = control::run(self, node, &inputs, scope)? {
            return Ok(made);
        }
        let mut call = self.call(node, &inputs);
        if let Some(made) = sequence::run(&mut call)? {
            return Ok(made);
        }
        if let Some(made) = empty::run(&mut call)? {
            return Ok(made);
        }
        let Some(known) = fold::fold(&call)? else {
            return Ok(ops::emit(&mut call)?.into_iter().enumerate().map(made).collect());
        };
        // What depends on values that were given is computed when the program runs, too, unless its value is all that
        // there is of it.
        let given = known.iter().any(|known| !known.given.is_empty());
        let only = |known: &Known| known.scalar == Scalar::String || known.items.is_empty();
        if given && (ops::FOLDED.contains(&node.op_type()) || known.iter().any(only)) {
            call.used.borrow_mut().extend(known.iter().flat_map(|known| known.given.iter().cloned()));
        } else if given {
            let made = ops::emit(&mut call);
            let value = |(i, known): (usize, Known)| match made.as_ref().map(|made| made.get(i)) {
                Ok(Some(made)) => Value::node(output(i), *made, Some(known)),
                Ok(None) => Value::known(output(i), known, Some("it is no result of a program".into())),
                Err(missing) => Value::known(output(i), known, Some(missing.clone())),
            };
            return Ok(known.into_iter().enumerate().map(value).collect());
        }
        Ok(known.into_iter().enumerate().map(|(i, known)| Value::known(output(i), known, None)).collect())
    }
}

/// A model whose loops come to more nodes is not spelt out.
const MOST_STEPS: usize = 1 << 17;

/// What is wrong with a node, or inside a graph that it holds.
pub(crate) enum Fault {
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

/// The shape of an input, if it is declared.
fn declared(name: &str, ty: &type_proto::Tensor) -> Fallible<Option<Vec<Dim>>> {
    let Some(shape) = &ty.shape else { return Ok(None) };
    let dim = |(i, dim): (usize, &tensor_shape_proto::Dimension)| match &dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(n)) => {
            u64::try_from(*n).map(Dim::Const).map_err(|_| format!("its extent {n} is negative"))
        }
        Some(tensor_shape_proto::dimension::Value::DimParam(name)) if !name.is_empty() => Ok(Dim::Named(plain(name))),
        _ => Ok(Dim::Named(plain(&format!("{name}_{i}")))),
    };
    let shape = shape.dim.iter().enumerate().map(dim).collect::<Fallible<Vec<Dim>>>()?;
    let bytes = shape.iter().filter_map(Dim::as_const).try_fold(8u64, u64::checked_mul);
    bytes.filter(|b| *b < 1 << 48).ok_or_else(|| format!("its shape {} is too large", shown(&shape)))?;
    Ok(Some(shape))
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
