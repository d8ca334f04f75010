//! The networks by name: what each is given, what it gives, and its program.

use crate::bert::{BERT_BASE, BERT_SMALL, Bert, Texts};
use crate::deepspeech2::{DEEPSPEECH2, DeepSpeech2};
use crate::gpt2::{self, GPT2_SMALL};
use crate::lenet::lenet;
use crate::lstm_lm::{LSTM_LM, LstmLm};
use crate::mlp::mlp;
use crate::mobilenet::{self, MOBILENET_V2};
use crate::random;
use crate::resnet::{RESNET18, RESNET50, ResNet};
use crate::squeezenet::{SQUEEZENET1_0, SQUEEZENET1_1};
use crate::treelstm::{self, TREELSTM, Trees};
use crate::vgg::{self, VGG11};
use crate::{Error, Result};
use quearn::Tensors;
use quearn::data::Tensor;
use quearn_stage::graph::{Dim, Graph, Node, Op};
use quearn_stage::rep::{Rep, ScalarMarker, Stage, Tensor as Marker};
use std::collections::{BTreeMap, BTreeSet};

/// A network.
pub struct Network {
    /// Name, on the command line and in files.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What it is given.
    pub given: Given,
    /// What it gives.
    pub outputs: &'static [&'static str],
    /// Writes the program.
    write: fn(&Stage, &Shapes<'_>),
}

/// What a network is given.
#[derive(Clone, Copy)]
pub enum Given {
    /// Tensors whose shapes follow from the size of the batch.
    Tensors(fn(u64) -> Vec<Input>),
    /// A tree for each item of the batch, with as many words to choose from; see [`treelstm::plan`].
    Trees(u64),
}

/// A tensor that a network is given.
pub struct Input {
    /// Name.
    pub name: &'static str,
    /// Usual extents.
    pub shape: Vec<u64>,
    /// Which values make sense.
    pub values: Range,
}

/// The values of an input.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// f32, of mean 0 and variance 1.
    Normal,
    /// i64, from 0 up to (and without) a number.
    Below(u64),
}

impl Input {
    fn new<const N: usize>(name: &'static str, shape: [u64; N], values: Range) -> Input {
        Input { name, shape: shape.to_vec(), values }
    }

    /// Seeded values for the network of that name, in another shape than usual if need be: from the stream
    /// `NETWORK.INPUT/LAST`, where `LAST` is the last extent.
    pub fn seeded(&self, network: &str, shape: &[u64]) -> Result<Tensor> {
        let stream = format!("{network}.{}/{}", self.name, shape.last().copied().unwrap_or(1));
        let count = shape.iter().product::<u64>() as usize;
        Ok(match self.values {
            Range::Normal => {
                Tensor::from_vec(random::gauss(&stream, count).into_iter().map(|v| v as f32).collect(), shape)?
            }
            Range::Below(end) => Tensor::from_vec(random::ints(&stream, count, 0, end as i64), shape)?,
        })
    }
}

/// Extents of the inputs of a program.
struct Shapes<'a> {
    inputs: &'a Tensors,
    /// Inputs whose leading dimension is the batch, which is not known.
    open: Vec<&'static str>,
}

impl Shapes<'_> {
    /// The input of that name in the program.
    #[track_caller]
    fn input<'s, T: ScalarMarker>(&self, s: &'s Stage, name: &str) -> Rep<'s, Marker<T>> {
        let extents = self.inputs.get(name).map_or(&[][..], |tensor| tensor.shape());
        let mut shape: Vec<Dim> = extents.iter().map(|&n| Dim::Const(n)).collect();
        if let (Some(batch), true) = (shape.first_mut(), self.open.contains(&name)) {
            *batch = Dim::Named("batch".into());
        }
        s.input(name, shape)
    }
}

