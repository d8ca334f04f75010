//! Spectrograms with transcripts: tones of letters, one after the other, of any length and with pauses of any length
//! between them, in noise. Where a letter lies is not said: that is what the loss has to find.

use super::lesson::{Problem, Settings, batch_of, only_seeded};
use crate::Result;
use crate::deepspeech2::DeepSpeech2;
use crate::random::{Gauss, Stream};
use quearn::data::Tensor;
use quearn::training::{Draw, Plan, Recipe, steps_in_epoch};
use quearn::{Session, Tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{F32, I64, Sequences, Stage};
use std::ops::Range;

/// The network.
const NETWORK: DeepSpeech2 = DeepSpeech2 { channels: 4, hidden: 32, layers: 1, letters: 6 };
/// The class that means "nothing new"; all above are letters.
const BLANK: i64 = 0;
/// Spectrograms to train on, and those to test with.
const COUNTS: [u64; 2] = [512, 128];
/// Frequencies, and columns of time.
const FREQUENCIES: usize = 16;
const TIME: usize = 64;
/// Columns of which the convolutions make one step.
const STRIDE: u64 = 2;
/// Letters of a transcript, columns of a letter, columns of a pause.
const LETTERS: Range<i64> = 1..5;
const LONG: Range<i64> = 6..12;
const PAUSE: Range<i64> = 2..5;
/// How loud the noise is beside the tones.
const NOISE: f64 = 0.3;

/// Spectrograms with their transcripts.
struct Speech {
    train: Tensors,
    test: Tensors,
    transcripts: Vec<Vec<i64>>,
    tester: Graph,
    batch: u64,
}

/// Seeded speech.
pub(super) fn begin(settings: &Settings) -> Result<Box<dyn Problem>> {
    only_seeded("deepspeech2", settings)?;
    let [(train, _), (test, transcripts)] = [
        spoken(&format!("speech.{}.train", settings.seed), COUNTS[0])?,
        spoken(&format!("speech.{}.test", settings.seed), COUNTS[1])?,
    ];
    let s = Stage::new();
    let log_probs = NETWORK.log_probs(&s, s.input("spectrogram", test["spectrogram"].shape().to_vec()));
    s.output("best", log_probs.arg_max(2));
    let tester = s.finish().map_err(quearn::Error::from)?;
    Ok(Box::new(Speech { train, test, transcripts, tester, batch: batch_of(COUNTS[0], settings)? }))
}

/// Inputs from the streams that begin with `name`, and what is said in them.
fn spoken(name: &str, count: u64) -> Result<(Tensors, Vec<Vec<i64>>)> {
    let (draw, noise) = (Stream::new(&format!("{name}.draw")), Gauss::new(&format!("{name}.noise")));
    let most = LETTERS.end as usize - 1;
    let mut drawn = 0..;
    let mut next = |range: &Range<i64>| draw.int(drawn.next().unwrap_or(0), range.start, range.end);
    let size = FREQUENCIES * TIME;
    let mut sound: Vec<f32> = (0..count * size as u64).map(|i| (NOISE * noise.value(i)) as f32).collect();
    let (mut targets, mut transcripts) = (vec![], vec![]);
    for spectrogram in sound.chunks_mut(size) {
        let said: Vec<i64> = (0..next(&LETTERS)).map(|_| next(&(BLANK + 1..NETWORK.letters as i64))).collect();
        let mut at = 0;
        for &letter in &said {
            at += next(&PAUSE) as usize;
            let end = at + next(&LONG) as usize;
            sing(spectrogram, letter as usize, at..end);
            at = end;
        }
        targets.extend(said.iter().copied().chain(std::iter::repeat(BLANK)).take(most));
        transcripts.push(said);
    }
    let lengths = transcripts.iter().map(|said| said.len() as i64).collect();
    let shape = [count, 1, FREQUENCIES as u64, TIME as u64];
    let tensors = [
        ("spectrogram".to_owned(), Tensor::from_vec(sound, &shape)?),
        ("target".to_owned(), Tensor::from_vec(targets, &[count, most as u64])?),
        ("length".to_owned(), Tensor::from_vec(lengths, &[count])?),
    ];
    Ok((tensors.into(), transcripts))
}

/// Two tones for a letter.
fn sing(spectrogram: &mut [f32], letter: usize, time: Range<usize>) {
    for frequency in [2 * letter, 3 * letter] {
        spectrogram[frequency * TIME..][time.clone()].iter_mut().for_each(|sound| *sound += 1.0);
    }
}

/// What a path of classes says: each once as long as it stays, without blanks.
fn read_off(path: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut said: Vec<i64> = path.collect();
    said.dedup();
    said.retain(|letter| *letter != BLANK);
    said
}

/// How many letters must be put in, left out or changed (Levenshtein's distance).
fn edits(from: &[i64], to: &[i64]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = before + usize::from(a != b);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

impl Problem for Speech {
    fn inputs(&self) -> &Tensors {
        &self.train
    }

    fn rows(&self) -> u64 {
        COUNTS[0]
    }

    fn batch(&self) -> u64 {
        self.batch
    }

    fn steps(&self) -> u64 {
        steps_in_epoch(self.rows(), self.batch)
    }

    fn plan(&self, recipe: Recipe) -> Result<Plan> {
        Ok(Plan::new(recipe, |s| {
            let draw = Draw::new(s, self.rows(), self.batch);
            let shape = |name: &str| self.train[name].shape().to_vec();
            let integers = |name: &str| draw.rows(s.input::<I64>(name, shape(name)));
            let log_probs = NETWORK.log_probs(s, draw.rows(s.input::<F32>("spectrogram", shape("spectrogram"))));
            let steps = s.constant((TIME as u64 / STRIDE) as i64).as_tensor();
            log_probs.ctc(Sequences {
                targets: integers("target"),
                target_lengths: integers("length"),
                input_lengths: steps.broadcast([self.batch]),
                blank: BLANK,
            })
        })?)
    }

    /// By the class that is most likely at each step.
    fn measured(&self, session: &Session, weights: Tensors) -> Result<f64> {
        let given = weights.into_iter().chain(self.test.clone()).collect();
        let outputs = session.compile(&self.tester)?.run_with(session, &given)?;
        let best = outputs.tensor("best")?.as_slice::<i64>()?.to_vec();
        let count = self.transcripts.len();
        let read = |i: usize| read_off(best.iter().skip(i).step_by(count).copied());
        let wrong: usize = self.transcripts.iter().enumerate().map(|(i, said)| edits(&read(i), said)).sum();
        Ok(wrong as f64 / self.transcripts.iter().map(Vec::len).sum::<usize>() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_off() {
        assert_eq!(read_off([0, 2, 2, 0, 2, 3, 3, 0].into_iter()), [2, 2, 3]);
        assert!(read_off([0, 0].into_iter()).is_empty());
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(edits(&[1, 2, 3], &[2, 3, 4]), 2);
        assert_eq!(edits(&[], &[5, 5]), 2);
        assert_eq!(edits(&[5, 1], &[]), 2);
    }

    #[test]
    fn all_that_is_said_fits() {
        let most = LETTERS.end - 1;
        assert!(most * (LONG.end - 1 + PAUSE.end - 1) <= TIME as i64);
        assert!(3 * (NETWORK.letters as usize - 1) < FREQUENCIES);
        let (tensors, transcripts) = spoken("test", 20).unwrap();
        assert_eq!(tensors["target"].shape(), [20, 4]);
        assert!(transcripts.iter().any(|said| said.len() == 1) && transcripts.iter().any(|said| said.len() == 4));
    }
}
