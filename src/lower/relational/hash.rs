//! Hashes of keys, computed inline.

use super::env::Env;
use super::expr::text;
use super::layout::{RowField, Stored};
use super::value::{Repr, Value, widen};
use crate::lower::context::Cx;
use quearn_stage::low::{BinOp, CastOp, Prim, Ty, V};

/// Odd constants of good spectral quality (Steele and Vigna, "Computationally easy, spectrally good multipliers").
const MULTIPLIERS: [i64; 2] = [0xd134_2543_de82_ef95_u64 as i64, 0xaf25_1af3_b0f0_25b5_u64 as i64];

/// One 64-bit hash of all keys. For a single integer key of at most 64 bits it is a bijection: equal hashes, equal keys.
pub fn hash<'b>(cx: &Cx<'_>, env: &Env<'b>, keys: &[Value<'b>]) -> V<'b> {
    let first = key(cx, env, &keys[0]);
    let mixed = keys[1..].iter().fold(first, |h, k| (mix(h, 0) ^ key(cx, env, k)) * MULTIPLIERS[1]);
    finish(mixed)
}

/// Is the hash of these keys a bijection?
pub fn is_exact(keys: &[Value<'_>]) -> bool {
    let word = |v: &Value<'_>| matches!(v.repr, Repr::Prim(p) if p.ty().prim.is_int() && p.ty().prim != Prim::I128);
    matches!(keys, [k] if k.valid.is_none() && word(k))
}

/// Would the hash of keys that are stored so be a bijection?
pub fn is_exact_stored<'f>(mut keys: impl Iterator<Item = &'f RowField>) -> bool {
    let word = |f: &RowField| matches!(f.stored, Stored::Prim(p) if p.is_int() && p != Prim::I128) && f.valid.is_none();
    keys.next().is_some_and(word) && keys.next().is_none()
}

fn mix<'b>(h: V<'b>, which: usize) -> V<'b> {
    let product = h * MULTIPLIERS[which];
    product ^ product.lshr(32)
}

/// Spreads entropy to the low bits, which index directories, and the high ones, which choose partitions.
fn finish<'b>(h: V<'b>) -> V<'b> {
    mix(mix(h, 0), 1)
}

/// A key as 64 bits: the value itself where it fits, else a hash of it. NULL is a value of its own.
fn key<'b>(cx: &Cx<'_>, env: &Env<'b>, value: &Value<'b>) -> V<'b> {
    let word = match value.repr {
        Repr::Prim(v) => prim_word(v),
        Repr::Code { code, .. } => code.sext(Prim::I64),
        Repr::Text { .. } => text_word(cx, env, *value),
    };
    match value.valid {
        Some(valid) => valid.select(word, env.b.i64(0x5bd1_e995)),
        None => word,
    }
}

fn prim_word<'b>(v: V<'b>) -> V<'b> {
    match v.ty().prim {
        Prim::Bool => v.zext(Prim::I64),
        Prim::I128 => {
            // A value that fits 64 bits hashes as it does there: the other side of a join may have it in a narrower type.
            let low = v.cast(CastOp::Trunc, Prim::I64);
            let high = v.lshr(64).cast(CastOp::Trunc, Prim::I64) ^ low.bin(BinOp::AShr, low.same(63));
            low ^ (high * MULTIPLIERS[0])
        }
        // -0.0 equals 0.0 and must hash alike.
        Prim::F64 => (v + v.same(0)).bitcast(Ty::I64),
        Prim::F32 => (v + v.same(0)).bitcast(Ty::I32).sext(Prim::I64),
        _ => widen(v, Prim::I64),
    }
}

/// Hash of text, eight bytes at a time.
fn text_word<'b>(cx: &Cx<'_>, env: &Env<'b>, value: Value<'b>) -> V<'b> {
    let text = text::as_text(cx, env, value);
    let Repr::Text { len, .. } = text.repr else { unreachable!("as_text gives text") };
    let folded = text::fold_words(env.b, text, len, |hash, word| mix(hash ^ word, 0));
    mix(folded, 1)
}

/// Which of `parts` (at least 1) a hash belongs to: by the high half, which the directory index does not use.
pub fn partition<'b>(hash: V<'b>, parts: V<'b>) -> V<'b> {
    (hash.lshr(32) * parts).lshr(32)
}
