//! P11: texts chosen by a query, encoded by a transformer, and the items that are most similar to each.
//!
//! Texts are encoded in classes of about the same length, so that little is computed for words that are not there.

use super::answer::{by_key, numbers};
use super::columns::{fields, integers, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::nn::{HIDDEN, Module, Values, gelu, last, widened};
use crate::random::{gauss, ints, weight};
use crate::weights::Weights;
use crate::{Progress, Result};
use quearn::data::Tensor as StoredTensor;
use quearn_stage::graph::{Dim, Scalar};
use quearn_stage::rep::{F32, F64, I32, I64, Rep, Row, Stage, Table, Tensor, asc, avg, count};

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n", Tolerance::Exact),
    ("mean_top1", Tolerance::Relative { of: 1e-3, and: 1e-4 }),
    ("top5_first", Tolerance::Relative { of: 1e-3, and: 1e-3 }),
    ("hits", Tolerance::Share(0.01)),
];

const VOCABULARY: u64 = 8192;
/// Words of a text, at most; it has at least [`LEAST`].
const LENGTH: u64 = 64;
const LEAST: i64 = 8;
const WIDTH: u64 = 64;
const HEADS: u64 = 4;
const INNER: u64 = 128;
const LAYERS: u64 = 2;
const EPS: f32 = 1e-5;
/// Most words of the texts of a class: lines of scores are whole vectors (of 16 at most).
const CLASSES: [u64; 4] = [16, 32, 48, LENGTH];
const CATEGORIES: usize = 10;
/// Items that are found for a text.
const BEST: usize = 5;
/// Texts whose scores are compared.
const FIRST: usize = 100;

fn texts(scale: f64) -> usize {
    rows(20_000, scale, 400)
}

fn items(scale: f64) -> usize {
    rows(2_000, scale, 100)
}

fn item(place: usize) -> String {
    format!("item{place}")
}

fn score(place: usize) -> String {
    format!("score{place}")
}

/// The results `categories` (`category`, `n`, `mean_top1`), `matches` (`score0` to `score4` of each text, in order) and
/// `hits0` to `hits4` (`item`, `n`).
pub(super) fn program(s: &Stage, scale: f64) {
    let docs = s
        .scan("docs", fields(Scalar::I32, ["doc_id", "category", "lang", "words"]))
        .filter(|r| r.i32("lang").is_in([1, 2]));
    let least = std::iter::once(0).chain(CLASSES);
    let classes = least.zip(CLASSES).map(|(less, most)| {
        let docs = docs.filter(|r| r.i32("words").gt(less as i32) & r.i32("words").le(most as i32));
        let found = similar(s, encoded(s, docs.row(), texts(scale) as u64, most), items(scale) as u64);
        found.into_iter().enumerate().fold(docs, |docs, (place, (score_, item_))| {
            docs.with(&score(place), |_| score_).with(&item(place), |_| item_)
        })
    });
    let matched: Vec<Rep<'_, Table>> = classes.collect();
    let matched = matched[0].union(matched[1..].iter().copied()).sort([asc("doc_id")]);
    let categories = matched.group_by(["category"]);
    s.output("categories", categories.agg(|r| [count("n"), avg("mean_top1", r.f32(&score(0)).cast::<F64>())]));
    s.output("matches", matched.select((0..BEST).map(score).collect::<Vec<_>>().iter().map(String::as_str)));
    for place in 0..BEST {
        let hits = matched.group_by_exprs(|r| [("item", r.col(&item(place)))]);
        s.output(format!("hits{place}"), hits.agg(|_| [count("n")]));
    }
}

/// Unit vectors [n, 64] of texts of at most `most` words.
fn encoded<'s>(s: &'s Stage, doc: Row<'s>, texts: u64, most: u64) -> Values<'s> {
    let m = Module::root(s);
    let words: Rep<'s, Tensor<I32>> = s.input("words", [texts, LENGTH]);
    let words = words.slice(1, 0, 1, most).gather(doc.i32("doc_id").as_tensor()).cast::<I64>();
    let length = doc.i32("words").as_tensor();
    let shape = [length.shape(), vec![Dim::Const(1)]].concat();
    let there = s.iota(most).lt(length.cast::<I64>().reshape(shape)).cast::<F32>();
    let mask = ((1.0 - there) * HIDDEN).reshape([&there.shape()[..1], &[1, 1, most].map(Dim::Const)].concat());
    let positions = m.at("positions").embedding(s.iota(most), LENGTH, WIDTH);
    let x = m.at("words").embedding(words, VOCABULARY, WIDTH) + positions;
    let x = (0..LAYERS).fold(x, |x, i| layer(&m.at("layer").at(i), x, mask));
    let mean = (x * widened(there)).sum([1]) / widened(length.cast::<F32>());
    mean / widened((mean * mean).sum([1]).sqrt())
}

fn layer<'s>(m: &Module<'s>, x: Values<'s>, mask: Values<'s>) -> Values<'s> {
    let x = m.at("norm1").layer_norm(x + m.at("attention").self_attention(x, HEADS, mask), EPS);
    let inner = gelu(m.at("inner").linear(x, INNER));
    m.at("norm2").layer_norm(x + m.at("outer").linear(inner, last(x)), EPS)
}

