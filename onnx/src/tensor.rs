//! Tensors of a model file: their bytes in one of several fields, or in a file beside the model.

use crate::error::{Error, Result};
use crate::proto::{TensorProto, tensor_proto::DataLocation, tensor_proto::DataType};
use half::{bf16, f16};
use quearn::data::Tensor;
use quearn_stage::graph::Scalar;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

/// The element type of a data type of the format.
pub fn scalar_of(data_type: i32) -> std::result::Result<Scalar, String> {
    let known = DataType::try_from(data_type).map_err(|_| format!("{data_type} is no data type"))?;
    Ok(match known {
        DataType::Bool => Scalar::Bool,
        DataType::Int8 => Scalar::I8,
        DataType::Uint8 => Scalar::U8,
        DataType::Int16 => Scalar::I16,
        DataType::Int32 => Scalar::I32,
        DataType::Int64 => Scalar::I64,
        DataType::Float16 => Scalar::F16,
        DataType::Bfloat16 => Scalar::BF16,
        DataType::Float => Scalar::F32,
        DataType::Double => Scalar::F64,
        other => return Err(format!("elements of type {} are not supported", other.as_str_name())),
    })
}

fn width(scalar: Scalar) -> u64 {
    match scalar {
        Scalar::Bool | Scalar::I8 | Scalar::U8 => 1,
        Scalar::I16 | Scalar::F16 | Scalar::BF16 => 2,
        Scalar::I32 | Scalar::F32 => 4,
        _ => 8,
    }
}

/// A tensor of texts. Programs have none: they are known when a model is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Texts {
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// The texts in row-major order.
    pub items: Vec<String>,
}

/// The extents of a tensor message, and how many elements they make.
fn extents(proto: &TensorProto) -> std::result::Result<(Vec<u64>, u64), String> {
    let shape = proto.dims.iter().map(|&n| u64::try_from(n)).collect::<std::result::Result<Vec<u64>, _>>();
    let shape = shape.map_err(|_| format!("the shape {:?} has a negative extent", proto.dims))?;
    let count = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n));
    let count = count.ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    Ok((shape, count))
}

/// The texts of a tensor message; `None` if its elements are no texts.
pub fn read_texts(proto: &TensorProto) -> Result<Option<Texts>> {
    if proto.data_type() != DataType::String as i32 {
        return Ok(None);
    }
    let fail = |message: String| Error::Tensor { name: proto.name().to_owned(), message };
    let (shape, count) = extents(proto).map_err(fail)?;
    if count != proto.string_data.len() as u64 {
        return Err(fail(format!("its shape {shape:?} has {count} elements, found {}", proto.string_data.len())));
    }
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(|_| fail("a text is not UTF-8".into()));
    Ok(Some(Texts { shape, items: proto.string_data.iter().map(text).collect::<Result<_>>()? }))
}

/// The value of a tensor message; `folder` is where its model lies.
pub fn read(proto: &TensorProto, folder: Option<&Path>) -> Result<Tensor> {
    let fail = |message: String| Error::Tensor { name: proto.name().to_owned(), message };
    let scalar = scalar_of(proto.data_type()).map_err(fail)?;
    let (shape, count) = extents(proto).map_err(fail)?;
    let bytes = count.checked_mul(width(scalar)).filter(|n| *n <= isize::MAX as u64);
    let bytes = bytes.ok_or_else(|| fail(format!("the shape {shape:?} is too large")))?;
    let data = match (proto.data_location() == DataLocation::External, &proto.raw_data) {
        (true, _) => external(proto, folder, bytes).map_err(fail)?,
        (false, Some(raw)) if !raw.is_empty() || bytes == 0 => raw.to_vec(),
        _ => typed(proto, scalar, count).map_err(fail)?,
    };
    if data.len() as u64 != bytes {
        return Err(fail(format!("the shape {shape:?} of {scalar} takes {bytes} bytes, found {}", data.len())));
    }
    Tensor::from_bytes(scalar, &shape, &data).map_err(|e| fail(e.to_string()))
}

/// Little-endian bytes of the elements in the field of their type.
fn typed(proto: &TensorProto, scalar: Scalar, count: u64) -> std::result::Result<Vec<u8>, String> {
    let small = &proto.int32_data;
    let found = match scalar {
        Scalar::F32 => proto.float_data.len(),
        Scalar::F64 => proto.double_data.len(),
        Scalar::I64 => proto.int64_data.len(),
        _ => small.len(),
    };
    if found as u64 != count {
        return Err(format!("its shape {:?} has {count} elements, found {found}", proto.dims));
    }
    Ok(match scalar {
        Scalar::F32 => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Scalar::F64 => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Scalar::I64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Scalar::I32 => small.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ if width(scalar) == 2 => small.iter().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        _ => small.iter().map(|x| *x as u8).collect(),
    })
}

