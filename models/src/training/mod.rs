//! Networks that can be trained, and data to train them on.
//!
//! | file | what it holds |
//! |---|---|
//! | [`digits`] | handwritten digits |
//! | [`initial`] | weights to begin with |

pub mod digits;
pub mod initial;

use crate::lenet::lenet;
use crate::lstm_lm::LSTM_LM;
use crate::mlp::mlp;
use crate::nn::Values;
use crate::squeezenet_cifar::{squeezenet_cifar, squeezenet_cifar_bn};
use crate::transformer::transformer_small;
use digits::Form;
use quearn_stage::rep::{F32, I64, Rep, Stage, Tensor};

/// A network that can be trained to tell classes apart.
pub struct Task {
    /// Name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Name of its input.
    pub input: &'static str,
    /// The network.
    pub network: Network,
    /// How it takes digits, if it does.
    pub digits: Option<Form>,
}

/// A network by what it is given; it gives logits, classes last.
#[derive(Clone, Copy)]
pub enum Network {
    /// Numbers.
    Values(for<'s> fn(&'s Stage, Values<'s>) -> Values<'s>),
    /// Words.
    Words(for<'s> fn(&'s Stage, Rep<'s, Tensor<I64>>) -> Values<'s>),
}

/// The networks.
pub const TASKS: &[Task] = &[
    Task {
        name: "lenet",
        about: "LeNet-5, pictures of 28 x 28 in 10 classes",
        input: "image",
        network: Network::Values(lenet),
        digits: Some(Form::Pictures),
    },
    Task {
        name: "mlp",
        about: "perceptron with two hidden layers of 512, 10 classes",
        input: "x",
        network: Network::Values(mlp),
        digits: Some(Form::Vectors),
    },
    Task {
        name: "squeezenet_cifar",
        about: "SqueezeNet, pictures of 32 x 32 in 10 classes",
        input: "image",
        network: Network::Values(squeezenet_cifar),
        digits: None,
    },
    Task {
        name: "squeezenet_cifar_bn",
        about: "the same with batch norms",
        input: "image",
        network: Network::Values(squeezenet_cifar_bn),
        digits: None,
    },
    Task {
        name: "transformer_small",
        about: "encoder of 4 layers, texts in 10 classes",
        input: "input_ids",
        network: Network::Words(transformer_small),
        digits: None,
    },
    Task {
        name: "lstm_lm",
        about: "language model of two LSTMs, 10,000 words",
        input: "tokens",
        network: Network::Words(|s, words| LSTM_LM.logits(s, words)),
        digits: None,
    },
];

impl Task {
    /// The network of that name.
    pub fn find(name: &str) -> Option<&'static Task> {
        TASKS.iter().find(|task| task.name == name)
    }

    /// Logits of an input, which `rows` takes where it is declared: all of it, or the rows of a batch.
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, shape: &[u64], rows: &dyn Rows<'s>) -> Values<'s> {
        match self.network {
            Network::Values(network) => network(s, rows.values(s.input(self.input, shape.to_vec()))),
            Network::Words(network) => network(s, rows.integers(s.input(self.input, shape.to_vec()))),
        }
    }
}

/// Picks the rows of a batch.
pub trait Rows<'s> {
    /// Of numbers.
    fn values(&self, all: Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>>;
    /// Of integers.
    fn integers(&self, all: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<I64>>;
}

/// All rows: the input is a batch.
pub struct Whole;

impl<'s> Rows<'s> for Whole {
    fn values(&self, all: Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>> {
        all
    }

    fn integers(&self, all: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<I64>> {
        all
    }
}

impl<'s> Rows<'s> for quearn::training::Draw<'s> {
    #[track_caller]
    fn values(&self, all: Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>> {
        self.rows(all)
    }

    #[track_caller]
    fn integers(&self, all: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<I64>> {
        self.rows(all)
    }
}
