//! Handwritten digits of 8 x 8 pixels with 17 shades: the test part of "Optical Recognition of Handwritten Digits" (E.
//! Alpaydin, C. Kaynak), as scikit-learn ships it; `scripts/digits` takes it from there.

use crate::{Error, Result, cache};
use quearn::Tensors;
use quearn::data::Tensor;
use quearn_stage::graph::philox;
use std::fs;
use std::path::{Path, PathBuf};

/// Pixels of a digit along an edge.
pub const SIDE: usize = 8;
/// The darkest shade.
const DARKEST: f32 = 16.0;
/// Of so many digits one is kept for the test.
const FOLDS: usize = 5;

/// Digits with their classes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Digits {
    /// Pixels of each, from 0 to 1, row by row.
    pub pixels: Vec<[f32; SIDE * SIDE]>,
    /// Classes, 0 to 9.
    pub classes: Vec<i64>,
}

/// How a network takes digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As vectors [n, 64].
    Vectors,
    /// As pictures [n, 1, 28, 28]: three times as large, with a margin of two.
    Pictures,
}

/// The file that `scripts/digits` makes; it need not exist.
pub fn file() -> PathBuf {
    cache::folder().join("digits.csv")
}

impl Digits {
    /// Reads a file: a line a digit, 64 shades from 0 to 16 and the class, with commas between.
    ///
    /// # Errors
    /// There is no such file, or a line is no digit.
    pub fn read(path: &Path) -> Result<Digits> {
        let wrong = |message: String| Error::wrong(path.display().to_string(), message);
        let text = fs::read_to_string(path).map_err(|e| wrong(format!("{e}; scripts/digits makes this file")))?;
        let mut digits = Digits::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let digit = parse(line).ok_or_else(|| {
                wrong(format!("line {}: expected 64 shades from 0 to 16 and a class from 0 to 9", number + 1))
            })?;
            digits.pixels.push(digit.0);
            digits.classes.push(digit.1);
        }
        match digits.classes.len() {
            0..FOLDS => Err(wrong(format!("expected {FOLDS} digits or more"))),
            _ => Ok(digits),
        }
    }

    /// Seeded pictures that can be told apart as digits can: each class has strokes of its own, moved and with noise.
    pub fn seeded(count: usize, seed: i64) -> Digits {
        let mut digits = Digits::default();
        for i in 0..count {
            let class = i % 10;
            let unit = |k: usize| philox::unit_f32(philox::block(seed, i as i64, k as i64));
            let (dx, dy) = ((unit(0) * 2.0) as usize, (unit(1) * 2.0) as usize);
            let mut pixels = [0.0; SIDE * SIDE];
            for (at, pixel) in pixels.iter_mut().enumerate() {
                let (x, y) = (at % SIDE + dx, at / SIDE + dy);
                *pixel = (0.8 * stroke(class, x, y) + 0.2 * unit(at + 2)).clamp(0.0, 1.0);
            }
            digits.pixels.push(pixels);
            digits.classes.push(class as i64);
        }
        digits
    }

    /// Digits to train on and digits to test with, one in five, in an order that has nothing to do with who wrote them.
    pub fn split(&self) -> [Digits; 2] {
        let mut order: Vec<usize> = (0..self.classes.len()).collect();
        order.sort_by_key(|&i| philox::block(0, 0, i as i64));
        let (test, train) = order.split_at(order.len() / FOLDS);
        [train, test].map(|part| Digits {
            pixels: part.iter().map(|&i| self.pixels[i]).collect(),
            classes: part.iter().map(|&i| self.classes[i]).collect(),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// As inputs of a network: `input` [n, ..] in a form, and `target` [n]. Shades have about mean 0 and variance 1.
    ///
    /// # Errors
    /// None but for sizes that do not fit in memory.
    pub fn tensors(&self, input: &str, form: Form) -> Result<Tensors> {
        let n = self.len() as u64;
        let scaled = |shade: f32| (shade - 0.3) / 0.38;
        let (values, shape) = if form == Form::Pictures {
            let values = self.pixels.iter().flat_map(enlarged).map(scaled).collect();
            (values, vec![n, 1, EDGE as u64, EDGE as u64])
        } else {
            (self.pixels.iter().flatten().copied().map(scaled).collect(), vec![n, (SIDE * SIDE) as u64])
        };
        let inputs = Tensor::from_vec(values, &shape)?;
        let classes = Tensor::from_vec(self.classes.clone(), &[n])?;
        Ok([(input.to_owned(), inputs), ("target".to_owned(), classes)].into())
    }
}

/// Pixels of an enlarged digit along an edge, and how often each pixel of the digit is repeated.
const EDGE: usize = 28;
const ZOOM: usize = 3;

/// The shades of a digit, enlarged, in the middle of a picture.
fn enlarged(pixels: &[f32; SIDE * SIDE]) -> [f32; EDGE * EDGE] {
    let margin = (EDGE - ZOOM * SIDE) / 2;
    let mut picture = [0.0; EDGE * EDGE];
    for (at, shade) in picture.iter_mut().enumerate() {
        let [x, y] = [at % EDGE, at / EDGE].map(|i| i.checked_sub(margin).map(|i| i / ZOOM).filter(|i| *i < SIDE));
        if let (Some(x), Some(y)) = (x, y) {
            *shade = pixels[y * SIDE + x];
        }
    }
    picture
}

fn parse(line: &str) -> Option<([f32; SIDE * SIDE], i64)> {
    let mut numbers = line.split(',').map(|field| field.trim().parse::<f32>().ok());
    let mut pixels = [0.0; SIDE * SIDE];
    for pixel in &mut pixels {
        *pixel = numbers.next()?.filter(|shade| (0.0..=DARKEST).contains(shade))? / DARKEST;
    }
    let class = numbers.next()?.filter(|class| (0.0..=9.0).contains(class) && class.fract() == 0.0)?;
    numbers.next().is_none().then_some((pixels, class as i64))
}

/// Is there ink of the class at that place?
fn stroke(class: usize, x: usize, y: usize) -> f32 {
    let ink = match class {
        0 => (2..7).contains(&x) && (2..7).contains(&y) && !((3..6).contains(&x) && (3..6).contains(&y)),
        1 => x == 4 || x == 5,
        2 => y == 4 || y == 5,
        3 => x == y,
        4 => x + y == 8,
        5 => x == y || x + y == 8,
        6 => y < 4,
        7 => x < 4,
        8 => (x / 2 + y / 2).is_multiple_of(2),
        _ => x == 4 || y == 4,
    };
    f32::from(u8::from(ink))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(first: &str, class: &str) -> String {
        format!("{first}{}{class}\n", ",1.0".repeat(SIDE * SIDE - 1) + ",")
    }

    #[test]
    fn reads_what_scikit_learn_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digits.csv");
        fs::write(&path, (0..6).map(|i| line("16.000e+00", &format!("{i}.000e+00"))).collect::<String>()).unwrap();
        let digits = Digits::read(&path).unwrap();
        assert_eq!(digits.classes, [0, 1, 2, 3, 4, 5]);
        assert_eq!(digits.pixels[0][..2], [1.0, 1.0 / 16.0]);
        let [train, test] = digits.split();
        assert_eq!((train.len(), test.len()), (5, 1));
    }

    #[test]
    fn refuses_what_is_no_digit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digits.csv");
        let fails = || Digits::read(&path).unwrap_err().to_string();
        assert!(fails().contains("scripts/digits makes this file"), "{}", fails());
        for bad in
            [line("17", "1"), line("1", "10"), line("1", "1.5"), line("", "1"), "1,2,3\n".into(), line("1", "1,2")]
        {
            fs::write(&path, line("1", "1") + &bad).unwrap();
            assert!(fails().contains("line 2: expected 64 shades"), "{}", fails());
        }
        fs::write(&path, line("1", "1")).unwrap();
        assert!(fails().contains("expected 5 digits"), "{}", fails());
    }

    #[test]
    fn pictures_have_a_margin() {
        let digits = Digits { pixels: vec![[1.0; SIDE * SIDE]], classes: vec![3] };
        let tensors = digits.tensors("image", Form::Pictures).unwrap();
        assert_eq!(tensors["image"].shape(), [1, 1, 28, 28]);
        let ink = tensors["image"].as_slice::<f32>().unwrap().iter().filter(|shade| **shade > 0.0).count();
        assert_eq!(ink, 24 * 24);
        assert_eq!(digits.tensors("x", Form::Vectors).unwrap()["x"].shape(), [1, 64]);
    }
}