impl Network {
    /// The network of that name.
    pub fn find(name: &str) -> Option<&'static Network> {
        NETWORKS.iter().chain(SMALL).find(|network| network.name == name)
    }

    /// The program for inputs of these shapes.
    pub fn graph(&self, inputs: &Tensors) -> Result<Graph> {
        self.written(&Shapes { inputs, open: vec![] })
    }

    /// The program for any number of items of such shapes.
    pub fn open_graph(&self, inputs: &Tensors) -> Result<Graph> {
        let no_lead = || Error::wrong(self.name, "the batch is not the leading dimension of its inputs".to_owned());
        let Given::Tensors(shapes) = self.given else { return Err(no_lead()) };
        let mut open = vec![];
        for (one, two) in shapes(1).into_iter().zip(shapes(2)) {
            if one.shape[1..] != two.shape[1..] {
                return Err(no_lead());
            }
            if one.shape[0] != two.shape[0] {
                open.push(one.name);
            }
        }
        self.written(&Shapes { inputs, open })
    }

    fn written(&self, shapes: &Shapes<'_>) -> Result<Graph> {
        let s = Stage::new();
        (self.write)(&s, shapes);
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    /// Seeded inputs for a batch: usual shapes, or other ones for the inputs that `shapes` names.
    pub fn seeded_inputs(&self, batch: u64, shapes: &BTreeMap<String, Vec<u64>>) -> Result<Tensors> {
        match self.given {
            Given::Tensors(inputs) => {
                let shape = |input: &Input| shapes.get(input.name).unwrap_or(&input.shape).clone();
                let seeded = |input: &Input| Ok((input.name.to_owned(), input.seeded(self.name, &shape(input))?));
                inputs(batch).iter().map(seeded).collect()
            }
            Given::Trees(words) => treelstm::plan(&Trees::seeded(self.name, batch as usize, words)),
        }
    }

    /// The inputs for a batch among the tensors of a file: `in.NAME`, or the arrays of trees.
    pub fn read_inputs(&self, file: &Tensors, batch: u64) -> Result<Tensors> {
        let Given::Tensors(inputs) = self.given else { return treelstm::plan(&Trees::read(file)?) };
        let take = |input: Input| {
            let name = format!("in.{}", input.name);
            let found =
                file.get(&name).ok_or_else(|| Error::wrong(self.name, format!("there is no tensor {name:?}")))?;
            if found.shape() != input.shape {
                let message = format!("{name} must have the shape {:?}, found {:?}", input.shape, found.shape());
                return Err(Error::wrong(self.name, message));
            }
            Ok((input.name.to_owned(), found.clone()))
        };
        inputs(batch).into_iter().map(take).collect()
    }
}

/// Operations that a program takes: two for each multiply-add of its convolutions and products.
pub fn flops(graph: &Graph) -> u64 {
    let shape = |node: Node| graph.ty(node).as_tensor().map_or(&[][..], |(_, shape)| shape);
    let count = |dims: &[Dim]| dims.iter().filter_map(Dim::as_const).product::<u64>();
    let each = |node: Node| match (graph.op(node), graph.inputs(node)) {
        (Op::MatMul, [a, _]) => 2 * count(shape(node)) * shape(*a).last().map_or(1, |k| count(std::slice::from_ref(k))),
        (Op::Conv2d(_), [_, filters, ..]) => 2 * count(shape(node)) * count(&shape(*filters)[1..]),
        _ => 0,
    };
    let nodes = graph.reachable();
    let mut rounds: BTreeMap<Node, u64> = nodes.iter().map(|n| (*n, 1)).collect();
    for &node in &nodes {
        let Op::Steps(steps) = graph.op(node) else { continue };
        let mut inside: BTreeSet<Node> = steps.region.params.iter().copied().collect();
        let first = inside.first().copied().unwrap_or(node);
        for (&n, rounds) in rounds.range_mut(first..node) {
            if inside.contains(&n) || graph.dependencies(n).iter().any(|d| inside.contains(d)) {
                inside.insert(n);
                *rounds *= steps.count;
            }
        }
    }
    nodes.into_iter().map(|n| each(n) * rounds[&n]).sum()
}

