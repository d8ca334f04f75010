//! Text word by word, by a decoder that keeps the keys and values of the words before.

use crate::gpt2::{Gpt2, Kept};
use crate::{Error, Result};
use quearn::data::Tensor;
use quearn::{Program, Session, Tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep::Stage;

/// Names in the program.
const WORDS: &str = "words";
const POSITION: &str = "position";
const LOGITS: &str = "logits";

fn keys(layer: usize) -> String {
    format!("keys.{layer}")
}

fn values(layer: usize) -> String {
    format!("values.{layer}")
}

/// The program of one step for `batch` texts of up to `room` words.
pub fn step_program(network: &Gpt2, batch: u64, room: u64) -> Result<Graph> {
    let s = Stage::new();
    let kept = |name: String| s.input(name, [batch, room, network.width]);
    let before: Vec<Kept<'_>> =
        (0..network.layers).map(|i| Kept { keys: kept(keys(i)), values: kept(values(i)) }).collect();
    let none: [u64; 0] = [];
    let (logits, after) = network.next(&s, s.input(WORDS, [batch, 1]), s.input(POSITION, none), &before);
    s.output(LOGITS, logits);
    for (i, kept) in after.into_iter().enumerate() {
        s.output(keys(i), kept.keys);
        s.output(values(i), kept.values);
    }
    Ok(s.finish().map_err(quearn::Error::from)?)
}

/// Texts that are being written.
pub struct Generator<'a> {
    session: &'a Session,
    program: Program,
    /// What is kept of the words so far, by name.
    kept: Tensors,
    position: u64,
    room: u64,
}

impl<'a> Generator<'a> {
    /// Empty texts, `batch` of them, of which each has room for `room` words. The session has the weights.
    pub fn new(network: &Gpt2, session: &'a Session, batch: u64, room: u64) -> Result<Generator<'a>> {
        let program = session.compile(&step_program(network, batch, room)?)?;
        let zeros =
            Tensor::from_vec(vec![0f32; (batch * room * network.width) as usize], &[batch, room, network.width])?;
        let names = (0..network.layers).flat_map(|i| [keys(i), values(i)]);
        Ok(Generator { session, program, kept: names.map(|n| (n, zeros.clone())).collect(), position: 0, room })
    }

    /// Adds a word to each text; gives the logits [n, 1, vocabulary] of the words that may follow.
    pub fn step(&mut self, words: &[i64]) -> Result<Tensor> {
        if self.position >= self.room {
            return Err(Error::wrong("text", format!("there is room for {} words only", self.room)));
        }
        let mut inputs = self.kept.clone();
        inputs.insert(WORDS.to_owned(), Tensor::from_vec(words.to_vec(), &[words.len() as u64, 1])?);
        inputs.insert(POSITION.to_owned(), Tensor::from_vec(vec![self.position as i64], &[])?);
        let outputs = self.program.run_with(self.session, &inputs)?;
        for (name, kept) in &mut self.kept {
            *kept = outputs.tensor(name)?.clone();
        }
        self.position += 1;
        Ok(outputs.tensor(LOGITS)?.clone())
    }
}

/// The most likely word of each text.
pub fn most_likely(logits: &Tensor) -> Result<Vec<i64>> {
    let vocabulary = logits.shape().last().map_or(1, |n| (*n as usize).max(1));
    let largest = |row: &[f32]| {
        let best = row.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map_or(0, |(word, _)| word as i64)
    };
    Ok(logits.as_slice::<f32>()?.chunks_exact(vocabulary).map(largest).collect())
}
