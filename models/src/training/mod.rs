//! Networks that can be trained, and data to train them on.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lesson`] | what the command line can train: data, a loss, a measure |
//! | `classes` | digits in classes |
//! | `trees` | trees of any shape in classes |
//! | `speech` | spectrograms with transcripts |
//! | `shops` | regressions and clusters over the result of a query |
//! | [`digits`] | handwritten digits |
//! | [`initial`] | weights to begin with |

mod classes;
pub mod digits;
pub mod initial;
pub mod lesson;
mod shops;
mod speech;
mod trees;

use crate::lenet::lenet;
use crate::lstm_lm::LSTM_LM;
use crate::mlp::mlp;
use crate::nn::Values;
use crate::squeezenet_cifar::{squeezenet_cifar, squeezenet_cifar_bn};
use crate::transformer::transformer_small;
use digits::Form;
use lesson::{Lesson, Measure, Usual};
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
}

/// A network by what it is given; it gives logits, classes last.
#[derive(Clone, Copy)]
pub enum Network {
    /// Numbers.
    Values(for<'s> fn(&'s Stage, Values<'s>) -> Values<'s>),
    /// Words.
    Words(for<'s> fn(&'s Stage, Rep<'s, Tensor<I64>>) -> Values<'s>),
}

/// What can be trained from the command line.
pub const LESSONS: &[Lesson] = &[
    Lesson {
        name: "lenet",
        about: "LeNet-5 on digits",
        usual: Usual { epochs: 40, batch: Some(32), rate: 0.002 },
        measure: Measure::Accuracy,
        begin: |settings| classes::begin("lenet", Form::Pictures, settings),
    },
    Lesson {
        name: "mlp",
        about: "perceptron with two hidden layers of 512 on digits",
        usual: Usual { epochs: 40, batch: Some(32), rate: 0.002 },
        measure: Measure::Accuracy,
        begin: |settings| classes::begin("mlp", Form::Vectors, settings),
    },
    Lesson {
        name: "treelstm",
        about: "tree-LSTM on trees of any shape",
        usual: Usual { epochs: 30, batch: Some(32), rate: 0.01 },
        measure: Measure::Accuracy,
        begin: trees::begin,
    },
    Lesson {
        name: "deepspeech2",
        about: "Deep Speech 2 with a CTC loss on spectrograms, a small configuration",
        usual: Usual { epochs: 20, batch: Some(16), rate: 0.005 },
        measure: Measure::TokenErrors,
        begin: speech::begin,
    },
    Lesson {
        name: "linear_regression",
        about: "linear regression over a filtered, joined and grouped table",
        usual: Usual { epochs: 400, batch: None, rate: 0.05 },
        measure: Measure::FromPlanted,
        begin: shops::linear,
    },
    Lesson {
        name: "logistic_regression",
        about: "logistic regression over a filtered, joined and grouped table",
        usual: Usual { epochs: 400, batch: None, rate: 0.05 },
        measure: Measure::FromPlanted,
        begin: shops::logistic,
    },
    Lesson {
        name: "k_means",
        about: "k-means over a filtered, joined and grouped table",
        usual: Usual { epochs: 200, batch: None, rate: 0.05 },
        measure: Measure::FromPlanted,
        begin: shops::k_means,
    },
];

/// The networks.
pub const TASKS: &[Task] = &[
    Task {
        name: "lenet",
        about: "LeNet-5, pictures of 28 x 28 in 10 classes",
        input: "image",
        network: Network::Values(lenet),
    },
    Task {
        name: "mlp",
        about: "perceptron with two hidden layers of 512, 10 classes",
        input: "x",
        network: Network::Values(mlp),
    },
    Task {
        name: "squeezenet_cifar",
        about: "SqueezeNet, pictures of 32 x 32 in 10 classes",
        input: "image",
        network: Network::Values(squeezenet_cifar),
    },
    Task {
        name: "squeezenet_cifar_bn",
        about: "the same with batch norms",
        input: "image",
        network: Network::Values(squeezenet_cifar_bn),
    },
    Task {
        name: "transformer_small",
        about: "encoder of 4 layers, texts in 10 classes",
        input: "input_ids",
        network: Network::Words(transformer_small),
    },
    Task {
        name: "lstm_lm",
        about: "language model of two LSTMs, 10,000 words",
        input: "tokens",
        network: Network::Words(|s, words| LSTM_LM.logits(s, words)),
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
