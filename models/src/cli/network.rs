//! A network with weights, images and the outputs to expect.

use super::machine::Machine;
use clap::ValueEnum;
use quearn::Session;
use quearn::data::Tensor;
use quearn_models::check::{self, Reference};
use quearn_models::squeezenet::{self, CHANNELS, CLASSES, IMAGE_SIZE, squeezenet1_1};
use quearn_models::weights::{self, Weights};
use quearn_models::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_stage::rep::Stage;
use std::env;
use std::path::{Path, PathBuf};

/// Name of the images in the program.
const IMAGE: &str = "image";
/// Name of the outputs in the program.
pub const LOGITS: &str = "logits";

/// A network.
#[derive(Clone, Copy, ValueEnum)]
pub enum Model {
    /// SqueezeNet 1.1.
    #[value(name = "squeezenet1_1")]
    SqueezeNet1_1,
}

impl Model {
    /// Name, as on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Model::SqueezeNet1_1 => "squeezenet1_1",
        }
    }

    /// The program for `batch` images of `size` x `size` pixels.
    pub fn graph(self, batch: u64, size: u64) -> Result<Graph> {
        let s = Stage::new();
        match self {
            Model::SqueezeNet1_1 => {
                let images = s.input(IMAGE, [batch, CHANNELS as u64, size, size]);
                s.output(LOGITS, squeezenet1_1(&s, images));
            }
        }
        Ok(s.finish().map_err(quearn::Error::from)?)
    }
}

/// A network with all that it takes to run and to check it.
pub struct Case {
    /// The network.
    pub model: Model,
    /// Weights by name.
    pub weights: Weights,
    /// Images, and the outputs to expect.
    pub reference: Reference,
}

impl Case {
    /// The cases that this crate has itself: seeded weights, and what PyTorch computes with them.
    pub fn own(model: Model) -> Result<Vec<Case>> {
        let Model::SqueezeNet1_1 = model;
        let weights = weights::squeezenet1_1()?;
        let case = |reference| Case { model, weights: weights.clone(), reference };
        Ok(check::squeezenet1_1()?.into_iter().map(case).collect())
    }

    /// The case of this crate with images of the usual size, repeated to make a batch.
    pub fn own_batch(model: Model, batch: usize) -> Result<Case> {
        let mut cases = Case::own(model)?.into_iter();
        let usual = cases.find(|case| case.reference.image.shape()[..] == extents(1));
        let Case { weights, reference, .. } =
            usual.ok_or_else(|| Error::NoExpectation { what: format!("one image of {}", model.name()) })?;
        let image = repeated(&reference.image, batch)?;
        let logits = repeated(&reference.logits, batch)?;
        Ok(Case { model, weights, reference: Reference { image, logits } })
    }

    /// A case in a folder of files as the peers export them: `M.safetensors` and `M.bB.io.safetensors`.
    pub fn exported(model: Model, folder: &Path, batch: usize) -> Result<Case> {
        let name = model.name();
        let io = folder.join(format!("{name}.b{batch}.io.safetensors"));
        let case = Case::in_files(model, &folder.join(format!("{name}.safetensors")), &io)?;
        if case.reference.image.shape()[0] == batch as u64 {
            return Ok(case);
        }
        let message = format!("expected {batch} images, found {}", case.reference.image.shape()[0]);
        Err(Error::Wrong { what: io.display().to_string(), message })
    }

    /// A case in a file of weights and a file of tensors `in.image` and `out.logits`.
    pub fn in_files(model: Model, weights: &Path, io: &Path) -> Result<Case> {
        let weights = weights::read(weights)?;
        let mut tensors = quearn::io::read_safetensors(io)?;
        let batch = tensors.0.get(&input()).and_then(|image| image.shape().first().copied()).unwrap_or(1);
        let image = tensors.take(&input(), &extents(batch))?;
        let logits = tensors.take(&output(), &[batch, CLASSES as u64])?;
        Ok(Case { model, weights, reference: Reference { image, logits } })
    }

    /// The program for these images.
    pub fn graph(&self) -> Result<Graph> {
        let shape = self.reference.image.shape();
        self.model.graph(shape[0], shape[2])
    }

    /// A session with the weights and the images.
    pub fn session(&self, machine: &Machine) -> Result<Session> {
        let mut session = machine.session_with(self.weights.clone())?;
        session.bind(IMAGE, self.reference.image.clone());
        Ok(session)
    }

    /// Operations of the convolutions for all images.
    pub fn flops(&self) -> u64 {
        let shape = self.reference.image.shape();
        shape[0] * squeezenet::flops(shape[2] as usize)
    }

    /// Such as `2 images of 64 x 64`.
    pub fn describe(&self) -> String {
        let shape = self.reference.image.shape();
        let plural = if shape[0] == 1 { "" } else { "s" };
        format!("{} image{plural} of {} x {}", shape[0], shape[2], shape[3])
    }
}

/// Where the peers' files are, if they are anywhere: $NN_DATA, or the folder `nn` of the cache.
pub fn exported_folder(model: Model) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache/quearn/nn"));
    let folder = env::var_os("NN_DATA").map(PathBuf::from).or_else(home)?;
    folder.join(format!("{}.safetensors", model.name())).exists().then_some(folder)
}

fn input() -> String {
    format!("in.{IMAGE}")
}

fn output() -> String {
    format!("out.{LOGITS}")
}

fn extents(batch: u64) -> [u64; 4] {
    [batch, CHANNELS as u64, IMAGE_SIZE as u64, IMAGE_SIZE as u64]
}

/// A tensor of one image or output, `batch` times.
fn repeated(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let shape: Vec<u64> = std::iter::once(batch as u64).chain(tensor.shape()[1..].iter().copied()).collect();
    Ok(Tensor::from_vec(tensor.as_slice::<f32>()?.repeat(batch), &shape)?)
}