const LOGITS: &[&str] = &["logits"];

fn photographs(batch: u64) -> Vec<Input> {
    vec![Input::new("image", [batch, 3, 224, 224], Range::Normal)]
}

fn thumbnails(batch: u64) -> Vec<Input> {
    vec![Input::new("image", [batch, 3, 32, 32], Range::Normal)]
}

fn texts(batch: u64, length: u64, bert: &Bert) -> Vec<Input> {
    let input = |name, end| Input::new(name, [batch, length], Range::Below(end));
    vec![input("input_ids", bert.vocabulary), input("attention_mask", 2), input("token_type_ids", 2)]
}

fn encode(s: &Stage, shapes: &Shapes<'_>, bert: &Bert) {
    let [words, attention, segments] =
        ["input_ids", "attention_mask", "token_type_ids"].map(|name| shapes.input(s, name));
    let encoded = bert.encode(s, Texts { words, attention, segments });
    s.output("hidden", encoded.hidden);
    s.output("pooled", encoded.pooled);
}

const ENCODED: &[&str] = &["hidden", "pooled"];

/// The networks that are measured.
pub const NETWORKS: &[Network] = &[
    Network {
        name: "squeezenet1_0",
        about: "SqueezeNet 1.0",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", SQUEEZENET1_0.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "squeezenet1_1",
        about: "SqueezeNet 1.1",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", SQUEEZENET1_1.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "resnet18",
        about: "ResNet-18",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", RESNET18.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "resnet50",
        about: "ResNet-50",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", RESNET50.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "mobilenet_v2",
        about: "MobileNet-v2",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", MOBILENET_V2.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "vgg11",
        about: "VGG-11",
        given: Given::Tensors(photographs),
        outputs: LOGITS,
        write: |s, x| s.output("logits", VGG11.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "lenet",
        about: "LeNet-5",
        given: Given::Tensors(|batch| vec![Input::new("image", [batch, 1, 28, 28], Range::Normal)]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", lenet(s, x.input(s, "image"))),
    },
    Network {
        name: "mlp",
        about: "a perceptron with two hidden layers",
        given: Given::Tensors(|batch| vec![Input::new("x", [batch, 128], Range::Normal)]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", mlp(s, x.input(s, "x"))),
    },
    Network {
        name: "bert_base",
        about: "a BERT-shaped encoder of 12 layers",
        given: Given::Tensors(|batch| texts(batch, 128, &BERT_BASE)),
        outputs: ENCODED,
        write: |s, x| encode(s, x, &BERT_BASE),
    },
    Network {
        name: "bert_small",
        about: "a BERT-shaped encoder of 4 layers",
        given: Given::Tensors(|batch| texts(batch, 64, &BERT_SMALL)),
        outputs: ENCODED,
        write: |s, x| encode(s, x, &BERT_SMALL),
    },
    Network {
        name: "gpt2_small",
        about: "a GPT-2-shaped decoder over a whole text",
        given: Given::Tensors(|batch| vec![Input::new("input_ids", [batch, 128], Range::Below(GPT2_SMALL.vocabulary))]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", GPT2_SMALL.logits(s, x.input(s, "input_ids"))),
    },
    Network {
        name: "lstm_lm",
        about: "a language model of two LSTMs",
        given: Given::Tensors(|batch| vec![Input::new("tokens", [35, batch], Range::Below(LSTM_LM.vocabulary))]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", LSTM_LM.logits(s, x.input(s, "tokens"))),
    },
    Network {
        name: "deepspeech2",
        about: "Deep Speech 2",
        given: Given::Tensors(|batch| vec![Input::new("spectrogram", [batch, 1, 161, 300], Range::Normal)]),
        outputs: &["log_probs"],
        write: |s, x| s.output("log_probs", DEEPSPEECH2.log_probs(s, x.input(s, "spectrogram"))),
    },
    Network {
        name: "treelstm",
        about: "a binary tree-LSTM",
        given: Given::Trees(TREELSTM.vocabulary),
        outputs: LOGITS,
        write: |s, x| s.output("logits", TREELSTM.planned(s, x.inputs)),
    },
];

const TINY_BERT: Bert = Bert { layers: 2, width: 24, heads: 3, vocabulary: 50, positions: 16 };
const TINY_LSTM_LM: LstmLm = LstmLm { vocabulary: 50, width: 20, layers: 2 };
const TINY_DEEPSPEECH2: DeepSpeech2 = DeepSpeech2 { channels: 4, hidden: 20, layers: 2, letters: 9 };

/// Versions of them with few weights, for tests.
pub const SMALL: &[Network] = &[
    Network {
        name: "resnet_basic_tiny",
        about: "a ResNet of two-layer blocks",
        given: Given::Tensors(thumbnails),
        outputs: LOGITS,
        write: |s, x| {
            let net = ResNet { depths: [1, 2, 1, 1], width: 4, classes: 10, ..RESNET18 };
            s.output("logits", net.logits(s, x.input(s, "image")));
        },
    },
    Network {
        name: "resnet_bottleneck_tiny",
        about: "a ResNet of three-layer blocks",
        given: Given::Tensors(thumbnails),
        outputs: LOGITS,
        write: |s, x| {
            let net = ResNet { depths: [1, 2, 1, 1], width: 4, classes: 10, ..RESNET50 };
            s.output("logits", net.logits(s, x.input(s, "image")));
        },
    },
    Network {
        name: "mobilenet_tiny",
        about: "a MobileNet-v2 of few channels",
        given: Given::Tensors(thumbnails),
        outputs: LOGITS,
        write: |s, x| s.output("logits", mobilenet::SMALL.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "vgg_tiny",
        about: "a VGG of few channels",
        given: Given::Tensors(thumbnails),
        outputs: LOGITS,
        write: |s, x| s.output("logits", vgg::SMALL.logits(s, x.input(s, "image"))),
    },
    Network {
        name: "bert_tiny",
        about: "a narrow BERT-shaped encoder",
        given: Given::Tensors(|batch| texts(batch, 7, &TINY_BERT)),
        outputs: ENCODED,
        write: |s, x| encode(s, x, &TINY_BERT),
    },
    Network {
        name: "gpt2_tiny",
        about: "a narrow GPT-2-shaped decoder",
        given: Given::Tensors(|batch| vec![Input::new("input_ids", [batch, 7], Range::Below(gpt2::TINY.vocabulary))]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", gpt2::TINY.logits(s, x.input(s, "input_ids"))),
    },
    Network {
        name: "lstm_lm_tiny",
        about: "a language model of two narrow LSTMs",
        given: Given::Tensors(|batch| vec![Input::new("tokens", [5, batch], Range::Below(TINY_LSTM_LM.vocabulary))]),
        outputs: LOGITS,
        write: |s, x| s.output("logits", TINY_LSTM_LM.logits(s, x.input(s, "tokens"))),
    },
    Network {
        name: "deepspeech2_tiny",
        about: "a narrow Deep Speech 2",
        given: Given::Tensors(|batch| vec![Input::new("spectrogram", [batch, 1, 23, 14], Range::Normal)]),
        outputs: &["log_probs"],
        write: |s, x| s.output("log_probs", TINY_DEEPSPEECH2.log_probs(s, x.input(s, "spectrogram"))),
    },
    Network {
        name: "treelstm_tiny",
        about: "a narrow binary tree-LSTM",
        given: Given::Trees(treelstm::TINY.vocabulary),
        outputs: LOGITS,
        write: |s, x| s.output("logits", treelstm::TINY.planned(s, x.inputs)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_operations_as_the_peers_do() {
        let count = |name: &str| {
            let network = Network::find(name).unwrap();
            flops(&network.graph(&network.seeded_inputs(1, &BTreeMap::new()).unwrap()).unwrap())
        };
        assert_eq!(count("squeezenet1_1"), 698_303_872);
        assert_eq!(count("mlp"), 665_600);
    }
}
