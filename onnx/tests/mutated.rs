//! Valid files with bytes changed, cut off or repeated: each is an error or another model, never a panic, and what is
//! read takes little memory and time. The seed is printed with a case that fails.

mod common;

use common::{attribute, floats, graph, int_tensor, model, node, port, tensor};
use prost::Message;
use quearn::io::{read_safetensors, write_safetensors};
use quearn_onnx::proto::{AttributeProto, GraphProto};
use quearn_onnx::{Options, decode, import};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts the largest block that is asked for.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is that of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is that of this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// No block may be larger.
const MOST_BYTES: usize = 1 << 29;

/// No file may take longer.
const MOST_TIME: Duration = Duration::from_secs(20);

/// Numbers that only depend on the seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n.max(1)
    }

    /// The bytes with a few changes.
    fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => drop(bytes.remove(at)),
                4 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let part = bytes[at..(at + 16).min(bytes.len())].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }
}

fn inner(graph: GraphProto) -> AttributeProto {
    AttributeProto { name: Some("body".into()), g: Some(graph), r#type: Some(5), ..Default::default() }
}

/// Small models that between them use most kinds of attributes and inputs.
fn models() -> Vec<Vec<u8>> {
    let image = vec![port("x", &["1", "2", "6", "6"])];
    let window = || vec![attribute::ints("kernel_shape", &[2, 2]), attribute::ints("pads", &[1, 0, 0, 1])];
    let convolution = graph(
        vec![
            node("Conv", &["x", "w"], &["c"], window()),
            node("AveragePool", &["c"], &["p"], window()),
            node("Resize", &["p", "", "", "sizes"], &["r"], vec![]),
            node("Pad", &["r", "pads"], &["y"], vec![]),
        ],
        vec![
            tensor("w", &[3, 2, 2, 2], &[0.5; 24]),
            int_tensor("sizes", &[4], &[1, 3, 9, 9]),
            int_tensor("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]),
        ],
        image,
        &["y"],
    );
    let shapes = graph(
        vec![
            node("Shape", &["x"], &["s"], vec![]),
            node("Gather", &["s", "zero"], &["n"], vec![]),
            node("Unsqueeze", &["n", "axes"], &["n1"], vec![]),
            node("Concat", &["n1", "open"], &["to"], vec![attribute::int("axis", 0)]),
            node("Reshape", &["x", "to"], &["f"], vec![]),
            node("Split", &["f", "sizes"], &["a", "b"], vec![attribute::int("axis", 1)]),
            node("Tile", &["b", "twice"], &["t"], vec![]),
            node("TopK", &["t", "two"], &["y", "at"], vec![]),
            node("Slice", &["y", "axes", "two"], &["z"], vec![]),
        ],
        vec![
            int_tensor("zero", &[], &[0]),
            int_tensor("axes", &[1], &[0]),
            int_tensor("open", &[1], &[-1]),
            int_tensor("sizes", &[2], &[2, 4]),
            int_tensor("twice", &[2], &[1, 2]),
            int_tensor("two", &[1], &[2]),
        ],
        vec![port("x", &["4", "2", "3"])],
        &["z"],
    );
    let body = graph(
        vec![node("Add", &["a", "x"], &["b"], vec![]), node("Identity", &["again"], &["go"], vec![])],
        vec![],
        vec![port("round", &[]), port("again", &[]), port("a", &["2"])],
        &["go", "b"],
    );
    let control = graph(
        vec![
            node("Loop", &["trips", "", "x"], &["l"], vec![inner(body)]),
            node("SplitToSequence", &["l"], &["s"], vec![]),
            node("SequenceAt", &["s", "one"], &["e"], vec![]),
            node("RNN", &["q", "w", "r"], &["o"], vec![attribute::int("hidden_size", 1)]),
        ],
        vec![
            int_tensor("trips", &[], &[3]),
            int_tensor("one", &[], &[1]),
            tensor("w", &[1, 1, 1], &[0.5]),
            tensor("r", &[1, 1, 1], &[0.5]),
        ],
        vec![port("x", &["2"]), port("q", &["3", "1", "1"])],
        &["e", "o"],
    );
    [convolution, shapes, control].into_iter().map(|g| model(g).encode_to_vec()).collect()
}

fn checked(what: &str, seed: u64, run: impl FnOnce()) {
    LARGEST.store(0, Ordering::Relaxed);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(run));
    assert!(result.is_ok(), "{what}: panic with seed {seed}");
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= MOST_BYTES, "{what}: a block of {largest} bytes with seed {seed}");
    assert!(start.elapsed() <= MOST_TIME, "{what}: {:?} with seed {seed}", start.elapsed());
}

#[test]
fn mutated_files_are_errors_or_other_files() {
    for (i, bytes) in models().iter().enumerate() {
        import(&decode(bytes).unwrap(), None, &Options::default()).unwrap();
        for seed in 0..2500 {
            let changed = Random(seed).mutated(bytes);
            checked(&format!("model {i}"), seed, || {
                let _ = decode(&changed).map(|model| import(&model, None, &Options::default()).map(drop));
            });
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let (a, b) = (floats(&[1.0, 2.0], &[2]), common::ints(&[3, 4, 5, 6], &[2, 2]));
    write_safetensors(&path, [("a", &a), ("b", &b)]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for seed in 0..2500 {
        std::fs::write(&path, Random(seed).mutated(&bytes)).unwrap();
        checked("safetensors", seed, || drop(read_safetensors(&path)));
    }
    for end in 0..bytes.len() {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert!(read_safetensors(&path).is_err(), "the first {end} bytes");
    }
}