/// The bytes of a tensor in a file beside the model: of exactly the size that its shape says, and nowhere else.
fn external(proto: &TensorProto, folder: Option<&Path>, bytes: u64) -> std::result::Result<Vec<u8>, String> {
    let folder = folder.ok_or("its data is in another file, but the model was not read from a file")?;
    let entry = |key: &str| proto.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
    let location = entry("location").ok_or("its data is in another file, which is not named")?;
    let number = |key: &str| match entry(key) {
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("its external {key} {text:?} is no number")),
        None => Ok(None),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(bytes));
    if length != bytes {
        return Err(format!("its shape takes {bytes} bytes, its external data has {length}"));
    }
    let relative = Path::new(location);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(format!("its external data {location:?} lies outside the folder of the model"));
    }
    let fail = |e: std::io::Error| format!("its external data {location:?}: {e}");
    let base = folder.canonicalize().map_err(fail)?;
    let path = folder.join(relative).canonicalize().map_err(fail)?;
    if !path.starts_with(&base) {
        return Err(format!("its external data {location:?} lies outside the folder of the model"));
    }
    let mut file = File::open(&path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if offset.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(format!("its external data {location:?} has {size} bytes, fewer than {offset} + {bytes}"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    let mut data = vec![0; bytes as usize];
    file.read_exact(&mut data).map_err(fail)?;
    Ok(data)
}

/// The elements as exact numbers.
pub fn numbers(tensor: &Tensor) -> Vec<Number> {
    let data = tensor.data();
    macro_rules! ints {
        ($t:ty) => {
            data.chunks_exact(size_of::<$t>())
                .map(|b| Number::Int(<$t>::from_le_bytes(b.try_into().unwrap_or_default()).into()))
                .collect()
        };
    }
    macro_rules! floats {
        ($t:ty) => {
            data.chunks_exact(size_of::<$t>())
                .map(|b| Number::Float(<$t>::from_le_bytes(b.try_into().unwrap_or_default()).into()))
                .collect()
        };
    }
    match tensor.scalar() {
        Scalar::Bool | Scalar::U8 => ints!(u8),
        Scalar::I8 => ints!(i8),
        Scalar::I16 => ints!(i16),
        Scalar::I32 => ints!(i32),
        Scalar::I64 => ints!(i64),
        Scalar::F16 => floats!(f16),
        Scalar::BF16 => floats!(bf16),
        Scalar::F32 => floats!(f32),
        _ => floats!(f64),
    }
}

/// An element that is known while a model is read.
#[derive(Clone, PartialEq, Debug)]
pub enum Number {
    /// An integer or bool.
    Int(i64),
    /// A float.
    Float(f64),
    /// An extent that is known when the program runs.
    Extent(String),
    /// A text.
    Text(String),
}

impl Number {
    /// The number as a float.
    pub fn float(&self) -> Option<f64> {
        match self {
            Number::Int(i) => Some(*i as f64),
            Number::Float(x) => Some(*x),
            Number::Extent(_) | Number::Text(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<String> {
        if let Number::Text(text) = self { Some(text.clone()) } else { None }
    }

    /// The number as an integer.
    pub fn int(&self) -> Option<i64> {
        if let Number::Int(i) = self { Some(*i) } else { None }
    }
}

/// A tensor of such numbers; `None` where one is an extent or does not fit.
pub fn from_numbers(scalar: Scalar, shape: &[u64], numbers: &[Number]) -> Option<Tensor> {
    let mut bytes = vec![];
    for number in numbers {
        match (scalar, number) {
            (Scalar::Bool, Number::Int(i)) => bytes.push(u8::from(*i != 0)),
            (Scalar::U8, Number::Int(i)) => bytes.push(u8::try_from(*i).ok()?),
            (Scalar::I8, Number::Int(i)) => bytes.extend(i8::try_from(*i).ok()?.to_le_bytes()),
            (Scalar::I16, Number::Int(i)) => bytes.extend(i16::try_from(*i).ok()?.to_le_bytes()),
            (Scalar::I32, Number::Int(i)) => bytes.extend(i32::try_from(*i).ok()?.to_le_bytes()),
            (Scalar::I64, Number::Int(i)) => bytes.extend(i.to_le_bytes()),
            (Scalar::F16, x) => bytes.extend(f16::from_f64(x.float()?).to_le_bytes()),
            (Scalar::BF16, x) => bytes.extend(bf16::from_f64(x.float()?).to_le_bytes()),
            (Scalar::F32, x) => bytes.extend((x.float()? as f32).to_le_bytes()),
            (Scalar::F64, x) => bytes.extend(x.float()?.to_le_bytes()),
            _ => return None,
        }
    }
    Tensor::from_bytes(scalar, shape, &bytes).ok()
}
