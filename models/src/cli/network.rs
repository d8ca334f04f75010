//! A network with weights, inputs and the outputs to expect.

use super::machine::Machine;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quearn::data::Tensor;
use quearn::rewrite::narrow_weights;
use quearn::{Outputs, Session};
use quearn_models::check::{Difference, Reference, TOLERANCE, check_error, references};
use quearn_models::networks::{self, NETWORKS, Network};
use quearn_models::weights::{self, Weights};
use quearn_models::{Error, Result};
use quearn_stage::graph::{Graph, Node, Op, Scalar};
use std::env;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// Reads the name of a network.
pub fn model() -> impl TypedValueParser<Value = &'static Network> {
    PossibleValuesParser::new(NETWORKS.iter().map(|network| network.name))
        .try_map(|name| Network::find(&name).ok_or("no network has this name"))
}

/// Which network is to run, on which data.
#[derive(clap::Args)]
pub struct Which {
    /// The network.
    #[arg(long, value_parser = model(), default_value = "squeezenet1_1")]
    pub model: &'static Network,
    /// Items in a batch.
    #[arg(long, default_value = "1")]
    batch: NonZeroU64,
    /// Folder with `MODEL.safetensors` and `MODEL.bBATCH.io.safetensors`; by default $NN_DATA or ~/.cache/quearn/nn where
    /// they hold the model, else seeded weights and inputs.
    #[arg(long)]
    data: Option<PathBuf>,
    /// How matrices, filters and embeddings are kept. Arithmetic stays in f32, and outputs are compared with those for weights
    /// of f32.
    #[arg(long, default_value = "f32")]
    weights: Kept,
    /// Compile for any number of items in place of that one.
    #[arg(long)]
    open_batch: bool,
}

/// How weights are kept.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// As they are.
    F32,
    /// Rounded to bfloat16.
    Bf16,
    /// Rounded to binary16.
    F16,
}

impl Kept {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kept::F32 => "f32",
            Kept::Bf16 => "bf16",
            Kept::F16 => "f16",
        }
    }

    /// The type that matrices are narrowed to.
    fn narrow(self) -> Option<Scalar> {
        match self {
            Kept::F32 => None,
            Kept::Bf16 => Some(Scalar::BF16),
            Kept::F16 => Some(Scalar::F16),
        }
    }

    /// The largest relative error of outputs that passes.
    pub fn tolerance(self) -> f64 {
        match self {
            Kept::F32 => TOLERANCE,
            Kept::Bf16 => 0.05,
            Kept::F16 => 0.01,
        }
    }
}

impl Which {
    /// The network with its weights and inputs.
    pub fn case(&self) -> Result<Case> {
        let mut case = match self.data.clone().or_else(|| exported_folder(self.model)) {
            Some(folder) => Case::exported(self.model, &folder, self.batch.get())?,
            None => Case::seeded(self.model, self.batch.get())?,
        };
        if self.open_batch {
            case.graph = case.network.open_graph(&case.reference.inputs)?;
        }
        case.kept(self.weights)
    }
}

/// A network with all that it takes to run and to check it.
pub struct Case {
    /// The network.
    pub network: &'static Network,
    /// Weights by name.
    pub weights: Weights,
    /// Inputs, and the outputs to expect.
    pub reference: Reference,
    /// The program for these inputs.
    pub graph: Graph,
    /// How the weights are kept.
    pub kept: Kept,
}

impl Case {
    fn new(network: &'static Network, weights: Option<Weights>, reference: Reference) -> Result<Case> {
        let graph = network.graph(&reference.inputs)?;
        let weights = weights.map_or_else(|| weights::for_graph(network.name, &graph), Ok)?;
        Ok(Case { network, weights, reference, graph, kept: Kept::F32 })
    }

    /// The same with its weights kept so.
    fn kept(mut self, kept: Kept) -> Result<Case> {
        let Some(to) = kept.narrow() else { return Ok(self) };
        self.graph = narrow_weights(&self.graph, to).map_err(quearn::Error::from)?;
        for node in self.graph.reachable() {
            let Op::Input { name, ty, weight: true } = self.graph.op(node) else { continue };
            let is_narrow = ty.as_tensor().is_some_and(|(elem, _)| elem.scalar == to);
            if let Some(weight) = self.weights.get_mut(name).filter(|_| is_narrow) {
                *weight = weight.narrowed(to).map_err(quearn::Error::from)?;
            }
        }
        self.kept = kept;
        Ok(self)
    }

