//! `generate`: a text word by word, and how long each word takes.

use super::machine::Machine;
use super::network::exported_folder;
use quearn_models::generate::{Generator, most_likely, step_program};
use quearn_models::gpt2::GPT2_SMALL;
use quearn_models::networks::Network;
use quearn_models::{Error, Result, weights};
use quearn_tpch::times::{elapsed_ms, median};
use std::num::NonZeroU64;
use std::time::Instant;

/// `generate`.
#[derive(clap::Args)]
pub struct Generate {
    /// Words, the first one included.
    #[arg(long, default_value = "64")]
    words: NonZeroU64,
    /// Number of the first word.
    #[arg(long, default_value_t = 50256)]
    first: i64,
    #[command(flatten)]
    machine: Machine,
}

/// The only network that writes.
const NETWORK: &str = "gpt2_small";

impl Generate {
    /// Writes the most likely text.
    pub fn run(self) -> Result<()> {
        let room = self.words.get();
        let missing = || Error::NoExpectation { what: NETWORK.to_owned() };
        let folder = exported_folder(Network::find(NETWORK).ok_or_else(missing)?);
        let weights = match folder {
            Some(folder) => weights::read(&folder.join(format!("{NETWORK}.safetensors")))?,
            None => weights::for_graph(NETWORK, &step_program(&GPT2_SMALL, 1, room)?)?,
        };
        let session = self.machine.session_with(weights)?;
        let mut generator = Generator::new(&GPT2_SMALL, &session, 1, room)?;
        let (mut words, mut times) = (vec![self.first], vec![]);
        for _ in 0..room {
            let start = Instant::now();
            let logits = generator.step(&words[words.len() - 1..])?;
            times.push(elapsed_ms(start));
            words.extend(most_likely(&logits)?);
        }
        let each = median(&times[1..]).unwrap_or(times[0]);
        super::print(format!("{words:?}\nfirst word {:.1} ms, then {each:.2} ms each (median)\n", times[0]))
    }
}
