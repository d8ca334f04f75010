//! Tables, pictures and weights of the pipeline, generated once and kept in the cache.

use super::pictures::pictures;
use super::{DEVIATION, DEVIATION_NAME, MEAN, MEAN_NAME, Set, centre};
use crate::pipelines::Data;
use crate::random::{ints, unif};
use crate::squeezenet::{CHANNELS, SQUEEZENET1_1};
use crate::weights::{self, Weights};
use crate::{Error, Progress, Result, Step, cache};
use arrow::array::{ArrayRef, Float32Array, Int32Array, RecordBatch};
use quearn::data::{LoadOptions, Table, Tensor};
use quearn::io::{ReadOptions, read_parquet, read_safetensors, write_parquet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Name of the tensor of samples, in its file and in the program.
pub(super) const PIXELS: &str = "pixels";
/// Number of cameras.
const CAMERAS: usize = 100;
/// Most pictures of set `A` on which the last layer is centred.
const CENTRING_PICTURES: usize = 512;

/// The data of a set at a scale (1: 4000 pictures of set `A`, 400 of set `B`), from the cache, where the first call
/// puts them.
pub(crate) fn data(set: Set, scale: f64, progress: Progress) -> Result<Data> {
    let path = |name: &str| folder(scale).join(name);
    let [images, pixels] = [format!("images_{set}.parquet"), format!("pixels_{set}.safetensors")].map(|n| path(&n));
    let [cameras, model] = ["cameras.parquet", "model.safetensors"].map(path);
    if !cameras.exists() {
        write_parquet(&cameras, &[camera_table()?])?;
    }
    if !images.exists() {
        write_parquet(&images, &[image_table(set, scale)?])?;
    }
    if !pixels.exists() {
        weights::write(&pixels, &[(PIXELS.into(), draw(set, scale, progress)?)].into())?;
    }
    if !model.exists() {
        weights::write(&model, &network(scale, progress)?)?;
    }
    let extents = [set.pictures(scale), set.size(), set.size(), CHANNELS].map(|extent| extent as u64);
    let mut tensors = weights::read(&model)?;
    tensors.insert(PIXELS.into(), read_safetensors(&pixels)?.take(PIXELS, &extents)?);
    Ok(Data { tables: vec![table("images", &images)?, table("cameras", &cameras)?], tensors })
}

fn folder(scale: f64) -> PathBuf {
    cache::folder().join("image_classes").join(format!("s{scale}"))
}

/// The table in a Parquet file, stored as the file has it.
fn table(name: &str, path: &Path) -> Result<Table> {
    let options = ReadOptions { load: LoadOptions::SHARE, ..ReadOptions::default() };
    Ok(Table::new(name, read_parquet(path, &options)?.into_columns())?)
}

/// Counts the pictures that are done, for a progress report.
fn counter<'a>(what: &'static str, total: usize, progress: Progress<'a>) -> impl Fn(usize) + Sync + 'a {
    let so_far = AtomicUsize::new(0);
    move |more| {
        let done = so_far.fetch_add(more, Ordering::Relaxed) + more;
        progress(Step { what, done, total });
    }
}

fn draw(set: Set, scale: f64, progress: Progress) -> Result<Tensor> {
    let (count, size) = (set.pictures(scale), set.size());
    let samples = pictures(set.streams(), count, size, &counter("drawing pictures", count, progress));
    Ok(Tensor::from_vec(samples, &[count, size, size, CHANNELS].map(|extent| extent as u64))?)
}

/// Seeded weights, centred on the first pictures of set `A`.
fn network(scale: f64, progress: Progress) -> Result<Weights> {
    let names = stream_names();
    let streams = |at: usize| ["w", "b"].map(|part| format!("P9.{}.{part}", names[at]));
    let mut weights = weights::seeded(&SQUEEZENET1_1.layers(), |at, _| streams(at))?;
    let (count, size) = (Set::A.pictures(scale).min(CENTRING_PICTURES), Set::A.size());
    let samples = pictures(Set::A.streams(), count, size, &|_| ());
    centre::centre(&mut weights, &samples, size, &counter("centring the network", count, progress))?;
    for (name, values) in [(MEAN_NAME, MEAN), (DEVIATION_NAME, DEVIATION)] {
        weights.insert(name.into(), Tensor::from_vec(values.to_vec(), &[CHANNELS as u64])?);
    }
    Ok(weights)
}

/// Names of the streams of the layers, in the order of [`SQUEEZENET1_1`].
fn stream_names() -> Vec<String> {
    let fires = (2..=9).flat_map(|fire| ["s", "e1", "e3"].map(|part| format!("f{fire}.{part}")));
    std::iter::once("conv1".into()).chain(fires).chain(["conv10".into()]).collect()
}

fn image_table(set: Set, scale: f64) -> Result<RecordBatch> {
    let (streams, count) = (set.streams(), set.pictures(scale));
    let quality = unif(&format!("{streams}.q"), count).into_iter().map(|q| q as f32);
    batch([
        ("image_id", int_column(0..count as i64)),
        ("camera_id", int_column(ints(&format!("{streams}.cam"), count, 0, CAMERAS as i64))),
        ("quality", Arc::new(Float32Array::from_iter_values(quality))),
        ("day", int_column(ints(&format!("{streams}.day"), count, 0, 365))),
    ])
}

fn camera_table() -> Result<RecordBatch> {
    batch([
        ("camera_id", int_column(0..CAMERAS as i64)),
        ("region", int_column(ints("P9.region", CAMERAS, 0, 8))),
        ("active", int_column(ints("P9.active", CAMERAS, 0, 4))),
    ])
}

fn int_column(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.into_iter().map(|v| v as i32)))
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(|e| Error::wrong("generated table", e.to_string()))
}

#[cfg(test)]
mod tests {
    //! The expected values are those of the peers' `gen.py`.
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float32Type, Int32Type};

    fn ints_of(batch: &RecordBatch, column: &str, rows: usize) -> Vec<i32> {
        batch[column].as_primitive::<Int32Type>().values()[..rows].to_vec()
    }

    #[test]
    fn tables_agree() {
        let images = image_table(Set::A, 1.0).unwrap();
        assert_eq!(images.num_rows(), 4000);
        assert_eq!(ints_of(&images, "camera_id", 4), [4, 20, 16, 67]);
        assert_eq!(ints_of(&images, "day", 4), [108, 319, 123, 125]);
        let quality = images["quality"].as_primitive::<Float32Type>().values();
        assert_eq!(quality[..3], [0.610_043_17, 0.408_604_26, 0.927_869_56]);
        let cameras = camera_table().unwrap();
        assert_eq!(ints_of(&cameras, "region", 5), [1, 2, 2, 3, 3]);
        assert_eq!(ints_of(&cameras, "active", 5), [2, 2, 2, 3, 0]);
    }

    #[test]
    fn the_centred_layer_agrees() {
        let weights = network(0.01, &|_| ()).unwrap();
        let want = [-0.022_862_878, -0.052_220_82, -0.122_106_2, -0.052_250_043];
        let row = &weights["classifier.1.weight"].as_slice::<f32>().unwrap()[..4];
        assert!(row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
    }
}