    /// The cases that this crate has itself: seeded weights, and what PyTorch computes with them.
    pub fn own(network: &'static Network) -> Result<Vec<Case>> {
        references(network)?.into_iter().map(|reference| Case::new(network, None, reference)).collect()
    }

    /// Seeded weights and inputs of the usual shapes; what comes out is known for some.
    pub fn seeded(network: &'static Network, batch: u64) -> Result<Case> {
        let shapes = |r: &Reference| r.inputs.iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect::<Vec<_>>();
        let unknown = Reference::unknown(network, batch)?;
        let known = references(network)?.into_iter().find(|known| shapes(known) == shapes(&unknown));
        Case::new(network, None, known.unwrap_or(unknown))
    }

    /// A case in a folder of files as the peers export them: `M.safetensors` and `M.bB.io.safetensors`.
    pub fn exported(network: &'static Network, folder: &Path, batch: u64) -> Result<Case> {
        let name = network.name;
        let io = folder.join(format!("{name}.b{batch}.io.safetensors"));
        Case::in_files(network, &folder.join(format!("{name}.safetensors")), &io, batch)
    }

    /// A case in a file of weights and a file of tensors `in.NAME` and `out.NAME`.
    pub fn in_files(network: &'static Network, weights: &Path, io: &Path, batch: u64) -> Result<Case> {
        let weights = weights::read(weights)?;
        let tensors = weights::read(io)?;
        let inputs = network.read_inputs(&tensors, batch)?;
        let output = |name: &&str| -> Result<(String, Tensor)> {
            let key = format!("out.{name}");
            let missing = || Error::Wrong { what: io.display().to_string(), message: format!("no {key:?}") };
            Ok(((*name).to_owned(), tensors.get(&key).cloned().ok_or_else(missing)?))
        };
        let outputs = network.outputs.iter().map(output).collect::<Result<_>>()?;
        Case::new(network, Some(weights), Reference { batch, inputs, outputs })
    }

    /// A session with the weights and the inputs.
    pub fn session(&self, machine: &Machine) -> Result<Session> {
        let mut session = machine.session_with(self.weights.clone())?;
        self.reference.inputs.iter().for_each(|(name, tensor)| session.bind(name, tensor.clone()));
        Ok(session)
    }

    /// How far the outputs are from what is expected, if that is known.
    pub fn difference(&self, outputs: &Outputs) -> Result<Option<Difference>> {
        self.reference.difference(|name| Ok(outputs.tensor(name)?))
    }

    /// The largest relative error of the outputs; an error if it is too large or nothing is known.
    pub fn checked(&self, outputs: &Outputs) -> Result<f64> {
        let missing = || Error::NoExpectation { what: self.network.name.to_owned() };
        let error = self.difference(outputs)?.ok_or_else(missing)?.max_rel;
        check_error(error, self.kept.tolerance())?;
        Ok(error)
    }

    /// Is the program for any number of items?
    pub fn is_open(&self) -> bool {
        let dims = |node: Node| self.graph.ty(node).as_tensor().map_or(&[][..], |(_, shape)| shape);
        self.graph.outputs().iter().any(|(_, node)| dims(*node).iter().any(|dim| dim.as_const().is_none()))
    }

    /// Operations of the convolutions and products of the batch.
    pub fn flops(&self) -> u64 {
        // Of the batch at hand, also where the program is for any.
        self.network.graph(&self.reference.inputs).map_or(0, |graph| networks::flops(&graph))
    }

    /// Such as `image [2, 3, 64, 64]`.
    pub fn describe(&self) -> String {
        let inputs = self.reference.inputs.iter();
        inputs.map(|(name, tensor)| format!("{name} {:?}", tensor.shape())).collect::<Vec<_>>().join(", ")
    }
}

/// Where the peers' files are, if they are anywhere: $NN_DATA, or the folder `nn` of the cache.
pub fn exported_folder(network: &Network) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache/quearn/nn"));
    let folder = env::var_os("NN_DATA").map(PathBuf::from).or_else(home)?;
    folder.join(format!("{}.safetensors", network.name)).exists().then_some(folder)
}