/// Scores and numbers [n] of the active items nearest to each vector, best first.
fn similar<'s>(s: &'s Stage, vectors: Values<'s>, items: u64) -> Vec<(Values<'s>, Rep<'s, Tensor<I64>>)> {
    let active: Rep<'s, Tensor<I32>> = s.input("active", [items]);
    let there = active.gt(0).cast::<F32>();
    let mut scores = vectors.matmul(s.weight("items", [items, WIDTH]).transpose()) + (1.0 - there) * HIDDEN;
    let mut found = vec![];
    for _ in 0..BEST {
        let best = scores.arg_max(1);
        found.push((scores.max([1]), best));
        let shape = [best.shape(), vec![Dim::Const(1)]].concat();
        scores = scores + best.reshape(shape).eq(s.iota(items)).cast::<F32>() * HIDDEN;
    }
    found
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let (n, m) = (texts(scale), items(scale));
    let lengths = ints("P11.len", n, LEAST, LENGTH as i64 + 1);
    let tokens = ints("P11.tokens", lengths.iter().sum::<i64>() as usize, 1, VOCABULARY as i64);
    let mut words = vec![0i32; n * LENGTH as usize];
    let mut rest = tokens.iter();
    for (text, length) in words.chunks_mut(LENGTH as usize).zip(&lengths) {
        text.iter_mut().zip(rest.by_ref().take(*length as usize)).for_each(|(to, token)| *to = *token as i32);
    }
    let number = |stream: &str, most| integers(ints(stream, n, 0, most));
    let docs = [
        ("doc_id", integers(0..n as i64)),
        ("category", number("P11.cat", CATEGORIES as i64)),
        ("lang", number("P11.lang", 4)),
        ("words", integers(lengths)),
    ];
    let mut tensors = weights()?;
    tensors.insert("words".into(), StoredTensor::from_vec(words, &[n as u64, LENGTH])?);
    let vectors = gauss("P11.items", m * WIDTH as usize);
    let units = vectors.chunks(WIDTH as usize).flat_map(|vector| {
        let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        vector.iter().map(move |v| (v / length) as f32)
    });
    tensors.insert("items".into(), StoredTensor::from_vec(units.collect::<Vec<f32>>(), &[m as u64, WIDTH])?);
    let active = ints("P11.active", m, 0, 5).into_iter().map(|v| v as i32).collect::<Vec<i32>>();
    tensors.insert("active".into(), StoredTensor::from_vec(active, &[m as u64])?);
    Ok(Data { tables: vec![table("docs", docs)?], tensors })
}

fn weights() -> Result<Weights> {
    let mut weights = Weights::new();
    let mut add = |name: String, values: Vec<f32>, shape: &[u64]| -> Result<()> {
        weights.insert(name, StoredTensor::from_vec(values, shape)?);
        Ok(())
    };
    // An embedding is a sum of nothing: its fan-in is 1.
    for (name, stream, gain, count) in [("words", "P11.tok", 1.0, VOCABULARY), ("positions", "P11.pos", 0.5, LENGTH)] {
        let values = weight(stream, &[(count * WIDTH) as usize], gain);
        add(format!("{name}.weight"), values, &[count, WIDTH])?;
    }
    for layer in 0..LAYERS {
        let stream = |part: &str| format!("P11.l{layer}.{part}");
        let name = |part: &str| format!("layer.{layer}.{part}");
        let linear = [
            ("attention.query", "q", [WIDTH, WIDTH]),
            ("attention.key", "k", [WIDTH, WIDTH]),
            ("attention.value", "v", [WIDTH, WIDTH]),
            ("attention.output", "o", [WIDTH, WIDTH]),
            ("inner", "f1", [INNER, WIDTH]),
            ("outer", "f2", [WIDTH, INNER]),
        ];
        for (part, short, shape) in linear {
            let values = weight(&stream(&format!("{short}.w")), &shape.map(|extent| extent as usize), 1.2);
            add(name(&format!("{part}.weight")), values, &shape)?;
            let bias = weight(&stream(&format!("{short}.b")), &[shape[0] as usize], 0.02);
            add(name(&format!("{part}.bias")), bias, &shape[..1])?;
        }
        for (part, short) in [("norm1", "n1"), ("norm2", "n2")] {
            let scale =
                gauss(&stream(&format!("{short}.g")), WIDTH as usize).into_iter().map(|v| (1.0 + 0.1 * v) as f32);
            add(name(&format!("{part}.weight")), scale.collect(), &[WIDTH])?;
            add(
                name(&format!("{part}.bias")),
                weight(&stream(&format!("{short}.b")), &[WIDTH as usize], 0.05),
                &[WIDTH],
            )?;
        }
    }
    Ok(weights)
}

pub(super) fn answer(results: &Results, scale: f64) -> Result<Answer> {
    let mut answer =
        by_key(results.table("categories")?, "category", CATEGORIES, &[("n", "n"), ("mean_top1", "mean_top1")])?;
    let matches = results.table("matches")?;
    let scores = (0..BEST).map(|place| numbers(matches, &score(place))).collect::<Result<Vec<_>>>()?;
    let first = (0..FIRST.min(matches.num_rows())).flat_map(|text| scores.iter().map(move |column| column[text]));
    answer.insert("top5_first", first.collect());
    let mut hits = vec![0.0; items(scale)];
    for place in 0..BEST {
        let found = results.table(&format!("hits{place}"))?;
        for (item, n) in numbers(found, "item")?.into_iter().zip(numbers(found, "n")?) {
            hits[item as usize] += n;
        }
    }
    answer.insert("hits", hits);
    Ok(answer)
}
